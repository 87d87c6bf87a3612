"""The page and the figure of `hierarchical_mnist.py`, from the records of its fits."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from math import exp, sqrt
from pathlib import Path

from posterity.bench.study import Record
from posterity.report.style import BAYESIAN, GRID, INK, MUTED, label, panels

TITLES = {"mlp": "MLP 784-800-800-10", "cnn": "CNN 32-32-256"}
PRIORS = ("flat", "hierarchical")
RECIPES = {"converged": "converged", "early": "stopped early: near a point"}
BEFORE = {
    ("mlp", "flat"): "89.81",
    ("mlp", "hierarchical"): "92.26",
    ("cnn", "flat"): "98.03",
    ("cnn", "hierarchical"): "95",
}
NORMAL_90 = 1.645


def page(results: Sequence[Record], about: str, reading: str) -> str:
    """Write what was asked, the tables, and how to read them."""
    commits, dates = (sorted({r[key] for r in results}) for key in ("commit", "date"))
    return "\n".join(
        [
            "# Flat or hierarchical: MNIST",
            "",
            f"`python examples/hierarchical_mnist.py run NETWORK PRIOR --seed SEED`, then `… page`. {about}",
            f"One thread of a 2-core AMD EPYC, beside other work; commits {', '.join(commits)}; {', '.join(dates)}.",
            "",
            reading.strip(),
            "",
            "## What each fit reached",
            "",
            *_fits(results),
            "",
            "## The scales",
            "",
            *_scales(results),
            "",
            "![Posterior of each scale](../figures/hierarchical_mnist.svg)",
            "",
        ]
    )


def _fits(results: Sequence[Record]) -> list[str]:
    heads = (
        "network, prior, fit, seeds, −ELBO, expected NLL, KL/N, falls by, balance, accuracy, NLL, ECE, before, seconds"
    )
    lines = [
        "Test set, mean ± standard deviation over seeds; accuracy and ECE in per cent, NLL in nats. −ELBO = expected NLL of",
        "the training data + KL/N, in nats per datum, in the last epoch; falls by: what it lost over the last quarter.",
        "Balance: 1 + N·mean of σ ∂nelbo/∂σ over all weights, which is 1 where the stds have arrived. Before: accuracy in the",
        "study, which took 4 h 46 for the MLP and 12 h 40 for the CNN.",
        "",
        *_heads(heads),
    ]
    for (network, prior), before in BEFORE.items():
        for recipe, title in RECIPES.items():
            rows = [r for r in results if (r["network"], r["prior"], r["recipe"]) == (network, prior, recipe)]
            if rows:
                cells = [title, f"{len(rows)}", *(_spread(map(f, rows), digits) for f, digits in _CELLS)]
                seconds = f"{statistics.mean(r['seconds'] for r in rows):.0f}"
                lines.append(f"| {' | '.join((TITLES[network], prior, *cells, before, seconds))} |")
    return lines


def _scales(results: Sequence[Record]) -> list[str]:
    lines = [
        "Of weights that are known, p(s | w) has its mode at the root of their mean square and the relative width 1/√(2n).",
        "rms: the root of E_q[mean w²]; width: the std of log s. Mean over seeds.",
        "",
        *_heads("network, tensor, n, fit, s, rms, s/rms, width, 1/√(2n), balance"),
    ]
    for network in TITLES:
        for recipe, title in RECIPES.items():
            rows = _hierarchical(results, network, recipe)
            for name in rows[0]["tensors"] if rows else ():
                mean = _averaged([r["tensors"][name] for r in rows])
                ratio = mean["scale"] / mean["rms"] if "rms" in mean else None
                cells = [
                    TITLES[network].split()[0],
                    name,
                    f"{mean['count']:,.0f}",
                    title.split(":")[0],
                    *(
                        "" if value is None else f"{value:.{digits}f}"
                        for value, digits in (
                            (mean["scale"], 4),
                            (mean.get("rms"), 4),
                            (ratio, 3),
                            (mean["width"], 4),
                            (1 / sqrt(2 * mean["count"]), 4),
                            (mean.get("balance"), 3),
                        )
                    ),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _heads(names: str) -> list[str]:
    heads = names.split(", ")
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def _hierarchical(results: Sequence[Record], network: str, recipe: str) -> list[Record]:
    return [r for r in results if (r["network"], r["prior"], r["recipe"]) == (network, "hierarchical", recipe)]


def _averaged(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0] if all(key in row for row in rows)}


def _balance(record: Record) -> float | None:
    tensors = record["tensors"].values()
    if any("balance" not in row for row in tensors):
        return None
    return sum(row["balance"] * row["count"] for row in tensors) / sum(row["count"] for row in tensors)


def _fall(record: Record) -> float:
    history = record["history"]
    return history[-1 - max(1, len(history) // 4)]["nelbo"] - history[-1]["nelbo"]


_CELLS: tuple[tuple[Callable[[Record], float | None], int], ...] = (
    (lambda r: r["history"][-1]["nelbo"], 3),
    (lambda r: r["history"][-1]["nll"], 3),
    (lambda r: r["history"][-1]["kl"], 3),
    (_fall, 3),
    (_balance, 3),
    (lambda r: 100 * r["test"]["accuracy"], 2),
    (lambda r: r["test"]["nll"], 4),
    (lambda r: 100 * r["test"]["ece"], 2),
)


def _spread(values: object, digits: int) -> str:
    numbers = list(values)
    if None in numbers:
        return "not recorded"
    deviation = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.{digits}f}{deviation}".replace("-", "−")


def figure(results: Sequence[Record], path: Path) -> None:
    """Draw the posterior of each scale beside the root of the weights' mean square, a panel for each network."""
    drawing, axes = panels(2, height=3.6)
    for ax, network in zip(axes, TITLES, strict=True):
        fits = {recipe: _hierarchical(results, network, recipe) for recipe in RECIPES}
        names = list(next(rows for rows in fits.values() if rows)[0]["tensors"])
        for row, name in enumerate(names):
            y = len(names) - row
            for r in fits["early"]:
                ax.plot([r["tensors"][name]["scale"]], [y - 0.3], "x", color=MUTED, markersize=4)
            for r in fits["converged"]:
                tensor, height = r["tensors"][name], y + 0.15 * r["seed"]
                ends = [tensor["scale"] * exp(sign * NORMAL_90 * tensor["width"]) for sign in (-1, 1)]
                ax.plot(ends, [height, height], color=BAYESIAN, linewidth=2)
                ax.plot([tensor["scale"]], [height], "o", color=BAYESIAN, markersize=3.5)
                ax.plot([tensor["rms"]], [height], "|", color=INK, markersize=9)
        ax.axvline(0.1, color=INK, linestyle=":", linewidth=1)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.set_xticks([s for s in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0) if low < s < high])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_yticks(range(len(names), 0, -1), names)
        ax.grid(color=GRID)
        label(
            ax,
            f"{TITLES[network]}: scales",
            "s: mean, 90 %; bar: rms of w under q; ×: stopped early",
        )
    drawing.savefig(path)
