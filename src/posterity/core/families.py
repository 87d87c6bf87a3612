"""torch's distributions with what they lack: a distribution function, and a density that float32 does not spoil.

Each computes its log-density in float64, where the device has it, and hands it back in the parameters' precision: differences
of log Γ lose their digits where a parameter is large. Distribution functions that torch lacks are SciPy's, on the CPU: they
are for predictions, and have no gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as dist


def precise(values: Tensor) -> Tensor:
    """Return the values in float64, or in float32 on a device that has no float64 (Apple's)."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
    """Evaluate one of SciPy's functions on tensors that broadcast, in float64."""
    found = function(*(a.detach().cpu().double().numpy() for a in arguments))
    return precise(torch.as_tensor(found).to(arguments[0].device))


class Poisson(dist.Poisson):
    """Counts of events at a rate, with F(y) = Q(⌊y⌋ + 1, rate), Q the regularised upper incomplete Gamma function.

    >>> Poisson(torch.tensor(2.0)).cdf(torch.tensor(1.0))  # 3 exp(−2)
    tensor(0.4060, dtype=torch.float64)
    """

    def __init__(self, rate: Tensor) -> None:
        super().__init__(rate, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        rate, y = precise(self.rate), precise(value)
        return (y.xlogy(rate) - rate - torch.lgamma(y + 1)).to(self.rate.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        y = precise(value).floor()
        below: Tensor = torch.special.gammaincc(y.clamp(min=0) + 1, precise(self.rate))
        return torch.where(y < 0, 0.0, below)


class NegativeBinomial(dist.NegativeBinomial):
    """Counts of mean μ and variance μ + dispersion · μ² ("NB2"): a Poisson's whose rate is a Gamma's.

    F(y) = I(1/(1 + dispersion · μ); 1/dispersion, ⌊y⌋ + 1), I the regularised incomplete Beta function, which is SciPy's.

    >>> NegativeBinomial(torch.tensor(2.0), torch.tensor(0.5)).variance
    tensor(4.)
    """

    def __init__(self, mean: Tensor, dispersion: Tensor) -> None:
        self.log_odds = mean.log() + dispersion.log()
        super().__init__(dispersion.reciprocal(), logits=self.log_odds, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        size, odds, y = precise(self.total_count), precise(self.log_odds), precise(value)
        likely = size * torch.nn.functional.logsigmoid(-odds) + y * torch.nn.functional.logsigmoid(odds)
        ways = torch.lgamma(size + y) - torch.lgamma(size) - torch.lgamma(y + 1)
        return (likely + ways).to(self.log_odds.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import betainc

        y = precise(value).floor()
        below = by_scipy(betainc, self.total_count, y.clamp(min=0) + 1, precise(-self.log_odds).sigmoid())
        return torch.where(y < 0, 0.0, below)


class Binomial(dist.Binomial):
    """Successes among so many trials, by the log-odds of one; F(y) = I(1 − p; trials − ⌊y⌋, ⌊y⌋ + 1), I SciPy's.

    >>> Binomial(torch.tensor(2.0), torch.tensor(0.0)).cdf(torch.tensor(1.0))
    tensor(0.7500, dtype=torch.float64)
    """

    def __init__(self, trials: Tensor, log_odds: Tensor) -> None:
        self.log_odds = log_odds
        super().__init__(trials, logits=log_odds, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        trials, odds, y = precise(self.total_count), precise(self.log_odds), precise(value)
        logsigmoid = torch.nn.functional.logsigmoid
        ways = torch.lgamma(trials + 1) - torch.lgamma(y + 1) - torch.lgamma(trials - y + 1)
        return (ways + y * logsigmoid(odds) + (trials - y) * logsigmoid(-odds)).to(self.log_odds.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import betainc

        y, trials = torch.broadcast_tensors(precise(value).floor(), precise(self.total_count))
        inside = y.clamp(min=0).minimum(trials - 1)
        below = by_scipy(betainc, trials - inside, inside + 1, precise(-self.log_odds).sigmoid())
        return torch.where(y < 0, 0.0, torch.where(y >= trials, 1.0, below))


class ZeroInflated(dist.Distribution):
    """Counts that are 0 with the probability `zeros`, whatever `base` says, and else are those of `base`.

    >>> ZeroInflated(Poisson(torch.tensor(2.0)), torch.tensor(0.5)).log_prob(torch.tensor([0, 2]))
    tensor([-0.5662, -2.0000])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  # torch's own form

    def __init__(self, base: dist.Distribution, zeros: Tensor) -> None:
        self.base, self.zeros = base, zeros
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return (1 - self.zeros) * self.base.mean

    @property
    def variance(self) -> Tensor:
        return (1 - self.zeros) * (self.base.variance + self.zeros * self.base.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        zeros = precise(self.zeros)
        counted = torch.log1p(-zeros) + precise(self.base.log_prob(value))
        return torch.where(value == 0, torch.logaddexp(zeros.log(), counted), counted).to(self.zeros.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        zeros = precise(self.zeros)
        return torch.where(value < 0, 0.0, zeros + (1 - zeros) * precise(self.base.cdf(value)))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        drawn: Tensor = self.base.sample(torch.Size(sample_shape))
        return torch.where(torch.rand_like(drawn) < self.zeros, 0.0, drawn)


class StudentT(dist.StudentT):
    """Real numbers with heavy tails; F is SciPy's.

    >>> StudentT(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).cdf(torch.tensor(1.0))
    tensor(0.7500, dtype=torch.float64)
    """

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        super().__init__(df, loc, scale, validate_args=False)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import stdtr

        return by_scipy(stdtr, self.df, (precise(value) - precise(self.loc)) / precise(self.scale))


class Gamma(dist.Gamma):
    """Positive numbers of a mean, and of a std that is `cv` times the mean.

    >>> Gamma(torch.tensor(10.0), torch.tensor(0.5)).stddev
    tensor(5.)
    """

    def __init__(self, mean: Tensor, cv: Tensor) -> None:
        shape = cv.square().reciprocal()
        super().__init__(shape, shape / mean, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        shape, rate, y = precise(self.concentration), precise(self.rate), precise(value)
        each = shape.xlogy(rate * y) - y.log() - rate * y - torch.lgamma(shape)
        return each.to(self.rate.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        below: Tensor = torch.special.gammainc(precise(self.concentration), precise(self.rate) * precise(value))
        return below


class Weibull(dist.Weibull):
    """Positive numbers, times to an event say: F(y) = 1 − exp(−(y/scale)^shape); given log scale.

    >>> Weibull(torch.tensor(0.0), torch.tensor(2.0)).cdf(torch.tensor(1.0))
    tensor(0.6321, dtype=torch.float64)
    """

    def __init__(self, log_scale: Tensor, shape: Tensor) -> None:
        self.log_scale = log_scale
        super().__init__(log_scale.exp(), shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        shape, y = precise(self.concentration), precise(value)
        away = shape * (y.log() - precise(self.log_scale))
        return (shape.log() - y.log() + away - away.exp()).to(self.log_scale.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(-self.hazard(value))

    def hazard(self, value: Tensor) -> Tensor:
        """The cumulative one, −log(1 − F), float64."""
        away: Tensor = precise(self.concentration) * (precise(value).log() - precise(self.log_scale))
        return away.exp()


class Beta(dist.Beta):
    """Shares in (0, 1) of a mean m, given by its log-odds, and of variance spread · m (1 − m), 0 < spread < 1; F is SciPy's.

    >>> Beta(torch.tensor(0.0), torch.tensor(0.2)).variance
    tensor(0.0500)
    """

    def __init__(self, log_odds: Tensor, spread: Tensor) -> None:
        size = (1 - spread) / spread
        super().__init__(log_odds.sigmoid() * size, (-log_odds).sigmoid() * size, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        a, b, y = precise(self.concentration1), precise(self.concentration0), precise(value)
        ways = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        return ((a - 1) * y.log() + (b - 1) * torch.log1p(-y) + ways).to(self.concentration1.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import betainc

        return by_scipy(betainc, self.concentration1, self.concentration0, value)


class Ordered(dist.Distribution):
    """Grades 0 … K − 1: F(k) = sigmoid(cut_k − f), with K − 1 rising cuts (..., K − 1) and f (...).

    >>> Ordered(torch.tensor([0.0]), torch.tensor([[0.0, 2.0]])).probs
    tensor([[0.5000, 0.3808, 0.1192]])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  # torch's own form
    has_enumerate_support = False

    def __init__(self, loc: Tensor, cuts: Tensor) -> None:
        self.away = cuts - loc.unsqueeze(-1)
        super().__init__(loc.shape, validate_args=False)

    @property
    def support(self) -> Any:
        return dist.constraints.integer_interval(0, self.away.shape[-1])

    @property
    def log_probs(self) -> Tensor:
        """log P(y = k), (..., K): log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − exp(a − b)) at cuts a < b beside k."""
        up, down = (torch.nn.functional.logsigmoid(x) for x in (self.away, -self.away))
        apart = self.away.diff(dim=-1)
        between = up[..., 1:] + down[..., :-1] + torch.log(-torch.expm1(-apart))
        return torch.cat([up[..., :1], between, down[..., -1:]], -1)

    @property
    def probs(self) -> Tensor:
        return self.log_probs.exp()

    @property
    def mean(self) -> Tensor:
        return (-self.away).sigmoid().sum(-1)  # Σ_k P(y > k)

    @property
    def variance(self) -> Tensor:
        grades = torch.arange(self.away.shape[-1] + 1, dtype=self.away.dtype, device=self.away.device)
        return (self.probs * (grades - self.mean.unsqueeze(-1)).square()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        grade = value.long()
        table = self.log_probs
        shape = torch.broadcast_shapes(grade.shape, table.shape[:-1])
        each: Tensor = table.expand(*shape, table.shape[-1]).gather(-1, grade.expand(shape).unsqueeze(-1))
        return each.squeeze(-1)

    def cdf(self, value: Tensor) -> Tensor:
        grade, top = value.floor().long(), self.away.shape[-1]
        shape = torch.broadcast_shapes(grade.shape, self.away.shape[:-1])
        at = grade.clamp(0, top - 1).expand(shape).unsqueeze(-1)
        below = precise(self.away).sigmoid().expand(*shape, top).gather(-1, at).squeeze(-1)
        return torch.where(grade < 0, 0.0, torch.where(grade >= top, 1.0, below))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        drawn: Tensor = dist.Categorical(logits=self.log_probs).sample(torch.Size(sample_shape))
        return drawn.to(self.away.dtype)


class Pinball(dist.Distribution):
    """The loss of quantiles (..., B, Q) of Q levels, with its sign turned, beside scales (..., B, Q): no density of a target.

    >>> Pinball(torch.zeros(1, 1), torch.ones(1, 1), (0.5,)).log_prob(torch.tensor([2.0]))  # log ¼ − 1
    tensor([-2.3863])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  # torch's own form

    def __init__(self, quantiles: Tensor, scale: Tensor, levels: tuple[float, ...]) -> None:
        self.quantiles, self.scale, self.levels = quantiles, scale, levels
        super().__init__(quantiles.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        levels = self.quantiles.new_tensor(self.levels)
        away = (value.unsqueeze(-1) - self.quantiles) / self.scale
        loss = torch.maximum(levels * away, (levels - 1) * away)
        return ((levels * (1 - levels) / self.scale).log() - loss).sum(-1)
