"""What pruning costs, in a picture: error and NLL against the share of weights that are gone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from posterity.compress.prune import SparsityCurve, SparsityPoint
from posterity.report.section import Grid, Section
from posterity.report.style import (
    ALEATORIC,
    BAYESIAN,
    EPISTEMIC,
    INK,
    MUTED,
    TWIN,
    Axes,
    label,
    legend,
    panels,
    svg,
    wide_range,
)

NAMES = {"signal_to_noise": "signal-to-noise", "kl": "KL", "magnitude": "magnitude"}
COLOURS = (BAYESIAN, EPISTEMIC, TWIN, ALEATORIC, MUTED)
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
READING = (
    "Weights are removed from the trained posterior, the least important first, by one threshold for all layers; nothing is "
    "trained after. Signal-to-noise is |μ|/σ, KL the log evidence that goes with a weight, magnitude |μ|. Solid: draws "
    "averaged; dotted: the mean network. The scale below is logarithmic in the weights that are left."
)


def section(values: Mapping[str, Any]) -> Section:
    """Show what `posterity prune` found."""
    curves = {NAMES.get(by, by): curve_from(by, points) for by, points in values["curves"].items()}
    figure = plot_pruning(curves, values["sparsity"])
    grids = (_scores(values), _layers(values))
    drawn = svg(figure, "Error and NLL against the share of weights removed.")
    where = "validation" if values["scored_on"] == "validation" else "test"
    return Section("What can be pruned", f"{READING} Curves: {where} data.", verdict(values), (drawn,), grids=grids)


def verdict(values: Mapping[str, Any]) -> str:
    """Say what the chosen sparsity leaves and costs."""
    kept, total = (sum(counts[i] for counts in values["layers"].values()) for i in (0, 1))
    score = "accuracy" if "accuracy" in values["test"]["before"] else "rmse"
    before, after = (_written(score, values["test"][part][score]) for part in ("before", "after"))
    unit = " %" if score == "accuracy" else ""
    return (
        f"{100 * values['sparsity']:.4g} % of the weights can go by {NAMES[values['by']]}: {kept:,} of {total:,} are left. "
        f"Test {'accuracy' if unit else 'RMSE'}: {before}{unit} before, {after}{unit} after."
    )


def curve_from(by: str, points: Sequence[Mapping[str, Any]]) -> SparsityCurve:
    """Read a curve from JSON values, as `dataclasses.asdict` writes its points."""
    return SparsityCurve(by, tuple(SparsityPoint(p["sparsity"], p["draws"], p["mean"]) for p in points))


def plot_pruning(curves: Mapping[str, SparsityCurve], chosen: float | None = None) -> Figure:
    """Draw error rate (or RMSE) and NLL against sparsity, a colour per curve; `chosen` is marked."""
    first = next(iter(curves.values())).points[0].draws
    figure, axes = panels(2, height=3.5)
    parts = (("accuracy", "Error rate, %"), ("nll", "NLL, nats per example"))
    if "accuracy" not in first:
        parts = (("rmse", "RMSE"), ("nll", "NLL, nats per example"))
    for ax, (score, title) in zip(axes, parts, strict=True):
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            left = [_left(p) for p in curve.points]
            ax.plot(left, [_shown(p.draws, score) for p in curve.points], color=colour, linewidth=1.8, label=name)
            if all(score in p.mean for p in curve.points):
                ax.plot(left, [_shown(p.mean, score) for p in curve.points], ":", color=colour, linewidth=1.3)
        if chosen is not None:
            ax.axvline(-np.log10(1 - chosen), ymax=0.7, color=INK, linewidth=1, linestyle="--")
        _sparsity_axis(ax, curves)
        values = np.concatenate([np.asarray(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) > 2])
        wide_range(ax.yaxis, float(values.min()), float(values.max()))
        label(ax, title, "weights removed")
    legend(axes[0], loc="upper left")
    return figure


def _sparsity_axis(ax: Axes, curves: Mapping[str, SparsityCurve]) -> None:
    last = max(p.sparsity for curve in curves.values() for p in curve.points)
    ticks = [t for t in TICKS if t <= last]
    ax.set_xticks([-np.log10(1 - t) for t in ticks], [f"{100 * t:g} %" for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())


def _left(point: SparsityPoint) -> float:
    return float(-np.log10(1 - point.sparsity))


def _shown(scores: Mapping[str, float], score: str) -> float:
    return 100 * (1 - scores[score]) if score == "accuracy" else scores[score]


def _scores(values: Mapping[str, Any]) -> Grid:
    """Tabulate test scores before and after."""
    before, after, mean = (values["test"][k] for k in ("before", "after", "mean"))
    names = {"accuracy": "Accuracy, %", "rmse": "RMSE", "nll": "NLL"}
    rows = tuple((names[k], *(_written(k, s[k]) for s in (before, after, mean))) for k in names if k in before)
    return Grid(("test set", "all weights", "pruned", "pruned, mean network"), rows)


def _written(key: str, value: float) -> str:
    return f"{100 * value:.2f}" if key == "accuracy" else f"{value:.4g}"


def _layers(values: Mapping[str, Any]) -> Grid:
    rows = tuple(
        (name, f"{kept:,}", f"{total:,}", f"{100 * (1 - kept / total):.1f} %")
        for name, (kept, total) in values["layers"].items()
    )
    return Grid(("layer", "weights left", "of", "removed"), rows)
