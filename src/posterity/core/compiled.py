"""Two compiled kernels around a plain forward and backward pass: the weight draw, and the gradient of the nelbo from it.

A wide network's step is bound by element-wise passes over its P numbers, and most of all by random numbers. Here each normal
is a function of its index and of a key, made where it is used (counter-based, as in Salmon et al. 2011); nothing else is
read or written for it. A key is three integers from the run's generator, so runs repeat and resume as they do without.
"""

from typing import Any

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput


def normals(index: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a standard normal for each index, an int32 vector; `key` is three int32. By Box and Muller (1958)."""
    place = _mixed(index ^ key[0])
    # The odd number keeps radius and angle apart where the second and third key are alike.
    radius, angle = _mixed(place + key[1]), _mixed((place ^ key[2]) - 1640531527)
    uniform = (((radius >> 8) & 0xFFFFFF).to(dtype) + 0.5) * 2**-24  # in (0, 1), never at its ends
    turns = (angle >> 8).to(dtype) * 2**-24  # in [−½, ½)
    return torch.sqrt(-2 * torch.log(uniform)) * _polynomial(turns * turns, COSINE)


# cos(2π√x) on [0, ¼], Chebyshev fit with an error below 2e-10; and artanh(√x)/√x, its series: on [0, 1/9] below 1e-9.
COSINE = (
    1.0,
    -19.7392087435,
    64.9393890768,
    -85.4566583292,
    60.2421314456,
    -26.4046685733,
    7.8001319986,
    -1.4531124152,
)
ARTANH = (1.0, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13, 1 / 15)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor | float:
    total: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _softplus(rho: Tensor) -> Tensor:
    """log(1 + e^ρ) = max(ρ, 0) + 2 artanh(e/(2 + e)), e = e^−|ρ|: float32's full precision without a slow logarithm."""
    if rho.dtype != torch.float32:
        return torch.nn.functional.softplus(rho)
    e = torch.exp(-rho.abs())
    ratio = e / (2 + e)
    return rho.clamp(min=0) + 2 * ratio * _polynomial(ratio * ratio, ARTANH)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32 bits each of whose bits depends on all: two rounds of xor-shift and multiply.

    The constants were found by search for the least bias (C. Wellons, 2018, public domain). Shifts of signed integers
    carry the sign along; the masks take it off again.
    """
    x = (x ^ ((x >> 16) & 0xFFFF)) * 2146121005
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -2073254261
    return x ^ ((x >> 16) & 0xFFFF)


def _draw(mean: Tensor, rho: Tensor, index: Tensor, key: Tensor, std: Tensor, theta: Tensor) -> None:
    spread = _softplus(rho)
    std.copy_(spread)
    theta.copy_(mean + spread * normals(index, key, mean.dtype))


def _chain(
    q: tuple[Tensor, ...], theta: Tensor, scale: Tensor, prior: tuple[Tensor, ...], out: tuple[Tensor, ...]
) -> None:
    mean, rho, std = q
    gradient, precision = out[0], prior[1]
    noise = (theta - mean) / std  # what was drawn, as it was rounded
    grad_std = gradient * noise + scale * (std * precision - 1 / std)
    out[1].copy_(grad_std * torch.exp(rho - std))  # dσ/dρ = sigmoid(ρ) = e^(ρ − σ)
    out[0].copy_(gradient + scale * (mean - prior[0]) * precision)


class CompiledDraw:
    """The draw and the gradient of a mean-field step, each one pass over P numbers.

    θ = μ + σ·ε,  σ = softplus(ρ);  with g = ∂loss/∂θ and a prior N(m, 1/τ):
    ∂μ = g + scale·τ(μ − m),    ∂ρ = (g·ε + scale·(τσ − 1/σ))·sigmoid(ρ)
    """

    def __init__(self, like: Tensor) -> None:
        if like.numel() >= 2**31:
            raise InvalidInput(f"compiled=True numbers weights by 32 bits; this network has {like.numel()}.")
        self.std, self.theta = torch.empty_like(like), torch.empty_like(like)
        self._index = torch.arange(like.numel(), dtype=torch.int32, device=like.device)
        self._kernels = torch.compile(_draw, fullgraph=True), torch.compile(_chain, fullgraph=True)

    def draw(self, mean: Tensor, rho: Tensor, generator: Generator | None) -> Tensor:
        """Draw θ (P,) and keep it, with σ, for `chain`."""
        key = torch.empty(3, dtype=torch.int32, device=mean.device).random_(-(2**31), 2**31, generator=generator)
        _run(self._kernels[0], mean, rho, self._index, key, self.std, self.theta)
        return self.theta

    def chain(
        self, mean: Tensor, rho: Tensor, scale: Tensor, prior: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor]
    ) -> None:
        """Turn g, which is in `out[0]`, into ∂μ, and write ∂ρ into `out[1]`; `prior` is (m, τ), each () or (P,)."""
        _run(self._kernels[1], (mean, rho, self.std), self.theta, scale, prior, out)


def _run(kernel: Any, *arguments: Any) -> None:
    try:
        kernel(*arguments)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise InvalidInput(
            "compiled=True needs a working compiler (g++ or clang, or Triton on an accelerator), and none was found or it "
            f"failed: {str(error.inner_exception).strip().splitlines()[0]}. Install one, or leave compiled=False."
        ) from error
