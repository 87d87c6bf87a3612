"""Gradients that are no derivatives of the loss are said by name, before the fit; those that are, are not."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from posterity import MAP, Engine, fit
from posterity.errors import PosterityWarning

INPUTS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0).long()
WORDS = torch.randint(1, 9, (20, 5), generator=torch.Generator().manual_seed(0))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


class Step(nn.Module):
    """What its function names, as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Words(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, **options)
        self.last = nn.Linear(4, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.last(self.table(words).mean(1))


class Centred(nn.Module):
    """Statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return x - self.mean


class Single(nn.Linear):
    """As on an accelerator without double precision."""

    def _apply(self, fn: object, recurse: bool = True) -> nn.Module:
        if fn(torch.zeros(1)).dtype == torch.float64:
            raise TypeError("no float64 here")
        return super()._apply(fn, recurse)


def straight(function: object) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), Step(function), nn.ReLU(), nn.Linear(8, 2))


def halved() -> nn.Module:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    network[2].register_full_backward_hook(lambda module, grads, _: tuple(0.5 * g for g in grads))
    return network


OTHERS = {
    "reversed": (straight(Reversed.apply), INPUTS, r"'0\.bias', '0\.weight'"),
    "straight-through": (straight(lambda x: x + (x.round() - x).detach()), INPUTS, r"'0\.bias', '0\.weight'"),
    "a hook": (halved(), INPUTS, r"'0\.bias', '0\.weight'"),
    "by frequency": (Words(scale_grad_by_freq=True), WORDS, r"'table\.weight'"),
    "renormed": (Words(max_norm=0.5), WORDS, r"'table\.weight'"),
    "renormed where a row is long": (Words(max_norm=50.0), WORDS, r"'table\.weight'"),
}
DERIVATIVES = {
    "plain": (straight(nn.Tanh()), INPUTS),
    "dropout and statistics": (
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2)),
        INPUTS,
    ),
    "statistics of its own": (straight(Centred()), INPUTS),
    "no double precision": (Single(6, 2), INPUTS),
    "padding": (Words(padding_idx=1), WORDS),
    "sparse": (Words(sparse=True), WORDS),
    "single precision within": (straight(lambda x: x @ torch.eye(8, dtype=torch.float32)), INPUTS),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_gradients_are_said_by_name(case: str) -> None:
    network, inputs, names = OTHERS[case]
    with pytest.warns(PosterityWarning, match=f"gradients of {names} are not the derivatives"):
        fit(network, (inputs, CLASSES), method=MAP(epochs=1), engine=Engine(progress=False, device="cpu"))


@pytest.mark.parametrize("case", DERIVATIVES)
def test_derivatives_are_not(case: str) -> None:
    network, inputs = DERIVATIVES[case]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(network, (inputs, CLASSES), method=MAP(epochs=1), engine=Engine(progress=False, device="cpu"))
    assert not [str(w.message) for w in said if "derivatives" in str(w.message)]
