"""The rows of a text table that are data: what stands between, below, or is there twice is left out, and said."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from posterity.data.files import corrupt
from posterity.data.numerals import is_number
from posterity.data.separated import Layout
from posterity.errors import CorruptFile
from posterity.text import short, some

ENGLISH = ("total", "totals", "grand total", "subtotal", "sum", "sums", "average", "avg", "mean", "count")
OTHERS = ("summe", "gesamt", "gesamtsumme", "mittelwert", "somme", "moyenne", "suma", "promedio", "totale", "somma")
TOTALS = frozenset((*ENGLISH, *OTHERS))  # in small letters: of a last row that is made of those above


class Body:
    """One pass over the rows.

    Args:
        below: whether notes are looked for below the last row; of a table to predict, each row is one.
    """

    def __init__(self, path: Path, layout: Layout, below: bool) -> None:
        self.path, self.layout, self.below = path, layout, below
        self.notes: list[str] = []
        self._blank: list[int] = []
        self._names: list[int] = []  # rows that are the header again
        self._last: list[tuple[int, list[str]]] = []  # totals and notes, unless data follow
        self._short: list[tuple[int, list[str]]] = []

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        """Return the rows, each of as many cells as the table has columns, with their lines.

        Raises:
            CorruptFile: for broken quotes, and rows of too many or too few cells that are not the last.
        """
        try:
            for line, row in self._whole(self._data(lines)):
                if self._is_last(row):
                    self._last.append((line, row))
                    continue
                yield from self._last
                self._last = []
                yield line, row
        except csv.Error as error:
            raise corrupt(self.path, str(error)) from error
        self._end()

    def _data(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        rows = self._there(lines)
        if self.layout.in_rows:
            next(rows, None)
        if self.layout.units:
            line, row = next(rows)
            units = some([f"'{short(cell.strip())}'" for cell in row if cell.strip()])
            self.notes.append(f"Line {line} ({units}) is between names and numbers, as units are: left out.")
        names = self.layout.header or ("",)
        if not self.layout.again:
            yield from rows
        for line, row in rows:
            if row[0].strip() == names[0] and tuple(map(str.strip, row[: len(names)])) == names:
                self._names.append(line)
            else:
                yield line, row

    def _there(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        for line, row in self.layout.rows(lines):
            if any(row):
                yield line, row
            else:
                self._blank.append(line)

    def _whole(self, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
        width = self.layout.width
        for line, row in rows:
            if len(row) == width and not self._short:
                yield line, row
                continue
            while len(row) > width and len(row) <= width + self.layout.trailing and not row[-1].strip():
                row = row[:-1]
            if len(row) < width:
                self._short.append((line, row))
            elif self._short:
                raise self._ragged(*self._short[0])
            elif len(row) > width:
                raise self._ragged(line, row)
            else:
                yield line, row

    def _is_last(self, row: Sequence[str]) -> bool:
        """Tell whether a row is a total of those above it, or a note below them, if nothing follows."""
        first = (row[0] or next(filter(None, row))).strip()
        if len(row) > 1 and first.rstrip(":").lower() in TOTALS:
            return True
        if not self.below or len(row) < 3 or not row[0] or "".join(row[1:]).strip():
            return False
        return not is_number(first) and (" " in first or ":" in first)

    def _end(self) -> None:
        """Say what was left out."""
        if self._blank:
            self.notes.append(
                f"{self._counted(self._blank, 'row')} of empty cells alone left out ({_places(self._blank)})."
            )
        if self._names:
            self.notes.append(
                f"{self._counted(self._names, 'row')} with the names again left out ({_places(self._names)})."
            )
        if self._last:
            said = some([f"'{short(next(filter(None, map(str.strip, row))))}'" for _, row in self._last])
            places = _places([line for line, _ in self._last])
            self.notes.append(f"{places.capitalize()} at the end ({said}): a total or a note, and no row; left out.")
        if len(self._short) > 1 and any(len(row) > 1 for _, row in self._short):
            raise self._ragged(*self._short[0])
        for line, row in self._short:
            self.notes.append(
                f"Line {line}, the last, breaks off after {len(row)} of {self.layout.width} cells: left out."
                if len(self._short) == 1
                else f"Line {line}, at the end, is no row ('{short(row[0])}'): left out."
            )

    @staticmethod
    def _counted(lines: Sequence[int], what: str) -> str:
        return f"{len(lines):,} {what}{'s' * (len(lines) > 1)}"

    def _ragged(self, line: int, row: Sequence[str]) -> CorruptFile:
        what = "the header has" if self.layout.header else "the first row has"
        advice = "complete the line, or quote the cell that holds the separator"
        return corrupt(self.path, f"line {line} has {len(row)} cells, {what} {self.layout.width}; {advice}")


def _places(lines: Sequence[int]) -> str:
    return f"line{'s' * (len(lines) > 1)} {some(lines)}"
