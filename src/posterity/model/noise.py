"""Learnt noise levels: where they start, their prior, and their shape beside a network's outputs."""

from math import log, pi

import torch
from torch import Size, Tensor
from torch.nn import functional

from posterity.core.gaussian import softplus

COLUMNS = 256  # a table wider than this is taken for images, or the like, which a linear model says little of
SAMPLE = 4096  # data that a start is measured on
RIDGE = 1e-3  # of a standardised column's sum of squares
UNSCALED = 0.3  # where nobody has seen the targets, or they have no spread


def starting_std(targets: Tensor) -> Tensor:
    """Return a std to start each target's noise level from, (D,), in units of the targets (B[, D]), float64: their own.

    An untrained network says nothing yet, so that the spread of the targets is what it leaves of them. A start below that
    makes it sure of its errors: a noise level of 0.3 stds under errors of 2 has gradients fifty times what comes after, which
    Adam remembers for a thousand steps, and the likelihood's curvature, 1/s², outgrows the step of a method that takes plain
    gradients. Targets that are all the same have no scale: 0.3.

    >>> starting_std(torch.tensor([1e5, 3e5]))
    tensor([100000.], dtype=torch.float64)
    """
    y = sampled(targets).double().reshape(len(sampled(targets)), -1)
    spread = y.std(0, correction=0)
    return torch.where(spread > 1e-12 * y.abs().amax(0), spread, UNSCALED)


def sampled(data: Tensor) -> Tensor:
    """Return 4,096 data at most, evenly spread, on the CPU."""
    return data[:: -(-len(data) // SAMPLE)].detach().cpu()


def is_table(inputs: Tensor) -> bool:
    """Tell whether a linear model of inputs (B, ...) says anything: of 256 numbers each at most, few enough for the data."""
    columns = inputs[:1].numel()
    return inputs.is_floating_point() and columns <= COLUMNS and 2 * (columns + 1) <= len(inputs)


def line_leaves(inputs: Tensor, targets: Tensor) -> Tensor | None:
    """Return the std that a linear model leaves of each target, (D,), float64, unbounded; None where it says nothing.

    >>> x = torch.linspace(-1, 1, 100)[:, None]
    >>> line_leaves(x, x.squeeze() + 0.1 * torch.cos(50 * x.squeeze())).round(decimals=3)
    tensor([0.0720], dtype=torch.float64)
    """
    y = sampled(targets).double().reshape(len(sampled(targets)), -1)
    x = sampled(inputs)
    if not is_table(x) or not y.isfinite().all():
        return None
    return _left(y - y.mean(0), x.double())


def half_cauchy_of_rho(rho: Tensor) -> Tensor:
    """Return Σ log p(rho), (), of std = softplus(rho) with the half-Cauchy(0, 1) prior."""
    density: Tensor = log(2 / pi) - torch.log1p(softplus(rho).square()) + functional.logsigmoid(rho)
    return density.sum()


def beside_outputs(std: Tensor, outputs: Tensor, each: bool) -> Tensor:
    """Give drawn stds, (...) or (..., D) where each target has its own, the dimensions of outputs (..., B, D)."""
    levels = std.shape[-1:] if each else Size()
    draws = std.shape[: std.dim() - len(levels)]
    return std.reshape(draws + (1,) * (outputs.dim() - len(draws) - len(levels)) + levels)


def _left(y: Tensor, x: Tensor) -> Tensor:
    """Return the std of what a ridge regression leaves of centred targets, (D,)."""
    spread = x.std(0, correction=0)
    x = x.reshape(len(x), -1)
    x = (x - x.mean(0)) / torch.where(spread > 0, spread, 1.0)
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    left = y - x @ torch.linalg.solve(gram, x.T @ y)
    std: Tensor = (left.square().sum(0) / (len(x) - x.shape[1] - 1)).sqrt()
    return std
