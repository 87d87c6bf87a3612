"""The distribution function of an equal mixture of any family, and what follows from it: quantiles and the CRPS.

A family gives F_s or, of whole numbers, at least their probabilities; the mixture's F = (1/n)Σ_s F_s does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from math import asinh
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    biject_to,
    constraints,
)

from posterity.predict.decomposition import precise
from posterity.predict.numerics import crossing, refined, rule

END = 1e-9  # of the probability is left out at either end of the CRPS's integral, and less of the CRPS itself
# Whole numbers that are summed one by one, and those that are listed where there is no distribution function.
SUMMED, LISTED = 512, 2**14
AT_ONCE = 2**22  # numbers


@dataclass(frozen=True, eq=False)
class Curve(ABC):
    """F of the mixture; `base` has the batch shape (n, B, *E), of numbers that are each by itself."""

    base: Distribution
    support: Any

    @property
    def shape(self) -> torch.Size:
        return self.base.batch_shape[1:]

    def cdf(self, values: Tensor) -> Tensor:
        """Return F, for values (..., B, *E) that the family can give, float64."""
        return precise(self.base.cdf(values.unsqueeze(-1 - len(self.shape)))).mean(-1 - len(self.shape))

    @abstractmethod
    def quantile(self, levels: Tensor) -> Tensor:
        """Return the least y with F(y) ≥ level for each of the levels (Q,): (Q, B, *E), float64."""

    @abstractmethod
    def crps(self, y: Tensor) -> Tensor:
        """Return ∫(F(t) − 1[t ≥ y])² dt for y (B, *E), float64."""

    def beside(self, low: Tensor, high: Tensor) -> Tensor:
        """Return ∫F² up to low and ∫(1 − F)² from high on, 0 where these are infinite, for (B, *E), float64."""
        raise NotImplementedError

    def _levels(self, levels: Tensor) -> Tensor:
        return levels.reshape(-1, *[1] * len(self.shape))

    def _parts(self, values: Tensor) -> Iterator[Tensor]:
        """Cut a vector into parts that may be evaluated at a time."""
        yield from values.split(max(1, AT_ONCE // max(1, self.base.batch_shape.numel())))


@dataclass(frozen=True, eq=False)
class Smooth(Curve):
    """F of real numbers, on a line z that is mapped onto the support: z itself, exp z, sigmoid z, …."""

    def quantile(self, levels: Tensor) -> Tensor:
        return self._at(self._line(levels))

    def crps(self, y: Tensor) -> Tensor:
        return self.beside(y, y)

    def beside(self, low: Tensor, high: Tensor) -> Tensor:
        y = low
        least, first, middle, third, most = self._line(y.new_tensor([END, 0.25, 0.5, 0.75, 1 - END]))
        ends = [(end.isfinite(), self._of(torch.where(end.isfinite(), end, self._at(middle)))) for end in (low, high)]
        left, right = (torch.where(known, z, end) for (known, z), end in zip(ends, (least, most), strict=True))
        scale = (third - first).clamp(min=1e-12 * middle.abs() + 1e-300)
        places = (least.minimum(left), left, right, most.maximum(right))
        start, left, right, end = (torch.asinh((place - middle) / scale) for place in places)

        def side(start: Tensor, width: Tensor, panels: int, above: bool) -> Tensor:
            nodes, weights = rule(panels, y)
            total = torch.zeros_like(y)
            for x, w in zip(self._parts(nodes), self._parts(weights), strict=True):
                v = start + width * self._levels(x)
                u = middle + scale * v.sinh()
                t = self._at(u)
                slope = self._slope(u, t) * scale * v.cosh() * width
                away = 1 - self.cdf(t) if above else self.cdf(t)
                total += (self._levels(w) * away.square() * slope).sum(0)
            return total

        return refined(lambda n: side(start, left - start, n, False) + side(right, end - right, n, True))

    def _line(self, levels: Tensor) -> Tensor:
        """Return the quantiles on the line, by way of their sinh⁻¹."""
        wanted = self._levels(levels)
        like = torch.full((len(levels), *self.shape), self._length, dtype=wanted.dtype, device=wanted.device)
        return crossing(lambda w: self.cdf(self._at(w.sinh())) - wanted, -like, like).sinh()

    @property
    def _length(self) -> float:
        return 80.0 if self.support is constraints.real else asinh(700.0)  # exp(700) is a number

    def _at(self, z: Tensor) -> Tensor:
        y: Tensor = biject_to(self.support)(z)
        return y

    def _of(self, y: Tensor) -> Tensor:
        bound = float(np.sinh(self._length))
        z: Tensor = biject_to(self.support).inv(y)
        return z.clamp(-bound, bound)

    def _slope(self, z: Tensor, y: Tensor) -> Tensor:
        log_slope: Tensor = biject_to(self.support).log_abs_det_jacobian(z, y)
        return log_slope.exp()


@dataclass(frozen=True, eq=False)
class Stepped(Curve):
    """F of whole numbers from a lowest one on.

    Where the family has no distribution function its probabilities are summed, of up to 2¹⁴ numbers.

    Raises:
        NotImplementedError: of `quantile` and `crps`, where that is too few.
    """

    known: bool = True  # whether the family has a distribution function
    listed: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def lowest(self) -> int:
        return int(getattr(self.support, "lower_bound", 0))

    def cdf(self, values: Tensor) -> Tensor:
        k = values.floor() - self.lowest
        if self.known:
            below = super().cdf(k.clamp(min=0) + self.lowest)
        else:
            index = k.clamp(min=0).long().reshape(-1, *self.shape)
            below = self._summed(int(index.max()) + 1).gather(0, index).reshape(values.shape)
        return torch.where(k < 0, 0.0, below)

    def quantile(self, levels: Tensor) -> Tensor:
        wanted = self._levels(levels) - 1e-12  # a level that is met is met, whatever the rounding
        lower = torch.full((len(levels), *self.shape), float(self.lowest) - 1, dtype=wanted.dtype, device=wanted.device)
        upper = lower + 1
        while bool((short := self.cdf(upper) < wanted).any()) and float(upper.max()) < 2.0**53:
            lower, upper = torch.where(short, upper, lower), torch.where(short, 2 * upper - self.lowest + 2, upper)
        while bool((upper - lower > 1).any()):
            middle = ((lower + upper) / 2).floor()
            low = self.cdf(middle) < wanted
            lower, upper = torch.where(low, middle, lower), torch.where(low, upper, middle)
        return upper

    def crps(self, y: Tensor) -> Tensor:
        ends = self.quantile(y.new_tensor([1e-6, 1 - 1e-6]))  # squares of what is beyond are nothing
        low, high = ends[0].minimum(y), ends[1].maximum(y)
        width = int((high - low).max()) + 1
        below, total = self.cdf(low - 1), torch.zeros_like(y)
        first = min(width, SUMMED) if self.known else width
        for part in self._parts(torch.arange(first, dtype=y.dtype, device=y.device)):
            k = low + self._levels(part)
            inside = k <= high
            rising = below + torch.where(inside, self._pmf(k.minimum(high)), 0.0).cumsum(0)
            total += torch.where(inside, (rising - (k >= y).to(y.dtype)).square(), 0.0).sum(0)
            below = rising[-1]
        return total if first == width else self._beyond(total, (low + first - 1).minimum(high), y, high)

    def _pmf(self, k: Tensor) -> Tensor:
        axis = -1 - len(self.shape)
        return precise(self.base.log_prob(k.unsqueeze(axis))).exp().mean(axis)

    def _summed(self, count: int) -> Tensor:
        """Return F at the first `count` numbers, (count, B, *E), or more of them."""
        if count > LISTED:
            raise NotImplementedError
        if not self.listed or len(self.listed[0]) < count:
            like = precise(torch.empty((), device=self.base.log_prob(torch.tensor(float(self.lowest))).device))
            numbers = torch.arange(2 * count, dtype=like.dtype, device=like.device) + self.lowest
            upper = getattr(self.support, "upper_bound", None)
            most = numbers if upper is None else numbers.clamp(max=float(torch.as_tensor(upper).max()))
            parts = [self._pmf(self._levels(p).expand(-1, *self.shape)) for p in self._parts(most)]
            pmf = torch.where(self._levels(numbers == most), torch.cat(parts), 0.0)
            self.listed[:] = [pmf.cumsum(0)]
        return self.listed[0]

    def _beyond(self, total: Tensor, last: Tensor, y: Tensor, high: Tensor) -> Tensor:
        """Add the sum over last < k ≤ high, many numbers: the integral of a line from each square to the next.

        Σ_{k=a}^b g(k) = ∫_a^b g + (g(a) + g(b))/2, and to a few nodes of a quadrature the line is smooth so far out.
        """
        first, middle, third = self.quantile(y.new_tensor([0.25, 0.5, 0.75]))
        scale = (third - first).clamp(min=1)
        end, start = (y - 1).maximum(last), y.maximum(last)

        def square(k: Tensor, above: bool) -> Tensor:
            away = self.cdf(k)
            return (1 - away if above else away).square()

        def side(start: Tensor, end: Tensor, panels: int, above: bool) -> Tensor:
            nodes, weights = rule(panels, y)
            a, b = (torch.asinh((x - middle) / scale) for x in (start, end))
            total = torch.zeros_like(y)
            for x, w in zip(self._parts(nodes), self._parts(weights), strict=True):
                v = a + (b - a) * self._levels(x)
                t = (middle + scale * v.sinh()).maximum(start).minimum(end)
                k = t.floor()
                line = square(k, above) + (t - k) * (square(k + 1, above) - square(k, above))
                total += (self._levels(w) * line * scale * v.cosh() * (b - a)).sum(0)
            return total

        ends = torch.where(end > last, square(end, False) - square(last, False), 0.0)
        ends = ends + torch.where(y > last, 1.0, -1.0) * square(start, True) + square(high, True)
        found = total + ends / 2
        return refined(lambda n: found + side(last, end, n, False) + side(start, high, n, True))


def curve(distribution: Distribution) -> Curve | None:
    """Return the distribution function of an equal mixture, (n, B, *E); None where it is not known of the family."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, MultivariateNormal):  # each number by itself
        distribution = Normal(distribution.loc, distribution.stddev, validate_args=False)
    if isinstance(distribution, MixtureSameFamily):  # whose shares must add up to 1 to the last digit
        shares = Categorical(logits=precise(distribution.mixture_distribution.logits), validate_args=False)
        distribution = MixtureSameFamily(shares, distribution.component_distribution, validate_args=False)
    if distribution.event_shape:
        return None
    base = copy(distribution)
    base._validate_args = False  # values that some functions can give and others cannot
    try:
        support: Any = base.support
    except NotImplementedError:
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support.is_discrete:
        return Stepped(base, support, known=_known(base, torch.tensor(float(getattr(support, "lower_bound", 0)))))
    bounds = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    if any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in bounds):
        support = constraints.real  # another one for each function: F is 0 or 1 outside
    try:
        inside = biject_to(support)(torch.zeros((), dtype=torch.float64))
    except NotImplementedError:
        return None
    return Smooth(base, support) if _known(base, inside) else None


def _known(base: Distribution, value: Tensor) -> bool:
    try:
        return bool(base.cdf(value).isfinite().all())
    except NotImplementedError:
        return False
