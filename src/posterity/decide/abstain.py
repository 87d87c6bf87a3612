"""Selective prediction with a guarantee: answer only where the risk of all answers is at most what was asked for.

An input is accepted where its uncertainty u(x) is below a threshold t. The risk of what is accepted is the mean loss
R(t) = E[L | u < t]. From held-out examples, t is chosen as large as can be with P(R(t) ≤ risk) ≥ confidence.

A threshold with a small *observed* risk is not enough: among many thresholds some look good by chance. Here thresholds are
tested one after the other, from the most careful upwards, and the last before the first failure is taken (fixed-sequence
testing; Angelopoulos et al. 2022, "Learn then Test"). `docs/decide.md` says why that holds with the data's own uncertainties as
thresholds.
"""

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from math import ceil, inf, log, log1p
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from torch import Tensor

from posterity.decide.anomaly import uncertainty
from posterity.decide.binomial import Vector, binomial_p_value, hoeffding_bentkus_p_value
from posterity.errors import InvalidInput
from posterity.metrics.checks import real_targets
from posterity.options import dataclass, require
from posterity.predict.checks import class_labels
from posterity.predict.decomposition import precise
from posterity.predict.predictive import Classification, Regression, check_predictive

STARTS = (0.1, 0.25, 0.5, 0.75)  # shares of the data, from each of which a sequence of tests goes upwards
BISECTIONS = 50
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="strings"))
class Abstention:
    """When to answer, and what is promised of the answers.

    Args:
        threshold: inputs of a smaller uncertainty are accepted; ∞: all, −∞: none.
        measure: of uncertainty, as `posterity.decide.anomaly.uncertainty` names it.
        risk: the promised bound on the mean loss of accepted inputs; for classes a loss of 1 is an error.
        confidence: the probability, over validation sets, that the bound holds.
        expected_coverage: the share of validation inputs that are accepted.
        bound: the upper confidence bound of the risk at this threshold by itself, at most `risk`; 1 where none is accepted. It
            is what the choice was made by; what is promised is `risk`.
        num_data: validation examples.
    """

    threshold: float
    measure: str
    risk: Share
    confidence: Share
    expected_coverage: float
    bound: float
    num_data: int

    def accepts(self, predictive: Classification | Regression) -> Tensor:
        """Return which inputs to answer, bool (B,), on the CPU; for draws of the same functions as the validation's."""
        return uncertainty(predictive, self.measure) < self.threshold


@plain_dataclass(frozen=True)
class Choice:
    """A threshold on uncertainty, the share of the data that it accepts, and the upper bound of their risk."""

    threshold: float
    coverage: float
    bound: float


def abstain(
    predictive: Classification | Regression,
    targets: Tensor,
    risk: float = 0.02,
    confidence: float = 0.95,
    measure: str | None = None,
    losses: Tensor | None = None,
) -> Abstention:
    """Choose when to abstain, on validation examples, so that the risk of the others is bounded with confidence.

    Args:
        predictive: of n validation inputs that the posterior was not trained on.
        targets: their labels or values, (n,).
        risk: the wanted bound on the mean loss of what is answered.
        confidence: of the bound.
        measure: of uncertainty; by default max_probability of classes and variance of values. See `uncertainty`.
        losses: of each prediction, (n,), in [0, 1]. Classes have the 0-1 loss by default; values need one, for example
            `((predictive.mean − targets).abs() > 10).double()`. Losses of 0 and 1 are tested by the exact binomial law, others
            by Hoeffding's and Bentkus's inequalities.

    Raises:
        InvalidInput: where n is too small for any promise (the message says how many it takes), or something does not fit.

    >>> import torch
    >>> probs = torch.linspace(0.5, 0.999, 400)
    >>> promise = abstain(Classification(torch.stack([probs, 1 - probs], -1)[None]), (probs < 0.6).long(), risk=0.05)
    >>> round(promise.expected_coverage, 2), promise.bound <= 0.05
    (0.82, True)
    """
    check_predictive(predictive)
    require(targets=(targets, Tensor), risk=(risk, float), confidence=(confidence, float))
    require(measure=("" if measure is None else measure, str), losses=(targets if losses is None else losses, Tensor))
    if isinstance(predictive, Classification):
        labels = class_labels(targets, *predictive.probs.shape[1:])
        own = losses if losses is not None else (predictive.labels.cpu() != labels.cpu()).double()
        chosen = measure or "max_probability"
    else:
        real_targets(targets, predictive.mean.shape)
        if losses is None:
            raise InvalidInput(
                "What an error costs is not known for values: give losses (n,) in [0, 1], such as "
                "((predictive.mean - targets).abs() > tolerance).double()."
            )
        own, chosen = losses, measure or "variance"
    found = choose_threshold(uncertainty(predictive, chosen), own, risk, confidence)
    return Abstention(found.threshold, chosen, risk, confidence, found.coverage, found.bound, len(own))


def choose_threshold(scores: Tensor, losses: Tensor, risk: float, confidence: float = 0.95) -> Choice:
    """Return the largest threshold on any scores that keeps P(E[L | score < threshold] ≤ risk) ≥ confidence.

    With δ = 1 − confidence, sequences of tests start where 10, 25, 50 and 75 % of the n examples are accepted, J of them that
    can succeed at all, with δ/J each. A test at the threshold t = s_(i+1) is on the i examples with a score below t, given
    which their losses have the mean R(t); its p-value is for "R(t) > risk". A sequence ends before its first p > δ/J, at the
    latest with the acceptance of everything; the farthest of them counts.

    Args:
        scores: (n,), larger is less sure. losses: (n,), in [0, 1].

    Raises:
        InvalidInput: see `abstain`.

    >>> import torch
    >>> choose_threshold(torch.arange(100.0), torch.zeros(100), risk=0.05)
    Choice(threshold=inf, coverage=1.0, bound=0.0295...)
    """
    ordered, summed = _sorted(scores, losses)
    n, delta = len(ordered), _error_rate(risk, confidence)
    binary = bool(((losses == 0) | (losses == 1)).all())
    test = binomial_p_value if binary else hoeffding_bentkus_p_value
    starts, level = _starts(n, risk, delta)
    counts = np.append(np.flatnonzero(np.diff(ordered)) + 1, n)  # examples below each distinct threshold, ties as one
    passed = test(summed[counts - 1], counts.astype(np.float64), risk) <= level
    best = max((_last(passed, int(np.searchsorted(counts, start))) for start in starts), default=-1)
    if best < 0:
        return Choice(-inf, 0.0, 1.0)
    count = int(counts[best])
    bound = _upper_bound(test, float(summed[count - 1]), count, level)
    return Choice(inf if count == n else float(ordered[count]), count / n, bound)


def needed(risk: float, confidence: float) -> int:
    """Return how many accepted examples without a single error show that the risk is at most `risk`: log δ / log(1 − risk).

    >>> needed(0.02, 0.95), needed(0.05, 0.95)
    (149, 59)
    """
    return ceil(log(1 - confidence) / log1p(-risk))


def _sorted(scores: Tensor, losses: Tensor) -> tuple[Vector, Vector]:
    """Return the sorted scores, and the sums of the losses of the surest 1 … n."""
    if scores.dim() != 1 or scores.shape != losses.shape or bool(scores.isnan().any()):
        shapes = f"{tuple(scores.shape)} and {tuple(losses.shape)}"
        raise InvalidInput(f"Expected scores and losses of one shape (n,) without NaN, got {shapes}.")
    own, order = precise(scores.detach()).cpu().sort(stable=True)
    costs = precise(losses.detach()).cpu()[order]
    if not bool(((costs >= 0) & (costs <= 1)).all()):
        raise InvalidInput("A loss must be between 0 and 1; divide it by the largest that it can be.")
    return own.numpy(), costs.cumsum(0).numpy()


def _error_rate(risk: float, confidence: float) -> float:
    for name, value in (("risk", risk), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InvalidInput(f"The {name} is a number strictly between 0 and 1; got {value}.")
    return 1 - confidence


def _starts(n: int, risk: float, delta: float) -> tuple[list[int], float]:
    """Return where sequences of tests start, and the level of each: fixed before any loss is looked at."""
    least = needed(risk, 1 - delta)
    if n < least:
        raise InvalidInput(
            f"{n} validation examples cannot show a risk of {risk:g} at a confidence of {1 - delta:g}: even without an error "
            f"it takes {least}. Hold out more, or ask for less."
        )
    enough = needed(risk, 1 - delta / len(STARTS))
    starts = [ceil(share * n) for share in STARTS if share * n >= enough] or [least]
    return starts, delta / len(starts)


def _last(passed: np.ndarray[tuple[int], np.dtype[np.bool_]], first: int) -> int:
    """Return the last index of the run of True that begins at `first`; −1 where there is none."""
    failures = np.flatnonzero(~passed[first:])
    length = int(failures[0]) if len(failures) else len(passed) - first
    return first + length - 1 if length else -1


def _upper_bound(test: Callable[[Vector, Vector, float], Vector], losses: float, count: int, level: float) -> float:
    """Return the least risk that the test rejects, by bisection: Clopper and Pearson's (1934) bound for 0-1 losses."""
    low, high = losses / count, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        rejected = test(np.array([losses]), np.array([float(count)]), middle)[0] <= level
        low, high = (low, middle) if rejected else (middle, high)
    return high
