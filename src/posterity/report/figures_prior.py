"""What a prior says before any data: are its functions undecided or saturated, flat or wild?"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.metrics.prior import commonest_class, function_stds
from posterity.predict.predictive import Classification, Regression
from posterity.report.figures_regression import Vector, numbers
from posterity.report.style import BAYESIAN, EPISTEMIC, INK, Axes, label, legend, panels, wide_range

SHOWN = 25  # functions drawn one by one
BINS = 25


def plot_prior_predictive(
    predictive: Classification | Regression, inputs: Tensor | None = None, targets: Tensor | None = None
) -> Figure:
    """Draw the functions of a prior predictive; see `posterity.prior_predictive`.

    - Classification: how sure the functions are of their predictions, and the share of inputs that each of them gives to
      its commonest class.
    - Regression on one input variable, (B,) or (B, 1), with one target: 25 functions over it, and the bands that hold 50 and
      90 % of all of them.
    - Any other regression: the functions' values beside the targets', and how much each function varies.

    Args:
        predictive: of B inputs, from n functions.
        inputs: (B, ...), those that the functions were evaluated on.
        targets: of the same inputs, to compare with, in the units of the predictive; of classes, they are not drawn.

    Raises:
        InvalidInput: where inputs or targets are not as many as the predictions.
    """
    batch = predictive.mean.shape[0]
    for name, values in (("inputs", inputs), ("targets", targets)):
        if values is not None and len(values) != batch:
            raise InvalidInput(f"{len(values)} {name} were given for predictions of {batch} inputs; give one for each.")
    if isinstance(predictive, Classification):
        return _plot_classes(predictive)
    if inputs is not None and inputs.numel() == batch and predictive.means.dim() == 2:
        return _plot_functions(predictive, numbers(inputs.flatten()), targets)
    return _plot_values(predictive, targets)


def _plot_classes(predictive: Classification) -> Figure:
    largest = numbers(predictive.probs.amax(-1))
    classes = predictive.probs.shape[-1]
    figure, (sure, classed) = panels(2, height=3.4)
    edges = np.linspace(1 / classes, 1, BINS + 1)
    _shares(sure, largest.flatten(), edges, BAYESIAN, "single predictions")
    _shares(sure, largest.mean(1), edges, None, "means of functions")
    label(sure, "How sure functions are", f"largest probability ({_percent(1 / classes)}: says nothing)", "share")
    legend(sure)
    _shares(classed, numbers(commonest_class(predictive)), edges, EPISTEMIC, "functions")
    said = f"inputs in a function's commonest class ({_percent(1 / classes)}: balanced)"
    label(classed, "Whether they look at their inputs", said, "share of functions")
    for ax in (sure, classed):
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def _plot_functions(predictive: Regression, x: Vector, targets: Tensor | None) -> Figure:
    order = np.argsort(x)
    means = numbers(predictive.means)[:, order]
    figure, (ax,) = panels(1, height=3.8)
    for level, alpha in ((0.9, 0.16), (0.5, 0.26)):
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
        said = f"{_percent(level)} of the functions"
        ax.fill_between(x[order], low, high, color=EPISTEMIC, alpha=alpha, linewidth=0, label=said)
    ax.plot(x[order], means[:SHOWN].T, color=BAYESIAN, linewidth=0.8, alpha=0.55)
    low, high = np.quantile(means, [0.02, 0.98])
    if targets is not None:
        y = numbers(targets.flatten())
        ax.plot(x, y, "o", color=INK, markersize=3, markeredgewidth=0, alpha=0.7, label="targets")
        low, high = min(low, y.min()), max(high, y.max())
    if high > low:
        ax.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    label(ax, "", "input", "target")
    legend(ax, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.13))
    return figure


def _plot_values(predictive: Regression, targets: Tensor | None) -> Figure:
    values, stds = numbers(predictive.means).flatten(), numbers(function_stds(predictive))
    known = [] if targets is None else [numbers(targets.flatten())]
    figure, (left, right) = panels(2, height=3.4)
    edges = _edges(np.quantile(values, [0.02, 0.98]), *known)
    _shares(left, values, edges, BAYESIAN, "values of the functions")
    reach = np.quantile(stds, [0.01, 0.99])
    for y in known:
        _shares(left, y, edges, None, "targets")
        right.axvline(y.std(), color=INK, linewidth=1.5, label="std of the targets")
        reach = np.append(reach, y.std())
    _shares(right, stds, _edges(reach, wide=True), EPISTEMIC, "functions")
    wide_range(right.xaxis, reach.min(), reach.max())
    label(left, "Where functions are", "value (without the outermost 2 % at each end)", "share")
    label(right, "How much they vary", "std of one function over the inputs", "share of functions")
    left.xaxis.set_major_locator(MaxNLocator(5))
    legend(left)
    legend(right)
    return figure


def _edges(*values: Vector, wide: bool = False) -> Vector:
    """Return the edges of bins for all values together, equal on a logarithmic axis where `wide_range` makes one."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    if wide and low > 0 and high >= 10 * low:
        return np.geomspace(low, high, BINS + 1)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _shares(ax: Axes, values: Vector, edges: Vector, colour: str | None, name: str) -> None:
    """Draw a histogram of shares, filled or (without a colour) as an outline."""
    weights = np.full(len(values), 1 / len(values))
    if colour is None:
        ax.hist(values, edges, weights=weights, histtype="step", color=INK, linewidth=1.3, label=name)
    else:
        ax.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=name)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
