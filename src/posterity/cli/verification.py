"""Whether promises were kept on test data, in numbers and curves."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from posterity.cli.promises import Promises, coins
from posterity.decide import ConformalIntervals, ConformalSets, p_value, uncertainty
from posterity.decide.binomial import share_interval
from posterity.metrics.calibration import coverage_curve, ece, reliability
from posterity.metrics.scores import coverage as own_coverage
from posterity.metrics.selective import risk_coverage
from posterity.predict.predictive import Classification, Regression

POINTS, BINS = 200, 30  # of a curve, of a histogram
UNUSUAL = 0.05
CONFIDENCE = 0.99  # of intervals for what is seen
Predicted = tuple[Classification | Regression, Tensor]  # and targets, both in original units


@dataclass(frozen=True)
class Verified:
    """What happened on test data.

    Args:
        scores: numbers by name, shares as fractions; None where there is none.
        sizes: a histogram of set sizes or interval widths: `edges` of the bins, and the counts of sets that `held` and `missed`
            the truth.
        reliability: `before` and `after` the temperature: what was `stated` and what was `seen`, point by point.
        curve: risk against coverage; None where no error is defined.
    """

    scores: dict[str, Any]
    sizes: dict[str, list[float]]
    reliability: dict[str, dict[str, list[float]]]
    curve: dict[str, list[float]] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def errors(predictive: Classification | Regression, targets: Tensor, tolerance: float | None) -> Tensor | None:
    """Return 1 for each error, (B,): another class, or a value farther off than the tolerance; None without one."""
    if isinstance(predictive, Classification):
        return (predictive.labels.cpu() != targets.cpu()).double()
    if tolerance is None:
        return None
    return ((predictive.mean.cpu() - targets.cpu()).abs() > tolerance).double()


def verify(promises: Promises, test: Predicted, tolerance: float | None, seed: int) -> Verified:
    """Hold promises against test data."""
    predictive, targets = test
    found = promises.conformal
    scores: dict[str, Any] = {}
    if isinstance(predictive, Classification) and isinstance(found, ConformalSets):
        held, size = _sets(found, predictive, targets, seed)
        scores["mean_size"] = size.mean().item()
        if len(found.thresholds) > 1:
            labels = targets.cpu().long()
            scores["worst_class_coverage"] = min(held[labels == c].mean().item() for c in labels.unique().tolist())
    else:
        assert isinstance(predictive, Regression)
        assert isinstance(found, ConformalIntervals)
        held, size = _intervals(found, predictive, targets)
        scores["mean_width"] = size.mean().item()
    scores["coverage"] = held.mean().item()
    one = len(found.thresholds) == 1
    scores["coverage_interval"] = list(found.coverage_interval(CONFIDENCE, len(targets))) if one else None
    costs = errors(predictive, targets, tolerance)
    scores |= _answers(promises, predictive, costs) | _tempered(promises, predictive, targets)
    usual = torch.tensor(promises.usual, dtype=torch.float64)
    scores["unusual"] = (p_value(uncertainty(predictive, promises.measure), usual) <= UNUSUAL).double().mean().item()
    stated = {"before": _stated(predictive, targets), "after": _stated(promises.temperature.apply(predictive), targets)}
    curve = None if costs is None else _curve(uncertainty(predictive, promises.measure), costs)
    return Verified(scores, _histogram(size, held, isinstance(predictive, Classification)), stated, curve)


def _sets(found: ConformalSets, predictive: Classification, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return which sets hold the truth, as 0 and 1, and their sizes."""
    sets = found.sets(predictive, coins(seed)).cpu()
    return sets.gather(1, targets.cpu().long()[:, None]).squeeze(1).double(), sets.sum(1).double()


def _intervals(found: ConformalIntervals, predictive: Regression, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which intervals hold the truth, as 0 and 1, and their widths."""
    lower, upper = (end.cpu() for end in found.intervals(predictive))
    values = targets.cpu().double()
    return ((lower <= values) & (values <= upper)).double(), upper - lower


def _answers(promises: Promises, predictive: Classification | Regression, costs: Tensor | None) -> dict[str, Any]:
    """Return the share of what is answered, and of the errors in it, with an interval for what chance may do to that."""
    if promises.abstention is None or costs is None:
        return {}
    accepted = promises.abstention.accepts(predictive)
    scores: dict[str, Any] = {"answered": accepted.double().mean().item(), "risk_of_all": costs.mean().item()}
    if not bool(accepted.any()):
        return {**scores, "risk": None, "risk_interval": None}
    among = costs[accepted]
    interval = share_interval(int(among.sum()), len(among), CONFIDENCE)
    return {**scores, "risk": among.mean().item(), "risk_interval": list(interval)}


def _tempered(promises: Promises, predictive: Classification | Regression, targets: Tensor) -> dict[str, float]:
    """Return scores before and after the temperature."""
    scores = {}
    for when, own in (("before", predictive), ("after", promises.temperature.apply(predictive))):
        scores[f"nll_{when}"] = own.scores(targets)["nll"]
        if isinstance(own, Classification):
            scores[f"ece_{when}"] = ece(own.mean, targets)
        else:
            scores[f"coverage_90_{when}"] = own_coverage(own, targets, 0.9)
    return scores


def _stated(predictive: Classification | Regression, targets: Tensor) -> dict[str, list[float]]:
    if isinstance(predictive, Classification):
        diagram = reliability(predictive.mean, targets)
        some = diagram.count > 0
        parts = {"stated": diagram.confidence, "seen": diagram.accuracy, "count": diagram.count}
        return {name: values[some].tolist() for name, values in parts.items()}
    line = coverage_curve(predictive, targets)
    return {"stated": line.level.tolist(), "seen": line.coverage.tolist()}


def _histogram(size: Tensor, held: Tensor, whole: bool) -> dict[str, list[float]]:
    """Count sets by their size; sizes of sets of classes are whole numbers."""
    if whole:
        edges = torch.arange(int(size.max()) + 2, dtype=torch.float64) - 0.5
    else:
        low, high = size.min().item(), size.max().item()
        room = 1e-6 * max(abs(high), 1e-6) + (high == low) * 0.05 * max(abs(high), 1e-6)
        edges = torch.linspace(low - room, high + room, BINS + 1, dtype=torch.float64)
    counts = {
        name: torch.histogram(size[held == value], edges).hist.tolist() for name, value in (("held", 1), ("missed", 0))
    }
    return {"edges": edges.tolist(), **counts}


def _curve(scores: Tensor, costs: Tensor) -> dict[str, list[float]]:
    """Return risk against coverage at some of the thresholds that are there."""
    found = risk_coverage(scores, costs)
    coverage, risk = found.coverage[found.realised], found.risk[found.realised]
    some = torch.linspace(0, len(risk) - 1, min(POINTS, len(risk))).round().long()
    return {"coverage": coverage[some].tolist(), "risk": risk[some].tolist()}
