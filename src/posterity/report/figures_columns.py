"""What each column of a table did, in pictures, and the rows that were predicted worst, by name."""

from collections.abc import Sequence
from math import floor, log10

import numpy as np
import torch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from posterity.posteriors.columns import Importance
from posterity.predict.checks import existing
from posterity.predict.predictive import AnyPredictive, Classification, Quantiles
from posterity.report.cells import Cells, moment
from posterity.report.data import ReportData
from posterity.report.effects import SHOWN, Along, Effects
from posterity.report.section import Grid, Section
from posterity.report.style import BAYESIAN, EPISTEMIC, HALF, INK, MUTED, TICK, Axes, Figure, label, panels, plain, svg
from posterity.report.summary import digits, percent
from posterity.text import short, visible
from posterity.weighing import there

WORST, NAME = 10, 40  # rows, and characters of a name


def sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections of a table; none for any other data."""
    if data.cells is None:
        return ()
    found = () if data.effects is None else (_importance(data.effects, data.task), *_along(data.effects, data.cells))
    return (*found, *_worst(data, data.cells))


def plot_importance(effects: Effects) -> Figure:
    """Draw what is lost without each of the first columns, with the interval that holds 90 % of the functions."""
    shown = effects.importances[:SHOWN]
    figure, (ax,) = panels(1, width=HALF, height=1.0 + 0.28 * len(shown))
    rows = range(len(shown))
    ax.axvline(0, color=MUTED, linewidth=1)
    lower, upper = zip(*(one.interval(0.9) for one in shown), strict=True)
    ax.hlines(rows, lower, upper, color=BAYESIAN, linewidth=2, alpha=0.55)
    ax.plot([one.loss for one in shown], rows, "o", color=BAYESIAN, markersize=5)
    _named(ax, [one.name for one in shown])
    plain(ax.xaxis)
    label(ax, "Lost without a column", "nats per row")
    return figure


def plot_along(along: Along, outcome: str, cells: Cells, reach: tuple[float, float] | None = None) -> Figure:
    """Draw what is expected along one column, with the band of the functions; ticks mark the tenths of the rows.

    reach: of what is expected, the same for columns that stand beside each other.
    """
    figure, (ax,) = panels(1, width=HALF, height=1.2 + 0.24 * len(along.cells) if along.apart else 2.9)
    names = [cells.written(along.name, cell) for cell in along.cells]
    if along.apart:
        rows = range(len(names))
        ax.hlines(rows, along.lower, along.upper, color=EPISTEMIC, linewidth=2, alpha=0.55)
        ax.plot(along.mean, rows, "o", color=BAYESIAN, markersize=5)
        _named(ax, names)
        plain(ax.xaxis)
        label(ax, short(along.name, NAME), short(outcome, NAME))
    else:
        ax.fill_between(along.cells, along.lower, along.upper, color=EPISTEMIC, alpha=0.3, linewidth=0)
        ax.plot(along.cells, along.mean, color=BAYESIAN, linewidth=1.8)
        ax.plot(
            along.marks, np.zeros(len(along.marks)), "|", color=INK, markersize=7, transform=ax.get_xaxis_transform()
        )
        plain(ax.yaxis)
        if cells.columns[along.name].kind == "date":
            ax.xaxis.set_major_locator(MaxNLocator(3))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda day, _: moment(day, False)))
        else:
            plain(ax.xaxis)
        label(ax, short(along.name, NAME), "", short(outcome, NAME))
    if reach is not None:
        (ax.set_xlim if along.apart else ax.set_ylim)(*reach)
    return figure


def _named(ax: Axes, names: Sequence[str]) -> None:
    """Put names at the rows of a figure, the first at the top."""
    ax.set_yticks(range(len(names)), told_apart(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def _importance(effects: Effects, task: str) -> Section:
    shown, rest = effects.importances[:SHOWN], effects.importances[SHOWN:]
    times = f", {effects.shuffles} times" if effects.shuffles > 1 else ""
    over = (
        ": by the middle one of the drawn functions, and the interval that holds 90 % of them"
        if effects.draws > 1
        else ""
    )
    reading = (
        "Permutation importance (Breiman 2001; Fisher et al. 2019): the cells of one column are exchanged among "
        f"{effects.rows:,} test rows{times}, and this is what is lost of the log score{over}. It says what this model makes of "
        "a column, not what causes the target, and columns that say the same share it."
    )
    said = [_first(shown[0], task)]
    if silent := [one for one in effects.importances if one.interval(0.9)[0] <= 0]:
        many = f"{len(silent):,} of {len(effects.importances):,} columns"
        said.append(f"{many} may be worth nothing: what the functions lose without them reaches 0.")
    if rest:
        said.append(
            f"Not shown: {len(rest):,} columns, without each of which at most {digits(rest[0].loss)} nats are lost."
        )
    if len(effects.importances) < effects.columns:
        said.append(f"Of {effects.columns:,} columns those were measured that matter most by a rough look.")
    heads = (
        "Column",
        "Nats per row",
        "90 % of functions",
        "Accuracy lost" if task == "classification" else "RMSE gained",
    )
    return Section(
        "What each column did",
        reading,
        "\n".join(said),
        (svg(plot_importance(effects), "What is lost in log score without each column, with intervals."),),
        grids=(Grid(heads, tuple(_row(one, task) for one in shown)),),
    )


def _first(one: Importance, task: str) -> str:
    """Say what the most important column is worth."""
    if one.loss <= 0:
        return "No column is worth anything to this model: without any of them it does as well."
    lower, upper = one.interval(0.9)
    spread = f" ({small(lower)} to {small(upper)})" if len(one.losses) > 1 else ""
    what = f"; {_error(one.error, task)}" if one.error is not None else ""
    return f"Most is lost without “{short(one.name)}”: {small(one.loss)} nats per row{spread}{what}."


def _error(error: float, task: str) -> str:
    if task == "classification":
        return (
            f"accuracy falls by {100 * error:.1f} points"
            if error >= 0
            else f"accuracy rises by {-100 * error:.1f} points"
        )
    return f"RMSE {'rises' if error >= 0 else 'falls'} by {digits(abs(error))}"


def _row(one: Importance, task: str) -> tuple[str, ...]:
    lower, upper = one.interval(0.9)
    spread = f"{small(lower)} to {small(upper)}" if len(one.losses) > 1 else "–"
    if one.error is None:
        return short(one.name, NAME), small(one.loss), spread, "–"
    error = f"{100 * one.error:.1f} points" if task == "classification" else signed(one.error)
    return short(one.name, NAME), small(one.loss), spread, error


def _along(effects: Effects, cells: Cells) -> tuple[Section, ...]:
    if not effects.along:
        return ()
    low, high = min(one.lower.min() for one in effects.along), max(one.upper.max() for one in effects.along)
    room = 0.05 * (high - low) or 1.0
    reading = (
        "Partial dependence (Friedman 2001): one column is set to a value in all rows, and the predictions are averaged. Line "
        "or dot: their mean; band: 90 % of the drawn functions, without the noise of single rows. Small ticks mark tenths of "
        "the test rows: where there are none the functions extrapolate. Columns that go together are torn apart by this."
    )
    hidden = [
        f"{short(one.name)}: {one.hidden:,} rarer categories are not shown." for one in effects.along if one.hidden
    ]
    figures = tuple(
        svg(plot_along(one, effects.outcome, cells, (low - room, high + room)), f"{effects.outcome} along {one.name}.")
        for one in effects.along
    )
    return (Section("Along each column", reading, "\n".join(hidden), figures),)


def _worst(data: ReportData, cells: Cells) -> tuple[Section, ...]:
    """List the rows whose target is least likely by the prediction."""
    predictive = data.bayesian.predictive
    if isinstance(predictive, Quantiles):
        return ()
    known = there(data.targets)
    logs = predictive.log_prob(data.targets).detach().cpu().double()
    order = logs.masked_fill(~known, torch.inf).argsort(stable=True)[: min(WORST, int(known.sum()))].tolist()
    if isinstance(predictive, Classification):
        heads, rows = _of_classes(predictive, data, order)
        reading = "The rows whose class was given the least probability, with what was predicted instead."
    else:
        heads, rows = _of_numbers(predictive, data, order)
        reading = (
            "The rows whose target is least likely. z: how many standard deviations the target is from the prediction; beyond "
            "2 lie some 5 % of honest ones."
        )
    reading += (
        " log p: the log score of the row, in nats. Rows are counted from 1, below the header, without those that have no "
        "target."
    )
    lines = tuple((cells.rows[i], *row, f"{logs[i]:.2f}".replace("-", "−")) for i, row in zip(order, rows, strict=True))
    return (Section("The worst predicted rows", reading, grids=(Grid(("Row", *heads, "log p"), lines),)),)


Lines = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _of_classes(predictive: Classification, data: ReportData, order: Sequence[int]) -> Lines:
    rows: list[tuple[str, ...]] = []
    for i in order:
        true, said = int(data.targets[i]), int(predictive.labels[i])
        of_said, of_true = (percent(float(predictive.mean[i, c])) for c in (said, true))
        rows.append((data.classes[true], of_true, data.classes[said], of_said))
    return ("True", "Its probability", "Predicted", "Its probability"), rows


def _of_numbers(predictive: AnyPredictive, data: ReportData, order: Sequence[int]) -> Lines:
    loc, scale = data.target_scaling or (0.0, 1.0)
    assert not isinstance(predictive, Classification)
    own = predictive.rescale(loc, scale)
    median = own.quantile(0.5)
    mean, std = existing(lambda: own.mean, median), existing(lambda: own.std, median)
    places = max(1 - floor(log10(float(std.nan_to_num(1.0).clamp(min=1e-30).min()))), 0)
    rows: list[tuple[str, ...]] = []
    for i in order:
        true = float(data.targets[i]) * scale + loc
        if not torch.isfinite(std[i]):
            rows.append((f"{true:.{places}f}", f"{float(median[i]):.{places}f}", "–"))
            continue
        said = f"{float(mean[i]):.{places}f} ± {float(std[i]):.{places}f}"
        rows.append((f"{true:.{places}f}", said, f"{(true - float(mean[i])) / float(std[i]):+.1f}".replace("-", "−")))
    return ("True", "Predicted ± std", "z"), rows


def told_apart(names: Sequence[str], most: int = TICK) -> list[str]:
    """Cut names to what fits at a tick: in their middle, where their beginnings are alike.

    >>> told_apart(["the town of Aa", "the town of Bb", "c"], 10), told_apart(["a longer name", "b"], 8)
    (['the…of Aa', 'the…of Bb', 'c'], ['a longe…', 'b'])
    """
    cut = [short(name, most) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    end = most // 2
    shown = [visible(name) for name in names]
    return [one if len(one) <= most else f"{one[: most - end - 2]}…{one[-end:]}" for one in shown]


def small(value: float) -> str:
    """Write nats: to a thousandth, or three digits where there are many.

    >>> small(0.12345), small(-0.0004), small(12.345), small(4321.0)
    ('0.123', '0', '12.3', '4321')
    """
    if abs(value) >= 1:
        return digits(value).replace("-", "−")
    text = f"{value:.3f}"
    return "0" if not float(text) else text.replace("-", "−")


def signed(value: float) -> str:
    """Write a difference of errors, with its sign.

    >>> signed(12.345), signed(-0.0123), signed(0.0)
    ('+12.3', '−0.0123', '0')
    """
    return "0" if not value else f"{'+' if value > 0 else '−'}{digits(abs(value))}"
