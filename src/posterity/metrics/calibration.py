"""Does a stated probability happen as often as it says? Of 100 predictions made at 80 % confidence, 80 should be right.

`probs` are the mean probabilities (B, C), `labels` the true classes (B,). Errors are fractions: 0.013 is 1.3 points.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.metrics.checks import precise, probs_and_labels, real_targets
from posterity.predict.predictive import Regression


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions gathered into bins of confidence: three vectors, an entry per bin; an empty one holds NaN, NaN, 0."""

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def ece(self) -> float:
        """Σ_b (n_b/N)·|accuracy_b − confidence_b|."""
        return self._weigh((self.accuracy - self.confidence).abs())

    @property
    def overconfidence(self) -> float:
        """Mean confidence − accuracy: positive where the predictions promise more than they keep."""
        return self._weigh(self.confidence - self.accuracy)

    def _weigh(self, gaps: Tensor) -> float:
        return (self.count * gaps.nan_to_num(0)).sum().item() / self.count.sum().item()


def reliability(probs: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Gather predictions by the probability of their most probable class, in bins (lower, upper] of equal width.

    >>> probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    >>> diagram = reliability(probs, torch.tensor([0, 1, 1]), bins=2)
    >>> diagram.count, round(diagram.overconfidence, 4)
    (tensor([0., 3.], dtype=torch.float64), 0.1333)
    """
    values, classes = probs_and_labels(probs, labels)
    confidence, predicted = values.max(-1)
    return _binned(confidence, (predicted == classes).double(), _equal_width(confidence, bins), bins)


def ece(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error of the top class, with bins of equal width (Guo et al., 2017).

    ECE = Σ_b (n_b/N)·|accuracy_b − confidence_b|, over bins ((b−1)/bins, b/bins].

    >>> round(ece(torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]]), torch.tensor([0, 1, 1])), 4)
    0.3333
    """
    return reliability(probs, labels, bins).ece


def adaptive_ece(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the ECE of the top class with bins of equal count (Nguyen & O'Connor, 2015): no bin is nearly empty."""
    values, classes = probs_and_labels(probs, labels)
    confidence, predicted = values.max(-1)
    rank = confidence.argsort(stable=True).argsort()
    index = rank * _bins(bins) // len(rank)
    return _binned(confidence, (predicted == classes).double(), index, bins).ece


def classwise_ece(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the mean over classes of the ECE of p_c against 1[y = c] (Nixon et al., 2019; Kull et al., 2019)."""
    values, classes = probs_and_labels(probs, labels)
    errors = [
        _binned(column, (classes == label).double(), _equal_width(column, bins), bins).ece
        for label, column in enumerate(values.t().contiguous())
    ]
    return sum(errors) / len(errors)


@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """The fraction of targets inside central intervals of each level: two vectors."""

    level: Tensor
    coverage: Tensor

    @property
    def error(self) -> float:
        """Mean |coverage − level| over the levels."""
        return (self.coverage - self.level).abs().mean().item()

    @property
    def overconfidence(self) -> float:
        """Mean level − coverage: positive where the intervals are too narrow."""
        return (self.level - self.coverage).mean().item()


def coverage_curve(predictive: Regression, targets: Tensor, levels: Tensor | None = None) -> CoverageCurve:
    """Return how often central intervals hold the target, at each level (0.05, 0.10 … 0.95 unless given).

    With u = F(y), the central interval of level l holds y where |2u − 1| ≤ l (Kuleshov et al., 2018): one pass over
    the data serves every level.
    """
    values = real_targets(targets, predictive.means.shape[1:])
    wanted = torch.arange(1, 20, dtype=torch.float64) / 20 if levels is None else precise(levels)
    centred = (2 * precise(predictive.cdf(values)) - 1).abs().flatten()
    ordered = centred.sort().values
    return CoverageCurve(wanted, torch.searchsorted(ordered, wanted, right=True).double() / len(ordered))


def _bins(bins: int) -> int:
    if bins < 1:
        raise InvalidInput(f"A number of bins is at least 1, got {bins}.")
    return bins


def _equal_width(values: Tensor, bins: int) -> Tensor:
    """Return the index of the bin (lower, upper] that holds each value."""
    edges = torch.linspace(0, 1, _bins(bins) + 1, dtype=values.dtype)
    return torch.bucketize(values, edges[1:-1])


def _binned(confidence: Tensor, outcome: Tensor, index: Tensor, bins: int) -> Reliability:
    """Return mean confidence, mean outcome and count of each bin."""
    count = torch.bincount(index, minlength=bins).double()
    sums = [torch.bincount(index, weights=values, minlength=bins) for values in (confidence, outcome)]
    return Reliability(sums[0] / count, sums[1] / count, count)
