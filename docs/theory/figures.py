"""Run the chapters and draw their figures from what they computed.

python docs/theory/figures.py            # all of them, into docs/figures/theory-*.svg
python docs/theory/figures.py 1 3        # those of chapters 1 and 3
"""

import re
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from posterity.report.style import (
    ALEATORIC,
    BAYESIAN,
    EPISTEMIC,
    INK,
    MUTED,
    TWIN,
    WIDE,
    Axes,
    label,
    legend,
    panels,
    quiet,
)

THEORY = Path(__file__).parent
Names = dict[str, Any]  # what a chapter left behind


def run(chapter: Path) -> Names:
    """Execute a chapter's Python blocks, from top to bottom."""
    names: Names = {}
    for block in re.findall(r"```python\n(.*?)```", chapter.read_text(encoding="utf-8"), re.S):
        exec(compile(block, chapter.name, "exec"), names)
    return names


def ellipse(ax: Axes, mean: Tensor, covariance: Tensor, **look: Any) -> None:
    """Draw where a normal's density is that of two standard deviations."""
    turn = torch.linspace(0, 2 * torch.pi, 200).double()
    circle = torch.stack([turn.cos(), turn.sin()])
    at = mean[:, None] + 2 * torch.linalg.cholesky(covariance) @ circle
    ax.plot(*at.numpy(), **look)


def band(ax: Axes, at: Tensor, mean: Tensor, std: Tensor, colour: str, **look: Any) -> None:
    """Fill the central 90 % of normals."""
    ax.fill_between(at, mean - 1.645 * std, mean + 1.645 * std, color=colour, linewidth=0, **look)


def line(n: Names) -> Figure:
    """Six solutions in the plane of the two weights, the posterior as functions, and its width."""
    figure, (plane, functions, width) = panels(3, height=3.4)
    plane.plot(*n["draws"].T.numpy(), ".", color=MUTED, markersize=2, alpha=0.5, rasterized=True, label="NUTS")
    ellipse(plane, n["mean"], n["covariance"], color=INK, linewidth=1.2, label="exact")
    ellipse(plane, n["advi"].mean, n["advi"].covariance, color=EPISTEMIC, linestyle="--", label="ADVI, full rank")
    ellipse(plane, n["bbb"].mean, torch.diag(n["bbb"].std.square()), color=BAYESIAN, label="Bayes by Backprop")
    plane.plot(*n["by_rmse"].numpy(), "s", color=TWIN, markersize=7, markerfacecolor="none", label="RMSE")
    plane.plot(*n["mle"].mean.numpy(), "x", color=TWIN, label="MLE")
    plane.plot(*n["map_"].mean.numpy(), "+", color=INK, markersize=9, label="MAP")
    label(plane, "The plane of the weights", "slope", "intercept")
    legend(plane, loc="lower left", handlelength=1.2, labelspacing=0.25)
    plane.set_ylim(-0.45, 1.55)

    at = torch.linspace(-1, 7, 100).double()
    features = torch.stack([at, torch.ones_like(at)], 1)
    mean, exact = features @ n["mean"], (features @ n["covariance"] * features).sum(1).sqrt()
    total = (exact.square() + n["noise"] ** 2).sqrt()
    band(functions, at, mean, total, ALEATORIC, alpha=0.3, label="90 % of new data")
    band(functions, at, mean, exact, EPISTEMIC, alpha=0.45, label="90 % of functions")
    functions.plot(at, mean, color=INK, linewidth=1.2, label="posterior mean = MAP")
    functions.plot(n["x"][:, 0], n["y"], "o", color=INK, markersize=2.5)
    label(functions, "The exact posterior, as functions", "x", "y")
    legend(functions, loc="upper left")

    width.plot(at, exact, color=INK, label="exact")
    for name, colour, style in (("nuts", MUTED, ":"), ("advi", EPISTEMIC, "--"), ("bbb", BAYESIAN, "-")):
        std = n[name].predict(at[:, None], 600, generator=torch.Generator().manual_seed(0)).epistemic.sqrt()
        shown = {"nuts": "NUTS", "advi": "ADVI, full rank", "bbb": "Bayes by Backprop"}[name]
        width.plot(at, std, color=colour, linestyle=style, label=shown)
    width.axvspan(0, 3, color=MUTED, alpha=0.1, linewidth=0)
    width.set_ylim(0, None)
    label(width, "Width of the posterior of f(x)", "x (grey: where the data are)", "epistemic std")
    legend(width, loc="upper left")
    return figure


def elbo(n: Names) -> Figure:
    """The two terms during training, and q on its way to the posterior."""
    figure, (terms, plane) = panels(2, height=3.6)
    history = n["history"]
    steps = torch.arange(1, len(history) + 1)
    path = [(torch.tensor(mu).double(), torch.tensor(sigma).double()) for _, _, mu, sigma in history]
    fit = -torch.stack([n["fit_term"](*q) for q in path])
    kl = torch.stack([n["kl_term"](*q) for q in path])
    terms.plot(steps, fit + kl, color=INK, label="−ELBO: their sum")
    terms.plot(steps, fit, color=TWIN, label="−E[log p(D | w)]: misfit")
    terms.plot(steps, kl, color=BAYESIAN, label="KL(q ‖ p): what was learnt")
    evidence = -float(n["log_evidence"])
    terms.axhline(evidence, color=MUTED, linestyle="--", linewidth=1)
    terms.annotate("−log p(D)", (1, evidence), (0, -11), textcoords="offset points", fontsize=8.5, color=MUTED)
    terms.set_xscale("log")
    terms.set_yscale("log")
    label(terms, "The two terms during training", "step", "nats")
    legend(terms, loc="upper right")

    for step, shade in ((0, 0.25), (10, 0.45), (30, 0.65), (799, 1.0)):
        mu, sigma = path[step]
        ellipse(plane, mu, torch.diag(sigma.square()), color=BAYESIAN, alpha=shade)
        side = -1 if step == 799 else 1
        place = {"textcoords": "offset points", "ha": "center", "va": "center"}
        plane.annotate(
            f"step {step + 1}",
            (mu[0], mu[1] + side * 2 * sigma[1]),
            (0, side * 7),
            fontsize=8.5,
            color=BAYESIAN,
            **place,
        )
    ellipse(plane, n["posterior"].mean, n["posterior"].covariance_matrix, color=INK, linewidth=1.2)
    plane.annotate("p(w | D)", (0.22, 1.12), color=INK, fontsize=9)
    label(plane, "q on its way", "slope", "intercept")
    return figure


def gradients(n: Names) -> Figure:
    """Variance of each gradient against the size of the batch, and what each estimator's draws look like."""
    figure, (by_mu, by_sigma, draws) = panels(3, height=3.3)
    looks = {
        "weight": ("weight draw", BAYESIAN),
        "flipout": ("Flipout", EPISTEMIC),
        "local": ("local reparameterisation", ALEATORIC),
    }
    for part, ax in enumerate((by_mu, by_sigma)):
        for name, (shown, colour) in looks.items():
            exact = [v.view(2, -1)[part].sum() for v in n["predicted"][name]]
            measured = [v.view(2, -1)[part].sum() for v in n["measured"][name]]
            dashed = "--" if name == "local" else "-"
            ax.plot(n["sizes"], exact, color=colour, linestyle=dashed, label=shown)
            ax.plot(n["sizes"], measured, "o", color=colour, markersize=4)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(n["sizes"], n["sizes"])
    label(by_mu, "Variance of ∂/∂μ", "examples in the batch", "sum over weights")
    label(by_sigma, "Variance of ∂/∂σ", "examples in the batch")
    legend(by_mu, loc="lower left")
    generator = torch.Generator().manual_seed(2)
    at = torch.linspace(-2, 2, 60)
    for _ in range(4):
        slope, intercept = torch.randn(2, generator=generator)
        draws.plot(at, 0.5 + intercept + slope * at, color=BAYESIAN, linewidth=1, alpha=0.7)
    noise = 0.5 + (1 + at.square()).sqrt() * torch.randn(60, generator=generator)
    draws.plot(at, noise, ".-", color=ALEATORIC, linewidth=0.4, markersize=4)
    label(draws, "Four weight draws; one local draw", "x", "f(x)")
    return figure


def network(n: Names) -> Figure:
    """Six ways to the same network."""
    figure = Figure(figsize=(WIDE, 5.6), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True).flatten()
    grid = n["grid"][:, 0]
    titles = ("RMSE", "maximum likelihood", "MAP", "Bayes by Backprop", "ADVI, full rank", "NUTS")
    for ax, title in zip(axes, titles, strict=True):
        quiet(ax)
        label(ax, title, "", "")
        if title in n["posteriors"]:
            p = n["posteriors"][title].predict(n["grid"], 150, generator=torch.Generator().manual_seed(0))
            mean, epistemic, noise = p.mean, p.epistemic.sqrt(), n["noise"]
        else:
            mean, epistemic = n["curve"], torch.zeros_like(n["curve"])
            noise = 0.0 if title == "RMSE" else float(n["rmse"])
        band(ax, grid, mean, (epistemic.square() + noise**2).sqrt(), ALEATORIC, alpha=0.3, label="90 % of new data")
        if epistemic.max() > 0:
            band(ax, grid, mean, epistemic, EPISTEMIC, alpha=0.45, label="90 % of functions")
        ax.plot(grid, mean, color=INK, linewidth=1.2, label="prediction")
        ax.plot(grid, torch.sin(2 * grid), color=MUTED, linestyle="--", linewidth=0.9, label="truth")
        ax.plot(n["x"][:, 0], n["y"], "o", color=INK, markersize=2.5)
        ax.set_ylim(-3.2, 3.2)
    legend(axes[3], loc="lower center", ncols=2)
    for ax in axes[3:]:
        ax.set_xlabel("x", fontsize=9.5, color=MUTED)
    return figure


def calibration(n: Names) -> Figure:
    """One world of the four thousand, and how often intervals hold the truth in all of them."""
    figure, (one, coverage) = panels(2, height=3.2)
    at = n["at"]
    band(one, at, n["means"][0], n["total"], ALEATORIC, alpha=0.3, label="posterior, 90 %")
    band(one, at, n["means"][0], torch.tensor(n["noise"]), TWIN, alpha=0.4, label="plug-in, 90 %")
    one.plot(at, n["truth"][0] @ n["features"].T, color=MUTED, linestyle="--", label="truth")
    one.plot(n["x"], n["data"][0], "o", color=INK, markersize=3)
    one.set_ylim(-12, 12)
    label(one, "One of 4000 worlds", "x", "y")
    legend(one, loc="upper center")
    coverage.plot(at, n["covered"]["posterior"], color=ALEATORIC, label="posterior")
    coverage.plot(at, n["covered"]["plug-in"], "o", color=TWIN, markersize=3, label="plug-in")
    coverage.plot(at, n["expected"], color=TWIN, linewidth=1, label="plug-in, by formula")
    coverage.axhline(0.9, color=MUTED, linestyle="--", linewidth=1)
    coverage.set_ylim(0, 1)
    label(coverage, "Share of new data in the 90 % interval", "x (data between −1 and 1)")
    legend(coverage, loc="lower center")
    return figure


def moons(n: Names) -> Figure:
    """Probability of class 1 by one network and by the posterior, and what the posterior's functions disagree about."""
    figure, axes = panels(3, height=3.5)
    side = torch.linspace(-6, 6, 61)
    grid = torch.cartesian_prod(side, side)
    classes = LinearSegmentedColormap.from_list("classes", [TWIN, "#ffffff", BAYESIAN])
    doubt = LinearSegmentedColormap.from_list("doubt", ["#ffffff", EPISTEMIC])
    generator = torch.Generator().manual_seed(0)
    point, posterior = (n["posteriors"][k].predict(grid, 200, generator=generator) for k in ("MLE", "SGHMC"))
    shown = (
        ("maximum likelihood: p(class 1)", point.mean[:, 1], classes, 1.0),
        ("posterior: p(class 1)", posterior.mean[:, 1], classes, 1.0),
        ("mutual information, nats", posterior.mutual_information, doubt, None),
    )
    for ax, (title, values, colours, top) in zip(axes, shown, strict=True):
        image = values.view(61, 61).T
        drawn = ax.imshow(
            image, origin="lower", extent=(-6, 6, -6, 6), cmap=colours, vmin=0, vmax=top, interpolation="bilinear"
        )
        figure.colorbar(drawn, ax=ax, shrink=0.62).ax.tick_params(labelsize=8, colors=MUTED)
        for k, colour in enumerate((TWIN, BAYESIAN)):
            ax.plot(*n["inputs"][n["labels"] == k].T, "o", color=colour, markeredgecolor=INK, markersize=4, mew=0.4)
        ax.grid(visible=False)
        label(ax, title, "")
    return figure


FIGURES = {
    "1": {"line": line},
    "2": {"elbo": elbo},
    "3": {"gradients": gradients},
    "4": {"network": network},
    "5": {"calibration": calibration, "moons": moons},
}


def main(chapters: list[str]) -> None:
    for number in chapters or FIGURES:
        (chapter,) = (THEORY / "en").glob(f"{number}-*.md")
        names = run(chapter)
        for name, draw in FIGURES[number].items():
            path = THEORY.parent / "figures" / f"theory-{name}.svg"
            with rc_context({"svg.hashsalt": name}):
                draw(names).savefig(path, dpi=150, metadata={"Date": None})
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
