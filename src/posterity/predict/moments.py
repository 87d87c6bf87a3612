"""What remains of a prediction when its draws are not kept: sums over the functions, added to a few draws at a time.

Memory does not grow with the number of functions. Quantiles and intervals need the draws and are not there; entropies,
variances, labels and the scores of classes are, equal to those of `Classification` and `Regression` to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import log
from typing import Any, Self, TypeAlias, final

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED
from posterity.predict import decomposition
from posterity.predict.checks import averaged, class_labels, finite_values, in_words, mean_square, soft
from posterity.predict.classification import MeanProbabilities
from posterity.predict.decomposition import precise
from posterity.predict.predictive import AnyPredictive, Classification, General, Regression
from posterity.types import Scores
from posterity.weighing import there


@dataclass(frozen=True, eq=False)
class _Spread:
    """Mean and summed squared deviations of n numbers of each shape (B, ...), float64, joined as Chan et al. (1983) do."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> Self:
        values = precise(draws)
        return cls(len(values), values.mean(0), values.var(0, correction=0) * len(values))

    def joined(self, other: Self) -> Self:
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step.square() * (self.count * other.count / count)
        return type(self)(count, mean, squares)

    @property
    def variance(self) -> Tensor:
        return self.squares / self.count

    @property
    def error(self) -> Tensor:
        """The Monte-Carlo standard error of the mean, √(variance / (n − 1)); infinite for one draw."""
        return (self.variance / (self.count - 1)).sqrt() if self.count > 1 else torch.full_like(self.mean, torch.inf)


@final
@dataclass(frozen=True, eq=False, repr=False)
class ClassificationMoments(MeanProbabilities):
    """Class probabilities of n drawn functions, averaged and forgotten; members as in `Classification`.

    Made by `posterity.average`.

    >>> draws = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]], [[0.7, 0.3]]])
    >>> parts = [ClassificationMoments.of(Classification(part)) for part in draws.split(2)]
    >>> moments = parts[0].joined(parts[1])
    >>> moments.count, moments.mean
    (3, tensor([[0.7000, 0.3000]]))
    >>> bool(torch.isclose(moments.mutual_information, Classification(draws).mutual_information))
    True
    """

    probs: _Spread
    noise: Tensor  # (1/n)Σ_s H(p_s), (B, ...)
    log_sum: Tensor  # log Σ_s p_s, (B, ..., C)
    sum_log: Tensor  # Σ_s log p_s
    dtype: torch.dtype
    ignored: int = IGNORED

    @classmethod
    def of(cls, draws: Classification) -> Self:
        """Take the moments of a few draws."""
        logs = precise(draws.probs).log() if draws.log_probs is None else precise(draws.log_probs)
        noise = decomposition.entropy(precise(draws.probs)).mean(0)
        return cls(_Spread.of(draws.probs), noise, logs.logsumexp(0), logs.sum(0), draws.probs.dtype, draws.ignored)

    def joined(self, other: Self) -> Self:
        """Add the moments of other draws of the same inputs."""
        share = other.count / (self.count + other.count)
        return type(self)(
            self.probs.joined(other.probs),
            self.noise + (other.noise - self.noise) * share,
            torch.logaddexp(self.log_sum, other.log_sum),
            self.sum_log + other.sum_log,
            self.dtype,
            self.ignored,
        )

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return self.probs.count

    @property
    def mean(self) -> Tensor:
        return self.probs.mean.to(self.dtype)

    @property
    def error(self) -> Tensor:
        """The Monte-Carlo standard error of `mean`, shape (B, C)."""
        return self.probs.error.to(self.dtype)

    @property
    def expected_entropy(self) -> Tensor:
        """(1/n)Σ_s H(p_s), shape (B,), in nats: the aleatoric part of the entropy."""
        return self.noise.to(self.dtype)

    @property
    def mutual_information(self) -> Tensor:
        """H(p̄) − (1/n)Σ_s H(p_s) ≥ 0, shape (B,), in nats: the epistemic part of the entropy."""
        return (decomposition.entropy(self.probs.mean) - self.noise).clamp(min=0).to(self.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s p_sc(1 − p_sc), shape (B, C)."""
        return (self.probs.mean * (1 - self.probs.mean) - self.probs.variance).clamp(min=0).to(self.dtype)

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (p_sc − p̄_c)², shape (B, C)."""
        return self.probs.variance.to(self.dtype)

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log p̄_y, shape (B,), in nats, for labels (B,)."""
        return self._at(self.log_sum - log(self.count), targets).to(self.dtype)

    def scores(self, targets: Tensor) -> Scores:
        """Return nll (of the mean probabilities), expected_nll (mean over draws; nats per datum), accuracy of known labels."""
        labels = class_labels(targets, *self.mean.shape, ignored=self.ignored).to(self.mean.device)
        known = (labels != IGNORED).double()
        counts = known if bool(known.any()) and known.dim() == 1 else known.new_ones(len(known))
        right = {"accuracy": averaged((self.labels == labels).double(), known)} if bool(known.any()) else {}
        return {
            **right,
            "nll": -averaged(self._at(self.log_sum - log(self.count), targets), counts),
            "expected_nll": -averaged(self._at(self.sum_log, targets), counts) / self.count,
        }

    def _at(self, values: Tensor, targets: Tensor) -> Tensor:
        if values.dim() > 2:
            raise InvalidInput("The density of all labels of an example needs the draws: use posterior.predict.")
        if soft(targets, values.shape):
            shares = precise(targets).to(values.device)
            return torch.where(shares > 0, shares * values, 0.0).sum(-1)
        labels = class_labels(targets, *values.shape, ignored=self.ignored).to(values.device)
        at = values.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return at.masked_fill(labels == IGNORED, 0)


@final
@dataclass(frozen=True, eq=False, repr=False)
class RegressionMoments:
    """Means and noise variances of n drawn functions, averaged and forgotten; members as in `Regression`.

    The mixture's density needs all of its parts: of scores there is `rmse` alone.

    >>> draws = Regression(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
    >>> moments = RegressionMoments.of(draws)
    >>> moments.mean, moments.variance, moments.error
    (tensor([1.]), tensor([2.]), tensor([1.]))
    """

    means: _Spread
    noise: Tensor
    dtype: torch.dtype

    def __repr__(self) -> str:
        """Say in one line what it is of, with mean variances."""
        parts = {"mean variance": self.variance, "of it epistemic": self.epistemic}
        return in_words(type(self).__name__, self.count, self.mean.shape, "targets", parts)

    @classmethod
    def of(cls, draws: Regression | General) -> Self:
        """Take the moments of a few draws."""
        if isinstance(draws, General):
            return cls(_Spread.of(draws.means), precise(draws.variances).mean(0), draws.means.dtype)
        means = _Spread.of(draws.means)
        integrated = draws.function_variances * torch.ones_like(precise(draws.means))
        spread = _Spread(means.count, means.mean, means.squares + integrated.sum(0))
        return cls(spread, precise(draws.noise).mean(0), draws.means.dtype)

    def joined(self, other: Self) -> Self:
        """Add the moments of other draws of the same inputs."""
        share = other.count / (self.count + other.count)
        noise = self.noise + (other.noise - self.noise) * share
        return type(self)(self.means.joined(other.means), noise, self.dtype)

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return self.means.count

    @property
    def mean(self) -> Tensor:
        """μ̄ = (1/n)Σ_s μ_s, shape (B,) or (B, D), in units of the target."""
        return self.means.mean.to(self.dtype)

    @property
    def error(self) -> Tensor:
        """The Monte-Carlo standard error of `mean`, in units of the target."""
        return self.means.error.to(self.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s σ_s²: the mean noise variance."""
        return self.noise.to(self.dtype)

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (μ_s − μ̄)²: the variance of the drawn functions, and of what was integrated over."""
        return self.means.variance.to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """`aleatoric` + `epistemic`, in units of the target squared."""
        return (self.noise + self.means.variance).to(self.dtype)

    @property
    def std(self) -> Tensor:
        """√variance, in units of the target."""
        return self.variance.sqrt()

    def scores(self, targets: Tensor) -> Scores:
        """Return the rmse, in units of the target."""
        values = finite_values(targets, self.means.mean.shape).to(self.noise.device)
        return {"rmse": mean_square(self.means.mean, values, there(targets).double()) ** 0.5}


Moments: TypeAlias = ClassificationMoments | RegressionMoments


def moments(draws: AnyPredictive) -> Moments:
    """Take the moments of a few draws, of either kind."""
    return ClassificationMoments.of(draws) if isinstance(draws, Classification) else RegressionMoments.of(draws)


def joined(first: Moments | None, second: Moments) -> Moments:
    """Add moments of the same kind and inputs; to nothing at first."""
    if first is None:
        return second
    return first.joined(second)  # type: ignore[arg-type]  # both are of one posterior


def beside(parts: Sequence[Moments]) -> Moments:
    """Join the moments of the same functions on one batch of inputs after the other."""
    return parts[0] if len(parts) == 1 else _beside(parts)


def _beside(parts: Sequence[Any]) -> Any:
    """Concatenate every tensor field, and those of fields; what is no tensor is the same for all."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if not isinstance(first, _Spread | ClassificationMoments | RegressionMoments):
        return first
    return type(first)(**{f.name: _beside([getattr(part, f.name) for part in parts]) for f in fields(first)})
