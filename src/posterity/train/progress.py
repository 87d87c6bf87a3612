"""What people watch: one line on stderr with the ELBO, its terms, the score and the time left."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

LABELS = {"nelbo": "ELBO", "nll": "NLL", "kl": "KL", "accuracy": "acc", "rmse": "RMSE"}
LABELS |= {"step_size": "step", "acceptance": "accepted", "divergences": "divergent"}  # of HMC and NUTS
PERCENT, COUNTS = ("accuracy", "acceptance"), ("divergences",)


def summary(values: Mapping[str, float | Tensor]) -> str:
    """Format one line of values; the ELBO is shown with its own sign, per datum.

    >>> summary({"nll": 0.25, "nelbo": 0.75, "accuracy": 0.9312})
    'ELBO -0.750  NLL 0.250  acc 93.1%'
    >>> summary({"step_size": 0.0125, "acceptance": 0.81, "divergences": 2})
    'step 0.0125  accepted 81.0%  divergent 2'
    """
    parts = []
    for name, label in LABELS.items():
        if name in values:
            parts.append(f"{label} {_shown(name, float(values[name]))}")
    return "  ".join(parts)


def _shown(name: str, value: float) -> str:
    if name in PERCENT:
        return f"{100 * value:.1f}%"
    if name in COUNTS:
        return f"{value:.0f}"
    if name == "step_size":
        return f"{value:.3g}"
    return f"{-value if name == 'nelbo' else value:.3f}"


class Line:
    """One run's line of a progress display; does nothing where there is no display."""

    # rich's Progress and TaskID, or None: rich is imported only where it is shown.
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int, text: str | None = None) -> None:
        if self._progress is not None and self._task is not None:
            more: dict[str, Any] = {} if text is None else {"text": text}
            self._progress.update(self._task, advance=steps, **more)


@contextmanager
def line(name: str, total: int, shown: bool) -> Iterator[Line]:
    """Show a bar for so many steps while the block runs."""
    if not shown:
        yield Line(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, min_width=len(name))),
        BarColumn(bar_width=12),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=8) as progress:
        yield Line(progress, progress.add_task(name, total=total, text=""))
