"""The networks of the golden files, and what each file is of."""

from collections.abc import Callable

import torch
from torch import nn

from posterity.zoo import MLP


class Sentences(nn.Module):
    """An embedding with a row of padding, and a head on the mean of a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3, padding_idx=0)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


def values() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))


def classes() -> nn.Module:
    return MLP((2, 4, 3))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 2))


def double() -> nn.Module:
    return values().double()


def sentences() -> nn.Module:
    return Sentences()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    n.__name__: n for n in (values, wide, classes, normalised, dropped, double, sentences)
}
FILES: dict[str, tuple[str, ...]] = {  # the file, and the network of it or of each component
    "point": ("values",),
    "dropout": ("dropped",),
    "diagonal_gaussian": ("classes",),
    "diagonal_gaussian_of_a_part": ("values",),
    "diagonal_gaussian_informed": ("values",),
    "diagonal_gaussian_with_functions": ("normalised",),
    "diagonal_gaussian_with_padding": ("sentences",),
    "diagonal_gaussian_fitted": ("values",),
    "low_rank_gaussian": ("values",),
    "low_rank_gaussian_informed": ("values",),
    "full_rank_gaussian": ("double",),
    "samples": ("values",),
    "samples_with_statistics": ("normalised",),
    "samples_hierarchical": ("values",),
    "chains": ("values",),
    "kronecker_gaussian": ("values",),
    "low_rank_precision_gaussian": ("values",),
    "linearised": ("values",),
    "linearised_diagonal": ("values",),
    "linearised_full": ("double",),
    "linearised_low_rank": ("classes",),
    "mixture": ("normalised",),
    "mixture_of_mixtures": ("values",),
    "mixture_of_networks": ("values", "wide"),
    "mixture_of_informed": ("values",),
}


def network(name: str) -> list[nn.Module]:
    """Build what a file is of, at weights that do not matter."""
    torch.manual_seed(99)
    return [NETWORKS[part]() for part in FILES[name]]


def inputs(name: str) -> torch.Tensor:
    """Return what the golden predictions are of."""
    if FILES[name] == ("sentences",):
        return torch.tensor([[1, 2, 0], [3, 4, 4]])
    found = torch.linspace(-1.5, 1.5, 6).view(3, 2)
    return found.double() if "double" in FILES[name] else found
