"""Gradients of E_q[loss(θ)] for q = N(μ, σ²) on a flat vector: weight draws, local reparameterisation, Flipout.

All three have the same mean and differ in variance and cost (where each weight meets an example once; see
`LocalReparam`). Each takes a loss of the network that it is bound to, and returns the loss with its gradients:

    weight draw   w = μ + σ·ε,  g = ∂loss/∂w:               ∂μ = g,        ∂σ = g·ε        (Blundell et al. 2015)
    local         y = op(x, μ) + √op(x², σ²)·ζ, v = σ²:      ∂μ by chain,   ∂σ = 2σ·∂v      (Kingma et al. 2015)
    Flipout       y = op(x, μ) + r·op(s·x, Δ), Δ = σ·ε:      ∂μ by chain,   ∂σ = ε·∂Δ       (Wen et al. 2018)

No gradient flows through the sampling and nothing is done per layer: the network is run unmodified. The first is here,
the other two, which draw activations, are in `core/activation.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Generator, Tensor, nn

from posterity.core.layout import Layout, bound

Loss = Callable[[], Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Estimate:
    """A loss () and its gradients with respect to the mean of q, (P,), and to its std, (P − start,)."""

    loss: Tensor
    mean: Tensor
    std: Tensor


class Estimator(ABC):
    """A gradient estimator for one network.

    Args:
        params: its trainable parameters, by name, in the order of the flat vector.
        start: the first coordinate that is random, at the beginning of a parameter; those before it have no std.
        layout: of the flat vector; the parameters as they are unless given.
    """

    def __init__(self, params: Mapping[str, nn.Parameter], start: int = 0, *, layout: Layout | None = None) -> None:
        self.params = dict(params)
        self.layout = Layout.of(params) if layout is None else layout
        self.start = start
        pairs = zip(params.items(), self.layout.offsets, strict=True)
        self.random = {n: p for (n, p), offset in pairs if offset >= start}
        self.spreads = self.layout.among(self.random)

    # Kept between steps: asking the system anew for megabytes at each step costs more than filling them.
    @cached_property
    def _noise(self) -> Tensor:
        return self._zeros(self.layout.size - self.start)

    @cached_property
    def _spread(self) -> Tensor:
        return self._zeros(self.layout.size - self.start)

    def _zeros(self, size: int) -> Tensor:
        return next(iter(self.params.values())).detach().new_zeros(size)

    def __call__(self, loss: Loss, mean: Tensor, std: Tensor, generator: Generator | None) -> Estimate:
        """Estimate E_q[loss] and its gradients for q = N(mean, std²), mean (P,) and std (P − start,)."""
        out = torch.empty_like(mean), torch.empty_like(std)
        return Estimate(self.write(loss, (mean, std), out, generator), *out)

    @abstractmethod
    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        """Estimate for q = (mean, std); write the two gradients into `out`, and return the loss, ()."""


def differentiate(loss: Tensor, *parts: tuple[Mapping[str, Tensor], Tensor, Layout]) -> None:
    """Differentiate a loss by several sets of named leaves, each into its flat vector; zero where one is not used."""
    grads = torch.autograd.grad(loss, [leaf for leaves, _, _ in parts for leaf in leaves.values()], allow_unused=True)
    rest = iter(grads)
    for leaves, out, layout in parts:
        layout.write(out, islice(rest, len(leaves)))


class WeightDraw(Estimator):
    """One weight vector for the whole batch; `antithetic` lets every second call use −ε of the call before it."""

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        start: int = 0,
        antithetic: bool = False,
        *,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(params, start, layout=layout)
        self._theta = self._zeros(self.layout.size)
        self._views = self.layout.views(self._theta)
        self.antithetic = antithetic
        self._mirror = False

    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        if self._mirror:
            self._noise.neg_()
        else:
            self._noise.normal_(generator=generator)
        self._mirror = self.antithetic and not self._mirror
        draw, points = self._theta, self.start
        draw[:points] = q[0][:points]
        torch.addcmul(q[0][points:], q[1], self._noise, out=draw[points:])
        views = self.layout.views(draw) if self.layout.constants else self._views
        with bound(self.params, views):
            value = loss()
            differentiate(value, (self.params, out[0], self.layout))
        torch.mul(out[0][self.start :], self._noise, out=out[1])
        return value.detach()
