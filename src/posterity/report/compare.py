"""Runs of the same data side by side: their scores, what they cost, and their curves on one page.

`comparison` makes the page's sections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10, sqrt
from pathlib import Path
from statistics import fmean, stdev

from markupsafe import Markup, escape
from torch import Tensor

from posterity.metrics.calibration import (
    CoverageCurve,
    Reliability,
    calibration_slope,
    coverage_curve,
    reliability,
)
from posterity.metrics.scores import evaluate
from posterity.metrics.selective import RiskCoverage, error_auroc, risk_coverage
from posterity.predict.predictive import Classification, Regression
from posterity.report import figures_compare as figures
from posterity.report.contenders import Contender, colour
from posterity.report.render import fill, write_page
from posterity.report.section import Grid, Section
from posterity.text import visible

BINS = 10  # of reliability curves: fewer than a report's own diagram, for several share a figure


@dataclass(frozen=True)
class Column:
    """One number of every contender. arrow: to its better side; factor: what it is multiplied by to be read."""

    key: str
    name: str
    arrow: str = ""
    factor: int = 1

    @property
    def head(self) -> str:
        return f"{self.name} {self.arrow}".rstrip()

    def cost(self, value: float) -> float | None:
        """Return what is least for the best value; None where neither is better."""
        if self.arrow.startswith("→"):
            return abs(value * self.factor - float(self.arrow[1:]))
        return {"↑": -value, "↓": value}.get(self.arrow)


COLUMNS = {
    "classification": {
        "Quality": (
            Column("accuracy", "Accuracy %", "↑", 100),
            Column("nll", "NLL", "↓"),
            Column("brier", "Brier", "↓"),
            Column("ece", "ECE %", "↓", 100),
            Column("smooth_ece", "Smooth ECE %", "↓", 100),
            Column("calibration_slope", "Slope", "→ 1"),
        ),
        "Uncertainty": (
            Column("aurc", "AURC ‰", "↓", 1000),
            Column("augrc", "AUGRC ‰", "↓", 1000),
            Column("error_auroc", "Error AUROC %", "↑", 100),
            Column("entropy", "Entropy, nats"),
            Column("mutual_information", "Mutual information"),
        ),
    },
    "regression": {
        "Quality": (
            Column("rmse", "RMSE", "↓"),
            Column("nll", "NLL", "↓"),
            Column("crps", "CRPS", "↓"),
        ),
        "Uncertainty": (
            Column("coverage_90", "90 % coverage", "→ 90", 100),
            Column("coverage_error", "Coverage error %", "↓", 100),
            Column("interval_width_90", "90 % width"),
            Column("aleatoric_std", "Aleatoric std"),
            Column("epistemic_std", "Epistemic std"),
        ),
    },
}
COSTS = (
    Column("train_seconds", "Training s", "↓"),
    Column("predict_seconds", "Prediction s", "↓"),
    Column("parameters", "Trained numbers", "↓"),
    Column("megabytes", "Memory MB", "↓"),
    Column("draws", "Draws"),
)
_QUALITY = "Arrows point to the better side; the best of each column is in bold."
_COST = (
    "Training as the run's log tells, all members of an ensemble added; prediction of the whole test set, measured now; "
    "trained numbers; what the posterior holds in memory."
)
READINGS = {
    "classification": {
        "Quality": _QUALITY,
        "Uncertainty": "AURC and AUGRC are areas under risk-coverage curves, in thousandths; error AUROC is how often a "
        "mistake is less probable than a hit.",
        "Cost": _COST,
    },
    "regression": {
        "Quality": _QUALITY,
        "Uncertainty": "Coverage error is the mean gap of a central interval's level and its coverage, over 19 levels.",
        "Cost": _COST,
    },
}
TITLES = {"Quality": "How good", "Uncertainty": "How honest about what they do not know", "Cost": "At what cost"}


def scored(predictive: Classification | Regression, targets: Tensor) -> dict[str, float]:
    """Return every score that a comparison shows."""
    scores = dict(evaluate(predictive, targets))
    if isinstance(predictive, Classification):
        right = predictive.labels.cpu() == targets.cpu()
        scores["error_auroc"] = error_auroc(-predictive.confidence, right)
        scores["calibration_slope"] = calibration_slope(predictive.mean, targets)
    else:
        scores["coverage_error"] = coverage_curve(predictive, targets).error
    return scores


def calibration_of(predictive: Classification | Regression, targets: Tensor) -> Reliability | CoverageCurve:
    """Return the curve that a comparison overlays: of confidences, or of intervals."""
    if isinstance(predictive, Classification):
        return reliability(predictive.mean, targets, BINS)
    return coverage_curve(predictive, targets)


def risk_of(predictive: Classification | Regression, targets: Tensor) -> RiskCoverage:
    """Return the risk-coverage curve of 0-1 losses by 1 − max p̄, or of squared errors by the predictive std."""
    if isinstance(predictive, Classification):
        return risk_coverage(1 - predictive.confidence.cpu(), predictive.labels.cpu() != targets.cpu())
    errors = (predictive.mean.cpu().double() - targets.cpu().double()).square()
    return risk_coverage(predictive.std.cpu().flatten(), errors.flatten())


def written(values: Sequence[float], column: Column) -> str:
    """Write the mean of some runs, ± their standard deviation with two digits; "–" where there is none.

    >>> written([0.9712, 0.9736], Column("accuracy", "Accuracy %", "↑", 100)), written([0.06612], Column("nll", "NLL"))
    ('97.24 ± 0.17', '0.0661')
    """
    scaled = [value * column.factor for value in values]
    if not scaled:
        return "–"
    mean, spread = fmean(scaled), stdev(scaled) if len(scaled) > 1 else 0.0
    if column.key in ("parameters", "draws"):
        return f"{mean:,.0f}"
    if spread == 0:
        return f"{mean:.2f}" if column.factor != 1 else f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:#.3g}"
    decimals = min(max(1 - floor(log10(spread)), 0), 6)
    return f"{mean:,.{decimals}f} ± {spread:.{decimals}f}"


def grid(contenders: Sequence[Contender], columns: Sequence[Column], head: str = "") -> Grid:
    """Return the table of some columns, a row per contender, the best of each column marked; empty columns are left out."""
    columns = [c for c in columns if any(contender.values(c.key) for contender in contenders)]
    rows = [(contender.name, *(written(contender.values(c.key), c) for c in columns)) for contender in contenders]
    best = set()
    for at, column in enumerate(columns):
        costs = {
            row: cost
            for row, contender in enumerate(contenders)
            if (values := contender.values(column.key)) and (cost := column.cost(fmean(values))) is not None
        }
        if len({rows[row][at + 1] for row in costs}) > 1:
            first = min(costs, key=costs.__getitem__)
            best |= {(row, at) for row in costs if rows[row][at + 1] == rows[first][at + 1]}
    return Grid((head, *(c.head for c in columns)), tuple(rows), frozenset(best))


def grids(contenders: Sequence[Contender], task: str) -> dict[str, Grid]:
    """Return the tables of a comparison by name: Quality, Uncertainty and Cost."""
    return {name: grid(contenders, columns, name) for name, columns in {**COLUMNS[task], "Cost": COSTS}.items()}


def unfair(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """Say what makes a comparison unfair: seeds, numbers of runs, or numbers of draws that differ."""
    found = []
    seeds = {c.name: sorted(r.seed for r in c.results) for c in contenders}
    if len({tuple(own) for own in seeds.values()}) > 1:
        said = "; ".join(f"{name}: {', '.join(map(str, own))}" for name, own in seeds.items())
        found.append(f"The seeds differ ({said}): luck of the seed is part of the differences.")
    for name, own in seeds.items():
        if len(set(own)) < len(own):
            found.append(f"{name} has several runs of the same seed: their spread is too small.")
    draws = {c.name: max(r.draws for r in c.results) for c in contenders}
    several = {name: count for name, count in draws.items() if count > 1}  # a point has one function, and needs no more
    if len(set(several.values())) > 1:
        said = "; ".join(f"{name}: {count}" for name, count in several.items())
        found.append(f"The numbers of draws differ ({said}): --draws makes them equal.")
    return tuple(found)


def headline(contenders: Sequence[Contender], task: str) -> str:
    """Say in one sentence who is best at what, and how well the test set can tell."""
    wins: dict[str, list[str]] = {}
    for column in (c for c in COLUMNS[task]["Quality"] if c.key in ("accuracy", "rmse", "nll")):
        own = {c.name: column.cost(fmean(v)) or 0.0 for c in contenders if (v := c.values(column.key))}
        if not own:  # a score that this family has not
            continue
        best = min(own, key=own.__getitem__)
        value = written(next(c for c in contenders if c.name == best).values(column.key), column)
        word = f"highest accuracy ({value} %)" if column.key == "accuracy" else f"lowest {column.name} ({value})"
        wins.setdefault(best, []).append(f"the {word}")
    num_test = len(contenders[0].results[0].risk.risk)
    told = "; ".join(f"{name} has {' and '.join(won)}" for name, won in wins.items())
    text = f"On {num_test:,} test examples {told}."
    if task == "classification":
        accuracy = max(fmean(v) for c in contenders if (v := c.values("accuracy")))
        error = 100 * sqrt(accuracy * (1 - accuracy) / num_test)
        text += f" So many examples tell an accuracy to ± {error:.2g} points (one standard error)."
    return text


def comparison(contenders: Sequence[Contender], task: str) -> tuple[Section, ...]:
    """Return the sections of the page: three tables, then the curves that the runs have."""
    tables = grids(contenders, task).items()
    texts = READINGS[task]
    told = [Section(TITLES[name], texts[name], grids=(_coloured(table),)) for name, table in tables]
    return (*told, *figures.sections(contenders, task))


def write_comparison(
    contenders: Sequence[Contender], task: str, data: str, warnings: Sequence[str], path: str | Path
) -> Path:
    """Write the page, self-contained; return its path. Raises `InvalidInput` where it cannot be written."""
    runs = tuple((r.name, c.name, str(r.seed), str(r.draws)) for c in contenders for r in c.results)
    origin = Section("Which runs", "Runs that differ by their seeds alone share a row.", grids=(_origin(runs),))
    page = fill(
        "compare.html.j2",
        title=f"{data}: {len(contenders)} posteriors compared",
        headline=headline(contenders, task),
        warnings=warnings,
        sections=(*comparison(contenders, task), origin),
    )
    return write_page(page, path)


def _coloured(table: Grid) -> Grid:
    dot = '<i class="dot" style="background:{}"></i>{}'
    rows = tuple((Markup(dot.format(colour(i), escape(visible(row[0])))), *row[1:]) for i, row in enumerate(table.rows))
    return Grid(("", *table.heads[1:]), rows, table.best)


def _origin(rows: tuple[tuple[str, ...], ...]) -> Grid:
    return Grid(("Run", "Contender", "Seed", "Draws"), rows)
