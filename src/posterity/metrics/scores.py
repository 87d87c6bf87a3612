"""Scores of predictions. Proper ones (nll, brier, crps, interval score) are best, on average, for the honest forecast.

`probs` are mean probabilities (B, C), `labels` true classes (B,); sites, (B, ..., C) and (B, ...), count as examples. A
`predictive` is an equal mixture of Gaussians, and its `targets` have the shape of its mean. Everything is computed in
float64; wrong shapes, labels or NaN raise `InvalidInput`. Lower is better, except for accuracy (higher) and coverage (near
its level).
"""

import warnings
from collections.abc import Callable
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from posterity.errors import InvalidInput, PosterityWarning
from posterity.metrics.calibration import ece, smooth_ece
from posterity.metrics.checks import precise, probs_and_labels, real_targets
from posterity.metrics.selective import risk_coverage
from posterity.model.likelihoods import IGNORED
from posterity.predict.checks import existing
from posterity.predict.mixture import mixture_crps
from posterity.predict.predictive import Classification, General, Quantiles, Regression, Survival
from posterity.types import Scores
from posterity.weighing import there


def accuracy(probs: Tensor, labels: Tensor) -> float:
    """Return the fraction of examples whose most probable class is the true one."""
    values, classes = probs_and_labels(probs, labels)
    return (values.argmax(-1) == classes).double().mean().item()


def nll(probs: Tensor, labels: Tensor) -> float:
    """Return −(1/B)Σ_b log p_b(y_b), in nats per example; infinite where a true class had probability 0.

    >>> round(nll(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1])), 4)
    0.4904
    """
    values, classes = probs_and_labels(probs, labels)
    return -values.gather(1, classes.unsqueeze(1)).log().mean().item()


def brier(probs: Tensor, labels: Tensor) -> float:
    """Return (1/B)Σ_b Σ_c (p_bc − 1[y_b = c])², in [0, 2]: summed over classes, as Brier (1950) defined it.

    >>> brier(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    1.0
    """
    values, classes = probs_and_labels(probs, labels)
    truth = torch.nn.functional.one_hot(classes, values.shape[1])
    return (values - truth).square().sum(-1).mean().item()


def rmse(mean: Tensor, targets: Tensor) -> float:
    """Return the root mean squared error, in units of the target."""
    return (precise(mean) - real_targets(targets, mean.shape)).square().nanmean().sqrt().item()


def crps_mixture(means: Tensor, variances: Tensor, targets: Tensor) -> Tensor:
    """Return the CRPS of equal mixtures of n Gaussians (n, B, ...) at targets (B, ...), shape (B, ...), exactly.

        CRPS = (1/n)Σ_i A(y − μ_i, σ_i²) − (1/2n²)Σ_ij A(μ_i − μ_j, σ_i² + σ_j²)
        A(m, s²) = E|N(m, s²)| = m(2Φ(m/s) − 1) + 2s φ(m/s)

    In units of the target (Grimit et al., 2006); ∫(F(t) − 1[t ≥ y])² dt in closed form: no sampling, no bias.

    >>> crps_mixture(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1))  # (√2 − 1)/√π of a standard normal
    tensor([0.2337], dtype=torch.float64)
    """
    if means.shape != variances.shape or means.dim() < 2:
        shapes = f"{tuple(means.shape)} and {tuple(variances.shape)}"
        raise InvalidInput(f"Expected means and variances of one shape (draws, batch, ...), got {shapes}.")
    y = real_targets(targets, means.shape[1:])
    mu, var = precise(means), precise(variances)
    return mixture_crps(y, mu, var)


def crps(predictive: Regression | General, targets: Tensor) -> float:
    """Return the mean CRPS, in units of the target: the absolute error of a forecast that is a distribution."""
    return precise(predictive.crps(targets)).nanmean().item()


def coverage(predictive: Regression | General, targets: Tensor, level: float = 0.9) -> float:
    """Return the fraction of targets inside the central interval of this level; calibrated where the two are equal."""
    lower, upper, y = _interval(predictive, targets, level)
    return _inside(lower, upper, y)


def interval_score(predictive: Regression | General, targets: Tensor, level: float = 0.9) -> float:
    """Return the mean of (u − l) + (2/α)·(miss), α = 1 − level, in units of the target (Gneiting & Raftery, 2007)."""
    lower, upper, y = _interval(predictive, targets, level)
    miss = (lower - y).clamp(min=0) + (y - upper).clamp(min=0)
    return (upper - lower + 2 / (1 - level) * miss).mean().item()


def pinball_loss(quantiles: Tensor, targets: Tensor, level: float) -> float:
    """Return the mean of max(l (y − q), (l − 1)(y − q)) of predicted quantiles q of level l, in units of the target.

    Least, on average, for the true quantile (Koenker & Bassett, 1978); at l = 0.5 half the absolute error of the median.

    >>> pinball_loss(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 0.0]), level=0.9)  # too low costs nine times too high
    0.95
    """
    if not 0 < level < 1:
        raise InvalidInput(f"A quantile's level is strictly between 0 and 1, such as 0.9; got {level}.")
    away = real_targets(targets, quantiles.shape) - precise(quantiles)
    return torch.maximum(level * away, (level - 1) * away).nanmean().item()


def sharpness(predictive: Regression | General, level: float = 0.9) -> float:
    """Return the mean width of the central interval, in units of the target: small is good once coverage is right."""
    lower, upper = predictive.interval(level)
    return _width(lower, upper)


def evaluate(predictive: Any, targets: Tensor) -> Scores:
    """Return every headline score of a predictive, by name.

    Classification: `accuracy`; `nll` (nats per example, of the mean probabilities); `ece` (15 bins) and `smooth_ece`
    (fractions); `brier` (in [0, 2]); `aurc` and `augrc`, areas under risk-coverage curves that keep the most probable
    predictions first; means over examples of `entropy` and `mutual_information` (nats), and of `aleatoric` and
    `epistemic` (variances summed over classes, in [0, 1]). Where examples have sites, `nll` is that of whole label maps,
    and every other score one of sites whose label is known, `nll_per_site` too; the four means are over all sites.

    Regression, in units of the target: `rmse`; `nll` (nats per example); `crps`; `coverage_90` (fraction) and
    `interval_width_90` of the central 90 % interval; `aleatoric_std` and `epistemic_std` (means over examples).

    Targets of any other distribution: the same, each where the distribution has the moments, and `crps` where it has a
    distribution function; without one intervals are of 4096 draws. Of censored numbers without `rmse`, and with `concordance`,
    the share of pairs whose order is known that the medians have in this order. Of quantiles, which are no density and
    have no NLL: `pinball`, the mean loss of all levels in units of the target, and coverage and width where 0.05 and 0.95 are
    among the levels.

    What is missing of the targets, NaN or a label that is ignored, is not scored; a warning says how many examples these are.
    Of soft labels, `accuracy`, `ece` and the like are those of the class of the largest share, `nll` that of the shares.

    Raises `InvalidInput` for a predictive of another kind, and for targets that do not fit it.
    """
    _say_missing(predictive, targets)
    match predictive:
        case Classification():
            return _evaluate_classes(predictive, targets)
        case Regression():
            return _evaluate_gaussians(predictive, targets)
        case Quantiles():
            return _evaluate_quantiles(predictive, targets)
        case Survival():
            return _evaluate_survival(predictive, targets)
        case General():
            return _evaluate_general(predictive, targets)
    raise InvalidInput(f"Cannot score a {type(predictive).__name__}. Choices: Classification, Regression, General.")


def _say_missing(predictive: Any, targets: Tensor) -> None:
    """Say of how many examples nothing is known; label maps are padded for a reason."""
    if not isinstance(targets, Tensor) or targets.is_complex() or not targets.dim():
        return
    ignored = predictive.ignored if isinstance(predictive, Classification) else None
    known = there(targets if ignored is None else targets.masked_fill(targets == ignored, IGNORED))
    count = len(known) - int(known.sum())
    if 0 < count < len(known):
        warnings.warn(
            f"{count:,} of {len(known):,} targets {'is missing and was' if count == 1 else 'are missing and were'} not scored.",
            PosterityWarning,
            stacklevel=3,
        )


def _evaluate_classes(predictive: Classification, targets: Tensor) -> Scores:
    scores = predictive.scores(targets)
    probs, labels = probs_and_labels(predictive.mean, targets, predictive.ignored)
    confidence, predicted = probs.max(-1)
    curve = risk_coverage(1 - confidence, predicted != labels)
    return {
        "accuracy": scores["accuracy"],
        "nll": scores["nll"],
        **({"nll_per_site": nll(probs, labels)} if predictive.mean.dim() > 2 else {}),
        "ece": ece(probs, labels),
        "smooth_ece": smooth_ece(probs, labels),
        "brier": brier(probs, labels),
        "aurc": curve.aurc,
        "augrc": curve.augrc,
        "entropy": precise(predictive.entropy).mean().item(),
        "mutual_information": precise(predictive.mutual_information).mean().item(),
        "aleatoric": precise(predictive.aleatoric).sum(-1).mean().item(),
        "epistemic": precise(predictive.epistemic).sum(-1).mean().item(),
    }


def _evaluate_gaussians(predictive: Regression, targets: Tensor) -> Scores:
    scores = predictive.scores(targets)
    lower, upper, y = _interval(predictive, targets, 0.9)
    return {
        "rmse": scores["rmse"],
        "nll": scores["nll"],
        "crps": crps(predictive, targets),
        "coverage_90": _inside(lower, upper, y),
        "interval_width_90": _width(lower, upper),
        "aleatoric_std": precise(predictive.aleatoric).sqrt().mean().item(),
        "epistemic_std": precise(predictive.epistemic).sqrt().mean().item(),
    }


def _evaluate_general(predictive: General, targets: Tensor) -> Scores:
    scores = predictive.scores(targets)
    lower, upper, y = _interval(predictive, targets, 0.9)
    asked: dict[str, Callable[[], float]] = {
        "crps": lambda: crps(predictive, targets),
        "coverage_90": lambda: _inside(lower, upper, y),
        "interval_width_90": lambda: _width(lower, upper),
        "aleatoric_std": lambda: precise(predictive.aleatoric).sqrt().mean().item(),
        "epistemic_std": lambda: precise(predictive.epistemic).sqrt().mean().item(),
    }
    for name, ask in asked.items():
        try:
            scores[name] = ask()
        except InvalidInput:  # this family has no such moment, or no distribution function
            continue
    return scores


def _evaluate_survival(predictive: Survival, targets: Tensor) -> Scores:
    lower, upper = predictive.interval(0.9)
    aleatoric, epistemic = (
        precise(existing(ask, lower)).sqrt().mean().item()
        for ask in (lambda: predictive.aleatoric, lambda: predictive.epistemic)
    )
    scores = {
        "nll": predictive.scores(targets)["nll"],
        "crps": crps(predictive, targets),
        "coverage_90": precise(predictive.inside(lower, upper, targets)).mean().item(),
        "interval_width_90": _width(lower, upper),
        "aleatoric_std": aleatoric,
        "epistemic_std": epistemic,
        "concordance": concordance(predictive.quantile(0.5), targets),
    }
    return {name: value for name, value in scores.items() if not isnan(value)}


def _evaluate_quantiles(predictive: Quantiles, targets: Tensor) -> Scores:
    scores = dict(predictive.scores(targets))
    try:
        lower, upper, y = _interval(predictive, targets, 0.9)
    except InvalidInput:  # these levels were not trained
        return scores
    return {**scores, "coverage_90": _inside(lower, upper, y), "interval_width_90": _width(lower, upper)}


def concordance(predicted: Tensor, targets: Tensor) -> float:
    """Return how often of two targets the one that is surely larger has the larger prediction, ties half (Harrell et al. 1982).

    Targets are rows (low, high), (B, 2), as `Censored` has them, or known values (B,). NaN where no order is known.

    >>> concordance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 1.0], [5.0, 5.0], [4.0, torch.inf]]))
    1.0
    """
    rows = targets if targets.dim() > 1 else torch.stack([targets, targets], -1)
    if predicted.shape != rows.shape[:1] or rows.shape[1:] != (2,):
        shapes = f"{tuple(predicted.shape)} and {tuple(targets.shape)}"
        raise InvalidInput(f"Expected predictions (B,) and targets (B, 2) or (B,), got {shapes}.")
    scores, low, high = precise(predicted), precise(rows[:, 0]), precise(rows[:, 1])
    right = pairs = 0.0
    for i in range(len(scores)):  # no table of all pairs is held
        later = (low > high[i]) | ((low == high[i]) & (high > low))  # what was still to come when this one came
        larger = scores[later] - scores[i]
        right += float((larger > 0).sum()) + 0.5 * float((larger == 0).sum())
        pairs += int(later.sum())
    return right / pairs if pairs else nan


def _interval(predictive: Regression | General, targets: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ends of the intervals of the targets that are known, and these."""
    lower, upper = predictive.interval(level)
    y = real_targets(targets, lower.shape)
    known = ~y.isnan()
    return precise(lower)[known], precise(upper)[known], y[known]


def _inside(lower: Tensor, upper: Tensor, y: Tensor) -> float:
    return ((lower <= y) & (y <= upper)).double().mean().item()


def _width(lower: Tensor, upper: Tensor) -> float:
    return (precise(upper) - precise(lower)).mean().item()
