"""Does a stated probability happen as often as it says? Of 100 predictions made at 80 % confidence, 80 should be right.

`probs` are the mean probabilities (B, C), `labels` the true classes (B,); sites, (B, ..., C) and (B, ...), count as
examples. Errors are fractions: 0.013 is 1.3 points.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.metrics.checks import precise, probs_and_labels, real_targets
from posterity.predict.predictive import General, Regression

GRID = 2**15  # intervals of [0, 1] that confidences are smoothed on
SHARPEST, HALVINGS = 1e-3, 20  # the finest kernel, and halvings of the bracket of its std


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
    """Return the ECE of the top class with bins of equal count (Nguyen & O'Connor, 2015): no bin is nearly empty.

    Where a bin ends among examples of one confidence, each of them counts as right as all of them are on average: the order
    of the examples does not matter.
    """
    values, classes = probs_and_labels(probs, labels)
    confidence, predicted = values.max(-1)
    right = (predicted == classes).double()
    _, tied, count = confidence.unique(return_inverse=True, return_counts=True)
    right = (torch.zeros_like(count, dtype=right.dtype).index_add_(0, tied, right) / count)[tied]
    rank = confidence.argsort(stable=True).argsort()
    index = rank * _bins(bins) // len(rank)
    return _binned(confidence, right, index, bins).ece


def classwise_ece(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the mean over classes of the ECE of p_c against 1[y = c] (Nixon et al., 2019; Kull et al., 2019)."""
    values, classes = probs_and_labels(probs, labels)
    errors = [
        _binned(column, (classes == label).double(), _equal_width(column, bins), bins).ece
        for label, column in enumerate(values.t().contiguous())
    ]
    return sum(errors) / len(errors)


def smooth_ece(probs: Tensor, labels: Tensor) -> float:
    """Return the smooth calibration error of the top class, a fraction, without bins (Błasiok & Nakkiran, 2024).

        smECE_σ = ∫₀¹ |(1/N)Σ_i K_σ(t, c_i)(1[right_i] − c_i)| dt        smECE = the σ with smECE_σ = σ

    c_i is the confidence, K_σ the Gaussian kernel of std σ reflected at 0 and 1. smECE_σ falls as σ grows, so that there is
    one such σ: the error sets its own resolution. Unlike `ece` it is continuous in the predictions, and a consistent measure
    of the distance to calibration. Computed by a cosine transform on a grid of 2⁻¹⁵, to some 1e-4 of its value; an error
    below 0.001 is that at σ = 0.001.

    >>> round(smooth_ece(torch.tensor([[0.9, 0.1]] * 10), torch.tensor([0] * 7 + [1] * 3)), 4)  # 0.9 said, 0.7 true
    0.2
    """
    values, classes = probs_and_labels(probs, labels)
    confidence, predicted = values.max(-1)
    spectrum = _reflected_spectrum(confidence, (predicted == classes).double() - confidence)
    low, high = SHARPEST, 1.0
    if _smoothed_error(spectrum, low) <= low:
        return _smoothed_error(spectrum, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _smoothed_error(spectrum, middle) > middle else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Recalibration:
    """logit P(outcome) = intercept + slope · logit(stated probability), by maximum likelihood: (1, 0) is calibrated.

    slope: below 1 where probabilities are too extreme, above 1 where they are too cautious.
    intercept: the log-odds of the outcome where a half was said: above 0 where too little was promised there.
    """

    slope: float
    intercept: float


def recalibration(stated: Tensor, outcome: Tensor) -> Recalibration:
    """Fit the logistic recalibration of Cox (1958) to probabilities (B,) and outcomes (B,), 0 or 1.

    Both numbers are fitted together. Log-odds are bounded by those of the smallest step of the dtype from 1, ±16 in
    float32. NaN where there is no finite optimum: all outcomes alike, or told apart by the probabilities without error.

    >>> found = recalibration(torch.tensor([0.2] * 4 + [0.9] * 4), torch.tensor([0, 0, 0, 1, 0, 1, 1, 1]))
    >>> round(found.slope, 2), round(found.intercept, 2)  # 0.2 happened 1 in 4 times, 0.9 only 3 in 4
    (0.61, -0.25)
    """
    if stated.dim() != 1 or not len(stated) or stated.shape != outcome.shape:
        shapes = f"{tuple(stated.shape)} and {tuple(outcome.shape)}"
        raise InvalidInput(f"Expected probabilities (B,) and outcomes (B,) of at least one example, got {shapes}.")
    y, p = precise(outcome), precise(stated)
    if not bool(((y == 0) | (y == 1)).all()) or not bool(((p >= 0) & (p <= 1)).all()):
        raise InvalidInput("Probabilities must be in [0, 1], and outcomes 0 or 1.")
    z = p.logit(eps=torch.finfo(stated.dtype).eps)
    right, wrong = z[y == 1], z[y == 0]
    if not len(right) or not len(wrong) or wrong.max() <= right.min() or right.max() <= wrong.min():
        return Recalibration(float("nan"), float("nan"))
    intercept, slope = _logistic(torch.stack([torch.ones_like(z), z], -1), y).tolist()
    return Recalibration(slope, intercept)


def calibration_slope(probs: Tensor, labels: Tensor) -> float:
    """Return the slope of the top class's `recalibration`: 1 is calibrated, below 1 over-confident; NaN where all are right.

    >>> probs = torch.tensor([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    >>> round(calibration_slope(probs, torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)), 3)  # 0.9 said, 0.7 true
    0.247
    """
    values, classes = probs_and_labels(probs.detach(), labels)
    confidence, predicted = values.max(-1)
    return recalibration(confidence.to(probs.device, probs.dtype), predicted == classes).slope


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


def coverage_curve(predictive: Regression | General, targets: Tensor, levels: Tensor | None = None) -> CoverageCurve:
    """Return how often central intervals hold the target, at each level (0.05, 0.10 … 0.95 unless given).

    With u = F(y), the central interval of level l holds y where |2u − 1| ≤ l (Kuleshov et al., 2018): one pass over
    the data serves every level. Of whole numbers, and where F is not known, it is the interval itself that is asked for.
    """
    wanted = torch.arange(1, 20, dtype=torch.float64) / 20 if levels is None else precise(levels)
    if isinstance(predictive, General):
        ends = predictive.quantile(torch.cat([(1 - wanted) / 2, (1 + wanted) / 2]))
        lower, upper = precise(ends).split(len(wanted))
        y = real_targets(targets, lower.shape[1:])
        return CoverageCurve(wanted, ((lower <= y) & (y <= upper)).flatten(1).double().mean(1))
    values = real_targets(targets, predictive.means.shape[1:])
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


def _reflected_spectrum(places: Tensor, masses: Tensor) -> Tensor:
    """Return the Fourier coefficients of (1/N)Σ_i m_i (δ(x_i) + δ(−x_i)) on a circle of length 2, each m_i shared by the two
    points of the grid beside x_i, so that total and centre of mass stay."""
    position = places.clamp(0, 1) * GRID
    below = position.long().clamp(max=GRID - 1)
    share = position - below
    line = torch.zeros(GRID + 1, dtype=torch.float64)
    line.index_add_(0, below, masses * (1 - share)).index_add_(0, below + 1, masses * share)
    circle = torch.zeros(2 * GRID, dtype=torch.float64)
    circle[: GRID + 1] += line
    circle[torch.arange(0, -GRID - 1, -1)] += line
    spectrum: Tensor = torch.fft.rfft(circle)
    return spectrum / len(places)


def _smoothed_error(spectrum: Tensor, std: float) -> float:
    """Return ∫₀¹ |the measure smoothed by a Gaussian| dt: half of it over the circle, on which reflection is symmetry."""
    damped = spectrum * torch.exp(-0.5 * (pi * std * torch.arange(GRID + 1, dtype=torch.float64)).square())
    smoothed: Tensor = torch.fft.irfft(damped, n=2 * GRID)
    return GRID * smoothed.abs().mean().item()


def _logistic(rows: Tensor, y: Tensor) -> Tensor:
    """Maximise Σ y log p + (1 − y) log(1 − p), p = sigmoid(rows · w), by Newton's method, each step halved until it gains."""

    def fit(w: Tensor) -> float:
        score = rows @ w
        return (y * score - torch.nn.functional.softplus(score)).sum().item()

    w, best = rows.new_tensor([0.0, 1.0]), -float("inf")
    while (gained := fit(w)) > best:
        best, p = gained, torch.sigmoid(rows @ w)
        step = torch.linalg.solve(rows.T @ (rows * (p * (1 - p)).unsqueeze(-1)), rows.T @ (y - p))
        while fit(w + step) < best and step.abs().max() > 1e-12:
            step = step / 2
        w = w + step
    return w
