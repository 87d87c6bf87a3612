"""How a run's table is read and what its columns become: plain values that a run writes down, and new tables go through."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter

from posterity.data.columns import MISSING, Code, Column, Encoding
from posterity.data.files import corrupt
from posterity.data.frames import read_table
from posterity.data.reading import Reading
from posterity.data.sheet import Sheet, Wanted
from posterity.errors import MANY, InvalidInput
from posterity.text import short, some


@dataclass(frozen=True)
class Input:
    """One column: its name, how it is read, what it becomes."""

    name: str
    reading: Reading
    code: Code


@dataclass(frozen=True)
class TableForm:
    """The columns of a table, in the order of training.

    missing: words that stand for missing cells beside the usual ones.
    unnamed: names of all columns of a table that had no header, and the target's; empty where it had one.
    identifier: the column that names its rows and is no input; empty where there is none.

    >>> TableForm.plain(["a"]).to_dict()["columns"][0]["name"]
    'a'
    """

    columns: tuple[Input, ...]
    missing: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    target: str = ""
    identifier: str = ""

    @classmethod
    def plain(cls, names: Sequence[str]) -> Self:
        """Make the form of a table of numbers alone, none of them missing: that of runs of earlier versions."""
        return cls(tuple(Input(name, Reading("number"), Code("number", None)) for name in names))

    @classmethod
    def from_dict(cls, values: Any) -> "TableForm":
        """Read what `to_dict` made.

        Raises:
            ValueError: for anything else.
        """
        found: TableForm = _adapter().validate_json(json.dumps(values), strict=True)
        if found.to_dict() != values:
            raise ValueError("it is not what this version writes")
        for one in found.columns:
            if one.code.median is not None and not np.isfinite(one.code.median):
                raise ValueError(f"the median of '{one.name}' is no finite number")
            kind = "number" if one.reading.kind == "truth" else one.reading.kind
            if kind != one.code.kind:
                raise ValueError(f"'{one.name}' is read as {kind} and becomes {one.code.kind}")
        if len({one.name for one in found.columns}) < len(found.columns):
            raise ValueError("two columns have one name")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON, without what is as usual: there may be many columns."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json", exclude_defaults=True)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return tuple(one.name for one in self.columns)

    @property
    def encoding(self) -> Encoding:
        """What the columns become."""
        return Encoding({one.name: one.code for one in self.columns})

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what the network takes."""
        return (*self.encoding.number_names, *self.encoding.indicator_names)

    def sheet(self, content: bytes, path: Path, also: Sequence[str] = ()) -> Sheet:
        """Read a table's columns by name, in any order; of one without a header, by their places. Rows may lack their names.

        Raises:
            InvalidInput: for columns that are missing.
            CorruptFile: as `read_sheet`.
        """
        wanted = {*self.names, *also, *filter(None, [self.identifier])}
        texts = frozenset([self.identifier, *(one.name for one in self.columns if one.reading.as_texts)])
        inputs = tuple(name for name in self.unnamed if name != self.target)
        unnamed = (self.unnamed, inputs) if self.unnamed else ()
        style = Wanted(None, tuple(wanted), unnamed, texts, frozenset(self.missing), wanted.__contains__)
        sheet = read_table(content, path, style, min_columns=1)
        if not sheet.headed and sheet.names not in unnamed:
            wants = f"{len(inputs)} columns, or {len(self.unnamed)} with the target" if unnamed else "a header of names"
            raise InvalidInput(
                f"{path} has {len(sheet.names)} columns without a header; the run's table has {wants}"
                + ("." if unnamed else f": {listed(self.names)}.")
            )
        if missing := [name for name in (*self.names, *also) if name not in sheet.cells]:
            raise InvalidInput(f"{path} lacks {listed(missing)}; it has {listed(sheet.names)}.")
        return sheet.worded({one.name for one in self.columns if one.reading.kind == "category"})

    def cells(self, sheet: Sheet) -> tuple[dict[str, Column], tuple[str, ...]]:
        """Return the columns of a table that `sheet` read, and what is to be said of them: nothing passes in silence.

        Raises:
            CorruptFile: with line and column, for a cell that is nothing of the column's kind, or is missing where none may.
        """
        missing, notes = {}, []
        columns = {}
        for one in self.columns:
            reading = one.reading.fitted(sheet.cells[one.name])
            columns[one.name] = reading.column(sheet, one.name)
            if reading != one.reading:
                how = str(reading.writing) or "decimal points"
                notes.append(f"'{one.name}': its numbers are written otherwise than in training ({how}).")
        for one in self.columns:
            cells = columns[one.name].cells
            gone = cells == MISSING if one.code.kind == "category" else np.isnan(cells)
            if not gone.any():
                continue
            if one.code.median is None:
                raise corrupt(sheet.path, f"{sheet.place(one.name, int(gone.argmax()))}: the cell is empty")
            missing[one.name] = int(gone.sum())
        if missing:
            notes.append(f"Missing cells: {listed([f'{name} {count:,}' for name, count in missing.items()])}.")
        for one in self.columns:
            if strange := one.reading.unknown(sheet.cells[one.name]):
                notes.append(f"'{one.name}': {some([*map(short, strange)])} are no truth values: taken as missing.")
            known = {*one.code.words, MISSING}
            if one.code.kind != "category":
                continue
            unknown = [cell for cell in columns[one.name].cells.tolist() if cell not in known]
            if unknown:
                seen = "that were rare in training, or not there" if one.code.rare else "that training did not see"
                words = some([f"'{short(word)}'" for word in sorted(set(unknown))])
                many = "cells hold categories" if len(unknown) > 1 else "cell holds a category"
                notes.append(f"'{one.name}': {len(unknown):,} {many} {seen} ({words}): taken as unknown.")
        return columns, tuple(notes)


def listed(names: Sequence[str]) -> str:
    """Name some columns, each by no more than a person reads.

    >>> listed(["a", "b"])
    'a, b'
    """
    first = ", ".join(map(short, names[:MANY]))
    return f"{first}, and {len(names) - MANY:,} more" if len(names) > MANY else first


@cache
def _adapter() -> Any:
    return TypeAdapter(TableForm)
