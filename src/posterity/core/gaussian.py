"""Diagonal Gaussians on flat vectors: std = softplus(rho), log-density, Kullback–Leibler divergence, and its gradient."""

from collections.abc import Callable
from contextvars import ContextVar
from math import log, pi

import torch
from torch import Generator, Tensor

LOG_2PI = log(2 * pi)
LONG = 2**15  # numbers, from which on another source of normals may be worth its call
another_source: ContextVar[Callable[[Tensor, Generator | None], Tensor] | None] = ContextVar("normals", default=None)


def softplus(rho: Tensor, out: Tensor | None = None) -> Tensor:
    """Return std = log(1 + e^rho) > 0; its slope is sigmoid(rho). Keeps full relative precision for rho → −∞.

    >>> softplus(torch.tensor([-40.0, 0.0, 50.0]))
    tensor([4.2484e-18, 6.9315e-01, 5.0000e+01])
    """
    return torch._C._nn.softplus(rho, out=out)  # type: ignore[call-arg]  # torch's stub leaves `out` out


def inverse_softplus(std: Tensor) -> Tensor:
    """Return rho with softplus(rho) = std: rho = std + log(1 − e^(−std)), stable at both ends.

    >>> inverse_softplus(softplus(torch.tensor([-12.0, 0.5, 30.0])))
    tensor([-12.0000,   0.5000,  30.0000])
    """
    return std + torch.log(-torch.expm1(-std))


def noise_like(vector: Tensor, generator: Generator | None) -> Tensor:
    """Draw standard normals of a tensor's shape, dtype and device."""
    source = None if torch.compiler.is_compiling() else another_source.get()
    if source is not None and vector.numel() >= LONG:
        return source(vector, generator)
    # Not normal_() in place, which vmap cannot make different for each draw; and no generator where there is none, for
    # compiled code of variable shapes cannot take even that.
    if generator is None:
        return torch.randn(vector.shape, dtype=vector.dtype, device=vector.device)
    return torch.randn(vector.shape, generator=generator, dtype=vector.dtype, device=vector.device)


def log_prob(x: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Return log N(x; mean, std²) element by element, in nats."""
    std = torch.as_tensor(std, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * LOG_2PI


def kl(mean: Tensor, std: Tensor, prior_mean: Tensor | float, prior_std: Tensor | float) -> Tensor:
    """Return KL(q‖p) of diagonal Gaussians, summed over all dimensions, shape (), in nats.

    KL(q‖p) = Σ_i log(s_i/σ_i) + (σ_i² + (μ_i − m_i)²) / (2 s_i²) − ½, with q = N(μ, σ²) and p = N(m, s²).
    The sum is taken in float64: for a million weights float32 would lose the digits that a test wants.

    >>> kl(torch.zeros(3), torch.ones(3), 0.0, 1.0)
    tensor(0., dtype=torch.float64)
    >>> round(kl(torch.tensor([0.1]), torch.tensor([0.5]), 0.0, 1.0).item(), 6)
    0.323147
    """
    ratio = std / prior_std
    terms = 0.5 * (ratio.square() + ((mean - prior_mean) / prior_std).square() - 1) - ratio.log()
    return terms.sum(dtype=torch.float64)
