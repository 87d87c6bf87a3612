"""What the data said about a problem's latents (scales of a prior, a noise level), against what was thought before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from posterity.report.data import Epoch, LearntLatent
from posterity.report.style import BAYESIAN, INK, MUTED, WIDE, Axes, Figure, label, panels, quiet, wide_range
from posterity.report.summary import digits
from posterity.types import Latent

Vector = NDArray[np.float64]
Stds = dict[str, tuple[Vector, Vector]]  # (epochs, std of the prior) of each group of weights
REACH, COARSE, FINE = 20.0, 801, 401  # unconstrained units around a latent's start, and points, of two grids
NEGLIGIBLE = 1e-3  # of a density's peak
FIRST, LAST = "#7ba6d4", "#0c2c52"  # a network's groups of weights, from its input to its output
OWN = "network"  # what has no module's name belongs to the network as a whole
SPACE = 0.052  # between the labels of two curves, as a share of the axis


@dataclass(frozen=True, eq=False)
class Curve:
    """A density (points,) of a latent's value x, or of log x where `log`."""

    x: Vector
    density: Vector

    def quantiles(self, *shares: float) -> Vector:
        """Return the points below which the density has these shares of its mass, as far as the curve goes."""
        steps = np.diff(self.x) * (self.density[1:] + self.density[:-1]) / 2
        mass = np.concatenate([[0.0], np.cumsum(steps)])
        return np.interp(shares, mass / mass[-1], self.x)


def prior_density(latent: Latent, log: bool) -> Curve:
    """Return the density of what people read, a = x or log x with x = natural(u): p(a) = p(u) / |da/du|, one element of it.

    `Latent.log_prob` is that of all elements together, here equal and independent, so that each has its share.
    """
    start = latent.initial.double().flatten()[0].item()
    rough = _transformed(latent, torch.linspace(start - REACH, start + REACH, COARSE, dtype=torch.float64), log)
    some = np.flatnonzero(rough[2] > np.log(NEGLIGIBLE) + rough[2].max())
    low, high = rough[0][max(some[0] - 1, 0)], rough[0][min(some[-1] + 1, COARSE - 1)]
    _, a, log_density = _transformed(latent, torch.linspace(low, high, FINE, dtype=torch.float64), log)
    order = np.argsort(a)
    return Curve(a[order], np.exp(log_density[order]))


def draws_density(draws: Vector) -> Curve:
    """Return a Gaussian kernel estimate from draws (n,), n ≥ 2 and not all equal; Silverman's bandwidth (1986, eq. 3.31)."""
    low, high = np.quantile(draws, [0.25, 0.75])
    spread = min(draws.std(ddof=1), (high - low) / 1.349 or np.inf)
    width = 0.9 * spread * len(draws) ** -0.2
    x = np.linspace(draws.min() - 3 * width, draws.max() + 3 * width, FINE)
    kernels = np.exp(-(((x[:, None] - draws) / width) ** 2) / 2)
    return Curve(x, kernels.mean(1) / (width * np.sqrt(2 * np.pi)))


def plot_latents(latents: Mapping[str, LearntLatent], axis: str) -> Figure:
    """Draw a row per latent of shape (): its posterior (blue) above its prior (grey), each to its own height."""
    drawn = {name: latent.draws.detach().cpu().double().numpy() for name, latent in latents.items()}
    log = all((values > 0).all() for values in drawn.values())
    priors = [prior_density(latent.latent, log) for latent in latents.values()]
    height = 0.75 + max(0.5, 0.9 - 0.08 * len(drawn)) * len(drawn)
    figure, (ax,) = panels(1, width=WIDE, height=height)
    for row, (values, prior) in enumerate(zip(drawn.values(), priors, strict=True)):
        _ridge(ax, -row, np.log(values) if log else values, prior, log)
    ends = np.array([_visible(np.log(v) if log else v, p) for v, p in zip(drawn.values(), priors, strict=True)])
    limits = np.array([ends[:, 0].min(), ends[:, 1].max()])
    ax.set_xlim(*(np.exp(limits) if log else limits))
    if log:
        ax.set_xscale("log")
        wide_range(ax.xaxis, *np.exp(limits))
    ax.set_ylim(0.85 - len(drawn), 1.0)
    ax.set_yticks([-row for row in range(len(drawn))], list(drawn), va="bottom")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    label(ax, "", axis)
    return figure


def plot_rows(latents: Mapping[str, LearntLatent], axis: str) -> Figure:
    """Draw for each latent of shape (rows, …) the sorted means of its elements, with their 90 % intervals."""
    figure = Figure(figsize=(WIDE, 2.5 * -(-len(latents) // 3) + 0.2), layout="constrained")
    grid = figure.subplots(-(-len(latents) // 3), 3, squeeze=False, sharey=True).flatten()
    for ax in grid[len(latents) :]:
        ax.set_visible(False)
    for ax, (name, latent) in zip(grid, latents.items(), strict=False):
        draws = latent.draws.detach().cpu().double().flatten(1).numpy()
        order = np.argsort(draws.mean(0))
        rank = np.arange(1, len(order) + 1)
        low, high = np.quantile(draws[:, order], [0.05, 0.95], axis=0)
        ax.vlines(rank, low, high, color=BAYESIAN, alpha=0.35, linewidth=max(0.6, min(4.0, 120 / len(order))))
        ax.plot(rank, draws.mean(0)[order], "o", color=BAYESIAN, markersize=max(1.2, min(4.0, 100 / len(order))))
        quiet(ax)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        label(ax, name, f"{len(order)} rows, sorted", axis if ax in grid[::3] else "")
    wide_range(grid[0].yaxis, *grid[0].get_ylim())
    return figure


def plot_learnt_prior(curves: Stds) -> Figure:
    """Draw the std of each group of weights, as empirical Bayes fitted it, epoch by epoch."""
    shades = LinearSegmentedColormap.from_list("depth", [FIRST, LAST])(np.linspace(0, 1, max(len(curves), 2)))
    figure, (ax,) = panels(1, width=WIDE, height=3.4)
    for (epochs, stds), colour in zip(curves.values(), shades[-len(curves) :], strict=True):
        ax.plot(epochs, stds, color=colour, linewidth=1.8)
    ax.set_yscale("log")
    wide_range(ax.yaxis, *ax.get_ylim())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.01)
    lasts = np.array([stds[-1] for _, stds in curves.values()])
    low, high = np.log(ax.get_ylim())
    places = _apart((np.log(lasts) - low) / (high - low), SPACE)
    style = {"transform": ax.transAxes, "fontsize": 9, "va": "center"}
    for name, last, place, colour in zip(curves, lasts, places, shades[-len(curves) :], strict=True):
        ax.text(1.01, place, f"{name}  {digits(last)}", color=colour, **style)
    label(ax, "", "epoch", "std of the prior")
    return figure


def learnt_stds(history: Sequence[Epoch]) -> Stds:
    """Return (epochs, stds) of each group that a log has `prior_std.<group>` of; a gap between an ensemble's members."""
    keys = [key for key in (history[-1] if history else {}) if key.partition(".")[0] == "prior_std"]
    epochs = np.array([row["epoch"] for row in history], dtype=np.float64)
    gaps = np.flatnonzero(np.diff(epochs) <= 0) + 1
    found: Stds = {}
    for key in keys:
        stds = np.array([row.get(key, np.nan) for row in history], dtype=np.float64)
        found[key.partition(".")[2] or OWN] = np.insert(epochs, gaps, np.nan), np.insert(stds, gaps, np.nan)
    return found


def short_names(latents: Mapping[str, LearntLatent]) -> tuple[str, dict[str, LearntLatent]]:
    """Split `scale.fc` into the name that all have in common and the layer's; what has no layer keeps its name."""
    firsts = {name.partition(".")[0] for name in latents}
    if len(firsts) != 1:
        return "", dict(latents)
    return firsts.pop(), {name.partition(".")[2] or name: latent for name, latent in latents.items()}


def _transformed(latent: Latent, grid: Tensor, log: bool) -> tuple[Vector, Vector, Vector]:
    """Return u, a and log p(a) on a grid of unconstrained values u."""
    u = grid.clone().requires_grad_()
    natural = latent.natural(u)
    a = natural.log() if log else natural
    (slope,) = torch.autograd.grad(a.sum(), [u])
    shape = latent.initial.shape
    with torch.no_grad():
        log_prob = torch.stack([latent.log_prob(v.expand(shape)) for v in u]) / max(latent.initial.numel(), 1)
    log_density = log_prob - slope.abs().log()
    return tuple(v.detach().numpy() for v in (u, a, log_density))  # type: ignore[return-value]


def _ridge(ax: Axes, base: int, draws: Vector, prior: Curve, log: bool) -> None:
    """Draw one latent above the line y = base: densities are of log x on a logarithmic axis, so areas are what they seem."""
    height = 0.8

    def placed(x: Vector) -> Vector:
        return np.exp(x) if log else x

    before = base + height * prior.density / prior.density.max()
    ax.fill_between(placed(prior.x), base, before, color=MUTED, alpha=0.13, linewidth=0)
    ax.plot(placed(prior.x), before, color=MUTED, linewidth=1)
    points = np.unique(draws)
    if len(points) > len(draws) / 2:
        curve = draws_density(draws)
        after = base + height * curve.density / curve.density.max()
        ax.fill_between(placed(curve.x), base, after, color=BAYESIAN, alpha=0.45, linewidth=0)
        ax.plot(placed(curve.x), after, color=BAYESIAN, linewidth=1.4)
    else:  # a point, or an ensemble of points
        ax.vlines(placed(points), base, base + height, color=BAYESIAN, linewidth=2)
    ax.axhline(base, color=MUTED, linewidth=0.6)
    said = interval_text(placed(draws))
    ax.text(1.01, base, said, transform=ax.get_yaxis_transform(), fontsize=9.5, color=INK, va="bottom")


def interval_text(draws: Vector) -> str:
    """Write draws (n,) as their mean and central 90 % interval; a point as its value.

    >>> interval_text(np.array([0.1, 0.2, 0.3])), interval_text(np.array([0.25, 0.25]))
    ('0.200 [0.110, 0.290]', '0.250')
    """
    low, high = np.quantile(draws, [0.05, 0.95])
    return f"{digits(draws.mean())}" + (f" [{digits(low)}, {digits(high)}]" if high > low else "")


def _visible(draws: Vector, prior: Curve) -> tuple[float, float]:
    """Return what the axis must show: the draws, and the prior's middle."""
    low, high = prior.quantiles(0.05, 0.95)
    return min(draws.min() - 0.1, low), max(draws.max() + 0.1, high)


def _apart(places: Vector, space: float) -> Vector:
    """Move labels up until none is nearer to the one below than `space`, then all of them back by half of what they moved."""
    order = np.argsort(places)
    moved = places[order].copy()
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + space)
    moved -= (moved - places[order]).mean()
    result = np.empty_like(places)
    result[order] = moved
    return result
