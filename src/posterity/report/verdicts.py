"""What the figures say, in words: each function computes one sentence, and says when a difference may be chance."""

from collections.abc import Mapping, Sequence
from math import isnan, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from posterity.metrics.calibration import reliability
from posterity.metrics.selective import accuracy_of_the_surest, error_auroc
from posterity.predict.predictive import Classification, Quantiles
from posterity.report.data import LearntLatent, Model
from posterity.report.figures_classification import confusion
from posterity.report.figures_latents import Stds, interval_text, short_names
from posterity.report.figures_training import series
from posterity.report.summary import digits, percent
from posterity.types import PRIOR

TWO_SIGMA = 2.0


def calibration(name: str, predictive: Classification, targets: Tensor) -> str:
    """Compare what a model promises (mean confidence) with what it keeps (accuracy)."""
    gap = reliability(predictive.mean, targets).overconfidence
    confidence = predictive.confidence.double()
    chance = TWO_SIGMA * sqrt((confidence * (1 - confidence)).sum().item()) / len(targets)
    promise = confidence.mean().item()
    kept = f"it promises {percent(promise)} and keeps {percent(promise - gap)}"
    if abs(gap) <= chance:
        return f"{name} is honest within chance (±{100 * chance:.1f} points): {kept}."
    return f"{name} is {'over' if gap > 0 else 'under'}-confident by {100 * abs(gap):.1f} points: {kept}."


def coverage(name: str, observed: float, count: int, level: float = 0.9) -> str:
    """Compare how often intervals hold the truth with how often they should."""
    chance = TWO_SIGMA * sqrt(level * (1 - level) / count)
    held = f"its {level * 100:.0f}\N{NO-BREAK SPACE}% intervals hold {percent(observed)} of the targets"
    if abs(observed - level) <= chance:
        return f"{name} is honest within chance (±{100 * chance:.1f} points): {held}."
    return f"{name} is {'over' if observed < level else 'under'}-confident: {held}."


def below(name: str, predictive: Quantiles, targets: Tensor) -> str:
    """Say how many targets lie below each quantile."""
    shares = [float((targets <= predictive.quantile(q)).double().mean()) for q in predictive.levels]
    said = [f"{percent(share)} below that of {q:g}" for q, share in zip(predictive.levels, shares, strict=True)]
    return f"{name}: of {len(targets):,} targets {', '.join(said)}."


def mistakes(predictive: Classification, targets: Tensor, classes: Sequence[str]) -> str:
    """Name the commonest confusion."""
    count = confusion(predictive.labels, targets, len(classes))
    wrong = count.sum() - np.trace(count)
    if not wrong:
        return f"All {len(targets):,} predictions are right."
    np.fill_diagonal(count, 0)
    row, column = divmod(int(count.argmax()), len(classes))
    often = f"{count[row, column]} time{'s' if count[row, column] > 1 else ''}"
    commonest = f"most often a true “{classes[row]}” is called “{classes[column]}” ({often})"
    return f"{wrong:,} of {len(targets):,} are wrong; {commonest}."


def error_detection(predictive: Classification, targets: Tensor) -> str:
    """Say how well uncertainty tells wrong predictions from right ones."""
    right = predictive.labels.cpu() == targets.cpu()
    entropy, information = (error_auroc(u, right) for u in (predictive.entropy, predictive.mutual_information))
    if isnan(entropy):
        return "All predictions are right, or all are wrong: there is nothing to tell apart."
    return (
        f"A wrong prediction is more uncertain than a right one in {percent(entropy)} of pairs by entropy, "
        f"in {percent(information)} by mutual information (50 % would be useless)."
    )


def scatter(values: Tensor, predictive: Classification, targets: Tensor) -> str:
    """Say how well scattered labels, a small χ², point at wrong predictions."""
    right = predictive.labels.cpu() == targets.cpu()
    found = error_auroc(-values, right)
    if isnan(found):
        return ""
    medians = [digits(float(values[group].median())) for group in (right, ~right)]
    return (
        f"Median χ² of right predictions: {medians[0]}; of wrong ones: {medians[1]}. A wrong one has the smaller χ² in "
        f"{percent(found)} of pairs."
    )


def referral(predictive: Classification, targets: Tensor, share: float = 0.05) -> str:
    """Say what handing the most uncertain inputs to a person would bring."""
    kept = accuracy_of_the_surest(predictive.entropy, predictive.labels.cpu() == targets.cpu())
    some = max(round((1 - share) * len(kept)), 1)
    before, after = kept[-1].item(), kept[some - 1].item()
    gain = f"accuracy on the rest from {percent(before)} to {percent(after)}"
    return f"Referring the most uncertain {100 * share:.0f}\N{NO-BREAK SPACE}% takes {gain}."


def training(model: Model) -> str:
    """Say where the validation NLL was best, and whether it has turned; empty where it was not measured."""
    epochs, values = series(model.history, "nll", "validation")
    if len(values) < 2:
        return ""
    best = int(values.argmin())
    where = f"{model.name}: validation NLL was lowest at epoch {epochs[best]:.0f} of {epochs[-1]:.0f}"
    if best == len(values) - 1:
        return f"{where}, so more epochs might help."
    return f"{where}, and {values[-1] - values[best]:.3g} nats higher at the end."


def signal_to_noise(ratios: Tensor) -> str:
    """Say how many weights the data told apart from zero."""
    share = (ratios < 1).double().mean().item()
    return f"{percent(share)} of {ratios.numel():,} weights have a mean below one std: the data do not tell them from zero."


def residuals(std: NDArray[np.float64], error: NDArray[np.float64]) -> str:
    """Say whether larger predicted uncertainty went with larger errors (Spearman's rank correlation)."""
    if len(error) < 3 or np.ptp(std) == 0:
        return ""
    first, second = (values.argsort().argsort() for values in (std, np.abs(error)))
    rank = np.corrcoef(first, second)[0, 1]
    return f"Rank correlation of predicted std and actual error: {rank:.2f} (0: the width of a band says nothing)."


def learnt_stds(curves: Stds) -> tuple[str, ...]:
    """Say where empirical Bayes ended, at its extremes."""
    lasts = {name: stds[-1] for name, (_, stds) in curves.items()}
    return (_extremes("The prior's std, fitted to the data,", lasts),) if lasts else ()


def latents(found: Mapping[str, LearntLatent]) -> tuple[str, ...]:
    """Say which weights have the smallest and the largest scale, and what each number of the likelihood is."""
    numbers = {n: v for n, v in found.items() if v.draws.dim() == 1}
    scales = {n: v for n, v in found.items() if n.startswith(PRIOR)}
    common, named = short_names({n.removeprefix(PRIOR): v for n, v in scales.items()})
    said = []
    if len(scales) > 1:
        means = {n: v.draws.double().mean().item() for n, v in named.items()}
        said.append(_extremes(f"The prior's {common or 'scale'}", means))
    for name, latent in numbers.items():
        if name not in scales or len(scales) == 1:
            said.append(f"{name}: {interval_text(latent.draws.detach().cpu().double().numpy())}.")
    return tuple(said)


def _extremes(what: str, values: Mapping[str, float]) -> str:
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if low == high:
        return f"{what} is {digits(values[low])}."
    return f"{what} is smallest in {low}, {digits(values[low])}, and largest in {high}, {digits(values[high])}."
