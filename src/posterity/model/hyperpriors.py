"""Priors of an unknown scale s > 0, as densities of u = log s: log p(u) = log p(s) + u, the last being the Jacobian.

In u all of them are smooth on the whole real line and finite for every finite u but where the density itself vanishes.
"""

from abc import ABC, abstractmethod
from math import lgamma, log, pi
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import softplus

from posterity.core import gaussian
from posterity.model.patterns import Finite, Positive
from posterity.options import STRICT, dataclass


class ScalePrior(ABC):
    """A density of a scale s."""

    @abstractmethod
    def log_prob(self, log_scale: Tensor) -> Tensor:
        """Return log p(u), u = log s, element by element, in nats: the density of u, Jacobian included."""

    @abstractmethod
    def sample(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw s, of the shape, dtype and device of `like`."""

    def reach(self, beyond: float = 1e-3) -> tuple[float, float]:
        """Return the s below which, and above which, the share `beyond` of the prior lies.

        >>> [round(s, 2) for s in HalfNormal(1.0).reach()]
        [0.0, 3.29]
        """
        u = torch.linspace(-60, 60, 24001, dtype=torch.float64)
        below = self.log_prob(u).softmax(0).cumsum(0)
        low, high = (int((below < level).sum()) for level in (beyond, 1 - beyond))
        return float(u[low].exp()), float(u[high].exp())


@dataclass(frozen=True, config=STRICT)
class HalfNormal(ScalePrior):
    """p(s) = 2 N(s; 0, std²) for s > 0. `std` is that of the normal before it is folded; s itself has the mean 0.80·std.

    >>> HalfNormal(1.0).log_prob(torch.tensor(0.0))
    tensor(-0.7258)
    """

    std: Positive = 1.0
    kind: Literal["half_normal"] = "half_normal"

    def log_prob(self, log_scale: Tensor) -> Tensor:
        return gaussian.log_prob(log_scale.exp(), 0.0, self.std) + log(2) + log_scale

    def sample(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        return self.std * gaussian.noise_like(like, generator).abs()


@dataclass(frozen=True, config=STRICT)
class HalfCauchy(ScalePrior):
    """p(s) = 2 / (π scale (1 + s²/scale²)) for s > 0: any order of magnitude up to `scale`, its median (Gelman 2006).

    >>> HalfCauchy(1.0).log_prob(torch.tensor(0.0))
    tensor(-1.1447)
    """

    scale: Positive = 1.0
    kind: Literal["half_cauchy"] = "half_cauchy"

    def log_prob(self, log_scale: Tensor) -> Tensor:
        relative = log_scale - log(self.scale)
        return log(2 / pi) + relative - softplus(2 * relative)

    def sample(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        return self.scale * torch.empty_like(like).cauchy_(generator=generator).abs()


@dataclass(frozen=True, config=STRICT)
class InverseGamma(ScalePrior):
    """The VARIANCE v = s² is inverse-gamma: p(v) = rate^shape / Γ(shape) · v^(−shape−1) e^(−rate/v), conjugate to a normal.

    `rate` has the units of v; v has the mode rate/(shape + 1), and under it weights of unknown variance are
    Student-t(df = 2·shape) with the scale √(rate/shape). Then p(u) = p(v) · 2v.

    >>> InverseGamma(2.0, 1.0).log_prob(torch.tensor(0.0))
    tensor(-0.3069)
    """

    shape: Positive = 2.0
    rate: Positive = 0.02
    kind: Literal["inverse_gamma"] = "inverse_gamma"

    def log_prob(self, log_scale: Tensor) -> Tensor:
        constant = log(2) + self.shape * log(self.rate) - lgamma(self.shape)
        return constant - 2 * self.shape * log_scale - self.rate * torch.exp(-2 * log_scale)

    def sample(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        # In float64, as small shapes underflow; torch.distributions.Gamma takes no generator.
        shapes = torch.full_like(like, self.shape, dtype=torch.float64)
        return (self.rate / torch._standard_gamma(shapes, generator=generator)).sqrt().to(like)


@dataclass(frozen=True, config=STRICT)
class LogNormal(ScalePrior):
    """log s ~ N(mean, std²): `mean` and `std` are those of log s, so e^mean is the median of s.

    >>> LogNormal(0.0, 1.0).log_prob(torch.tensor(0.0))
    tensor(-0.9189)
    """

    mean: Finite = -2.0
    std: Positive = 1.0
    kind: Literal["log_normal"] = "log_normal"

    def log_prob(self, log_scale: Tensor) -> Tensor:
        return gaussian.log_prob(log_scale, self.mean, self.std)

    def sample(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        return torch.exp(self.mean + self.std * gaussian.noise_like(like, generator))


AnyScalePrior = Annotated[HalfNormal | HalfCauchy | InverseGamma | LogNormal, Field(discriminator="kind")]
