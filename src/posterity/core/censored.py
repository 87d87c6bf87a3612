"""Numbers of which no more than an interval is known: its probability, to the last digit in either tail."""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch import distributions as dist
from torch.special import log_ndtr

from posterity.core.families import Gamma, StudentT, Weibull, precise
from posterity.core.smooth import log_gammas, student_below

NARROW = 1e-15  # of an interval's two tails, in nats: as narrow as float64 can tell


@singledispatch
def tails(distribution: dist.Distribution, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return log F and log(1 − F) at values that the distribution can give, float64; register it for a family of your own.

    >>> tails(dist.Normal(torch.tensor(0.0), torch.tensor(1.0)), torch.tensor(40.0))[1]
    tensor(-804.6084, dtype=torch.float64)
    """
    below = precise(distribution.cdf(value))
    return below.log(), torch.log1p(-below)


@tails.register
def _(distribution: dist.Normal, value: Tensor) -> tuple[Tensor, Tensor]:
    z = (precise(value) - precise(distribution.loc)) / precise(distribution.scale)
    return log_ndtr(z), log_ndtr(-z)


@tails.register
def _(distribution: dist.LogNormal, value: Tensor) -> tuple[Tensor, Tensor]:
    z = (precise(value).log() - precise(distribution.loc)) / precise(distribution.scale)
    return log_ndtr(z), log_ndtr(-z)


@tails.register
def _(distribution: Weibull, value: Tensor) -> tuple[Tensor, Tensor]:
    hazard = distribution.hazard(value)
    return torch.log(-torch.expm1(-hazard)), -hazard


@tails.register
def _(distribution: Gamma, value: Tensor) -> tuple[Tensor, Tensor]:
    return log_gammas(precise(distribution.concentration), precise(distribution.rate) * precise(value))


@tails.register
def _(distribution: StudentT, value: Tensor) -> tuple[Tensor, Tensor]:
    df = precise(distribution.df)
    z = (precise(value) - precise(distribution.loc)) / precise(distribution.scale)
    return student_below(z, df).log(), student_below(-z, df).log()


class Censored(dist.Distribution):
    """Intervals (low, high) that numbers of `base` are known to lie in: an event is (2,), its density that of what is known.

    low = high is a number that is known, and has the density of `base`; ends that are infinite, or below all that `base` can
    give, are open. Any other interval has its probability.

    >>> Censored(dist.Normal(torch.zeros(2), 1.0)).log_prob(torch.tensor([[0.0, 0.0], [0.0, torch.inf]]))
    tensor([-0.9189, -0.6931])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  # torch's own form

    def __init__(self, base: dist.Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, torch.Size([2]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        low, high = value.unbind(-1)
        exact, least = low == high, getattr(self.base.support, "lower_bound", -torch.inf)
        from_below, to_above = low <= least, high == torch.inf
        inside = torch.where(
            to_above, torch.where(from_below, 1.0, low), high
        )  # a number that has all that is asked for
        density = self.base.log_prob(torch.where(exact, low, inside))
        (below_low, above_low), (below_high, above_high) = (
            tails(self.base, torch.where(open_end, inside, end))
            for open_end, end in ((from_below, low), (to_above, high))
        )
        upper = above_low < below_low  # the smaller tail has the digits
        larger, smaller = torch.where(upper, above_low, below_high), torch.where(upper, above_high, below_low)
        bounded = ~(exact | from_below | to_above)
        apart = torch.where(bounded, smaller - larger, -1.0).clamp(max=-NARROW)
        mass = torch.where(
            bounded, larger + torch.log(-torch.expm1(apart)), torch.where(to_above, above_low, below_high)
        )
        mass = torch.where(from_below & to_above, 0.0, mass)
        return torch.where(exact, density, mass.to(density.dtype))
