"""Learning curves of active learning: how good predictions are with how many labels, chosen by what."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from posterity.decide.simulate import Round
from posterity.report.style import (
    ALEATORIC,
    BAYESIAN,
    EPISTEMIC,
    INK,
    MUTED,
    RIGHT,
    TWIN,
    WRONG,
    Axes,
    label,
    legend,
    panels,
    wide_range,
)

COLOURS = {
    "bald": BAYESIAN,
    "batch_bald": EPISTEMIC,
    "entropy": TWIN,
    "least_confidence": ALEATORIC,
    "variation_ratio": WRONG,
    "variance": BAYESIAN,
    "log_determinant": EPISTEMIC,
    "random": MUTED,
}
TITLES = {"accuracy": "Accuracy on test data", "rmse": "RMSE on test data", "nll": "NLL, nats per example"}


def plot_learning_curves(curves: Mapping[str, Sequence[Sequence[Round]]], target: float | None = None) -> Figure:
    """Draw scores against labels: for each way to choose the mean over seeds, and the range of them as a band.

    Args:
        curves: for each acquisition score the rounds of each seed; of seeds that got farther, only what all have is drawn.
        target: accuracy (or RMSE) to draw a line at.
    """
    first = next(iter(curves.values()))[0][0].scores
    score = "accuracy" if "accuracy" in first else "rmse"
    figure, axes = panels(2, height=3.6)
    for ax, key in zip(axes, (score, "nll"), strict=True):
        for name, seeds in curves.items():
            _curve(ax, name, seeds, key)
        label(ax, TITLES[key], "labels")
    if score == "accuracy":
        axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if target is not None:
        axes[0].axhline(target, color=INK, linewidth=1, linestyle="--")
    shown = np.concatenate([np.asarray(line.get_ydata()) for line in axes[1].lines])
    wide_range(axes[1].yaxis, float(shown.min()), float(shown.max()))
    legend(axes[0], loc="lower right" if score == "accuracy" else "upper right")
    return figure


def _curve(ax: Axes, name: str, seeds: Sequence[Sequence[Round]], key: str) -> None:
    length = min(len(rounds) for rounds in seeds)
    labels = [r.labels for r in seeds[0][:length]]
    values = np.array([[r.scores[key] for r in rounds[:length]] for rounds in seeds])
    colour = COLOURS.get(name, RIGHT)
    if len(values) > 1:
        ax.fill_between(labels, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    ax.plot(labels, values.mean(0), color=colour, linewidth=1.8, label=name.replace("_", " "))
