"""What a posterior predicts of targets of any distribution: n drawn ones, averaged, taken apart, and scored."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from typing import Any, final

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent

from posterity.errors import InvalidInput
from posterity.model.support import refuse_parts
from posterity.predict.checks import averaged, central, in_words, mean_square, quantile_levels
from posterity.predict.curve import Curve, curve
from posterity.predict.decomposition import precise
from posterity.predict.mixture import empirical_quantile
from posterity.types import Scores
from posterity.weighing import known_log_probs, there, told_apart

SAMPLES = 4096  # targets drawn for quantiles, over all functions


@final
@dataclass(frozen=True, eq=False, repr=False)
class General:
    """Distributions p_s(y | x) of n drawn functions, of any family: an equal mixture for every input.

    distribution: of batch shape (n, B) and event shape E, that of one target: () for numbers, (D,) for vectors, ….
    loc, scale: the targets are loc + scale · what the distribution gives; see `rescale`.

    Mean and variance are those of the mixture, by the law of total variance; where the family has none, or none at these
    parameters, asking for them raises `InvalidInput`, and `quantile`, `sample`, `log_prob` and `scores` are there.

    Where each number in a target has a distribution function (or, of whole numbers, probabilities), quantiles are those of the
    mixture, `quantile(q)` the least y with F(y) ≥ q, and there are `cdf` and `crps`; else quantiles are those of draws.

    >>> draws = General(torch.distributions.Poisson(torch.tensor([[1.0], [3.0]])))  # 2 functions, 1 input
    >>> draws.mean, draws.aleatoric, draws.epistemic, draws.variance
    (tensor([2.]), tensor([2.]), tensor([1.]), tensor([3.]))
    >>> draws.log_prob(torch.tensor([0]))  # log (exp(−1) + exp(−3))/2
    tensor([-1.5662])
    >>> draws.interval(0.9), draws.crps(torch.tensor([0]))
    ((tensor([0.]), tensor([5.])), tensor([1.0630]))
    """

    distribution: Distribution
    loc: Tensor | float = 0.0
    scale: Tensor | float = 1.0

    def __post_init__(self) -> None:
        shape = self.distribution.batch_shape
        if len(shape) != 2 or not shape[0]:
            raise InvalidInput(f"Expected a distribution of batch shape (draws, batch), got {tuple(shape)}.")

    def __repr__(self) -> str:
        """Say in one line what it is of, and the median."""
        shape = self.distribution.batch_shape[1:] + self.distribution.event_shape
        parts = {"median": self.quantile(0.5)}
        return in_words(f"General {self.family}", self.count, shape, "targets", parts)

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return self.distribution.batch_shape[0]

    @property
    def family(self) -> str:
        """What the distribution is called."""
        base = self.distribution
        while isinstance(base, Independent):
            base = base.base_dist
        return type(base).__name__

    @cached_property
    def means(self) -> Tensor:
        """μ_s, shape (n, B, *E), in units of the target."""
        return self._moment("mean") * self.scale + self.loc

    @cached_property
    def variances(self) -> Tensor:
        """σ_s², shape (n, B, *E): of each number in a target by itself."""
        return self._moment("variance") * self.scale * self.scale

    @property
    def mean(self) -> Tensor:
        """μ̄ = (1/n)Σ_s μ_s, shape (B, *E), in units of the target."""
        return precise(self.means).mean(0).to(self.means.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s σ_s², shape (B, *E): the mean noise variance."""
        return precise(self.variances).mean(0).to(self.variances.dtype)

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (μ_s − μ̄)², shape (B, *E): the variance of the drawn functions."""
        return precise(self.means).var(0, correction=0).to(self.means.dtype)

    @property
    def variance(self) -> Tensor:
        """`aleatoric` + `epistemic`, in units of the target squared."""
        return self.aleatoric + self.epistemic

    @property
    def std(self) -> Tensor:
        """√variance, in units of the target."""
        return self.variance.sqrt()

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw targets of the mixture, (count·n, B, *E): `count` of each function; fixed ones unless given a generator."""
        seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices):  # torch's distributions know no generator
            torch.manual_seed(seed)
            return self.distribution.sample(torch.Size([count])).flatten(0, 1) * self.scale + self.loc

    def quantile(self, q: float | Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return quantiles of each number in a target, (B, *E), or (Q, B, *E) for a vector of Q levels.

        Where the family has no distribution function they are those of at least 4096 draws, fixed ones unless given a
        generator: a level q is met with an error of √(q(1 − q)/4096), at most 0.8 %.
        """
        levels = quantile_levels(q)
        values = self._known(lambda curve: curve.quantile(torch.tensor(levels, dtype=torch.float64)))
        if values is None:
            draws = self.sample(-(-SAMPLES // self.count), generator)
            values = torch.stack([empirical_quantile(draws, level) for level in levels])
        else:
            values = (values * self.scale + self.loc).to(self._dtype)
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def interval(self, level: float = 0.9, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the central predictive interval, (lower, upper), each (B, *E), as `quantile` returns its ends."""
        lower, upper = self.quantile(central(level), generator=generator)
        return lower, upper

    def cdf(self, y: Tensor) -> Tensor:
        """Return F(y) = (1/n)Σ_s F_s(y) of each number in a target, (B, *E).

        Raises:
            InvalidInput: where the family has no distribution function, or cannot give these numbers.
        """
        values = self._own(y)
        return self._needed(lambda curve: curve.cdf(precise(values))).to(self._dtype)

    @property
    def probs(self) -> Tensor:
        """p̄(y = k) of each whole number that the family can give, (B, *E, K), as of K grades.

        Raises:
            InvalidInput: where these have no end.
        """
        support: Any = self._curve.support if self._curve is not None else None
        upper = getattr(support, "upper_bound", None)
        if upper is None or not support.is_discrete:
            raise InvalidInput(f"{self.family} is of no K whole numbers; ask for cdf(…) or quantile(…).")
        numbers = torch.arange(int(support.lower_bound), int(torch.as_tensor(upper).max()) + 1, dtype=torch.float64)
        numbers = numbers.to(self.means.device).reshape(-1, *[1] * (self.means.dim() - 1))
        below = self._needed(lambda curve: curve.cdf(numbers.expand(-1, *curve.shape))).movedim(0, -1)
        return below.diff(dim=-1, prepend=torch.zeros_like(below[..., :1])).to(self._dtype)

    def crps(self, targets: Tensor) -> Tensor:
        """Return ∫(F(t) − 1[t ≥ y])² dt of each number in a target, (B, *E), in units of the target, to a millionth of it.

        It is NaN where a target is.

        Raises:
            InvalidInput: where the family has no distribution function, or cannot give these numbers.
        """
        values = self._own(targets)
        found = (self._needed(lambda curve: curve.crps(precise(values))) * self.scale).to(self._dtype)
        return found.masked_fill(targets.to(found.device).isnan(), torch.nan)

    def rescale(self, mean: Tensor | float, std: Tensor | float) -> "General":
        """Return the predictive of mean + std·y: the same draws in original units, for standardised targets.

        Raises:
            InvalidInput: for whole numbers, which have no other units, and a std that is not above 0.
        """
        if bool((torch.as_tensor(std) <= 0).any()):
            raise InvalidInput(f"Targets are rescaled by a std above 0, got {std}.")
        discrete = self._curve is not None and bool(self._curve.support.is_discrete)
        if discrete and bool((torch.as_tensor(mean) != 0).any() or (torch.as_tensor(std) != 1).any()):
            raise InvalidInput(
                f"{self.family} is of whole numbers, which have no other units: train on them as they are."
            )
        return replace(self, loc=self.loc * std + mean, scale=self.scale * std)

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log (1/n)Σ_s p_s(y), shape (B,), in nats, for targets (B, *E); NaN is left out, with log p = 0."""
        draws = self._draw_log_probs(targets)
        return (precise(draws).logsumexp(0) - log(self.count)).to(draws.dtype)

    def scores(self, targets: Tensor, weights: Tensor | None = None) -> Scores:
        """Return nll of the mixture, expected_nll (nats per datum), rmse if there is a mean: of what is known, by weights."""
        draws = precise(self._draw_log_probs(targets))
        counts = there(targets).double() * (1.0 if weights is None else weights.double())
        scores = {
            "nll": -averaged(draws.logsumexp(0) - log(self.count), counts),
            "expected_nll": -averaged(draws.mean(0), counts),
        }
        try:
            squares = mean_square(precise(self.mean), precise(targets).to(self.mean.device), counts)
        except InvalidInput:  # this family has no mean
            return scores
        return {"rmse": squares**0.5, **scores}

    def _moment(self, name: str) -> Tensor:
        """Return a moment of every function, or refuse it by name."""
        try:
            moment: Tensor = getattr(self.distribution, name)
        except NotImplementedError:
            raise InvalidInput(f"torch knows no {name} of {self.family}; {_INSTEAD}") from None
        broken = ~torch.isfinite(moment)
        if bool(broken.any()):
            raise InvalidInput(
                f"{self.family} has no finite {name} at {int(broken.sum())} of {broken.numel()} of these parameters; {_INSTEAD}"
            )
        return moment

    @cached_property
    def _curve(self) -> Curve | None:
        return curve(self.distribution)

    @property
    def _dtype(self) -> torch.dtype:
        """That of what the distribution gives."""
        drawn = self.sample(1).dtype
        return drawn if drawn.is_floating_point else torch.get_default_dtype()

    def _known(self, ask: Callable[[Curve], Tensor]) -> Tensor | None:
        """Ask the distribution function; None where there is none."""
        if self._curve is None:
            return None
        try:
            return ask(self._curve)
        except NotImplementedError:  # counts that are too large to be listed
            return None

    def _needed(self, ask: Callable[[Curve], Tensor]) -> Tensor:
        found = self._known(ask)
        if found is None:
            raise InvalidInput(
                f"{self.family} has no distribution function that is known; ask for quantile(…) or log_prob(…)."
            )
        return found

    def _own(self, targets: Tensor) -> Tensor:
        """Return targets in the distribution's own units, in which it can give them; for those missing what it could."""
        expected = self.distribution.batch_shape[1:] + self.distribution.event_shape
        if targets.shape != expected:
            raise InvalidInput(
                f"Expected targets of shape {tuple(expected)}, got {tuple(targets.shape)}: reshape them."
            )
        scaled = isinstance(self.scale, Tensor) or isinstance(self.loc, Tensor) or (self.loc, self.scale) != (0.0, 1.0)
        values = (targets - self.loc) / self.scale if scaled else targets
        if not bool(there(targets).any()):
            raise InvalidInput("All targets are NaN, missing: there is nothing to score.")
        values = told_apart((values, values), ~values.isnan())[0][1]
        if not bool(self._possible(values).any(0).all()):
            support = type(self.distribution.support).__name__.strip("_")
            raise InvalidInput(f"Some targets are none that {self.family} can give: they are in {support}.")
        return values

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B)."""
        values = self._own(targets)
        fits = self._possible(values)
        known = ~targets.isnan() if bool(targets.isnan().any()) else None
        refuse_parts(self.family, self.distribution, targets, known)
        stretch = precise(torch.as_tensor(self.scale)).log().expand(targets.shape[1:])
        stretch = (
            stretch.sum() if known is None else (stretch * known.to(stretch.device)).reshape(len(targets), -1).sum(1)
        )
        if bool(fits.all()):
            log_probs = known_log_probs(self.distribution, values, known)
            return log_probs - stretch.to(log_probs)
        where = fits.reshape(fits.shape + (1,) * len(self.distribution.event_shape))
        able = torch.where(where, values, self.distribution.sample().to(values))
        possible = known_log_probs(self.distribution, able, known)
        # supports that depend on the function, as a uniform one's
        return (possible - stretch.to(possible)).masked_fill(~fits, -torch.inf)

    def _possible(self, targets: Tensor) -> Tensor:
        """Say which function can give which target, (n, B); torch's own check is off wherever its compiler was used."""
        shape = self.distribution.batch_shape
        try:
            support = self.distribution.support
        except NotImplementedError:
            support = None
        if support is None:  # what it can give is not known
            return targets.new_ones(shape, dtype=torch.bool)
        fits: Tensor = support.check(targets)
        return fits.expand(shape)


_INSTEAD = "ask for quantile(0.5), interval(), sample(…) or log_prob(…) instead."
