"""How a text table is laid out: its separator, its comments, its header; told from its beginning, and said."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from posterity.data.dates import orders
from posterity.data.numerals import is_number

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas", " ": "spaces"}  # of equals, the first
SAMPLE = 1_000  # rows that the layout is told from
LETTERS = 1 << 18  # and characters
MAX_COLUMNS = 100_000  # that are read; a text of that many columns and more is not looked into
MOST_CELLS = 5_000  # that are looked at for each separator
MOSTLY = 0.9
MARKERS = frozenset(
    ("", "?", "-", ".", "na", "n/a", "nan", "-nan", "null", "none", "#n/a", "<na>", "nat")
)  # of cells that are missing, in small letters
DECLARED = re.compile(r"sep=([,;|\t])\s*", re.IGNORECASE)  # as Excel says the separator


@dataclass(frozen=True)
class Layout:
    """Where the rows are and what parts them.

    skipped: lines before the first row; comments: those of them that began with #.
    header: the names, or None where the first row is data; in_rows: whether the first row holds them.
    width: cells of a row; trailing: whether each row ends with a separator too many.
    """

    separator: str
    skipped: int
    comments: int
    header: tuple[str, ...] | None
    in_rows: bool
    width: int
    trailing: bool

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Return the rows of lines that are not blank, header and all, with the number of their last lines from 1.

        Spaces after a cell are its reader's to strip.

        Raises:
            csv.Error: where quotes do not match.
        """
        return _rows(islice(lines, self.skipped, None), self.separator, self.skipped)


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is nothing in it."""
    return cell.strip().lower() in MARKERS


def layout(
    lines: Sequence[str], header: bool | None = None, known: Collection[str] = (), alone: bool = False
) -> Layout | None:
    """Tell the layout from the first lines of a table; None where there is no row.

    Args:
        lines: with their ends.
        header: whether the first row holds names; None to tell it from its cells and those below.
        known: names of which the header, where there is one, holds some.
        alone: whether what holds none of these is no header.
    """
    comments = _leading(lines)
    rest = list(lines[comments:])
    declared = DECLARED.fullmatch(rest[0]) if rest else None
    skipped = comments + (declared is not None)
    separator = declared[1] if declared else _separator(lines[skipped:])
    rows = list(islice((row for _, row in _tried(lines[skipped:], separator) if any(row)), SAMPLE))
    if not rows:
        return None
    body = rows[1:] or rows
    width = Counter(map(len, body)).most_common(1)[0][0]
    ends = [row[-1] for row in body if len(row) == width]
    trailing = width > 1 and not any(ends) and (len(rows[0]) < width or not rows[0][width - 1])
    names: tuple[str, ...] | None = tuple(rows[0])
    if header is None:
        header = any(cell in known for cell in rows[0]) or (
            not alone and width <= MAX_COLUMNS and _is_header(rows[0], rows[1:])
        )
        names = names if header else _commented(lines[:comments], separator, width)
    elif not header:
        names = None
    width -= trailing
    if names is not None and trailing and len(names) > width:
        names = names[:width]
    return Layout(separator, skipped, comments, names, header, width, trailing)


def _leading(lines: Sequence[str]) -> int:
    """Count the comments and blank lines before the first row."""
    count = 0
    for number, line in enumerate(lines, 1):
        if line.lstrip("\ufeff \t").startswith("#"):
            count = number
        elif line.strip():
            break
    return count


def _separator(lines: Sequence[str]) -> str:
    """Choose what parts most rows into equally many cells, at least two; among several, by which more cells are numbers."""
    best, score = ",", (False, -1.0)
    for separator in SEPARATORS:
        rows = list(islice((row for _, row in _tried(lines, separator) if any(row)), SAMPLE))
        widths = Counter(map(len, rows))
        if not rows or (width := widths.most_common(1)[0][0]) < 2 or widths[width] < MOSTLY * len(rows) - 1:
            continue
        cells = [cell for row in rows[1:] or rows for cell in row[:MOST_CELLS]][:MOST_CELLS]
        found = len(rows[0]) in (width, width - 1), sum(map(is_number, cells)) / len(cells)
        if found > score:
            best, score = separator, found
    return best


def _tried(lines: Sequence[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Return rows up to the first that is none: the sample may end within quotes."""
    try:
        for line, row in _rows(lines, separator, 0):
            yield line, list(map(str.strip, row))
    except csv.Error:
        return


def _rows(lines: Iterable[str], separator: str, before: int) -> Iterator[tuple[int, list[str]]]:
    if separator == " ":
        lines = (line.replace("\t", " ").strip() + "\n" for line in lines)
    reader: Any = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {before + reader.line_num} is no CSV ({error})") from error
        if len(row) > 1 or any(row):
            yield before + reader.line_num, row


def _commented(comments: Sequence[str], separator: str, width: int) -> tuple[str, ...] | None:
    """Return the names that the last comment holds, as NumPy writes them above its tables."""
    last = next((line for line in reversed(comments) if line.strip()), "").lstrip("\ufeff \t#")
    names = next((row for _, row in _tried([last], separator)), [])
    fits = len(names) == width > 1 and all(names) and len(set(names)) == width
    return tuple(names) if fits and not any(map(is_number, names)) else None


def _is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Tell names from data: names stand above numbers or dates, or they are all different and none is found below.

    Numbers may be names too: whole ones that count on, as years do, above numbers; or 0, 1, 2, … of all columns.
    """
    if not below or (len(first) > 4 and list(first) == [str(place) for place in range(len(first))]):
        return True
    names, like = 0, []
    for place, cell in enumerate(first):
        cells = [row[place] for row in below if place < len(row) and not is_missing(row[place])]
        if not cells or is_missing(cell) or not _measured(cells):
            continue
        if is_number(cell) or orders([cell]):
            like.append(cell)
        else:
            names += 1
    if names and (names > 1 or not like or _counting(like)):
        return True
    if like or any(map(is_number, first)):
        return False
    columns = [{row[place] for row in below if place < len(row)} for place in range(len(first))]
    return len(set(first)) == len(first) and all(
        cell not in own for cell, own in zip(first, columns, strict=True) if cell
    )


def _measured(cells: Sequence[str]) -> bool:
    return sum(map(is_number, cells)) >= MOSTLY * len(cells) or bool(orders(cells[:100]))


def _counting(cells: Sequence[str]) -> bool:
    """Tell whether some cells are whole numbers, each one more than the one before, as years are in a header."""
    return len(cells) > 1 and all(map(str.isdecimal, cells)) and all(int(b) - int(a) == 1 for a, b in pairwise(cells))
