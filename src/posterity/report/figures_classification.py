"""Are the probabilities honest, which classes are confused, and does uncertainty point at the mistakes?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from torch import Generator, Tensor

from posterity.metrics.calibration import reliability
from posterity.metrics.selective import accuracy_of_the_surest
from posterity.predict.decomposition import chi_square, drawn_labels
from posterity.predict.predictive import Classification
from posterity.report.style import (
    BAYESIAN,
    HALF,
    INK,
    MODELS,
    MUTED,
    RIGHT,
    WIDE,
    WRONG,
    Figure,
    label,
    legend,
    panels,
    quiet,
)
from posterity.report.summary import percent

LABELS = 100  # drawn for each input, at least
LEGIBLE = 20  # a confusion matrix of more classes has no room for numbers


def plot_reliability(predictives: Mapping[str, Classification], targets: Tensor, bins: int = 15) -> Figure:
    """Draw accuracy against confidence, with 90 % binomial bars, above the count of each bin; a column per model."""
    figure = Figure(figsize=(WIDE if len(predictives) > 1 else HALF, 4.4), layout="constrained")
    grid = figure.subplots(2, len(predictives), squeeze=False, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, bins + 1)
    for column, ((name, predictive), colour) in enumerate(zip(predictives.items(), MODELS, strict=False)):
        diagram = reliability(predictive.mean, targets, bins)
        some = diagram.count.numpy() > 0
        confidence, accuracy, count = (
            values.numpy()[some] for values in (diagram.confidence, diagram.accuracy, diagram.count)
        )
        upper, lower = grid[:, column]
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        bars = np.abs(np.stack(_wilson(accuracy, count)) - accuracy)
        upper.errorbar(confidence, accuracy, bars, fmt="o-", color=colour, markersize=5, linewidth=1.2, elinewidth=1)
        lower.bar((edges[:-1] + edges[1:])[some] / 2, count, width=0.9 / bins, color=colour, alpha=0.8)
        lower.set_yscale("log")
        lower.set_ylim(bottom=0.7)
        for ax in (upper, lower):
            quiet(ax)
        label(upper, f"{name}: ECE {percent(diagram.ece)}", "", "fraction right")
        label(lower, "", "confidence (probability of the predicted class)", "predictions")
        upper.set_xlim(0, 1.02)
        upper.set_ylim(0, 1.03)
    return figure


def plot_confusion(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the counts of (true, predicted): right in blue, wrong in red, shaded by the share of the true class."""
    count = confusion(predicted, targets, len(classes))
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    diagonal = np.eye(len(classes), dtype=bool)
    side = min(3.2 + 0.22 * len(classes), 7.0)
    figure, (ax,) = panels(1, width=side, height=side * 0.95)
    ax.grid(visible=False)
    for mask, colour, top in (
        (~diagonal, BAYESIAN, 1.6),
        (diagonal, WRONG, max(share[~diagonal].max(initial=0), 0.02) * 1.4),
    ):
        shades = LinearSegmentedColormap.from_list("shade", ["#ffffff", colour])
        ax.imshow(np.ma.array(share, mask=mask), cmap=shades, vmin=0, vmax=top)
    if len(classes) <= LEGIBLE:
        for row, column in zip(*np.nonzero(count), strict=True):
            ax.text(column, row, int(count[row, column]), ha="center", va="center", fontsize=8.5, color=INK)
        ax.set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 4 else 60)
        ax.set_yticks(range(len(classes)), classes)
    label(ax, "", "predicted class", "true class")
    return figure


def plot_uncertainty(predictive: Classification, targets: Tensor) -> Figure:
    """Draw how entropy and mutual information are distributed among right and among wrong predictions."""
    right = (predictive.labels.cpu() == targets.cpu()).numpy()
    figure, axes = panels(2)
    for ax, values, title in (
        (axes[0], predictive.entropy, "Entropy: all uncertainty"),
        (axes[1], predictive.mutual_information, "Mutual information: the epistemic part"),
    ):
        nats = values.detach().cpu().numpy()
        edges = np.linspace(0, max(float(nats.max()), 1e-6), 31)
        for group, colour, name in ((right, RIGHT, "right"), (~right, WRONG, "wrong")):
            if group.any():
                weights = np.full(group.sum(), 1 / group.sum())
                style = {"color": colour, "alpha": 0.55, "label": f"{name} ({group.sum():,})"}
                ax.hist(nats[group], edges, weights=weights, **style)
        label(ax, title, "nats", "share of its group")
        legend(ax)
    return figure


def plot_chi_square(predictive: Classification, targets: Tensor) -> Figure:
    """Draw how evenly labels drawn for each input are spread over the classes, of right and of wrong predictions.

    χ² = Σ_c (n_c − n/C)² / (n/C) of n drawn labels, at least 100 and equally many from each function: n (C − 1) where all are
    equal, about C − 1 where all classes are alike (Wiecki & Kucukelbir, 2017, showed it for a PyMC3 network). Left: shares
    of each group; right: the share of each group that is no larger.
    """
    values, count = scattered(predictive)
    numbers, classes = values.numpy(), predictive.mean.shape[-1]
    right = (predictive.labels.cpu() == targets.cpu()).numpy()
    most = count * (classes - 1)
    edges = np.linspace(0, most, 31)
    figure, (shares, below) = panels(2)
    for group, colour, name in ((right, RIGHT, "right"), (~right, WRONG, "wrong")):
        if not group.any():
            continue
        own = np.sort(numbers[group])
        style = {"color": colour, "alpha": 0.55, "label": f"{name} ({len(own):,})"}
        shares.hist(own, edges, weights=np.full(len(own), 1 / len(own)), **style)
        steps = np.concatenate([[0.0], own, [most]])
        reached = np.concatenate([[0.0], np.arange(1, len(own) + 1) / len(own), [1.0]])
        below.step(steps, 100 * reached, where="post", color=colour, linewidth=1.8)
    axis = f"χ² of {count} drawn labels (all equal: {most:,})"
    label(shares, "Scattered labels to the left, equal ones to the right", axis, "share of its group")
    label(below, "How much of each group is no surer", axis, "% of its group")
    legend(shares, loc="upper center")
    return figure


def scattered(predictive: Classification, least: int = LABELS) -> tuple[Tensor, int]:
    """Return χ² of labels drawn for each input, (B,), and their number: equally many from each function, `least` or more."""
    probs = predictive.probs.detach().cpu()
    times = -(-least // len(probs))
    generator = Generator().manual_seed(0)  # the page is the same whenever it is made
    labels = torch.cat([drawn_labels(probs, generator) for _ in range(times)])
    return chi_square(labels, probs.shape[-1]), len(labels)


def plot_referral(predictives: Mapping[str, Classification], targets: Tensor) -> Figure:
    """Draw the accuracy on what remains when the most uncertain predictions are handed to a person."""
    figure, (ax,) = panels(1, width=HALF * 1.3)
    for (name, predictive), colour in zip(predictives.items(), MODELS, strict=False):
        right = predictive.labels.cpu() == targets.cpu()
        kept = accuracy_of_the_surest(predictive.entropy, right).numpy()
        shown = np.unique(np.linspace(len(kept) / 2, len(kept), 200).astype(int)) - 1
        ax.plot(100 * (1 - (shown + 1) / len(kept)), 100 * kept[shown], color=colour, linewidth=1.8, label=name)
    label(ax, "", "% of inputs referred, the most uncertain first", "% right among the rest")
    legend(ax, loc="lower right")
    return figure


def confusion(predicted: Tensor, targets: Tensor, classes: int) -> NDArray[np.int64]:
    """Return the counts, rows the true class, columns the predicted one, shape (C, C)."""
    index = targets.cpu().long() * classes + predicted.cpu().long()
    return np.bincount(index.numpy(), minlength=classes**2).reshape(classes, classes)


def _wilson(
    fraction: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 90 % interval of a binomial fraction (Wilson, 1927)."""
    z = 1.6449
    centre = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.minimum(centre - half, fraction), np.maximum(centre + half, fraction)
