"""How predictions do as inputs get worse, in pictures: one small panel per kind of corruption and score."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from posterity.posteriors.shift import SEVERITIES, Shift, shift_from
from posterity.report.section import Grid, Section
from posterity.report.style import INK, MODELS, MUTED, WIDE, Figure, quiet, svg
from posterity.report.summary import digits, percent

TITLES = {
    "accuracy": "accuracy, %",
    "nll": "NLL, nats",
    "ece": "ECE, %",
    "entropy": "entropy, nats",
    "mutual_information": "mutual inform., nats",
    "rmse": "RMSE",
    "coverage_90": "90 % coverage, %",
    "epistemic_std": "epistemic std",
    "aleatoric_std": "aleatoric std",
}
SHARES = ("accuracy", "ece", "coverage_90")
CLASSES = ("accuracy", "nll", "ece", "entropy")
VALUES = ("rmse", "nll", "coverage_90", "epistemic_std")


def section(values: Mapping[str, Any]) -> Section:
    """Show what `posterity shift` found."""
    found = {name: shift_from(one) for name, one in values["models"].items()}
    first = next(iter(found.values()))
    worst = SEVERITIES[-1]
    reading = (
        f"{first.count:,} test inputs, corrupted at severity 0 (as they are) to {worst}. Errors may grow to the right; a model "
        "that can be trusted then grows uncertain too, and its calibration stays."
    )
    figure = svg(plot_shift(found), "Scores against severity, a panel for each corruption and score.")
    return Section("Under shift", reading, verdict(found), (figure,), grids=(table(found),))


def verdict(found: Mapping[str, Shift]) -> str:
    """Say for each model how its error and its honesty change from clean inputs to the highest severity."""
    return "\n".join(_told(name, one.mean) for name, one in found.items())


def table(found: Mapping[str, Shift]) -> Grid:
    """Return the means over kinds, by severity; of two models the better value is in bold."""
    means = [one.mean for one in found.values()]
    rows: list[tuple[str, ...]] = []
    best: list[tuple[int, int]] = []
    for name in (n for n in TITLES if n in means[0]):
        for model, own in zip(found, means, strict=True):
            cells = tuple(_written(name, value) for value in own[name])
            best += [(len(rows), column) for column in range(len(cells)) if _better(name, own, means, column)]
            rows.append((f"{_plain(name)}: {model}", *cells))
    return Grid(("Mean over corruptions, severity", *map(str, SEVERITIES)), tuple(rows), frozenset(best))


def plot_shift(found: Mapping[str, Shift], scores: Sequence[str] = ()) -> Figure:
    """Draw scores against severity: a column per kind of corruption, a row per score, a line per model.

    found: by the model's name, the model first, then its twin; of the same kinds. scores: those of `Shift` that are drawn.
    """
    first = next(iter(found.values()))
    kinds = list(first.scores)
    own = first.scores[kinds[0]]
    rows = tuple(scores) or (CLASSES if "accuracy" in own else VALUES)
    width = min(WIDE, 1.6 + 2.2 * len(kinds))
    figure = Figure(figsize=(width, 0.7 + 1.35 * len(rows)), layout=ConstrainedLayoutEngine(wspace=0.02, hspace=0.03))
    grid = figure.subplots(len(rows), len(kinds), squeeze=False, sharex=True, sharey="row")
    for axes, score in zip(grid, rows, strict=True):
        for ax, kind in zip(axes, kinds, strict=True):
            for one, colour in zip(found.values(), MODELS, strict=False):
                scale = 100 if score in SHARES else 1
                values = [scale * v for v in one.scores[kind][score]]
                if score == "epistemic_std" and not any(values):
                    continue  # a point's
                ax.plot(SEVERITIES, values, "o-", color=colour, linewidth=1.5, markersize=2.8)
            quiet(ax)
            ax.tick_params(labelsize=8.5)
        if score == "coverage_90":
            for ax in axes:
                ax.axhline(90, color=INK, linewidth=0.8, linestyle="--")
        axes[0].set_ylabel(TITLES[score], fontsize=9, color=MUTED)
        _ticks(axes[0], score)
    for ax, kind in zip(grid[0], kinds, strict=True):
        ax.set_title(kind, loc="left", fontsize=10, color=INK)
    for ax in grid[-1]:
        ax.set_xticks(SEVERITIES)
    figure.supxlabel("severity", fontsize=9.5, color=MUTED)
    handles = [grid[0][0].lines[i] for i in range(min(len(found), len(MODELS)))]
    figure.legend(handles, list(found), loc="outside upper right", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _ticks(ax: Any, score: str) -> None:
    ax.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    if score not in ("nll", "coverage_90"):
        ax.set_ylim(bottom=0)
    if score == "accuracy":
        ax.set_ylim(0, 103)
        ax.set_yticks([0, 50, 100])


def _told(name: str, mean: Mapping[str, Sequence[float]]) -> str:
    if "accuracy" in mean:
        fall = f"accuracy falls from {percent(mean['accuracy'][0])} to {percent(mean['accuracy'][-1])}"
        rise = f"its entropy goes from {digits(mean['entropy'][0])} to {digits(mean['entropy'][-1])} nats"
        return f"{name}: {fall} at severity 5, its ECE is then {percent(mean['ece'][-1])}; {rise}."
    rise = f"RMSE goes from {digits(mean['rmse'][0])} to {digits(mean['rmse'][-1])}"
    held = f"its 90 % intervals then hold {percent(mean['coverage_90'][-1])} of the targets"
    return f"{name}: {rise} at severity 5, {held}; its epistemic std goes from {_change(mean['epistemic_std'])}."


def _change(values: Sequence[float]) -> str:
    return f"{digits(values[0])} to {digits(values[-1])}"


def _plain(name: str) -> str:
    text = TITLES[name].partition(",")[0].replace("inform.", "information")
    return text[0].upper() + text[1:]


def _written(name: str, value: float) -> str:
    return percent(value) if name in SHARES else digits(value)


def _better(
    name: str, own: Mapping[str, Sequence[float]], models: Sequence[Mapping[str, Sequence[float]]], column: int
) -> bool:
    """Tell whether a model's value is the better one of two that are printed differently."""
    values = [one[name][column] for one in models]
    costs = {"accuracy": -1.0, "nll": 1.0, "ece": 1.0, "rmse": 1.0}
    if len({_written(name, value) for value in values}) < 2 or name not in (*costs, "coverage_90"):
        return False
    if name == "coverage_90":
        return abs(own[name][column] - 0.9) == min(abs(value - 0.9) for value in values)
    return costs[name] * own[name][column] == min(costs[name] * value for value in values)
