"""What is compared: a `Result` is one run, a `Contender` the runs that differ by seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from posterity.metrics.calibration import CoverageCurve, Reliability
from posterity.metrics.selective import RiskCoverage
from posterity.report.data import Epoch

COLOURS = ("#1f5fa8", "#c2452d", "#4f9d8f", "#a8487a", "#b9814f", "#6b7680", "#8aa63c", "#3fa7d6")


@dataclass(frozen=True, eq=False)
class Result:
    """One run: its scores and curves on the test data, and what it cost.

    draws: functions that were asked for; 1 for a point.
    numbers: its scores and costs, by the keys of the columns in `compare`; what it has no number for is left out.
    risk: of the kept predictions, those of largest probability or smallest standard deviation first.
    curves: ROC curves of out-of-distribution detection, set → uncertainty → {"fpr": […], "tpr": […]}.
    """

    name: str
    seed: int
    draws: int
    numbers: Mapping[str, float]
    calibration: Reliability | CoverageCurve
    risk: RiskCoverage
    history: Sequence[Epoch] = ()
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Contender:
    """Runs that differ by their seeds alone."""

    name: str
    results: tuple[Result, ...]

    def values(self, key: str) -> list[float]:
        """Return a number of every run that has it."""
        return [r.numbers[key] for r in self.results if isfinite(r.numbers.get(key, float("nan")))]


def colour(index: int) -> str:
    """Return the colour of a contender, the same in tables and figures."""
    return COLOURS[index % len(COLOURS)]
