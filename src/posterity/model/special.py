"""Two functions that torch lacks, with slopes in closed form, where autograd's own would lose digits or overflow.

Both can be differentiated any number of times, in reverse mode.
"""

from functools import cache
from math import ceil, log, pi, sqrt
from typing import Any

import torch
from torch import Tensor

EULER = 0.5772156649015329  # γ
LOG_SWITCH = log(1.5)  # between the power series and the continued fraction: each is fast and exact enough on its side
LOG_LARGEST = 80.0  # x beyond e^80 changes nothing but overflows


def folded_mean(mean: Tensor, std: Tensor) -> Tensor:
    """Return E|X| of X ~ N(mean, std²), element by element: mean·erf(z/√2) + std·√(2/π)·e^(−z²/2), with z = mean/std.

    The slopes are erf(z/√2) and √(2/π)·e^(−z²/2). A std of 0 is a point, E|X| = |mean|.

    >>> folded_mean(torch.tensor([0.0, -3.0]), torch.tensor([1.0, 0.0]))
    tensor([0.7979, 3.0000])
    """
    mean, std = torch.broadcast_tensors(mean, std)
    result: Tensor = _FoldedMean.apply(mean, std)  # type: ignore[no-untyped-call]
    return result


class _FoldedMean(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(mean: Tensor, std: Tensor) -> Tensor:
        by_mean, by_std = _folded_slopes(mean, std)
        return mean * by_mean + std * by_std

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        by_mean, by_std = _folded_slopes(*ctx.saved_tensors)
        return grad * by_mean, grad * by_std


def _folded_slopes(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    z = (mean / std.clamp_min(torch.finfo(std.dtype).tiny)).clamp(-40, 40)  # beyond ±40 both have their limits
    return torch.erf(z / sqrt(2)), sqrt(2 / pi) * torch.exp(-0.5 * z.square())


def log_scaled_e1(log_x: Tensor) -> Tensor:
    """Return log(e^x E₁(x)) for x = e^log_x, with the exponential integral E₁(x) = ∫_x^∞ e^(−t)/t dt.

    Below x = 1.5, e^x E₁(x) = Σ_n (H_n − γ) xⁿ/n! − e^x log x, H_n = 1 + 1/2 + … + 1/n, γ Euler's constant; above it,
    Stieltjes' continued fraction 1/(x + 1 − 1/(x + 3 − 4/(x + 5 − 9/(x + 7 − …)))) (Abramowitz & Stegun 1964, 5.1.11 and
    5.1.22, the latter contracted to its even part). Finite for every finite log_x: −log_x for large ones,
    log(−γ − log_x) for small ones.

    >>> log_scaled_e1(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([   4.5994,   -0.5169, -100.0000])
    """
    return _LogScaledE1.apply(log_x)[0]  # type: ignore[no-untyped-call, no-any-return]


class _LogScaledE1(torch.autograd.Function):
    """g(ℓ) = log(e^x E₁(x)), x = e^ℓ, and its slope g′ = x − 1/(e^x E₁(x)), whose own slope is x (1 + g′) − g′²."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_x: Tensor) -> tuple[Tensor, Tensor]:
        small = log_x < LOG_SWITCH
        value, slope = _by_fraction(log_x.clamp_min(LOG_SWITCH))
        series = _by_series(log_x.clamp_max(LOG_SWITCH))
        return torch.where(small, series[0], value), torch.where(small, series[1], slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_slope: Tensor | None) -> Tensor | None:
        log_x, slope = ctx.saved_tensors
        total: Tensor | None = None if grad is None else grad * slope
        if grad_slope is None:
            return total
        second: Tensor = grad_slope * (_exp(log_x) * (1 + slope) - slope.square())
        return second if total is None else total + second


def _exp(log_x: Tensor) -> Tensor:
    return log_x.clamp_max(LOG_LARGEST).exp()


def _by_series(log_x: Tensor) -> tuple[Tensor, Tensor]:
    x = log_x.exp()
    total = torch.zeros_like(x)
    for coefficient in reversed(_coefficients(torch.finfo(x.dtype).eps)):
        total.mul_(x).add_(coefficient)
    scaled = total - x.exp() * log_x
    return scaled.log(), x - 1 / scaled


def _by_fraction(log_x: Tensor) -> tuple[Tensor, Tensor]:
    x = _exp(log_x)
    tail = torch.zeros_like(x)
    for n in range(_depth(torch.finfo(x.dtype).eps), 0, -1):
        tail.sub_(x).sub_(2 * n + 1).reciprocal_().mul_(-n * n)
    return -log_x - torch.log1p((1 - tail) / x), tail - 1


@cache
def _coefficients(eps: float) -> tuple[float, ...]:
    """(H_n − γ)/n! until they no longer count at x = 1.5."""
    harmonic, factorial, power, found = 0.0, 1.0, 1.0, [-EULER]
    while found[-1] * power > eps / 8 or len(found) < 2:
        n = len(found)
        harmonic, factorial, power = harmonic + 1 / n, factorial * n, power * 1.5
        found.append((harmonic - EULER) / factorial)
    return tuple(found)


def _depth(eps: float) -> int:
    """The fraction's error after n terms falls as e^(−4√(n x)); where it is taken, x is at least 1.5."""
    return ceil((log(1 / eps) / 4) ** 2)
