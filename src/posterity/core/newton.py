"""IVON's step on flat vectors, element by element; see `methods/ivon.py` for the equations. Run as it is, or compiled."""

from functools import partial

import torch
from torch import Generator, Tensor

from posterity.core import compiled


def std(hessian: Tensor, decay: Tensor, scale: Tensor | float) -> Tensor:
    """Return σ = 1/√(λ (h + δ)); λ is `scale`."""
    return ((hessian + decay) * scale).rsqrt()


def move(
    vectors: tuple[Tensor, Tensor, Tensor],
    estimates: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
    rates: Tensor,
) -> None:
    """Bring (μ, h, g) up to date, in place.

    Args:
        vectors: (μ, h, g), each (P,).
        estimates: (ĝ, ĥ), (P,) and (R,): the last R of P coordinates are random, the others keep their h.
        prior: (δ, m), each (P,).
        rates: (α over the bias of g, 1 − β₁, its bias, 1 − β₂, h₀).
    """
    (mean, hessian, average), (gradient, estimate), (decay, center) = vectors, estimates, prior
    rate, first, bias, second, initial = rates.unbind()
    start = len(mean) - len(estimate)
    kept = average + first * (gradient - average)
    average.copy_(kept)
    h = hessian[start:]
    change = second * (estimate - h)
    h.add_(change + 0.5 * change * change / (h + decay[start:]))
    direction = kept / bias + decay * (mean - center)
    mean.sub_(rate * (initial + decay) / (hessian + decay) * direction)


def _draw(q: tuple[Tensor, Tensor], decay: Tensor, scale: Tensor, source: tuple[Tensor, Tensor], theta: Tensor) -> None:
    theta.copy_(q[0] + std(q[1], decay, scale) * compiled.normals(*source, theta.dtype))


def _move(
    vectors: tuple[Tensor, Tensor, Tensor],
    drawn: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
    scale: Tensor,
    rates: Tensor,
) -> None:
    theta, gradient = drawn
    # ĥ = ĝ·ε/σ = ĝ·(θ − μ)/σ²
    estimate = gradient * (theta - vectors[0]) * (vectors[1] + prior[0]) * scale
    move(vectors, (gradient, estimate), prior, rates)


class CompiledNewton:
    """The same with one draw per step and all coordinates random: two kernels, the noise made within the first.

    Args:
        prior: (δ, m), each (P,).
        scale: λ.
    """

    def __init__(self, prior: tuple[Tensor, Tensor], scale: float) -> None:
        self.prior, self.theta = prior, torch.empty_like(prior[0])
        self.scale = torch.tensor(scale, dtype=self.theta.dtype, device=self.theta.device)
        self._index = compiled.indices(self.theta, len(self.theta))
        self._kernels = tuple(partial(torch.compile, fullgraph=True)(f) for f in (_draw, _move))

    def draw(self, mean: Tensor, hessian: Tensor, generator: Generator | None) -> Tensor:
        """Draw θ (P,), and keep it for `move`."""
        source = self._index, compiled.key(self.theta, generator)
        compiled.run(self._kernels[0], (mean, hessian), self.prior[0], self.scale, source, self.theta)
        return self.theta

    def move(self, vectors: tuple[Tensor, Tensor, Tensor], gradient: Tensor, rates: Tensor) -> None:
        """Bring (μ, h, g) up to date with ĝ at what was drawn; `rates` are those of the function `move`."""
        compiled.run(self._kernels[1], vectors, (self.theta, gradient), self.prior, self.scale, rates)
