"""Whether a posterior knows what it was not trained on, in pictures: ROC curves, distributions, an inlier and an outlier."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.posteriors.ood import INSIDE, TWIN, Example, Histogram, OutOfDistribution, label_of, ood_from
from posterity.report.section import Grid, Section
from posterity.report.style import (
    ALEATORIC,
    BAYESIAN,
    EPISTEMIC,
    HALF,
    INK,
    MUTED,
    RIGHT,
    WIDE,
    WRONG,
    Figure,
    label,
    legend,
    panels,
    quiet,
    svg,
)
from posterity.report.style import TWIN as TWIN_COLOUR
from posterity.report.summary import digits, percent

COLOURS = {
    "entropy": BAYESIAN,
    "mutual_information": EPISTEMIC,
    "max_probability": "#6a9fd8",
    "epistemic_variance": "#d39cc0",
    "chi_square": "#8aa63c",
    "std": BAYESIAN,
    "epistemic_std": EPISTEMIC,
    "feature_log_density": ALEATORIC,
    "relative_mahalanobis": "#9ccbc1",
}
SHOWN = ("entropy", "mutual_information", "std", "epistemic_std", "feature_log_density", "twin_max_probability")
MEASURES = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR95"}
MEANS = (
    *("aleatoric_softmax", "epistemic_softmax", "aleatoric_normalized", "epistemic_normalized"),
    *("aleatoric_std", "epistemic_std"),
)
FEW, PAIRS = 3, 2  # sets that are shown in full, and of which an example is
MANY_CLASSES = 20
SMALL = 0.02  # of an axis: bars that cannot be seen
FORMS = {"softmax": "softmax(f)", "normalized": "softplus(f) / Σ softplus(f)"}


def section(values: Mapping[str, Any]) -> Section:
    """Show what `posterity ood` found."""
    found, name = ood_from(values), str(values["data"])
    few = list(found.counts)[:FEW]
    drawn = [svg(plot_roc(found), "ROC curves of detecting inputs from outside.")]
    drawn += [svg(plot_scores(found, other), f"Uncertainties inside and of {other}.") for other in few]
    images = {key: picture(uri) for key, uri in values.get("images", {}).items()}
    for other in few[:PAIRS] if found.examples else ():
        figure = plot_pair(found, other, values["classes"], images, name)
        drawn.append(svg(figure, f"A typical input of {name} beside one of {other}."))
    reading = (
        f"{found.count:,} test inputs of {name} against inputs of other kinds, which should be more uncertain. AUROC: how "
        "often one from outside is the more uncertain of two, 50 % by guessing; AUPR: average precision; FPR95: share of the "
        "test inputs refused where 95 % of those from outside are. Histograms: the outermost bars take in the tails."
    )
    if found.examples:
        reading += " Single inputs are those of median uncertainty; bars are variances of each class's indicator."
    grids = (table(found), means(found, name))
    return Section("Does it know what it was not trained on?", reading, verdict(found, name), tuple(drawn), grids=grids)


def verdict(found: OutOfDistribution, name: str) -> str:
    """Say for each set, or for the hardest and easiest of many, what tells it best of what the posterior itself says."""
    lines = []
    for other, scores in found.scores.items():
        own = {u: s["auroc"] for u, s in scores.items() if not u.startswith(TWIN)}
        chosen = next(u for u in ("mutual_information", "epistemic_std", "entropy", "std") if u in own)
        a = own[chosen]
        text = f"{other}: {label_of(chosen)} tells it from {name} with an AUROC of {percent(a.value)} ({_range(a)})"
        rival = next((u for u in ("twin_max_probability", "twin_std") if u in scores), None)
        if rival is not None:
            by = label_of(rival.removeprefix(TWIN))
            text += f"; the deterministic twin's {by} with {percent(scores[rival]['auroc'].value)}"
        lines.append((a.value, f"{text}."))
    if len(lines) <= FEW:
        return "\n".join(text for _, text in lines)
    return f"Hardest: {min(lines)[1]}\nEasiest: {max(lines)[1]}"


def table(found: OutOfDistribution) -> Grid:
    """Return the scores, a row per uncertainty; of few sets every measure, of many the AUROC; the best in bold."""
    full = len(found.counts) <= FEW
    columns = [(other, measure) for other in found.counts for measure in (MEASURES if full else ("auroc",))]
    names = list(next(iter(found.scores.values())))
    best = set()
    for column, (other, measure) in enumerate(columns):
        values = [found.scores[other][u][measure].value for u in names]
        texts = [percent(v) for v in values]
        top = texts[int(np.argmin(values) if measure == "fpr95" else np.argmax(values))]
        best |= {(row, column) for row, text in enumerate(texts) if text == top}
    intervals = len(found.counts) < FEW
    rows = tuple(
        (label_of(u), *(_cell(found.scores[other][u][measure], measure, intervals) for other, measure in columns))
        for u in names
    )
    heads = [_head(other, measure) if full else other for other, measure in columns]
    return Grid(("" if full else "AUROC of", *heads), rows, frozenset(best))


def means(found: OutOfDistribution, name: str) -> Grid:
    """Return the mean aleatoric and epistemic variances of every set, or stds of a regression."""
    keys = [key for key in MEANS if key in found.means[INSIDE]]
    what = "Mean variance per class" if "aleatoric_softmax" in keys else "Mean"
    rows = tuple((name if s == INSIDE else s, *(digits(own[key]) for key in keys)) for s, own in found.means.items())
    return Grid((what, *(key.replace("_", ", ", 1) for key in keys)), rows)


def plot_roc(found: OutOfDistribution) -> Figure:
    """Draw the ROC curves of every set, a panel each, on a logarithmic axis of false alarms."""
    sets = list(found.curves)
    columns = min(len(sets), 4 if len(sets) > FEW else FEW)
    lines = -(-len(sets) // columns)
    wide = len(sets) > FEW
    figure = Figure(figsize=(WIDE if columns > 1 else HALF * 1.3, (2.3 if wide else 3.4) * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    alarms = np.geomspace(1 / found.count, 1, 400)
    for ax, other in zip(grid.flat, sets, strict=False):
        for u, curve in found.curves[other].items():
            if wide and u not in SHOWN:
                continue
            found_at = np.interp(alarms, curve.fpr, curve.tpr)
            ax.plot(alarms, found_at, **_style(u), label=label_of(u), linewidth=1.5)
        ax.plot(alarms, alarms, color=MUTED, linewidth=0.8, linestyle=":")
        quiet(ax)
        ax.set_xscale("log")
        ax.set_xlim(alarms[0], 1)
        ax.set_ylim(0, 1.02)
        label(ax, f"against {other}" if not wide else other, "", "")
    for ax in grid.flat[len(sets) :]:
        ax.set_visible(False)
    figure.supxlabel("false alarms: share of test inputs refused", fontsize=9.5, color=MUTED)
    figure.supylabel("share of outsiders found", fontsize=9.5, color=MUTED)
    handles, names = grid.flat[0].get_legend_handles_labels()
    columns = 5 if len(names) > 6 else len(names)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def plot_scores(found: OutOfDistribution, other: str) -> Figure:
    """Draw how the main uncertainties are distributed among the test inputs and among those of another set."""
    shown = [u for u in SHOWN if u in found.histograms[other]][:4]
    figure, axes = panels(len(shown), height=2.6)
    for ax, u in zip(axes, shown, strict=True):
        drawn = found.histograms[other][u]
        for shares, colour, name in ((drawn.inside, RIGHT, "inside"), (drawn.outside, WRONG, other)):
            ax.stairs(np.array(shares) * 100, drawn.edges, fill=True, color=colour, alpha=0.55, label=name)
        top = sorted((*drawn.inside, *drawn.outside))[-3:]
        if top[-1] > 3 * top[0] and top[0] > 0:  # one bar dwarfs the others
            ax.set_ylim(0, 150 * top[0])
            _say_what_is_cut(ax, drawn)
        label(ax, label_of(u), _unit(u), "% of its group" if ax is axes[0] else "")
    legend(axes[0])
    return figure


def _say_what_is_cut(ax: Axes, drawn: Histogram) -> None:
    """Write the height of bars that leave the picture beside where they leave it."""
    limit, middle, line = ax.get_ylim()[1], (drawn.edges[0] + drawn.edges[-1]) / 2, 0
    for shares, colour in ((drawn.inside, RIGHT), (drawn.outside, WRONG)):
        for share, place in zip(shares, drawn.edges[1:], strict=True):
            if 100 * share > limit:
                text, side = (
                    (f"↑ {100 * share:.0f} %", "left") if place < middle else (f"{100 * share:.0f} % ↑", "right")
                )
                height = limit * (0.97 - 0.1 * line)
                ax.annotate(text, (place, height), ha=side, va="top", fontsize=8, color=colour)
                line += 1


def plot_pair(
    found: OutOfDistribution,
    other: str,
    classes: Sequence[str],
    images: Mapping[str, Tensor] | None = None,
    name: str = INSIDE,
) -> Figure:
    """Draw a typical inlier above a typical outlier: its image, and each class's aleatoric and epistemic variance by form.

    found: of a classification. classes: their names. images: by `inside` and set, (C, H, W), as bright as they are to be
    shown. name: of what is inside. Raises `InvalidInput` for a set without example.
    """
    if other not in found.examples:
        raise InvalidInput(
            f"There is no example of '{other}'. Choices: {', '.join(k for k in found.examples if k != INSIDE)}."
        )
    rows = ((INSIDE, name), (other, other))
    forms = list(found.examples[INSIDE].aleatoric)
    pictures = images or {}
    wanted = [1.0] * bool(pictures) + [1.9] * len(forms)
    figure = Figure(figsize=(WIDE, 4.6), layout="constrained")
    grid = figure.subplots(2, len(wanted), squeeze=False, width_ratios=wanted, sharey="col" if not pictures else False)
    for (key, title), axes in zip(rows, grid, strict=True):
        example = found.examples[key]
        if pictures:
            _image(axes[0], pictures[key], title, example, classes)
        for ax, form in zip(axes[bool(pictures) :], forms, strict=True):
            _bars(ax, example, form, classes)
            said = FORMS[form] if pictures else f"{title}: {FORMS[form]}"
            label(ax, said, "class" if key != INSIDE else "", "variance")
    for column in range(bool(pictures), len(wanted)):
        top = max(ax.get_ylim()[1] for ax in grid[:, column])
        for ax in grid[:, column]:
            highest = max((bar.get_height() for bar in ax.patches), default=0.0)
            if highest < SMALL * top:
                ax.text(
                    0.5,
                    0.5,
                    f"none above {np.format_float_positional(highest, 2, fractional=False)}",
                    transform=ax.transAxes,
                    ha="center",
                    fontsize=9,
                    color=MUTED,
                )
            ax.set_ylim(0, top)
    legend(grid[0, -1], loc="upper right")
    return figure


def picture(uri: str) -> Tensor:
    """Read a PNG data URI as (1 or 3, H, W) in [0, 1]."""
    from PIL import Image

    with Image.open(BytesIO(b64decode(uri.partition(",")[2]))) as found:
        pixels = torch.from_numpy(np.asarray(found, np.float32) / 255)
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def _bars(ax: Axes, example: Example, form: str, classes: Sequence[str]) -> None:
    quiet(ax)
    places = np.arange(len(classes))
    for shift, values, colour, name in (
        (-0.2, example.aleatoric[form], ALEATORIC, "aleatoric"),
        (0.2, example.epistemic[form], EPISTEMIC, "epistemic"),
    ):
        ax.bar(places + shift, values, width=0.4, color=colour, alpha=0.9, label=name)
    ax.grid(visible=False, axis="x")
    if len(classes) <= MANY_CLASSES:
        ax.set_xticks(places, classes, rotation=0 if max(map(len, classes)) < 4 else 60)


def _image(ax: Axes, image: Tensor, title: str, example: Example, classes: Sequence[str]) -> None:
    pixels = image.permute(1, 2, 0).clamp(0, 1).numpy()
    ax.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, loc="left", fontsize=10.5, color=INK)
    said = f"“{classes[example.label]}”, {percent(example.probability)}"
    told = f"entropy {example.entropy:.2g} nats\nmutual information {example.mutual_information:.2g}"
    ax.set_xlabel(f"{said}\n{told}", fontsize=8.5, color=MUTED)


def _style(uncertainty: str) -> dict[str, Any]:
    own = uncertainty.removeprefix(TWIN)
    if own == uncertainty:
        return {"color": COLOURS[own], "linestyle": "-"}
    return {"color": TWIN_COLOUR, "linestyle": "--" if own in ("max_probability", "std") else ":"}


def _unit(uncertainty: str) -> str:
    own = uncertainty.removeprefix(TWIN)
    if own == "feature_log_density":
        return "minus log p(z), nats"
    return {"entropy": "nats", "mutual_information": "nats", "max_probability": "1 − probability"}.get(
        own, "scaled target"
    )


def _head(other: str, measure: str) -> str:
    return f"{other}: AUROC" if measure == "auroc" else MEASURES[measure]


def _cell(estimate: Any, measure: str, interval: bool) -> str:
    told = percent(estimate.value)
    return f"{told} ({_range(estimate)})" if interval and measure == "auroc" else told


def _range(estimate: Any) -> str:
    return f"{100 * estimate.lower:.1f}–{100 * estimate.upper:.1f}"
