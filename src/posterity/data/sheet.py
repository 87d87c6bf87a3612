"""A text table in memory: numbers as numbers, texts each kept once; read in pieces, so that a million rows fit."""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterity.data.body import Body
from posterity.data.cells import Cells, Gathering
from posterity.data.columns import Floats
from posterity.data.decoding import encoding_of
from posterity.data.files import corrupt
from posterity.data.separated import LETTERS, MAX_COLUMNS, SEPARATORS, Layout, layout
from posterity.errors import InvalidInput
from posterity.text import short, some

LONGEST_NAME = 200  # characters of a column's or class's; the longest sets the memory that all rows' take
LARGEST_WHOLE = 2**53  # up to which float64 holds every whole number
PIECE, LEAST = 1 << 20, 32  # cells, and rows, that are read at a time


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table as its file has it: `lines` are the rows' line numbers in the file, from 1; `notes` how it was read.

    Of a file whose columns have types, Parquet by its `form`, rows are counted instead.
    """

    path: Path
    cells: dict[str, Cells]  # of the wanted columns, in order
    names: tuple[str, ...]  # of all columns
    lines: NDArray[np.int64]
    separator: str
    headed: bool
    notes: tuple[str, ...]
    form: str = ""

    @property
    def unit(self) -> str:
        """What its rows are counted in."""
        return "row" if self.form else "line"

    def place(self, name: str, row: int) -> str:
        """Say where a cell is."""
        return f"{self.unit} {self.lines[row]}, column '{name}'"

    def worded(self, names: Collection[str]) -> "Sheet":
        """Take some columns as texts, whatever their types are."""
        return replace(self, cells={name: one.worded() if name in names else one for name, one in self.cells.items()})


@dataclass(frozen=True)
class Wanted:
    """What of a table is read, and how.

    header: whether the first row holds names; None to tell it from the cells.
    known: names of a run's columns, by which a header is told from data.
    unnamed: names of all columns of a table without a header, for each number of them that it may have.
    texts: columns that are texts, whatever stands in them.
    missing: further words, in small letters, that stand for missing cells.
    column: tells by its name whether a column is read at all.
    """

    header: bool | None = None
    known: tuple[str, ...] = ()
    unnamed: tuple[tuple[str, ...], ...] = ()
    texts: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    column: Callable[[str], bool] = lambda name: True


def read_sheet(content: bytes, path: Path, wanted: Wanted, min_columns: int = 2) -> Sheet:
    """Read a table of any separator, with a header or none; blank lines are passed over.

    Raises:
        CorruptFile: for what is no text, ragged rows, broken quotes, no rows, too many columns or too long names.
        InvalidInput: for fewer columns than are needed.

    >>> sheet = read_sheet(b"a;b\\n1;x\\n2;x\\n", Path("mine.csv"), Wanted())
    >>> sheet.names, sheet.cells["a"].floats.tolist(), sheet.cells["b"].words, sheet.lines.tolist()
    (('a', 'b'), [1.0, 2.0], ('x',), [2, 3])
    """
    codec, letters = encoding_of(content, path)
    beginning = _beginning(content, codec)
    _refuse_other(beginning, path)
    _refuse_wide(beginning, path)
    found = layout(beginning, wanted.header, wanted.known, bool(wanted.unnamed))
    if found is None:
        raise corrupt(path, "it has no rows below its header, or none at all")
    names, notes = _names(found, path, wanted, min_columns)
    texts = wanted.texts
    while True:
        reading = _Reading(path, found, names, wanted, texts)
        reading.take(_lines(content, codec))
        if not (late := {column.name for column in reading.columns if column.late}):
            break
        texts = texts | late  # they began as numbers, so their texts are gone
    if letters != "UTF-8":
        notes = (f"The letters are {letters}.", *notes)
    return Sheet(
        path,
        {column.name: column.cells() for column in reading.columns},
        names,
        np.concatenate(reading.lines),
        found.separator,
        found.header is not None,
        (*notes, *reading.body.notes),
    )


class _Reading:
    """One pass over the rows of a table."""

    def __init__(
        self, path: Path, found: Layout, names: tuple[str, ...], wanted: Wanted, texts: frozenset[str]
    ) -> None:
        self.path, self.layout, self.names = path, found, names
        self.places = [place for place, name in enumerate(names) if wanted.column(name)]
        self.columns = [Gathering(names[place], names[place] in texts, wanted.missing) for place in self.places]
        self.lines: list[NDArray[np.int64]] = []
        self.body = Body(path, found, below=not (wanted.known or wanted.unnamed))

    def take(self, lines: Iterator[str]) -> None:
        """Read all rows."""
        rows = self.body.rows(lines)
        size = max(LEAST, PIECE // self.layout.width)
        while piece := list(islice(rows, size)):
            numbers = np.array([line for line, _ in piece], np.int64)
            self.lines.append(numbers)
            columns = list(zip(*(row for _, row in piece), strict=True))
            for place, column in zip(self.places, self.columns, strict=True):
                floats = column.add(columns[place])
                if floats is not None and np.nanmax(np.abs(floats), initial=0) > LARGEST_WHOLE:
                    self._refuse_wide(column.name, columns[place], floats, numbers)
        if not self.lines:
            raise corrupt(self.path, "it has no rows below its header")

    def _refuse_wide(self, name: str, cells: Sequence[str], floats: Floats, lines: NDArray[np.int64]) -> None:
        """Refuse whole numbers that float64 does not tell from their neighbours: long identifiers, mostly."""
        for row in np.flatnonzero((np.abs(floats) > LARGEST_WHOLE) & np.isfinite(floats)):
            if (cell := cells[int(row)].strip()).lstrip("+-").isdigit():
                raise corrupt(
                    self.path,
                    f"line {lines[row]}, column '{name}': {cell[:LONGEST_NAME]} is above 2^53, where not every whole number "
                    f"is one of float64; leave the column out: --drop '{name}'",
                )


def _lines(content: bytes, codec: str) -> Iterator[str]:
    """Return the lines of a text one by one, with their ends; the mark of the encoding is not of the first."""
    return io.TextIOWrapper(io.BytesIO(content), codec, newline="")


def _beginning(content: bytes, codec: str) -> list[str]:
    found, letters = [], 0
    for line in _lines(content, codec):
        found.append(line)
        letters += len(line)
        if letters > LETTERS and len(found) > 2:
            break
    return found


def _refuse_other(lines: Sequence[str], path: Path) -> None:
    """Refuse texts that are no tables, and would be read as some."""
    start = "".join(lines[:5]).lstrip()[:20].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        raise corrupt(path, "it is a page of the web, no table: it was not what was meant to be saved")
    if start.startswith(("{", "[{", "[[")):
        raise corrupt(path, "it is JSON, no table; save it as CSV")


def _refuse_wide(lines: Sequence[str], path: Path) -> None:
    """Refuse a line with ten times the separators of the widest table before it is taken apart: each cell takes memory."""
    most, name = max((line.count(one), name) for line in (*lines, "") for one, name in SEPARATORS.items() if one != " ")
    if most > 10 * MAX_COLUMNS:
        raise corrupt(path, f"one of its first lines has {most:,} {name}, and at most {MAX_COLUMNS:,} columns are read")


def _names(found: Layout, path: Path, wanted: Wanted, min_columns: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a name of its own for each column, and what had to be said of them."""
    refuse_width(found.width, found.header, path, min_columns)
    notes = []
    if found.comments:
        notes.append(f"{found.comments} line{'s' * (found.comments > 1)} of comments passed over.")
    if found.title:
        title = some([f"'{short(one)}'" for one in found.title])
        notes.append(f"Above the table, and passed over: {title}.")
    if found.trailing:
        many = "a separator" if found.trailing == 1 else f"{found.trailing} separators"
        notes.append(f"Each row ends with {many} too many.")
    if found.header is None:
        if places := next((names for names in wanted.unnamed if len(names) == found.width), None):
            return places, ("No header: columns are taken by their places.", *notes)
        last = found.width - 1
        notes.append(
            f"No header: the first line is data; columns are x0 to x{last}. If it holds names: --data.header true."
        )
        return tuple(f"x{place}" for place in range(found.width)), tuple(notes)
    header = list(found.header)
    if len(header) == found.width - 1:
        header.insert(0, "")
        notes.append("The header has one name less than the rows have cells: the first column holds the rows' names.")
    if len(header) != found.width:
        raise corrupt(path, f"the header has {len(header)} cells, the rows below have {found.width}")
    names, said = named(header, path)
    return names, (*notes, *said)


def refuse_width(width: int, header: Sequence[str] | None, path: Path, min_columns: int) -> None:
    """Refuse a table of too few columns, or too many."""
    if width < min_columns:
        only = f" ('{header[0]}')" if header else ""
        known = ", ".join(word for word in SEPARATORS.values())
        raise InvalidInput(
            f"File '{path}' has one column{only}: inputs and a target are needed. If there are several, a first line can say "
            f"what parts them, as sep=^. Known without it: {known}."
        )
    if width > MAX_COLUMNS:
        raise corrupt(path, f"it has {width:,} columns, and at most {MAX_COLUMNS:,} are read")


def named(header: Sequence[str], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give each column of a header a name of its own, and say which had none."""
    if (length := max(map(len, header))) > LONGEST_NAME:
        raise corrupt(path, f"the name of a column has {length:,} characters, and at most {LONGEST_NAME} are read")
    names: dict[str, None] = {}
    notes = []
    for place, name in enumerate(header):
        own, count = name or f"column {place + 1}", 1
        while own in names or (own != name and own in header):
            count += 1
            own = f"{name or f'column {place + 1}'}.{count}"
        if name and own != name:
            notes.append(f"'{name}' is there twice in the header: this one is called '{own}'.")
        names[own] = None
    return tuple(names), tuple(notes)
