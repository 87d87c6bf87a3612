"""Contenders in one picture each: calibration, risk against coverage, training, and detection of strangers."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from posterity.metrics.calibration import CoverageCurve, Reliability
from posterity.report.contenders import Contender, Result, colour
from posterity.report.figures_training import Series, series
from posterity.report.section import Section
from posterity.report.style import HALF, INK, MUTED, WIDE, Axes, Figure, label, legend, panels, quiet, svg, wide_range

Vector = NDArray[np.float64]
FEWEST = 10  # predictions that a point of a reliability curve stands for
LEAST = 0.05  # coverage below which so few predictions are kept that their risk is noise
CURVE = 300  # points that draw a curve
KINDS = {"entropy": "-", "std": "-", "mutual_information": "--", "epistemic_std": "--"}
SETS = 4


def sections(contenders: Sequence[Contender], task: str) -> tuple[Section, ...]:
    """Return the sections of the figures that the contenders have data for."""
    classes = task == "classification"
    kept = (
        "Predictions are kept in the order of their probability, the surest first: the error among the kept should fall to the "
        "left, and the lower curve is better at knowing what it knows."
        if classes
        else "Predictions are kept in the order of their predicted standard deviation: the error among the kept should fall "
        "to the left."
    )
    promise = (
        "Points on the dashed line are honest; below it a contender promises too much. Larger points stand for more "
        f"predictions; those of fewer than {FEWEST} are left out. Right: the same, as a gap."
        if classes
        else "An interval of level 90 % should hold 90 % of the targets; below the dashed line intervals are too narrow."
    )
    found = [
        Section("Do they keep their promises?", promise, figures=(svg(plot_calibration(contenders), "Calibration."),)),
        Section("What they get wrong when sure", kept, figures=(svg(plot_risk_coverage(contenders, task), "Risk."),)),
    ]
    key = "accuracy" if classes else "rmse"
    if any(r.history for c in contenders for r in c.results):
        reading = (
            "Validation data, of every run and member, epoch by epoch; of runs without any, the training data (dotted). Other "
            "objectives and schedules make epochs of unlike worth: the cost is in the table above."
        )
        found.append(Section("Training", reading, figures=(svg(plot_training_curves(contenders, key), "Training."),)))
    if common_sets(contenders):
        reading = (
            "Share of strangers that are found against the share of the run's own test data that is refused with them, as "
            "posterity ood found; solid by total uncertainty, dashed by its epistemic part. Upper left is better."
        )
        found.append(Section("Knowing strangers", reading, figures=(svg(plot_detection(contenders), "ROC curves."),)))
    return tuple(found)


def plot_calibration(contenders: Sequence[Contender]) -> Figure:
    """Draw reliability curves and their gap to the diagonal, or the coverage of intervals; seeds are pooled or averaged."""
    classes = isinstance(contenders[0].results[0].calibration, Reliability)
    figure, (ax, gap) = panels(2, height=4.0)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    gap.axhline(0, color=MUTED, linewidth=1, linestyle="--")
    for index, contender in enumerate(contenders):
        stated, true, weight = _calibration(contender)
        style = {"color": colour(index), "linewidth": 1.6}
        sizes = 10 + 110 * weight
        for part, values in ((ax, true), (gap, 100 * (true - stated))):
            part.plot(stated, values, **style, label=contender.name)
            part.scatter(stated, values, sizes, color=colour(index), alpha=0.8, linewidths=0)
    what = ("confidence", "fraction right") if classes else ("level of the interval", "targets inside")
    label(ax, "Reliability" if classes else "Coverage of intervals", *what)
    label(gap, f"{what[1].capitalize()} − {what[0]}", what[0], "percentage points")
    _legend_above(figure, ax)
    return figure


def plot_risk_coverage(contenders: Sequence[Contender], task: str) -> Figure:
    """Draw the error among the kept against the share that is kept: the mean over seeds, with a band of one std."""
    figure, (ax,) = panels(1, width=HALF * 1.5, height=3.6)
    coverage = np.linspace(LEAST, 1, CURVE)
    for index, contender in enumerate(contenders):
        rows = np.stack([np.interp(coverage, r.risk.coverage.numpy(), r.risk.risk.numpy()) for r in contender.results])
        rows = 100 * rows if task == "classification" else np.sqrt(rows)
        _band(ax, 100 * coverage, rows, index, contender.name)
    ax.set_ylim(bottom=0)
    label(
        ax,
        "",
        "% of predictions kept, the surest first",
        "% wrong among the kept" if task == "classification" else "RMSE",
    )
    legend(ax, loc="upper left")
    return figure


def plot_training_curves(contenders: Sequence[Contender], score: str) -> Figure:
    """Draw NLL and score ("accuracy" or "rmse") on validation data, a line per run and member."""
    figure, axes = panels(2, height=3.4)
    for ax, key, title in ((axes[0], "nll", "NLL, nats per example"), (axes[1], score, _titled(score))):
        for index, contender in enumerate(contenders):
            lines = [line for r in contender.results for line in _lines(r, key)]
            for at, ((epochs, values), style) in enumerate(lines):
                said = contender.name if at == 0 else None
                ax.plot(epochs, values, style, color=colour(index), linewidth=1.3, alpha=0.8, label=said)
        label(ax, title, "epoch")
        shown = np.concatenate([line.get_ydata() for line in ax.lines] or [np.zeros(1)])
        if key == "nll":
            wide_range(ax.yaxis, shown.min(), shown.max())
    _legend_above(figure, axes[0])
    return figure


def plot_detection(contenders: Sequence[Contender]) -> Figure:
    """Draw ROC curves of detecting each set that all contenders with such findings were held against; means over seeds."""
    sets = common_sets(contenders)[:SETS]
    figure = Figure(figsize=(min(max(WIDE * len(sets) / 3, HALF * 1.2), WIDE), 3.8), layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    alarms = np.geomspace(1e-3, 1, CURVE)
    for ax, other in zip(axes, sets, strict=True):
        quiet(ax)
        ax.plot(alarms, alarms, color=MUTED, linewidth=0.8, linestyle=":")
        for index, contender in enumerate(contenders):
            own = [r.curves[other] for r in contender.results if other in r.curves]
            for kind, dash in KINDS.items():
                rows = [np.interp(alarms, c[kind]["fpr"], c[kind]["tpr"]) for c in own if kind in c]
                if rows and (dash == "-" or max(r.draws for r in contender.results) > 1):
                    said = contender.name if dash == "-" else None
                    ax.plot(alarms, np.mean(rows, 0), dash, color=colour(index), linewidth=1.6, label=said)
        ax.set_xscale("log")
        ax.set_xlim(1e-3, 1)
        ax.set_xticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
        ax.set_ylim(0, 1.02)
        label(
            ax, f"against {other}", "share of test inputs refused", "share of strangers found" if ax is axes[0] else ""
        )
    _legend_above(figure, axes[0])
    return figure


def common_sets(contenders: Sequence[Contender]) -> list[str]:
    """Return the sets that every run with ROC curves has, where two contenders have some."""
    having = [c for c in contenders if any(r.curves for r in c.results)]
    runs = [r.curves for c in having for r in c.results if r.curves]
    return [other for other in runs[0] if all(other in own for own in runs)] if len(having) > 1 else []


def _calibration(contender: Contender) -> tuple[Vector, Vector, Vector]:
    """Return what was stated, how often it was true, and the share of predictions behind each point."""
    curves = [r.calibration for r in contender.results]
    diagrams = [c for c in curves if isinstance(c, Reliability)]
    if diagrams:
        count = torch.stack([d.count for d in diagrams])
        stated, true = (
            (torch.stack([getattr(d, part) for d in diagrams]).nan_to_num(0) * count).sum(0) / count.sum(0)
            for part in ("confidence", "accuracy")
        )
        enough = count.sum(0) >= FEWEST * len(diagrams)
        return tuple(v[enough].numpy() for v in (stated, true, count.sum(0) / count.sum()))  # type: ignore[return-value]
    levels = [c for c in curves if isinstance(c, CoverageCurve)]
    true = torch.stack([c.coverage for c in levels]).mean(0)
    return levels[0].level.numpy(), true.numpy(), np.full(len(true), 0.1)


def _band(ax: Axes, x: Vector, rows: Vector, index: int, name: str) -> None:
    mean = rows.mean(0)
    ax.plot(x, mean, color=colour(index), linewidth=1.8, label=name)
    if len(rows) > 1:
        std = rows.std(0, ddof=1)
        ax.fill_between(x, np.maximum(mean - std, 0), mean + std, color=colour(index), alpha=0.15, linewidth=0)


def _lines(result: Result, key: str) -> list[tuple[Series, str]]:
    """Return the curve of each member of a run, and its line style: of validation data, or else of training data."""
    lines = []
    for _, group in groupby(result.history, key=lambda row: row.get("run", "")):
        rows = list(group)
        held_out = series(rows, key, "validation")
        chosen = (held_out, "-") if len(held_out[0]) else (series(rows, key), ":")
        if len(chosen[0][0]):
            lines.append(chosen)
    return lines


def _legend_above(figure: Figure, ax: Axes) -> None:
    handles, names = ax.get_legend_handles_labels()
    widest = max(8 + len(name) for name in names)  # in letters, of 140 that have room
    columns = len(names) if sum(8 + len(name) for name in names) < 140 else max(1, 140 // widest)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)


def _titled(score: str) -> str:
    return {"rmse": "RMSE"}.get(score, score.capitalize())
