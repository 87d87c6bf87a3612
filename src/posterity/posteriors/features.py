"""What the last layer sees of an input, and how usual that is: a detector that needs a trained network and nothing else."""

from dataclasses import dataclass
from math import log, pi
from typing import Self

import torch
from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.model.lending import twin
from posterity.model.problem import check_inputs
from posterity.model.selection import LAST_LAYER, select
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.samples import Samples

BATCH = 512
RIDGE = 1e-6  # of the features' mean variance


def mean_networks(posterior: FunctionPosterior) -> tuple[nn.Module, ...]:
    """Return deterministic networks that stand for a posterior: at its mean; of a mixture, one for each component.

    The mean of a chain's draws may be of no use, where they are of several modes: its last draw stands for it.
    """
    return tuple(part.network(part.thetas[-1] if isinstance(part, Samples) else None) for part in posterior.leaves)


@torch.no_grad()
def features(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the penultimate features of inputs (B, ...): what the last layer is given, flattened, (B, F).

    The last layer is what `where="last_layer"` names: the module that holds the last parameters, without normalisation.

    Raises:
        InvalidInput: where it is not called exactly once per forward pass, or not with one row of features per input.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    >>> features(net, torch.ones(4, 1)).shape
    torch.Size([4, 2])
    """
    check_inputs(inputs)
    network = twin(network) or network  # other threads may ask it, too
    own = {name.rpartition(".")[0] for name in select(network, LAST_LAYER)}
    layer = network.get_submodule(min(own, key=len))
    seen: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    device = next(network.parameters()).device
    modes = {module: module.training for module in network.modules()}
    handle = layer.register_forward_pre_hook(remember)
    rows = []
    try:
        network.eval()
        for batch in inputs.split(BATCH):
            seen.clear()
            network(batch.to(device))
            if len(seen) != 1 or len(seen[0]) != len(batch):
                raise InvalidInput(
                    f"{type(network).__name__} calls its last layer {len(seen)} times, or not with one row per input; "
                    "penultimate features need one call."
                )
            rows.append(seen[0].flatten(1).double().cpu())
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class FeatureDensity:
    """Gaussians of equal covariance, one per class, of features z (…, F), in float64:

        p(z) = Σ_c π_c N(z; μ_c, Σ),    Σ = (1/N) Σ_n (z_n − μ_{y_n})(z_n − μ_{y_n})ᵀ + r·tr(…)/F·I

    and one Gaussian N(z; μ, Σ₀) of all of them. π_c are the classes' shares; r = 1e-6 keeps Σ regular where a unit is dead.
    It is linear discriminant analysis, and the detector of Lee et al. (2018) without its input perturbation and its ensemble
    of layers; distances to μ and Σ₀ give the relative one of Ren et al. (2021).

    >>> z = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> density = FeatureDensity.fit(z, torch.tensor([0, 0, 1, 1]))
    >>> density.distance(torch.tensor([[1.0], [4.0]]))  # the std is 1, the classes' means are 1 and 11
    tensor([0.0000, 9.0000], dtype=torch.float64)
    """

    means: Tensor  # (K, F)
    shares: Tensor  # (K,)
    factor: Tensor  # (F, F), lower: Σ = L Lᵀ
    mean: Tensor  # (F,)
    whole: Tensor  # (F, F), lower: Σ₀ = L₀ L₀ᵀ

    @classmethod
    def fit(cls, rows: Tensor, labels: Tensor | None = None) -> Self:
        """Fit to features (N, F) and their classes (N,); without classes there is one Gaussian.

        Raises:
            InvalidInput: for fewer than 2 rows, features that are not finite, labels that are not one per row, or features
                that are all constant.
        """
        if rows.dim() != 2 or len(rows) < 2 or not bool(rows.isfinite().all()):
            raise InvalidInput(f"Expected at least 2 rows of finite features (N, F), got {tuple(rows.shape)}.")
        z = rows.detach().double()
        known = torch.zeros(len(z), dtype=torch.long) if labels is None else labels.to(z.device)
        if known.shape != (len(z),):
            raise InvalidInput(
                f"Expected one class for each of {len(z)} rows, got labels of shape {tuple(known.shape)}."
            )
        _, classes, counts = known.unique(return_inverse=True, return_counts=True)
        means = torch.zeros(len(counts), z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, classes, z)
        means = means / counts[:, None]
        mean = z.mean(0)
        return cls(means, counts.to(z.dtype) / len(z), _factor(z - means[classes]), mean, _factor(z - mean))

    def log_density(self, rows: Tensor) -> Tensor:
        """Return log Σ_c π_c N(z; μ_c, Σ) of features (B, F), shape (B,), in nats."""
        scale = 2 * self.factor.diagonal().log().sum() + self.means.shape[1] * log(2 * pi)
        return (self.shares.log() - 0.5 * self._squares(rows)).logsumexp(1) - 0.5 * scale

    def distance(self, rows: Tensor) -> Tensor:
        """Return min_c (z − μ_c)ᵀ Σ⁻¹ (z − μ_c), shape (B,): the squared Mahalanobis distance to the nearest class."""
        return self._squares(rows).amin(1)

    def relative_distance(self, rows: Tensor) -> Tensor:
        """Return `distance` − (z − μ)ᵀ Σ₀⁻¹ (z − μ), shape (B,): what is far from every class, and not from everything."""
        return self.distance(rows) - _squares(rows.double() - self.mean, self.whole)

    def _squares(self, rows: Tensor) -> Tensor:
        return torch.stack([_squares(rows.double() - mean, self.factor) for mean in self.means], 1)


def _factor(centred: Tensor) -> Tensor:
    """Return the Cholesky factor of the covariance, dividing by N, with the ridge."""
    covariance = centred.t() @ centred / len(centred)
    ridge = RIDGE * covariance.diagonal().mean()
    if not ridge > 0:
        raise InvalidInput("All features are constant within their classes; they have no covariance.")
    factor: Tensor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance), dtype=ridge.dtype))
    return factor


def _squares(differences: Tensor, factor: Tensor) -> Tensor:
    """Return dᵀ Σ⁻¹ d for the rows of (B, F)."""
    whitened: Tensor = torch.linalg.solve_triangular(factor, differences.t(), upper=False)
    return whitened.square().sum(0)
