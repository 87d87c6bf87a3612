"""Compiled kernels around a plain forward and backward pass: the draw, and the update of q with all that leads to it.

A wide network's step is bound by element-wise passes over its P numbers, and most of all by random numbers. Here each normal
is a function of its index and of a key, made where it is used (counter-based, as in Salmon et al. 2011); nothing else is
read or written for it. A key is three integers from the run's generator, so runs repeat and resume as they do without.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from math import log
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import another_source
from posterity.core.optimizer import EPSILON, SECOND, AdamStep
from posterity.errors import InvalidInput

Triple: TypeAlias = tuple[Tensor, Tensor, Tensor]  # μ, ρ and σ = softplus(ρ)


def normals(index: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a standard normal for each index, an int32 vector; `key` is three int32. By Box and Muller (1958)."""
    place = _mixed(index ^ key[0])
    radius, angle = _mixed(place + key[1]), place ^ key[2]  # the one is scattered once more, so the two are apart
    uniform = (((radius >> 8) & 0xFFFFFF).to(dtype) + 0.5) * 2**-24  # in (0, 1), never at its ends
    turns = (angle >> 8).to(dtype) * 2**-24  # in [−½, ½)
    return torch.sqrt(-2 * _log(uniform)) * _polynomial(turns * turns, COSINE)


# Chebyshev fits: cos(2π√x) on [0, ¼], with an error below 2e-8; and artanh(√x)/√x on [0, 1/9], below 5e-9.
COSINE = (
    0.9999999890590212,
    -19.739204499453674,
    64.93911745988848,
    -85.45013953079948,
    60.167630950476074,
    -25.96759924716526,
    6.528658159881507,
)
ARTANH = (1.0000000039388741, 0.33333157967540583, 0.20012426861729316, 0.1398070941746224, 0.14087328631373294)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor | float:
    total: Tensor | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _log(x: Tensor) -> Tensor:
    """log(2^k·m) = k·log 2 + 2 artanh((m − 1)/(m + 1)), m in [√½, √2): half the cost of a general logarithm."""
    if x.dtype != torch.float32:
        return torch.log(x)
    bits = x.view(torch.int32)
    exponent = (bits - 0x3F3504F3) >> 23  # the bits of √½
    mantissa = (bits - (exponent << 23)).view(torch.float32)
    ratio = (mantissa - 1) / (mantissa + 1)
    return exponent.to(torch.float32) * log(2) + 2 * ratio * _polynomial(ratio * ratio, ARTANH)


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


def _normals(out: Tensor, index: Tensor, key: Tensor) -> None:
    out.copy_(normals(index, key, out.dtype))


def _spread(rho: Tensor, std: Tensor) -> None:
    std.copy_(_softplus(rho))


def _draw(q: tuple[Tensor, Tensor], index: Tensor, key: Tensor, out: tuple[Tensor, Tensor]) -> None:
    spread = _softplus(q[1])
    out[0].copy_(spread)
    out[1].copy_(q[0] + spread * normals(index, key, spread.dtype))


def _update(
    q: Triple, grads: tuple[Tensor, Tensor], prior: tuple[Tensor, Tensor], numbers: Tensor, moments: Any
) -> None:
    mean, rho, std = q
    scale, rate_mean, rate_rho, correction, momentum = numbers.unbind()
    grad_mean = grads[0] + scale * (mean - prior[0]) * prior[1]
    grad_std = grads[1] + scale * (std * prior[1] - 1 / std)
    grad_rho = grad_std * torch.exp(rho - std)  # dσ/dρ = sigmoid(ρ) = e^(ρ − σ)
    for vector, grad, rate, (first, second) in (
        (mean, grad_mean, rate_mean, moments[0]),
        (rho, grad_rho, rate_rho, moments[1]),
    ):
        average = grad + momentum * (first - grad)
        square = grad * grad + SECOND * (second - grad * grad)
        first.copy_(average)
        second.copy_(square)
        vector.copy_(vector - rate * average / (torch.sqrt(square) * correction + EPSILON))


def _update_drawn(q: Triple, theta: Tensor, grad: Tensor, prior: Any, numbers: Tensor, moments: Any) -> None:
    noise = (theta - q[0]) / q[2]  # what was drawn, as it was rounded
    _update(q, (grad, grad * noise), prior, numbers, moments)


class CompiledNormals:
    """Standard normals of any shape, by the counter; a drop-in for `gaussian.noise_like`."""

    def __init__(self) -> None:
        self._index = torch.empty(0, dtype=torch.int32)
        self._kernel = torch.compile(_normals, fullgraph=True, dynamic=True)

    def __call__(self, like: Tensor, generator: Generator | None) -> Tensor:
        out, count = torch.empty_like(like), like.numel()
        index = self._index  # another thread may put one for another device in its place
        if len(index) < count or index.device != like.device:
            index = self._index = indices(like, count)
        flat = out.as_strided((count,), (1,))  # activations lie densely, in whatever order
        run(self._kernel, flat, index[:count], key(like, generator))
        return out


@contextmanager
def compiled_normals() -> Iterator[None]:
    """Draw long vectors of normals by a compiled kernel inside the block: faster predictions of wide networks.

    For a request to a wide dense network a draw's P normals cost as much as its forward pass, and torch makes them on one
    thread; the kernel uses all. It is compiled when first used, in some ten seconds, and kept for the process. The functions
    drawn are others than outside the block for the same generator; vectors of fewer than 32,768 numbers stay as they are.

    Raises:
        InvalidInput: at the first draw, where no compiler works.

    >>> with compiled_normals():
    ...     pass  # posterior.predict(x, 100)
    """
    token = another_source.set(_normals_of_this_process())
    try:
        yield
    finally:
        another_source.reset(token)


@cache
def _normals_of_this_process() -> CompiledNormals:
    return CompiledNormals()


class CompiledStep:
    """The element-wise work of a mean-field step: each method is one pass over P numbers.

    θ = μ + σ·ε,  σ = softplus(ρ);  with g_μ, g_σ the gradients of the loss and a prior N(m, 1/τ):
    ∂μ = g_μ + scale·τ(μ − m),    ∂ρ = (g_σ + scale·(τσ − 1/σ))·sigmoid(ρ),  and Adam's step (Kingma and Ba 2015) along both

    Args:
        like: a vector of the P coordinates' dtype and device.
        prior: (m, τ), each () or (P,).
    """

    def __init__(self, like: Tensor, prior: tuple[Tensor, Tensor]) -> None:
        self.std, self.theta, self.prior = torch.empty_like(like), torch.empty_like(like), prior
        self._index = indices(like, like.numel())
        compiled = partial(torch.compile, fullgraph=True)
        self._kernels = tuple(compiled(f) for f in (_spread, _draw, _update, _update_drawn))

    def spread(self, rho: Tensor) -> Tensor:
        """Return σ, and keep it for `update`."""
        run(self._kernels[0], rho, self.std)
        return self.std

    def draw(self, q: tuple[Tensor, Tensor], generator: Generator | None) -> Tensor:
        """Draw θ (P,) from q = (μ, ρ); keep it, and σ, for `update_drawn`."""
        run(self._kernels[1], q, self._index, key(q[0], generator), (self.std, self.theta))
        return self.theta

    def update(self, q: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], scale: float, adam: AdamStep) -> None:
        """Take a step from (g_μ, g_σ)."""
        run(self._kernels[2], (*q, self.std), grads, self.prior, self._numbers(scale, adam), adam.moments)

    def update_drawn(self, q: tuple[Tensor, Tensor], grad: Tensor, scale: float, adam: AdamStep) -> None:
        """Take a step from g = ∂loss/∂θ at what was drawn: g_μ = g, g_σ = g·ε."""
        numbers = self._numbers(scale, adam)
        run(self._kernels[3], (*q, self.std), self.theta, grad, self.prior, numbers, adam.moments)

    def _numbers(self, scale: float, adam: AdamStep) -> Tensor:
        numbers = [scale, *adam.rates, adam.correction, adam.momentum]
        return torch.tensor(numbers, dtype=self.std.dtype, device=self.std.device)


def indices(like: Tensor, count: int) -> Tensor:
    """Return what `normals` counts by, 0, 1, …, on a tensor's device."""
    if count >= 2**31:
        raise InvalidInput(f"compiled=True numbers what it draws by 32 bits; here are {count} numbers.")
    return torch.arange(count, dtype=torch.int32, device=like.device)


def key(like: Tensor, generator: Generator | None) -> Tensor:
    """Return a new key of `normals`, on a tensor's device."""
    return torch.empty(3, dtype=torch.int32, device=like.device).random_(-(2**31), 2**31, generator=generator)


def run(kernel: Any, *arguments: Any) -> None:
    """Call a compiled kernel; the lack of a compiler is said plainly."""
    try:
        kernel(*arguments)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise InvalidInput(
            "compiled=True needs a working compiler (g++ or clang, or Triton on an accelerator), and none was found or it "
            f"failed: {str(error.inner_exception).strip().splitlines()[0]}. Install one, or leave compiled=False."
        ) from error
