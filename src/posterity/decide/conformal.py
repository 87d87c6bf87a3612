"""Split-conformal prediction: sets and intervals that hold the truth as often as promised, whatever the posterior is worth.

From n calibration examples that the posterior was not trained on, with nonconformity scores s_i = s(x_i, y_i), take

    q = the k-th smallest of s_1 … s_n,   k = ⌈(n + 1) · level⌉,   and   C(x) = {y: s(x, y) ≤ q}

(Vovk et al. 2005; Lei et al. 2018). For a new example exchangeable with these, P(y ∈ C(x)) ≥ level; it is k/(n + 1), at
most 1/(n + 1) more, where no two scores are equal. A good posterior makes small sets, a bad one large sets that still hold.
The promise is on average over inputs and calibration sets, not for each input.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from posterity.decide.binomial import beta_binomial_interval, beta_interval
from posterity.decide.nonconformity import (
    CLASS_SCORES,
    VALUE_SCORES,
    ClassScore,
    ValueScore,
)
from posterity.errors import InvalidInput, unknown
from posterity.options import STRICT, dataclass, require
from posterity.predict.checks import class_labels, finite_values
from posterity.predict.predictive import Classification, Regression, check_predictive

Level = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class Conformal:
    """What calibration found, and what it promises.

    Args:
        level: the promised coverage.
        thresholds: q; one per class, or per end of an interval, where these were calibrated apart.
        num_data: n, the number of calibration examples that each threshold comes from.
    """

    level: Level
    thresholds: tuple[float, ...]
    num_data: tuple[int, ...]

    @property
    def threshold_level(self) -> float:
        """The coverage that each threshold promises; the two ends of an interval may miss (1 − level)/2 each."""
        return self.level

    @property
    def expected_coverage(self) -> float:
        """k/(n + 1) of the first threshold: the exact coverage on average where scores are distinct, else at least that."""
        n = self.num_data[0]
        return _rank(n, self.threshold_level) / (n + 1)

    def coverage_interval(
        self, confidence: float = 0.99, num_test: int | None = None, of: int = 0
    ) -> tuple[float, float]:
        """Return the interval in which the coverage of this one calibration lies with a probability of `confidence`.

        Over calibration sets, the coverage of all future examples is distributed as Beta(k, n + 1 − k) where scores are
        distinct (Vovk 2012), and that seen on m further examples as BetaBinomial(m, k, n + 1 − k) / m. Equal tails. Where
        scores can be equal, coverage is at least so large: the lower end holds, the upper one need not.

        Args:
            confidence: of the interval.
            num_test: m; None for the coverage of all future examples.
            of: which threshold, where there are several (the class).

        >>> [round(end, 3) for end in Conformal(0.9, (0.5,), (1000,)).coverage_interval(0.99)]
        [0.874, 0.923]
        """
        n = self.num_data[of]
        k = _rank(n, self.threshold_level)
        if num_test is None:
            return beta_interval(k, n + 1 - k, confidence)
        low, high = beta_binomial_interval(num_test, k, n + 1 - k, confidence)
        return low / num_test, high / num_test


@dataclass(frozen=True, config=STRICT)
class ConformalSets(Conformal):
    """Sets of classes, {y: s(x, y) ≤ q}, or ≤ q_y where each class has a threshold of its own."""

    score: Annotated[ClassScore, Field(discriminator="kind")]

    def sets(self, predictive: Classification | Regression, generator: Generator | None = None) -> Tensor:
        """Return which classes are in each input's set, bool (B, C); `sets.sum(-1)` are their sizes.

        Args:
            predictive: of the same drawn functions as the calibration's: predict both with equal seeds.
            generator: source of a randomised score's coins; torch's global one where None.

        Raises:
            InvalidInput: for a predictive of values, or of another number of classes than was calibrated.
        """
        if not isinstance(predictive, Classification):
            raise InvalidInput(f"Sets are of classes; a {type(predictive).__name__} predictive has intervals.")
        scores = self.score.scores(predictive, generator)
        if len(self.thresholds) not in (1, scores.shape[1]):
            raise InvalidInput(f"Calibrated for {len(self.thresholds)} classes, got {scores.shape[1]}.")
        return scores <= scores.new_tensor(self.thresholds)


@dataclass(frozen=True, config=STRICT)
class ConformalIntervals(Conformal):
    """Intervals of values, in the units of the calibration targets."""

    score: Annotated[ValueScore, Field(discriminator="kind")]

    @property
    def threshold_level(self) -> float:
        return (1 + self.level) / 2 if len(self.thresholds) == 2 else self.level

    def intervals(self, predictive: Classification | Regression) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper ends, each (B,), float64.

        Raises:
            InvalidInput: for a predictive of classes, or of several targets per input.
        """
        values = _one_target(predictive)
        thresholds = torch.tensor(self.thresholds, dtype=torch.float64, device=values.means.device)
        return self.score.interval(values, thresholds, self.level)


def calibrate(
    predictive: Classification | Regression,
    targets: Tensor,
    level: float = 0.9,
    score: str | ClassScore | ValueScore | None = None,
    by_class: bool = False,
    generator: Generator | None = None,
) -> Any:
    """Calibrate sets of classes (`ConformalSets`) or intervals of values (`ConformalIntervals`) on held-out examples.

    Args:
        predictive: of n calibration inputs that the posterior was not trained on.
        targets: their labels, or values, (n,).
        level: the wanted coverage.
        score: 'thr', 'aps' (the default) or 'raps'; 'absolute', 'scaled' (the default) or 'quantile'; or one made by hand,
            such as `RAPS(randomised=True, penalty=0.05)`.
        by_class: promise the level for each class by itself (Vovk 2012, "Mondrian"): a threshold per class.
        generator: source of a randomised score's coins.

    Raises:
        InvalidInput: where n is too small for the level (⌈(n + 1) · level⌉ > n: the quantile would be infinite), the targets do
            not fit, or the score is unknown or of the other task.

    >>> held_out = Classification(torch.rand(8, 50, 3).softmax(-1))  # 8 functions, 50 inputs, 3 classes
    >>> promise = calibrate(held_out, torch.zeros(50, dtype=torch.long), level=0.8)
    >>> promise.sets(held_out).shape, round(promise.expected_coverage, 3)
    (torch.Size([50, 3]), 0.804)
    """
    check_predictive(predictive)
    require(level=(level, float), by_class=(by_class, bool), targets=(targets, Tensor))
    if targets.is_meta:
        raise InvalidInput("Targets are on the device meta, where tensors hold no numbers.")
    if not 0 < level < 1:
        raise InvalidInput(f"The wanted coverage is a probability strictly between 0 and 1, such as 0.9; got {level}.")
    if isinstance(predictive, Classification):
        return _calibrate_sets(
            predictive, targets, level, _chosen("aps" if score is None else score, CLASS_SCORES), by_class, generator
        )
    if by_class:
        raise InvalidInput("by_class is for classes; these are values.")
    _one_target(predictive)
    chosen = _chosen("scaled" if score is None else score, VALUE_SCORES)
    values = finite_values(targets.to(predictive.means.device), predictive.means.shape[1:])
    scores = chosen.scores(predictive, values, level)
    side = (1 + level) / 2 if len(scores) == 2 else level
    thresholds = tuple(_threshold(row, side, "") for row in scores)
    return ConformalIntervals(level, thresholds, (len(values),) * len(scores), chosen)


def needed(level: float) -> int:
    """Return the least number of calibration examples that a level needs, ⌈level / (1 − level)⌉.

    >>> needed(0.9), needed(0.95), needed(0.99)
    (9, 19, 99)
    """
    exact = Fraction(str(level))
    return ceil(exact / (1 - exact))


def _calibrate_sets(
    predictive: Classification,
    targets: Tensor,
    level: float,
    score: ClassScore,
    by_class: bool,
    generator: Generator | None,
) -> ConformalSets:
    if predictive.probs.dim() != 3:
        raise InvalidInput(
            f"Sets are of one label per input; got sites, shape {tuple(predictive.probs.shape)}: the sites of one input are "
            "not exchangeable with those of others."
        )
    batch, classes = predictive.probs.shape[1:]
    labels = class_labels(targets, batch, classes).to(predictive.probs.device)
    own = score.scores(predictive, generator).gather(1, labels[:, None]).squeeze(1)
    groups: Sequence[Tensor] = [own[labels == c] for c in range(classes)] if by_class else [own]
    names = [f" of class {c}" for c in range(classes)] if by_class else [""]
    thresholds = tuple(_threshold(group, level, name) for group, name in zip(groups, names, strict=True))
    return ConformalSets(level, thresholds, tuple(len(group) for group in groups), score)


def _chosen(score: Any, known: dict[str, Any]) -> Any:
    if isinstance(score, str):
        if score not in known:
            raise unknown("conformal score", score, known)
        return known[score]()
    if not isinstance(score, tuple(known.values())):
        raise InvalidInput(f"A {type(score).__name__} is no score of this task. Choices: {', '.join(known)}.")
    return score


def _rank(n: int, level: float) -> int:
    """Return k = ⌈(n + 1) · level⌉, the level taken as the decimal number that it is written as: 0.55 of 100 is 55, not 56."""
    return ceil(Fraction(str(level)) * (n + 1))


def _threshold(scores: Tensor, level: float, of: str) -> float:
    """Return the k-th smallest score."""
    k = _rank(len(scores), level)
    if k > len(scores):
        raise InvalidInput(
            f"{len(scores)} calibration examples{of} are too few for a coverage of {level:g}: at least {needed(level)} are "
            "needed. Hold out more, or ask for less."
        )
    return float(scores.kthvalue(k).values)


def _one_target(predictive: Classification | Regression) -> Regression:
    if not isinstance(predictive, Regression) or predictive.means.dim() != 2:
        shape = tuple(predictive.mean.shape)
        raise InvalidInput(
            f"Intervals are of one value per input; got a {type(predictive).__name__} predictive of shape {shape}. Calibrate "
            "the targets one by one."
        )
    return predictive
