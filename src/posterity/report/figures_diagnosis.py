"""Whether a posterior can be trusted, in pictures: traces and ranks of chains, importance ratios, contraction of layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from posterity.posteriors.diagnosis import (
    ChainDiagnosis,
    Diagnosis,
    GaussianDiagnosis,
    MixtureDiagnosis,
    Trace,
    diagnosis_from,
)
from posterity.report.section import Section
from posterity.report.style import BAYESIAN, HALF, INK, MUTED, WIDE, WRONG, Axes, label, legend, panels, svg

CHAINS = ("#1f5fa8", "#b9814f", "#4f9d8f", "#a8487a", "#6b7680", "#8aa63c")
BINS = 20
LAYERS = 24  # bars of one picture; of more layers, those that were contracted least


def section(values: Mapping[str, Any]) -> Section:
    """Show what `posterity diagnose` found."""
    found = diagnosis_from(values)
    drawn = tuple(svg(figure, alt) for alt, figure in figures(found).items())
    return Section("Can the posterior be trusted?", reading(found), found.verdict, drawn)


def figures(found: Diagnosis) -> dict[str, Figure]:
    """Return the figures that a diagnosis has, by what they show."""
    drawn: dict[str, Figure] = {}
    if isinstance(found, ChainDiagnosis):
        for trace in found.traces:
            drawn[f"Trace and rank plots of {trace.name}."] = plot_trace(trace)
    parts = found.parts if isinstance(found, MixtureDiagnosis) else (found,)
    ratios = {str(i): p for i, p in enumerate(parts, 1) if isinstance(p, GaussianDiagnosis) and p.log_ratios}
    if ratios:
        drawn["The tail of the importance ratios."] = plot_ratios(ratios)
    if found.contraction:
        drawn["Contraction of each layer from prior to posterior."] = plot_contraction(found.contraction)
    return drawn


def reading(found: Diagnosis) -> str:
    """Say how to read the figures of a diagnosis."""
    texts = []
    if isinstance(found, ChainDiagnosis):
        texts.append(
            "Left: the quantity on which chains differ most, draw by draw; good chains look like one band of noise. Right: "
            "ranks of its draws among all draws, chain by chain; each should be as common as any other (dashed; Vehtari et "
            "al. 2021)."
        )
    elif isinstance(found, GaussianDiagnosis | MixtureDiagnosis):
        texts.append(
            "Importance ratios p(θ, D)/q(θ) of drawn weights, largest first: on these axes the tail of a Pareto law is a "
            "straight line of slope −k. Flat is good; at k̂ = 0.7 or more a few draws outweigh all others (Yao et al. 2018)."
        )
    if found.contraction:
        texts.append(
            "Contraction is 1 − posterior variance / prior variance of a layer's weights: 1 is learnt, 0 untouched."
        )
    return " ".join(texts)


def plot_trace(trace: Trace) -> Figure:
    """Draw one quantity's path through each chain, and the ranks of its draws by chain."""
    values = np.array(trace.values)
    figure, (path, ranks) = panels(2, width=WIDE, height=2.7)
    for row, colour in zip(values, _colours(len(values)), strict=True):
        path.plot(row, color=colour, linewidth=0.8, alpha=0.8)
    label(path, f"{trace.name},  R-hat {trace.rhat:.3f}", "draw (thinned)", "value")
    _ranks(ranks, values)
    return figure


def plot_ratios(parts: Mapping[str, GaussianDiagnosis]) -> Figure:
    """Draw the sorted log importance ratios of each Gaussian against the log of their rank, with the fitted tail's slope."""
    figure, (ax,) = panels(1, width=HALF * 1.3, height=3.3)
    for (name, part), colour in zip(parts.items(), _colours(len(parts)), strict=True):
        ratios = np.array(part.log_ratios)[::-1]
        tail = int(min(len(ratios) / 5, 3 * len(ratios) ** 0.5))
        rank = np.arange(1, len(ratios) + 1)
        fall = np.log(rank[: tail + 1] / rank[tail])
        ax.plot(rank, ratios, "o", color=colour, markersize=2.5, markeredgewidth=0, alpha=0.7)
        if part.khat is not None and np.isfinite(part.khat):
            said = f"k̂ = {part.khat:.2f}" if len(parts) == 1 else f"component {name}: k̂ = {part.khat:.2f}"
            ax.plot(rank[: tail + 1], ratios[tail] - part.khat * fall, color=colour, linewidth=1.6, label=said)
        if len(parts) == 1:
            limit = ratios[tail] - part.limit * fall
            ax.plot(rank[: tail + 1], limit, "--", color=INK, linewidth=1, label=f"k = {part.limit:.2f}, the limit")
    ax.set_xscale("log")
    label(ax, "", "rank of the draw, largest ratio first", "log ratio less the largest, nats")
    legend(ax)
    return figure


def plot_contraction(contraction: Mapping[str, float]) -> Figure:
    """Draw one bar per layer, from the network's input to its output."""
    shown = dict(sorted(contraction.items(), key=lambda item: item[1])[:LAYERS])
    names = [n for n in contraction if n in shown]
    values = np.array([contraction[n] for n in names])
    figure, (ax,) = panels(1, width=HALF * 1.3, height=1.1 + 0.27 * len(names))
    rows = np.arange(len(names))[::-1]
    ax.barh(rows, values, color=[WRONG if v < 0 else BAYESIAN for v in values], alpha=0.85, height=0.62)
    for row, value in zip(rows, values, strict=True):
        ax.text(max(value, 0) + 0.01, row, f"{value:.2f}".replace("-", "−"), va="center", fontsize=8.5, color=MUTED)
    ax.set_yticks(rows, names)
    ax.set_xlim(min(0, values.min() * 1.1), 1.1)
    ax.grid(visible=False, axis="y")
    label(ax, "", "contraction, 1 − posterior variance / prior variance")
    return figure


def _ranks(ax: Axes, values: NDArray[np.float64]) -> None:
    """Draw the histogram of each chain's ranks among all draws, a line per chain."""
    chains, draws = values.shape
    ranks = (values.ravel().argsort().argsort() + 1).reshape(values.shape)
    edges = np.linspace(0.5, chains * draws + 0.5, min(BINS, max(4, draws // 5)) + 1)
    for row, colour in zip(ranks, _colours(chains), strict=True):
        share = np.histogram(row, edges)[0] / draws
        ax.stairs(share, edges / edges[-1], baseline=None, color=colour, linewidth=1.4)
    ax.axhline(1 / (len(edges) - 1), color=INK, linewidth=1, linestyle="--")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=False, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label(ax, "Ranks, chain by chain", "rank among all draws", "share of the chain")


def _colours(count: int) -> list[str]:
    return [CHAINS[i % len(CHAINS)] for i in range(count)]
