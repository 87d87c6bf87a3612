"""The figure of the study of rotated moons: see `rotated_moons.py`."""

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Generator

from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.report.style import BAYESIAN, EPISTEMIC, INK, TWIN, Axes, label, quiet
from posterity.types import Batch

SHOWN = ((0, "p"), (0, "s"), (1, "p"), (1, "s"))  # tasks, and probability or its std
LAYERS = ("2 × 5", "5 × 5", "5 × 1")


def figure(train: Batch, flat: DiagonalGaussian, group: DiagonalGaussian, intervals: list[list[list[float]]]) -> Figure:
    """Draw what the two say of two tasks: probability of class 1, its std over functions; and σ of each layer."""
    drawing = Figure(figsize=(11.5, 4.9), layout="constrained")
    rows = [[f"{row}{shown[0]}{shown[1]}" for shown in SHOWN] + ["sigma"] for row in "fh"]
    axes = drawing.subplot_mosaic(rows, width_ratios=[1, 1, 1, 1, 1.1])
    for row, posterior in (("f", flat), ("h", group)):
        for task, what in SHOWN:
            name = "flat" if row == "f" else "hierarchical"
            surface(axes[f"{row}{task}{what}"], train, posterior, task, what)
            axes[f"{row}{task}{what}"].set_title(
                f"{name}, task {task + 1}: {'p(class 1)' if what == 'p' else 'its std'}",
                loc="left",
                fontsize=9.5,
                color=INK,
            )
    ax = axes["sigma"]
    quiet(ax)
    for seed, layers in enumerate(intervals):
        for layer, (low, middle, high) in enumerate(layers):
            at = layer + 0.2 * (seed - 1)
            ax.plot([at, at], [low, high], color=BAYESIAN, linewidth=2)
            ax.plot([at], [middle], "o", color=BAYESIAN, markersize=4)
    ax.set_xticks(range(len(LAYERS)), LAYERS)
    ax.set_yscale("log")
    label(ax, "σ of each layer: how tasks differ", "median, 90 % interval; three seeds")
    return drawing


def surface(ax: Axes, train: Batch, posterior: DiagonalGaussian, task: int, what: str) -> None:
    """Draw the mean of p(class 1), or its std over functions, on a grid, and a task's training points."""
    line = torch.linspace(-3, 3, 60)
    grid = torch.cartesian_prod(line, line)
    inputs = torch.cat([grid, torch.full((len(grid), 1), float(task))], 1)
    probability = posterior.predict(inputs, 500, generator=Generator().manual_seed(0)).probs[..., 1]
    values, colours, top = (
        (probability.mean(0), [TWIN, "#ffffff", BAYESIAN], 1)
        if what == "p"
        else (probability.std(0), ["#ffffff", EPISTEMIC], 0.5)
    )
    image = values.view(60, 60).T.numpy()
    shades = LinearSegmentedColormap.from_list("shade", colours)
    ax.imshow(image, origin="lower", extent=(-3, 3, -3, 3), cmap=shades, vmin=0, vmax=top, interpolation="bilinear")
    if what == "p":
        ax.contour(line, line, image, levels=[0.5], colors=INK, linewidths=1)
    x, y = train
    for kind, colour in ((0, TWIN), (1, BAYESIAN)):
        own = x[(x[:, 2] == task) & (y == kind)]
        ax.plot(own[:, 0], own[:, 1], "o", color=colour, markeredgecolor="white", markeredgewidth=0.5, markersize=3.5)
    ax.set_xticks([])
    ax.set_yticks([])
