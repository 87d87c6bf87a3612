"""What of a table is read as it stands, and may be a mistake: said, never mended."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.columns import MISSING, Column
from posterity.data.form import listed
from posterity.data.sheet import Sheet
from posterity.data.tables import Target, counts, key
from posterity.text import short, some

MOST_OF, FAR = 0.9, 100.0  # of the rows; how many times as far from the median as these a row is, to be said


def doubts_of(sheet: Sheet, columns: Mapping[str, Column], target: Target) -> list[str]:
    """Say what may be a mistake: an input that is the target, targets that count the rows, cells far from all others, and
    texts that differ in their capitals alone.

    Args:
        columns: the inputs, in the rows that have a target.
    """
    lines = sheet.lines[target.kept]
    words = target.values.dtype.kind == "U"
    own = Column("category" if words else "number", target.values.astype(object) if words else target.values)
    said = _leaks(columns, own)
    classes = set(target.values.tolist()) if words else set()
    ways = sorted(word for word in set(sheet.cells[target.name].words) - classes if word.lower() in classes)
    if ways:
        said.append(f"'{target.name}': {_quoted(ways)} were read in small letters.")
    if counts(own):
        said.append(f"The target '{target.name}' counts the rows: is it the right one? Another: --target NAME.")
    for name, column in {**columns, target.name: own}.items():
        if column.kind == "category":
            said += _capitals(name, column.cells)
        elif column.kind == "number" and (row := _far(column.cells)) is not None:
            said.append(
                f"'{name}': {column.cells[row]:g} in {sheet.unit} {lines[row]} is over {FAR:g} times as far from the median as "
                f"{MOST_OF:.0%} of the cells are. If it is a mistake, mend or empty it."
            )
    return said


def _leaks(columns: Mapping[str, Column], target: Column) -> list[str]:
    own = key(target)
    same = [name for name, column in columns.items() if key(column) == own]
    return [f"{listed(same)} is equal to the target: leave it out with --drop '{same[0]}'."] if same else []


def _far(cells: NDArray[Any]) -> int | None:
    """Return the row that is the farthest from the median where it is far from all but a few."""
    known = cells[~np.isnan(cells)]
    if len(known) < 1 / (1 - MOST_OF):
        return None
    away = np.abs(cells - np.median(known))
    usual = np.quantile(away[~np.isnan(away)], MOST_OF)
    row = int(np.nanargmax(away))
    return row if 0 < usual < away[row] / FAR else None


def _capitals(name: str, cells: NDArray[Any]) -> list[str]:
    ways: dict[str, list[str]] = {}
    for word in sorted(set(cells.tolist()) - {MISSING}):
        ways.setdefault(word.lower(), []).append(word)
    several = [_quoted(words) for words in ways.values() if len(words) > 1]
    return (
        [f"'{name}': {some(several, 2)} differ in their capitals alone, and were read as several."] if several else []
    )


def _quoted(words: Sequence[str]) -> str:
    return some([f"'{short(word)}'" for word in words])
