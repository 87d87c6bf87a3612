"""Do the predictions follow the targets, and are the bands as wide as the errors?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from posterity.metrics.calibration import coverage_curve
from posterity.predict.checks import existing
from posterity.predict.predictive import General, Regression
from posterity.report.style import (
    ALEATORIC,
    BAYESIAN,
    CROWD,
    EPISTEMIC,
    HALF,
    INK,
    MODELS,
    MUTED,
    label,
    legend,
    panels,
    plain,
)

Vector = NDArray[np.float64]
CURVE = 500  # points that draw a curve


@dataclass(frozen=True, eq=False)
class Bands:
    """Predictions as vectors (B,), in the units of the target, with the central 90 % interval."""

    mean: Vector
    lower: Vector
    upper: Vector
    aleatoric_std: Vector
    epistemic_std: Vector

    @classmethod
    def of(cls, predictive: Regression | General) -> "Bands":
        """Take the bands of a predictive of one target; NaN for what the family has not."""
        lower, upper = predictive.interval(0.9)
        asked = (lambda: predictive.aleatoric.sqrt(), lambda: predictive.epistemic.sqrt())
        parts = (existing(lambda: predictive.mean, lower), lower, upper, *(existing(ask, lower) for ask in asked))
        return cls(*(numbers(part) for part in parts))

    @property
    def std(self) -> Vector:
        """√(aleatoric² + epistemic²)."""
        return np.hypot(self.aleatoric_std, self.epistemic_std)


def numbers(values: Tensor) -> Vector:
    """Return a tensor's values as float64."""
    array: Vector = values.detach().cpu().double().numpy()
    return array


def plot_predicted(bands: Bands, targets: Tensor) -> Figure:
    """Draw the true value against the prediction, each with its 90 % interval."""
    y = numbers(targets)
    crowd = len(y) > CROWD
    figure, (ax,) = panels(1, width=HALF, height=4.2)
    reach = [min(y.min(), bands.mean.min()), max(y.max(), bands.mean.max())]
    ax.plot(reach, reach, color=MUTED, linewidth=1, linestyle="--")
    alpha = max(min(0.35, 250 / len(y)), 0.02)
    ax.vlines(bands.mean, bands.lower, bands.upper, color=BAYESIAN, alpha=alpha, linewidth=1, rasterized=crowd)
    alpha = max(min(0.85, 600 / len(y)), 0.08)
    ax.plot(bands.mean, y, "o", color=INK, markersize=3, alpha=alpha, markeredgewidth=0, rasterized=crowd)
    plain(ax.xaxis)
    plain(ax.yaxis)
    label(ax, "True against predicted, 90 % bands", "predicted mean", "true value")
    return figure


def plot_fit(inputs: Tensor, bands: Bands, targets: Tensor) -> Figure:
    """Draw the fit of one input variable: mean, the functions' own 90 % band, and that of the targets."""
    x, y = numbers(inputs), numbers(targets)
    order = np.argsort(x)[:: max(len(x) // CURVE, 1)]
    mean, epistemic = bands.mean[order], 1.6449 * bands.epistemic_std[order]
    figure, (ax,) = panels(1, height=3.8)
    ax.fill_between(
        x[order], bands.lower[order], bands.upper[order], color=ALEATORIC, alpha=0.22, label="90 % of the targets"
    )
    ax.fill_between(
        x[order], mean - epistemic, mean + epistemic, color=EPISTEMIC, alpha=0.35, label="90 % of the functions"
    )
    ax.plot(x[order], mean, color=BAYESIAN, linewidth=1.8, label="mean")
    style = {"markersize": 3, "alpha": max(min(0.7, 500 / len(y)), 0.05), "rasterized": len(y) > CROWD}
    ax.plot(x, y, "o", color=INK, markeredgewidth=0, label="test targets", **style)
    label(ax, "", "input", "target")
    legend(ax, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    return figure


def plot_coverage(predictives: Mapping[str, Regression | General], targets: Tensor) -> Figure:
    """Draw how often central intervals hold the truth against how often they should."""
    figure, (ax,) = panels(1, width=HALF, height=4.2)
    ax.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
    for (name, predictive), colour in zip(predictives.items(), MODELS, strict=False):
        curve = coverage_curve(predictive, targets)
        level, coverage = numbers(curve.level), numbers(curve.coverage)
        ax.plot(100 * level, 100 * coverage, "o-", color=colour, markersize=4, linewidth=1.4, label=name)
    label(ax, "Calibration of the intervals", "level of the interval, %", "targets inside, %")
    legend(ax, loc="upper left")
    return figure


def plot_residuals(bands: Bands, targets: Tensor) -> Figure:
    """Draw the size of the errors against the predicted standard deviation, and their root mean square in ten groups."""
    error = np.abs(numbers(targets) - bands.mean)
    order = np.argsort(bands.std)
    groups = [group for group in np.array_split(order, 10) if len(group)]
    figure, (ax,) = panels(1, width=HALF, height=4.2)
    alpha = max(min(0.5, 400 / len(error)), 0.05)
    style = {"markersize": 3, "markeredgewidth": 0, "alpha": alpha, "rasterized": len(error) > CROWD}
    ax.plot(bands.std, error, "o", color=MUTED, **style)
    stds = [np.sqrt(np.mean(bands.std[group] ** 2)) for group in groups]
    sizes = [np.sqrt(np.mean(error[group] ** 2)) for group in groups]
    ax.plot(stds, sizes, "o-", color=BAYESIAN, markersize=5, linewidth=1.4, label="root mean square, ten groups")
    reach = [bands.std.min(), bands.std.max()]
    ax.plot(reach, reach, color=INK, linewidth=1, linestyle="--", label="as predicted")
    plain(ax.xaxis)
    plain(ax.yaxis)
    label(ax, "Errors against predicted std", "predicted standard deviation", "|true − predicted|")
    legend(ax, loc="upper left")
    return figure


def plot_errors(bands: Bands, targets: Tensor) -> Figure:
    """Draw the errors against the prediction, with their mean in ten groups: a curve is what the function misses."""
    error = numbers(targets) - bands.mean
    groups = [group for group in np.array_split(np.argsort(bands.mean), 10) if len(group)]
    figure, (ax,) = panels(1, width=HALF, height=4.2)
    ax.axhline(0, color=INK, linewidth=1, linestyle="--")
    alpha = max(min(0.5, 400 / len(error)), 0.05)
    ax.plot(
        bands.mean, error, "o", color=MUTED, markersize=3, markeredgewidth=0, alpha=alpha, rasterized=len(error) > CROWD
    )
    means = [bands.mean[group].mean() for group in groups], [error[group].mean() for group in groups]
    ax.plot(*means, "o-", color=BAYESIAN, markersize=5, linewidth=1.4, label="mean, ten groups")
    plain(ax.xaxis)
    plain(ax.yaxis)
    label(ax, "Errors against the prediction", "predicted mean", "true − predicted")
    legend(ax, loc="upper left")
    return figure


def plot_parts(bands: Bands) -> Figure:
    """Draw how the aleatoric and the epistemic standard deviation are distributed over the inputs."""
    figure, (ax,) = panels(1, width=HALF, height=4.2)
    edges = np.histogram_bin_edges(np.concatenate([bands.aleatoric_std, bands.epistemic_std]), 40)
    ax.hist(bands.aleatoric_std, edges, color=ALEATORIC, alpha=0.65, label="aleatoric: noise")
    ax.hist(bands.epistemic_std, edges, color=EPISTEMIC, alpha=0.65, label="epistemic: ignorance")
    plain(ax.xaxis)
    label(ax, "The two parts of the uncertainty", "standard deviation", "inputs")
    legend(ax)
    return figure
