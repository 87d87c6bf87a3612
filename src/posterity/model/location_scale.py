"""Priors with independent coordinates, p(θ) = Π_i p_i(w_i), and four families of them with a location and a scale.

Densities are in nats. A number may be given per name pattern: `{pattern: number}`, see `match`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from math import lgamma, log, pi
from typing import ClassVar, Literal

import torch
from torch import Generator, Size, Tensor

from posterity.core import gaussian
from posterity.model import patterns
from posterity.model.patterns import (
    PerPattern,
    PositivePerPattern,
    expand,
    flatten,
    per_name,
    shapes_of,
    spread,
)
from posterity.model.special import folded_mean
from posterity.options import STRICT, dataclass
from posterity.types import Params, Prior

Shapes = Mapping[str, Size]


class Elementwise(Prior):
    """Independent coordinates: `elementwise` and `draw` are the required methods."""

    @abstractmethod
    def elementwise(self, w: Tensor, shapes: Shapes) -> Tensor:
        """Return log p_i(w_i) of each coordinate of a vector (P,), in nats; `shapes` names its parts in their order."""

    @abstractmethod
    def draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        """Draw every coordinate once: (P,), of the dtype and on the device of `like`, (P,)."""

    def log_prob(self, params: Params) -> Tensor:
        return self.elementwise(flatten(params), shapes_of(params)).sum()

    def sample(self, shapes: Shapes, generator: Generator | None = None) -> Params:
        return patterns.split(self.draw(patterns.empty_like(shapes, generator), shapes, generator), shapes)


class LocationScale(Elementwise):
    """p(w) = g(z) / scale, z = (w − mean) / scale, for a standard density g."""

    mean: PerPattern
    fan_in: bool
    scale_field: ClassVar[str] = "scale"

    @abstractmethod
    def standard_log_prob(self, z: Tensor, shapes: Shapes) -> Tensor:
        """Return log g(z), (P,)."""

    @abstractmethod
    def standard_draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        """Draw z, (P,)."""

    def expected_standard(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """Return E[log g(z)] for z ~ N(mean, std²), (P,), where that has a closed form."""
        return None

    def elementwise(self, w: Tensor, shapes: Shapes) -> Tensor:
        mean, scale = self._located(shapes, w)
        return self.standard_log_prob((w - mean) / scale, shapes) - scale.log()

    def draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        mean, scale = self._located(shapes, like)
        return mean + scale * self.standard_draw(like, shapes, generator)

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor | None:
        center, width = flatten(mean), flatten({n: std[n] for n in mean})
        own_mean, scale = self._located(shapes_of(mean), center)
        expected = self.expected_standard((center - own_mean) / scale, width / scale)
        return None if expected is None else (expected - scale.log()).sum()

    def numbers(self, shapes: Shapes) -> tuple[dict[str, float], dict[str, float]]:
        """Return the mean and the scale of each name."""
        means = per_name(self.mean, shapes, "mean")
        scales = per_name(getattr(self, self.scale_field), shapes, self.scale_field)
        if self.fan_in:
            scales = {n: s / patterns.fan_in(n, shapes) ** 0.5 for n, s in scales.items()}
        return means, scales

    def _located(self, shapes: Shapes, like: Tensor) -> tuple[Tensor, Tensor]:
        means, scales = self.numbers(shapes)
        return spread(means, shapes, like), spread(scales, shapes, like)


@dataclass(frozen=True, config=STRICT)
class Normal(LocationScale):
    """Independent normals, p(w) = N(w; mean, std²).

    Args:
        mean: a number, or `{pattern: number}`; patterns are globs over parameter names, the first that matches counts.
        std: likewise, positive.
        fan_in: divide each std by √(fan-in), the number of inputs that one output sums over, so that a layer's outputs
            keep the scale of its inputs whatever its width (Neal 1996). See `fan_in`.

    >>> Normal(0, 0.1).log_prob({"w": torch.zeros(2)})
    tensor(2.7673)
    >>> Normal(0, {"*.bias": 1.0, "*": 0.1}).resolve({"fc.weight": Size([2, 3]), "fc.bias": Size([2])})[1]
    tensor([0.1000, 0.1000, 0.1000, 0.1000, 0.1000, 0.1000, 1.0000, 1.0000])
    """

    mean: PerPattern = 0.0
    std: PositivePerPattern = 0.1
    fan_in: bool = False
    kind: Literal["normal"] = "normal"
    scale_field: ClassVar[str] = "std"

    def resolve(self, shapes: Shapes, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and std of each coordinate of the flat vector, both (P,).

        Raises:
            InvalidInput: where the patterns do not fit the names, see `match`.
        """
        means, stds = self.numbers(shapes)
        return expand(means, shapes, like), expand(stds, shapes, like)

    def standard_log_prob(self, z: Tensor, shapes: Shapes) -> Tensor:
        return -0.5 * (z.square() + gaussian.LOG_2PI)

    def expected_standard(self, mean: Tensor, std: Tensor) -> Tensor:
        return -0.5 * (mean.square() + std.square() + gaussian.LOG_2PI)

    def standard_draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        return gaussian.noise_like(like, generator)


@dataclass(frozen=True, config=STRICT)
class Laplace(LocationScale):
    """Double exponentials, p(w) = e^(−|w − mean| / scale) / (2 scale): many weights near the mean, a few far away.

    The std is √2·scale. Its MAP estimate is that of an L1 penalty |w| / scale (Tibshirani 1996; Williams 1995).

    Args:
        mean, scale: numbers, or `{pattern: number}`, as in `Normal`; the scale is positive.
        fan_in: divide each scale by √(fan-in), as in `Normal`.

    >>> Laplace(0, 0.5).log_prob({"w": torch.tensor([0.0, 1.0])})
    tensor(-2.)
    """

    mean: PerPattern = 0.0
    scale: PositivePerPattern = 0.1
    fan_in: bool = False
    kind: Literal["laplace"] = "laplace"

    def standard_log_prob(self, z: Tensor, shapes: Shapes) -> Tensor:
        return -z.abs() - log(2)

    def expected_standard(self, mean: Tensor, std: Tensor) -> Tensor:
        return -folded_mean(mean, std) - log(2)

    def standard_draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        return laplace_noise(like, generator)


@dataclass(frozen=True, config=STRICT)
class StudentT(LocationScale):
    """Student's t, p(w) = Γ((ν+1)/2) / (Γ(ν/2) √(νπ) scale) · (1 + z²/ν)^(−(ν+1)/2), z = (w − mean)/scale, ν = df.

    Tails fall as |w|^(−ν−1), so large weights are shrunk little. The std is scale·√(ν/(ν − 2)) for ν > 2, and infinite
    otherwise. Draws are Bailey's (1994): z = √(ν (U^(−2/ν) − 1)) cos(2πV) for uniform U, V, exact for every ν.

    Args:
        df: ν, the degrees of freedom, positive: a number, or `{pattern: number}`.
        mean, scale, fan_in: as in `Laplace`.

    >>> StudentT(3, 0, 1).log_prob({"w": torch.tensor([0.0, 2.0])})
    tensor(-3.6964)
    """

    df: PositivePerPattern = 4.0
    mean: PerPattern = 0.0
    scale: PositivePerPattern = 0.1
    fan_in: bool = False
    kind: Literal["student_t"] = "student_t"

    def standard_log_prob(self, z: Tensor, shapes: Shapes) -> Tensor:
        numbers = per_name(self.df, shapes, "df")
        df = spread(numbers, shapes, z)
        constant = spread({n: _log_gamma_ratio(v / 2) - 0.5 * log(v * pi) for n, v in numbers.items()}, shapes, z)
        return constant - 0.5 * (df + 1) * torch.log1p(z.square() / df)

    def standard_draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        df = spread(per_name(self.df, shapes, "df"), shapes, like)
        radius = torch.empty_like(like).exponential_(generator=generator).mul(2 / df).expm1().mul(df).sqrt()
        return radius * torch.empty_like(like).uniform_(0, 2 * pi, generator=generator).cos()


@dataclass(frozen=True, config=STRICT)
class Cauchy(LocationScale):
    """p(w) = 1 / (π scale (1 + z²)), z = (w − mean)/scale: Student's t with one degree of freedom; it has no mean, no std.

    Half of the mass lies within one scale of `mean`.

    Args:
        mean, scale, fan_in: as in `Laplace`.

    >>> Cauchy(0, 1).log_prob({"w": torch.tensor([0.0, 1.0])})
    tensor(-2.9826)
    """

    mean: PerPattern = 0.0
    scale: PositivePerPattern = 0.1
    fan_in: bool = False
    kind: Literal["cauchy"] = "cauchy"

    def standard_log_prob(self, z: Tensor, shapes: Shapes) -> Tensor:
        return -torch.log1p(z.square()) - log(pi)

    def standard_draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        return torch.empty_like(like).cauchy_(generator=generator)


def laplace_noise(like: Tensor, generator: Generator | None) -> Tensor:
    """Draw from e^(−|z|)/2: the difference of two exponentials."""
    first, second = (torch.empty_like(like).exponential_(generator=generator) for _ in range(2))
    return first - second


def _log_gamma_ratio(a: float) -> float:
    """log Γ(a + ½)/Γ(a); a difference of logarithms, it would lose all digits for large a, where the series has them."""
    if a < 100:
        return lgamma(a + 0.5) - lgamma(a)
    return 0.5 * log(a) - 1 / (8 * a) + 1 / (192 * a**3) - 1 / (640 * a**5)
