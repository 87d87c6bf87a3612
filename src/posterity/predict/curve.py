"""The distribution function of an equal mixture of any family, and what follows from it: quantiles and the CRPS.

A family gives F_s or, of whole numbers, at least their probabilities; the mixture's F = (1/n)Σ_s F_s does the rest.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from math import asinh
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, biject_to, constraints

from posterity.errors import PosterityWarning
from posterity.predict.decomposition import precise

STEPS = 160  # of a search on a line, at most
CLOSE = 1e-15  # on a line of length 160, or of a number on it
END = 1e-9  # of the probability is left out at either end of the CRPS's integral, and less of the CRPS itself
NODES, PANELS = 16, 1024  # of Gauss–Legendre quadrature: nodes of a panel, most panels of one side
TOLERANCE = 1e-6  # of the CRPS: the change from one number of panels to its double, whose own error is far less
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
        low, first, middle, third, high = self._line(y.new_tensor([END, 0.25, 0.5, 0.75, 1 - END]))
        z = self._of(y)
        scale = (third - first).clamp(min=1e-12 * middle.abs() + 1e-300)
        low, target, high = (torch.asinh((end - middle) / scale) for end in (low.minimum(z), z, high.maximum(z)))

        def side(start: Tensor, width: Tensor, panels: int, above: bool) -> Tensor:
            nodes, weights = _rule(panels, y)
            total = torch.zeros_like(y)
            for x, w in zip(self._parts(nodes), self._parts(weights), strict=True):
                v = start + width * self._levels(x)
                u = middle + scale * v.sinh()
                t = self._at(u)
                slope = self._slope(u, t) * scale * v.cosh() * width
                away = 1 - self.cdf(t) if above else self.cdf(t)
                total += (self._levels(w) * away.square() * slope).sum(0)
            return total

        return _refined(lambda n: side(low, target - low, n, False) + side(target, high - target, n, True))

    def _line(self, levels: Tensor) -> Tensor:
        """Return the quantiles on the line, by way of their sinh⁻¹."""
        wanted = self._levels(levels)
        like = torch.full((len(levels), *self.shape), self._length, dtype=wanted.dtype, device=wanted.device)
        return _crossing(lambda w: self.cdf(self._at(w.sinh())) - wanted, -like, like).sinh()

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
            nodes, weights = _rule(panels, y)
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
        return _refined(lambda n: found + side(last, end, n, False) + side(start, high, n, True))


def curve(distribution: Distribution) -> Curve | None:
    """Return the distribution function of an equal mixture, (n, B, *E); None where it is not known of the family."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
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


def _crossing(function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor) -> Tensor:
    """Return where a rising function becomes ≥ 0 between two ends, for all numbers of a tensor at once (Chandrupatla 1997)."""
    a, b, c = upper, lower, upper
    fa, fb = torch.ones_like(a), -torch.ones_like(b)
    share = torch.full_like(a, 0.5)
    for _ in range(STEPS):
        x = a + share * (b - a)
        f = function(x)
        f = torch.where(f == 0, 1e-300, f)  # what is met is not below
        same = (f > 0) == (fa > 0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, f
        least = CLOSE * (1 + a.abs()) / (b - a).abs().clamp(min=1e-300)
        if bool((least > 0.5).all()):
            break
        place, level = (a - b) / (c - b), (fa - fb) / (fc - fb)
        curved = (level.square() < place) & ((1 - level).square() < 1 - place)
        through = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        share = torch.where(curved & through.isfinite(), through, 0.5)
        share = share.maximum(least).minimum(1 - least)
    return torch.where(fa > 0, a, b)


def _rule(panels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of Gauss–Legendre quadrature on so many panels of [0, 1]."""
    nodes, weights = (like.new_tensor(part) for part in np.polynomial.legendre.leggauss(NODES))
    starts = torch.arange(panels, dtype=like.dtype, device=like.device)[:, None]
    return ((starts + (nodes + 1) / 2) / panels).flatten(), (weights / 2 / panels).repeat(panels)


def _refined(integral: Callable[[int], Tensor]) -> Tensor:
    """Double the panels until no integral changes."""
    panels, before = 2, integral(1)
    while True:
        after: Tensor = integral(panels)
        change = ((after - before).abs() / after.abs().clamp(min=1e-300)).max() if after.numel() else 0.0
        if change <= TOLERANCE:
            return after
        if panels >= PANELS:
            warnings.warn(
                f"The CRPS is known to {float(change):.1g} of its value here.", PosterityWarning, stacklevel=4
            )
            return after
        panels, before = 2 * panels, after
