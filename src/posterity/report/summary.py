"""The head of the report: one sentence, three numbers, and the table against the twin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posterity.report.data import Model, ReportData


@dataclass(frozen=True)
class Metric:
    """How a score is called, written and compared; `cost` is lowest for the best value, None where neither is better."""

    key: str
    label: str
    meaning: str
    write: Callable[[float], str]
    arrow: str = ""
    cost: Callable[[float], float] | None = None


@dataclass(frozen=True)
class Cell:
    """One value of the table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table, a cell per model."""

    label: str
    meaning: str
    arrow: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Number:
    """One of the headline's figures."""

    value: str
    label: str
    note: str


def percent(value: float) -> str:
    """Write a fraction: 0.9861 → "98.6 %", with a space that does not break."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def digits(value: float) -> str:
    """Write a number with three significant digits.

    >>> digits(0.06612), digits(1234.5), digits(2.5), digits(0.0)
    ('0.0661', '1234', '2.50', '0')
    """
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:#.3g}"


def _same(value: float) -> float:
    return value


def _minus(value: float) -> float:
    return -value


def _from_ninety(value: float) -> float:
    return abs(value - 0.9)


NLL = Metric("nll", "NLL", "surprise at the truth, nats per example", digits, "↓", _same)
CLASSIFICATION = (
    Metric("accuracy", "Accuracy", "predicted class is the true one", percent, "↑", _minus),
    NLL,
    Metric("ece", "ECE", "gap of confidence and accuracy, 15 bins", percent, "↓", _same),
    Metric("brier", "Brier score", "squared error of the probabilities, 0 to 2", digits, "↓", _same),
    Metric("error_auroc", "Error detection", "AUROC: a mistake is more uncertain than a hit", digits, "↑", _minus),
    Metric("entropy", "Entropy", "total uncertainty, nats, mean", digits),
    Metric("mutual_information", "Mutual information", "its epistemic part, nats, mean", digits),
    Metric("aleatoric", "Aleatoric variance", "summed over classes, mean", digits),
    Metric("epistemic", "Epistemic variance", "summed over classes, mean", digits),
)
REGRESSION = (
    Metric("rmse", "RMSE", "typical error, units of the target", digits, "↓", _same),
    NLL,
    Metric("pinball", "Pinball loss", "of its quantiles, same units; no density, so no NLL", digits, "↓", _same),
    Metric("crps", "CRPS", "error of the whole forecast, same units", digits, "↓", _same),
    Metric("coverage_90", "90 % coverage", "targets inside their 90 % interval", percent, "→ 90 %", _from_ninety),
    Metric("interval_width_90", "90 % width", "mean width of that interval, same units", digits),
    Metric("aleatoric_std", "Aleatoric std", "noise in the data, mean, same units", digits),
    Metric("epistemic_std", "Epistemic std", "ignorance of the function, mean, same units", digits),
)
HEADLINE = {"classification": ("accuracy", "nll", "ece"), "regression": ("rmse", "nll", "coverage_90")}


def metrics(task: str) -> tuple[Metric, ...]:
    """Return the scores that the table shows, in order."""
    return CLASSIFICATION if task == "classification" else REGRESSION


def table(models: Sequence[Model], task: str) -> tuple[Row, ...]:
    """Return the rows of the summary: scores that any of the models has, then what they cost."""
    scored = [_row(metric, models) for metric in metrics(task) if any(metric.key in m.scores for m in models)]
    costs = (
        ("Parameters", "trained numbers", [f"{m.parameters:,}" for m in models]),
        ("Training time", "seconds", [f"{m.train_seconds:.1f}" if m.train_seconds else "–" for m in models]),
        ("Draws", "functions averaged per prediction", [f"{m.num_draws}" for m in models]),
    )
    return (*scored, *(Row(name, why, "", tuple(Cell(text) for text in cells)) for name, why, cells in costs))


def numbers(data: ReportData) -> tuple[Number, ...]:
    """Return the three figures of the headline, each beside the twin's."""
    chosen = [m for m in metrics(data.task) if m.key in HEADLINE[data.task] and m.key in data.bayesian.scores]
    return tuple(
        Number(m.write(data.bayesian.scores[m.key]), f"{m.label} {m.arrow}", _note(m, data.twin)) for m in chosen
    )


def _note(metric: Metric, twin: Model | None) -> str:
    if twin is None or metric.key not in twin.scores:
        return metric.meaning
    return f"{twin.name}: {metric.write(twin.scores[metric.key])}"


def _row(metric: Metric, models: Sequence[Model]) -> Row:
    values = [model.scores.get(metric.key) for model in models]
    texts = ["–" if value is None else metric.write(value) for value in values]
    best = ""
    if metric.cost is not None and len(set(texts)) > 1:
        costs = {text: metric.cost(value) for text, value in zip(texts, values, strict=True) if value is not None}
        best = min(costs, key=costs.__getitem__)
    return Row(metric.label, metric.meaning, metric.arrow, tuple(Cell(text, text == best) for text in texts))
