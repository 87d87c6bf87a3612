"""What was understood of a table, in a few sentences."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.columns import MISSING, Column
from posterity.data.form import TableForm
from posterity.data.reading import Reading
from posterity.data.separated import SEPARATORS
from posterity.data.sheet import Sheet
from posterity.data.tables import Target
from posterity.text import short, some

SOME = 5  # examples in a sentence
KINDS = {"number": "number", "truth": "truth value", "category": "category", "date": "date"}


@dataclass(frozen=True, eq=False)
class Inputs:
    """The columns that are inputs, in the rows that have a target, and why the others are not."""

    readings: dict[str, Reading]
    columns: dict[str, Column]
    left: dict[str, str]

    def without(self, left: Mapping[str, str]) -> "Inputs":
        """Leave some out."""
        return Inputs(
            {name: one for name, one in self.readings.items() if name not in left},
            {name: one for name, one in self.columns.items() if name not in left},
            {**self.left, **left},
        )


def of_file(sheet: Sheet, path: Path) -> str:
    """Say how many rows and columns of what a file holds."""
    parts = f"of {sheet.form}" if sheet.form else f"separated by {SEPARATORS.get(sheet.separator, sheet.separator)}"
    said = f"{path.name}: {len(sheet.lines):,} rows, {len(sheet.names):,} columns {parts}."
    return " ".join([said, *sheet.notes[:SOME]])


def of_target(sheet: Sheet, target: Target, targets: NDArray[Any], classes: Sequence[str]) -> str:
    """Say what is to be predicted, and which rows do not have it."""
    if classes:
        parts = [f"{short(name)} ({rows:,})" for name, rows in zip(classes, np.bincount(targets), strict=True)]
        said = f"{len(classes)} classes, {some(parts)}"
    else:
        how = f" ({target.how})" if target.how else ""
        said = f"a quantity from {targets.min():,.6g} to {targets.max():,.6g}{how}"
    text = f"Target '{short(target.name)}': {said}."
    gone = np.flatnonzero(~target.kept if target.others is None else ~(target.kept | target.others))
    if len(gone):
        many = "s" * (len(gone) > 1)
        lines = some(sheet.lines[gone[: SOME + 1]].tolist())
        text += f" {len(gone):,} row{many} without a target left out ({sheet.unit}{many} {lines})."
    return text


def of_inputs(sheet: Sheet, inputs: Inputs, form: TableForm) -> list[str]:
    """Say what the inputs are, what of them is missing, and which columns are none."""
    parts = []
    for kind, word in KINDS.items():
        names = [name for name, one in inputs.readings.items() if one.kind == kind]
        if names:
            plural = word if len(names) == 1 else f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
            parts.append(f"{len(names):,} {plural} ({_few(names)})")
    written = {
        name: str(one.writing) for name, one in inputs.readings.items() if one.kind == "number" and str(one.writing)
    }
    wide = f"; {len(form.features):,} numbers for the network" if len(form.features) != len(inputs.columns) else ""
    lines = [f"Inputs: {', '.join(parts)}{wide}."]
    if written:
        lines[0] += f" Written: {_few([f'{name} ({how})' for name, how in written.items()])}."
    gone = {name: _missing(column) for name, column in inputs.columns.items()}
    if found := [f"{name} {count:,}" for name, count in gone.items() if count]:
        markers = sorted({word or "empty" for name in inputs.columns for word in sheet.cells[name].markers})
        said = "" if markers == ["empty"] else f" ({some(markers)})"
        lines.append(f"Missing cells{said}: {_few(found)}; the median, or a category of their own, stands for them.")
    reasons: dict[str, list[str]] = {}
    for name, why in inputs.left.items():
        reasons.setdefault(why, []).append(name)
    if reasons:
        why = "; ".join(f"{_few(names)} ({why})" for why, names in reasons.items())
        hint = " --keep NAME keeps one." if set(reasons) - {"dropped", "empty", "constant"} else ""
        lines.append(f"Left out: {why}.{hint}")
    return lines


def _missing(column: Column) -> int:
    return int((column.cells == MISSING).sum() if column.kind == "category" else np.isnan(column.cells).sum())


def _few(names: Collection[str]) -> str:
    some = ", ".join(map(short, list(names)[:SOME]))
    return f"{some}, and {len(names) - SOME:,} more" if len(names) > SOME else some
