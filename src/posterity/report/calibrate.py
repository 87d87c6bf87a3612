"""What was promised of predictions, and what happened: sets, abstention and temperature, in pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from posterity.decide.temperature import Temperature
from posterity.report.section import Grid, Section
from posterity.report.style import BAYESIAN, INK, MUTED, RIGHT, WRONG, label, legend, panels, svg
from posterity.report.summary import digits, percent

READING = (
    "Promises come from the examples that were held out of training; what is seen is on the test data. A set, or an interval, "
    "holds the truth as often as promised, on average over inputs like the held-out ones, whatever the model is worth: a bad "
    "model has large sets. An input whose uncertainty is above a threshold is not answered. The temperature makes every drawn "
    "function more or less sure; sets and abstention are of the predictions as they were. Where the held-out examples chose "
    "the epoch to keep, too, promises are as good as that choice is harmless."
)

THIRD = 3.15  # inches: three figures in a row
NEAR = 0.05  # temperatures that are about 1
ROWS = {
    "nll": ("NLL, nats", digits),
    "ece": ("ECE, 15 bins", percent),
    "coverage_90": ("Coverage of the model's own 90 % intervals", percent),
}


def section(values: Mapping[str, Any]) -> Section:
    """Show what `posterity calibrate` found."""
    promises, test = values["promises"], values["test"]
    figures = [
        svg(plot_sizes(test["sizes"], test["scores"]), "Sizes of sets or intervals, and which missed the truth.")
    ]
    if test["curve"] is not None:
        curve = plot_abstention(test["curve"], promises["abstention"], test["scores"])
        figures.append(svg(curve, "Risk against the share of inputs that is answered, with the chosen threshold."))
    said = plot_temperature(test["reliability"], float(promises["temperature"]["value"]))
    figures.append(svg(said, "What was stated against what was seen, before and after the temperature."))
    title = "What predictions promise"
    return Section(
        title, READING, verdict(promises, test["scores"]), tuple(figures), grids=(table(promises, test["scores"]),)
    )


def verdict(promises: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Say whether each promise was kept."""
    kept = [_held(promises["conformal"], scores)]
    if promises["abstention"] is not None:
        kept.append(_answered(promises["abstention"], scores))
    else:
        kept.append(
            "When to abstain was not asked for, or no threshold keeps the risk for sure on these held-out examples"
        )
    value = float(promises["temperature"]["value"])
    word = "too sure of itself" if value > 1 else "not sure enough"
    kept.append(f"A temperature of {value:.2f} says that the model was {word}")
    if Temperature(value, "classification").at_limit:
        kept[-1] = f"The held-out examples do not determine the temperature: {value:.2f} is as far as it may go"
    if abs(value - 1) < NEAR:
        kept[-1] = f"A temperature of {value:.2f} says that the model is about as sure as it should be"
    return "\n".join(f"{line}." for line in kept)


def _held(conformal: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    what = "Sets" if "mean_size" in scores else "Intervals"
    level, share = percent(conformal["level"]), percent(scores["coverage"])
    seen = f"{what} that were to hold the truth in {level} of cases do so in {share}"
    if scores["coverage_interval"] is None:
        return seen
    low, high = scores["coverage_interval"]
    if scores["coverage"] < low:
        return (
            f"{seen}, less than chance explains ({percent(low)} to {percent(high)}): are the test data of another kind?"
        )
    if scores["coverage"] > high and conformal["score"].get("randomised") is False:
        return f"{seen}: more, for sets that are never empty hold the truth at least as often as the model is right"
    if scores["coverage"] > high:
        return f"{seen}, more than chance explains ({percent(low)} to {percent(high)}): are the test data easier?"
    return f"{seen}, as they should: 99 % of such calibrations are seen to have {percent(low)} to {percent(high)}"


def _answered(abstention: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    bound = percent(abstention["risk"])
    if scores["risk"] is None:
        return f"A risk of {bound} cannot be promised of any part of the inputs: nothing is answered"
    seen = f"{percent(scores['answered'])} of the test data are answered, {percent(scores['risk'])} of these wrongly"
    low, high = scores["risk_interval"]
    text = f"{seen} (by chance the true share may be {percent(low)} to {percent(high)}); promised was at most {bound}"
    return f"{text}, and that is broken: are the test data of another kind?" if low > abstention["risk"] else text


def table(promises: Mapping[str, Any], scores: Mapping[str, Any]) -> Grid:
    """Return scores before and after the temperature; the better one in bold."""
    rows: list[tuple[str, ...]] = []
    best = []
    for name, (title, write) in ROWS.items():
        if f"{name}_before" in scores:
            pair = [scores[f"{name}_{when}"] for when in ("before", "after")]
            cost = [abs(v - 0.9) if name == "coverage_90" else v for v in pair]
            best.append((len(rows), int(cost[1] < cost[0])))
            rows.append((title, *map(write, pair)))
    heads = ("On the test data", "as trained", f"temperature {float(promises['temperature']['value']):.3g}")
    return Grid(heads, tuple(rows), frozenset(best))


def plot_abstention(curve: Mapping[str, Any], chosen: Mapping[str, Any] | None, scores: Mapping[str, Any]) -> Figure:
    """Draw the risk of what is answered against its share, on test data, with the chosen threshold and its bound.

    curve: `coverage` and `risk`, point by point. chosen: an `Abstention` as plain values, None where none was chosen. scores:
    `answered` and `risk` of the chosen threshold on the test data.
    """
    figure, (ax,) = panels(1, width=THIRD, height=2.9)
    ax.plot(curve["coverage"], curve["risk"], color=BAYESIAN, linewidth=1.6)
    if chosen is not None:
        ax.axhline(
            chosen["risk"], color=INK, linewidth=1, linestyle="--", label=f"promised: ≤ {percent(chosen['risk'])}"
        )
        if scores["risk"] is not None:
            ends = [[0.0], [max(0.0, chosen["bound"] - scores["risk"])]]
            style = {"color": WRONG, "markersize": 7, "capsize": 4}
            ax.errorbar([scores["answered"]], [scores["risk"]], ends, fmt="o", label="chosen, and its bound", **style)
        legend(ax, loc="upper left")
    ax.set_ylim(bottom=0, top=1.45 * max(max(curve["risk"]), chosen["risk"] if chosen else 0, 1e-3))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    label(ax, "Answer only what is sure", "share of inputs that is answered", "errors among them")
    return figure


def plot_sizes(sizes: Mapping[str, Any], scores: Mapping[str, Any]) -> Figure:
    """Draw the histogram of set sizes, or interval widths: how many hold the truth, and how many miss it."""
    edges, held, missed = (np.array(sizes[name]) for name in ("edges", "held", "missed"))
    total = max(1.0, float((held + missed).sum()))
    figure, (ax,) = panels(1, width=THIRD, height=2.9)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges) * 0.86
    ax.bar(middle, held / total, width, color=RIGHT, label=f"hold the truth ({percent(scores['coverage'])})")
    ax.bar(middle, missed / total, width, bottom=held / total, color=WRONG, label="miss it")
    ax.set_ylim(0, 1.4 * ((held + missed) / total).max())  # room for the legend
    ax.set_yticks([tick for tick in ax.get_yticks() if tick <= 1])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    classes = "mean_size" in scores
    if classes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"Mean set size {digits(scores['mean_size'])}" if classes else f"Mean width {digits(scores['mean_width'])}"
    label(ax, title, "classes in the set" if classes else "width of the interval", "share of inputs")
    legend(ax, loc="upper right")
    return figure


def plot_temperature(reliability: Mapping[str, Any], value: float) -> Figure:
    """Draw what predictions state against what is seen, before and after the temperature; honest ones lie on the diagonal.

    Points are as large as the share of the predictions that they stand for.
    """
    figure, (ax,) = panels(1, width=THIRD, height=2.9)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    for when, colour, name in (("before", RIGHT, "as trained"), ("after", BAYESIAN, f"temperature {value:.3g}")):
        own = reliability[when]
        count = np.array(own.get("count", [1.0] * len(own["seen"])))
        ax.plot(own["stated"], own["seen"], color=colour, linewidth=1.1, label=name)
        ax.scatter(own["stated"], own["seen"], 8 + 60 * count / count.sum(), color=colour, zorder=3)
    ax.set_ylim(-0.03, 1.4)
    ax.set_yticks(np.linspace(0, 1, 6))
    classes = "count" in reliability["before"]
    what = ("confidence", "fraction right") if classes else ("level of the interval", "fraction inside")
    label(ax, "Said and seen", *what)
    legend(ax, loc="upper left")
    return figure
