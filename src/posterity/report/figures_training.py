"""How training went, and what it left of the weights."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from posterity.report.data import Epoch, Model
from posterity.report.style import BAYESIAN, EPISTEMIC, HALF, INK, MODELS, MUTED, Axes, label, legend, panels

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def series(history: Sequence[Epoch], key: str, part: str | None = None) -> Series:
    """Return (epochs, values) of one number, from the epochs that have it; `part="validation"` looks in there."""
    rows = [(epoch["epoch"], epoch if part is None else epoch.get(part) or {}) for epoch in history]
    found = [(number, row[key]) for number, row in rows if row.get(key) is not None]
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def plot_training(models: Sequence[Model], score: str) -> Figure:
    """Draw the objective's two terms, the NLL, and the score ("accuracy" or "rmse"), epoch by epoch."""
    figure, (objective, nll, last) = panels(3)
    history = models[0].history
    for key, name, colour in (("nelbo", "−ELBO", MUTED), ("nll", "E[NLL]", BAYESIAN), ("kl", "KL / N", EPISTEMIC)):
        objective.plot(*series(history, key), color=colour, label=name, linewidth=3.5 if key == "nelbo" else 1.6)
    _log_where_positive(objective)
    label(objective, "Objective and its two terms", "epoch", "nats per example")
    legend(objective)
    for ax, key, title, unit in ((nll, "nll", "NLL", "nats per example"), (last, score, _title(score), "")):
        for model, colour in zip(models, MODELS, strict=False):
            ax.plot(*series(model.history, key, "validation"), color=colour, linewidth=1.8, label=model.name)
            ax.plot(*series(model.history, key), color=colour, linewidth=1, linestyle=":")
        label(ax, title, "epoch", unit)
    _log_where_positive(nll)
    legend(nll)
    return figure


def plot_signal_to_noise(ratios: Tensor) -> Figure:
    """Draw the histogram of log10 |μ|/σ over all weights."""
    values = ratios.detach().cpu().double().flatten().clamp(min=1e-3).log10().numpy()
    figure, (ax,) = panels(1, width=HALF * 1.3)
    ax.hist(values, bins=80, color=BAYESIAN, alpha=0.85)
    ax.axvline(0, color=INK, linewidth=1)
    ax.text(0.02, 0.96, "← could as well be zero", transform=ax.transAxes, va="top", fontsize=9, color=MUTED)
    label(ax, "", "log₁₀ |μ| / σ   (0: mean = standard deviation; −3: that or less)", "weights")
    return figure


def _title(score: str) -> str:
    return {"rmse": "RMSE"}.get(score, score.capitalize())


def _log_where_positive(ax: Axes) -> None:
    """Use a logarithmic scale where the curves allow it: the KL falls by orders of magnitude."""
    values = np.concatenate([line.get_ydata() for line in ax.lines])
    if len(values) and values.min() > 0:
        ax.set_yscale("log")
