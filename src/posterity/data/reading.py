"""What the cells of a column are, told from all of them: numbers by one writing, dates by one order, truth values, or texts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from posterity.data.cells import Cells
from posterity.data.columns import MISSING, Array, Column, Kind
from posterity.data.dates import ORDERS, TRUTH, Order, days, orders, truth
from posterity.data.files import corrupt
from posterity.data.numerals import PLAIN, Decimal, Writing, could_be_decimals, is_number, writings
from posterity.data.sheet import Sheet

MIXED = 0.5  # of the cells that are numbers, from which on texts beside them are a surprise
TRUE = {word: float(place) for pair in TRUTH for place, word in enumerate(pair)}


@dataclass(frozen=True)
class Reading:
    """How a column is read; a run reads new tables as it read its own."""

    kind: Literal["number", "category", "date", "truth"]
    writing: Writing = PLAIN
    order: Order = "ymd"

    def column(self, sheet: Sheet, name: str) -> Column:
        """Read a column's cells.

        Raises:
            CorruptFile: with the line of the first cell that is nothing of this kind.
        """
        cells = sheet.cells[name]
        if cells.floats is not None:
            if np.isinf(cells.floats).any():
                row = int(np.isinf(cells.floats).argmax())
                raise corrupt(
                    sheet.path,
                    f"{sheet.place(name, row)}: '{cells.floats[row]}' is no finite number; mend or empty the cell",
                )
            own: Kind = "date" if cells.kind == "date" else "number"
            if (own == "date") != (self.kind == "date"):
                raise corrupt(sheet.path, f"column '{name}' holds {own}s, and no {self._wanted}s as were expected")
            return Column(own, cells.floats)
        if self.kind == "category":
            words = [MISSING if word in cells.markers else word for word in cells.words]
            return Column("category", np.array(words, object)[cells.codes])
        unknown = {*cells.markers, *self.unknown(cells)}
        values = [np.nan if word in unknown else self._value(word) for word in cells.words]
        for word, value in zip(cells.words, values, strict=True):
            if value is None or np.isinf(value):
                raise corrupt(sheet.path, f"{sheet.place(name, cells.row_of(word))}: '{word}' is no {self._wanted}")
        found: Array = np.array(values, np.float64)[cells.codes]
        return Column("date" if self.kind == "date" else "number", found)

    def fitted(self, cells: Cells) -> "Reading":
        """Return how other cells are to be read where they are numbers that only another writing reads, beyond doubt."""
        words = tuple(word for word in cells.words if word not in cells.markers)
        if (
            self.kind != "number"
            or cells.floats is not None
            or all(self.writing.value(one) is not None for one in words)
        ):
            return self
        ways = [one for one in writings(words) if one.mark == self.writing.mark]
        return Reading("number", ways[0]) if ways and not _doubtful(words, ways) else self

    def unknown(self, cells: Cells) -> list[str]:
        """Return the words that are no truth value where those are expected: they are as good as missing."""
        if self.kind != "truth":
            return []
        return [word for word in cells.words if word not in cells.markers and word.lower() not in TRUE]

    def _value(self, word: str) -> float | None:
        if self.kind == "truth":
            return TRUE.get(word.lower())
        return days(word, self.order) if self.kind == "date" else self.writing.value(word)

    @property
    def _wanted(self) -> str:
        if self.kind == "number":
            return f"finite number ({self.writing})" if str(self.writing) else "finite number"
        return f"date ({self.order})" if self.kind == "date" else "truth value, as yes or no"

    @property
    def as_texts(self) -> bool:
        """Whether the column's cells must be kept as they are written."""
        return self != Reading("number")


def read_kinds(
    sheet: Sheet, texts: Collection[str] = (), decimal: Decimal | None = None, order: Order | None = None
) -> tuple[dict[str, Reading], list[str]]:
    """Tell each column's kind, and say in sentences what was not certain. Columns without a cell are not among them.

    Args:
        sheet: the table.
        texts: columns that are categories, whatever stands in them.
        decimal: what stands before decimals, where both readings fit.
        order: of dates, where several fit.
    """
    words = {
        name: tuple(word for word in cells.words if word not in cells.markers)
        for name, cells in sheet.cells.items()
        if cells.floats is None
    }
    ways = {
        name: writings(own) for name, own in words.items() if own and name not in texts and not sheet.cells[name].kind
    }
    european = decimal or _evidence(sheet, words, ways)
    readings: dict[str, Reading] = {}
    notes: list[str] = []
    for name, cells in sheet.cells.items():
        if cells.floats is not None:
            if not np.isnan(cells.floats).all():
                readings[name] = Reading(cells.kind or "number")
            continue
        own = words[name]
        if not own:
            continue
        if name in texts or cells.kind:
            readings[name] = Reading("category")
        elif ways[name]:
            readings[name] = Reading("number", _writing(name, own, ways[name], european, sheet.separator, notes))
        else:
            readings[name] = _no_number(sheet, name, own, order, notes)
    return readings, notes


def _evidence(sheet: Sheet, words: Mapping[str, tuple[str, ...]], ways: Mapping[str, list[Writing]]) -> Decimal | None:
    """Tell what stands before decimals from the columns that leave no doubt of it; None where none does."""
    certain = {
        own[0].decimal for name, own in ways.items() if own and not _doubtful(words[name], own) and _marked(words[name])
    }
    plain = any(_told(cells) and _fine(cells) for cells in sheet.cells.values())
    if "," in certain and not plain and "." not in certain:
        return ","
    return "." if "." in certain or plain else None


def _marked(words: Collection[str]) -> bool:
    return any("," in word or "." in word for word in words)


def _doubtful(words: Collection[str], ways: list[Writing]) -> bool:
    return len({way.decimal for way in ways}) > 1 and could_be_decimals(words)


def _told(cells: Cells) -> bool:
    """Tell whether cells are numbers by their writing, and not by the word of the file."""
    return cells.floats is not None and cells.kind is None


def _fine(cells: Cells) -> bool:
    """Tell whether some plain numbers have decimals that cannot be thousands: other than three of them."""
    assert cells.floats is not None
    known = cells.floats[np.isfinite(cells.floats)]
    part = known[known != np.floor(known)]
    return bool(len(part)) and bool((np.abs(part * 1000 - np.round(part * 1000)) > 1e-6 * np.abs(part)).any())


def thousands(sheet: Sheet, readings: Mapping[str, Reading], decimal: Decimal | None) -> frozenset[str]:
    """Return the columns of plain numbers that are thousands, 12.500 for 12500, if decimals have commas in this table."""
    comma = decimal == "," or any(
        reading.kind == "number" and reading.writing.decimal == "," for reading in readings.values()
    )
    if not comma or decimal == "." or any(_told(cells) and _fine(cells) for cells in sheet.cells.values()):
        return frozenset()
    return frozenset(
        name
        for name, cells in sheet.cells.items()
        if cells.floats is not None and cells.kind is None and (np.nan_to_num(cells.floats) % 1).any()
    )


def _writing(
    name: str, words: tuple[str, ...], ways: list[Writing], decimal: Decimal | None, separator: str, notes: list[str]
) -> Writing:
    way = ways[0]
    if _doubtful(words, ways):
        wanted = decimal or ("," if separator == ";" and any("," in word for word in words) else ".")
        way = next(one for one in ways if one.decimal == wanted)
        if decimal is None:
            word = next(word for word in words if "," in word or "." in word)
            other = "," if way.decimal == "." else "."
            notes.append(
                f"'{name}': {word} was read as {way.value(word):.10g}. If it is not: --data.decimal '{other}'."
            )
    return way


def _another(words: tuple[str, ...]) -> str:
    """Return a date that is not of the order of the first."""
    own = next(one for one in ORDERS if days(words[0], one) is not None)
    return next(word for word in words if days(word, own) is None)


def _no_number(sheet: Sheet, name: str, words: tuple[str, ...], order: Order | None, notes: list[str]) -> Reading:
    if truth(words):
        return Reading("truth")
    if found := orders(words):
        chosen: Order = order if order in found else "dmy" if "dmy" in found and "/" not in words[0] else found[-1]
        if len(found) > 1:
            other = next(one for one in found if one != chosen)
            notes.append(f"'{name}': dates were read as {chosen}. If they are not: --data.dates {other}.")
        return Reading("date", order=chosen)
    if all(any(days(word, one) is not None for one in ORDERS) for word in words):
        notes.append(
            f"'{name}': dates of several orders, as '{words[0]}' and '{_another(words)}', were read as text. Write all in one."
        )
        return Reading("category")
    numbers = [word for word in words if is_number(word)]
    if len(numbers) == len(words):
        notes.append(f"'{name}': numbers of several writings, as '{words[0]}' and '{words[-1]}', were read as text.")
    elif numbers:
        cells = sheet.cells[name]
        times = np.bincount(cells.codes, minlength=len(cells.words))
        count = {word: int(times[code]) for code, word in enumerate(cells.words)}
        odd = next(word for word in words if not is_number(word))
        if sum(count[word] for word in numbers) >= MIXED * sum(count[word] for word in words):
            line = f"{sheet.unit} {sheet.lines[cells.row_of(odd)]}"
            notes.append(
                f"'{name}': '{odd[:40]}' in {line} is no number, so the column was read as text. Where it stands for a "
                f"missing cell: --data.missing '{odd[:40]}'."
            )
    return Reading("category")
