"""Densities with known moments for samplers: a correlated normal, Neal's funnel, a banana, and two modes."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, pi

import torch
from torch import Tensor

COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)
BEND = 0.4


@dataclass(frozen=True)
class Density:
    """A density over R^d, independent draws of it, and moments E[m(w)] that are known.

    Args:
        log_prob: log p(w) but for a constant, (..., d) -> (...).
        draw: standard normals (..., d) -> independent draws (..., d).
        moments: (..., d) -> (..., m).
        exact: E[moments], (m,).
        dimensions: d.
    """

    log_prob: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor], Tensor]
    moments: Callable[[Tensor], Tensor]
    exact: tuple[float, ...]
    dimensions: int


def normal(w: Tensor) -> Tensor:
    """w ~ N(0, COVARIANCE)."""
    square: Tensor = ((w @ PRECISION) * w).sum(-1)
    return -0.5 * square


def products(w: Tensor) -> Tensor:
    """Return w and all products of two of its coordinates, (..., d + d²)."""
    return torch.cat([w, (w[..., :, None] * w[..., None, :]).flatten(-2)], -1)


def funnel(w: Tensor) -> Tensor:
    """v ~ N(0, 1), x | v ~ N(0, e^v) (Neal 2003, §8, with a v of std 1)."""
    v, x = w.unbind(-1)
    return -0.5 * (v.square() + x.square() * (-v).exp() + v)


def _of_funnel(w: Tensor) -> Tensor:
    v, x = w.unbind(-1)
    whitened = x.square() * (-v).exp()  # a χ² of one degree, independent of v
    return torch.stack([v, v.square(), x, whitened, v * whitened, x.abs()], -1)


def banana(w: Tensor) -> Tensor:
    """a ~ N(0, 1), b | a ~ N(BEND (a² − 1), ½²)."""
    a, b = w.unbind(-1)
    return -0.5 * a.square() - 2 * (b - BEND * (a.square() - 1)).square()


def _of_banana(w: Tensor) -> Tensor:
    a, b = w.unbind(-1)
    return torch.stack([a, a.square(), b, b.square(), a.square() * b, a * b], -1)


def modes(w: Tensor) -> Tensor:
    """Two modes of equal weight, ½ N(−1, ½²) + ½ N(1, ½²)."""
    return torch.logaddexp(-2 * (w[..., 0] - 1).square(), -2 * (w[..., 0] + 1).square())


DENSITIES = {
    "normal": Density(
        normal,
        lambda z: z @ torch.linalg.cholesky(COVARIANCE).T,
        products,
        (0.0, 0.0, 0.0, *COVARIANCE.flatten().tolist()),
        3,
    ),
    "funnel": Density(
        funnel,
        lambda z: torch.stack([z[..., 0], z[..., 1] * (z[..., 0] / 2).exp()], -1),
        _of_funnel,
        (0.0, 1.0, 0.0, 1.0, 0.0, (2 / pi) ** 0.5 * exp(0.125)),  # E|x| = √(2/π) E e^(v/2)
        2,
    ),
    "banana": Density(
        banana,
        lambda z: torch.stack([z[..., 0], BEND * (z[..., 0].square() - 1) + 0.5 * z[..., 1]], -1),
        _of_banana,
        (0.0, 1.0, 0.0, 2 * BEND**2 + 0.25, 2 * BEND, 0.0),
        2,
    ),
    "modes": Density(
        modes,
        lambda z: z.abs() * 0 + 1,  # every chain starts in the same mode
        lambda w: (w > 0).to(w),
        (0.5,),
        1,
    ),
}
