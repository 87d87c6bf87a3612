"""How a text table is laid out: its separator, its comments, its header; told from its beginning, and said."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import Any

from posterity.data.dates import orders
from posterity.data.numerals import is_number

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas", " ": "spaces"}  # of equals, the first
SAMPLE = 1_000  # rows that the layout is told from
LETTERS = 1 << 18  # and characters
MAX_COLUMNS = 100_000  # that are read; a text of that many columns and more is not looked into
MOST_CELLS = 5_000  # that are looked at for each separator
MOSTLY = 0.9
DASHES = ("", "?", "-", "--", "---", "–", "—", ".", "..")
WORDS = (
    "na",
    "n/a",
    "n.a.",
    "n.a",
    "n/d",
    "n.d.",
    "k.a.",
    "nan",
    "-nan",
    "<na>",
    "nat",
    "null",
    "(null)",
    "none",
    "nil",
)
EXCEL = ("#n/a", "#n/a n/a", "#na", "#n/d", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!")
MARKERS = frozenset((*DASHES, *WORDS, *EXCEL, "\\n"))  # of cells that are missing, in small letters; \N is of databases
DECLARED = re.compile(r"sep=([^\w\s\"']|\t)[^\S\t]*", re.IGNORECASE)  # as Excel says the separator
YEAR = re.compile(r"1[5-9]\d\d|20\d\d|2100")
QUOTED = re.compile(r'"[ \t]+(?=[,;|\t\r\n]|$)')  # a space after a quote, which is none of the cell's


@dataclass(frozen=True)
class Layout:
    """Where the rows are and what parts them.

    skipped: lines before the first row; comments: those of them that began with #.
    header: the names, or None where the first row is data; in_rows: whether the first row holds them.
    width: cells of a row; trailing: separators too many at the end of each row.
    title: lines of one cell above the header; units: whether the row below it holds texts where the others have numbers.
    again: whether a row that is equal to the header is no data, as there are numbers below it.
    """

    separator: str
    skipped: int
    comments: int
    header: tuple[str, ...] | None
    in_rows: bool
    width: int
    trailing: int
    title: tuple[str, ...] = ()
    units: bool = False
    again: bool = False

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
    numbered = list(islice((one for one in _tried(lines[skipped:], separator) if any(one[1])), SAMPLE))
    if not numbered:
        return None
    width = Counter(len(row) for _, row in numbered[1:] or numbered).most_common(1)[0][0]
    above = len(list(takewhile(lambda one: _is_title(one[1], width), numbered[:-1])))
    title = tuple(next(filter(None, row)) for _, row in numbered[:above])
    skipped += numbered[above - 1][0] if above else 0
    rows = [row for _, row in numbered[above:]]
    trailing = _trailing(rows, width)
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
    units = header and len(rows) > 2 and _is_units(rows[1], rows[2:])
    again = header and not any(map(is_number, rows[0])) and bool(_above(rows[0], rows[1:]))
    return Layout(separator, skipped, comments, names, header, width, trailing, title, units, again)


def _is_title(row: Sequence[str], width: int) -> bool:
    """Tell whether a first row is no row of the table: one text, where others have several cells."""
    there = [cell for cell in row if cell]
    return width > 1 and len(there) == 1 and (len(row) == 1 or (width > 2 and bool(row[0]))) and not is_number(there[0])


def _trailing(rows: Sequence[Sequence[str]], width: int) -> int:
    """Count the last columns that hold nothing and have no name."""
    body = [row for row in rows[1:] or rows if len(row) == width]
    count = 0
    while count < width - 1 and not any(row[width - 1 - count] for row in (*body, [*rows[0], *[""] * width])):
        count += 1
    return count


def _is_units(row: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Tell whether a row holds no numbers, but two texts or more above them."""
    texts = _above(row, below)
    return len(texts) > 1 and not any(is_number(cell) or orders([cell]) for cell in texts)


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
    if best == " ":  # rather none than one that parts the words of a table whose quotes are broken
        return next((one for one in SEPARATORS if one in lines[0].strip() and _breaks(lines, one)), best)
    return best


def _breaks(lines: Sequence[str], separator: str) -> bool:
    try:
        for _ in _rows(lines, separator, 0):
            pass
    except csv.Error:
        return True
    return False


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
    lines = (QUOTED.sub('"', line) if '" ' in line else line for line in lines)
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
    if _counting(like) and all(YEAR.fullmatch(cell) for cell in like):  # years above numbers that are none
        return not any(
            YEAR.fullmatch(row[place])
            for row in below
            for place in range(min(len(row), len(first)))
            if first[place] in like
        )
    if like or any(map(is_number, first)):
        return False
    columns = [{row[place] for row in below if place < len(row)} for place in range(len(first))]
    return len(set(first)) == len(first) and all(
        cell not in own for cell, own in zip(first, columns, strict=True) if cell
    )


def _above(row: Sequence[str], below: Sequence[Sequence[str]]) -> list[str]:
    """Return the cells of a row that stand above numbers or dates."""
    places = range(len(row))
    columns = [[one[at] for one in below if at < len(one) and not is_missing(one[at])] for at in places]
    return [row[at] for at in places if columns[at] and _measured(columns[at]) and not is_missing(row[at])]


def _measured(cells: Sequence[str]) -> bool:
    return sum(map(is_number, cells)) >= MOSTLY * len(cells) or bool(orders(cells[:100]))


def _counting(cells: Sequence[str]) -> bool:
    """Tell whether some cells are whole numbers, each one more than the one before, as years are in a header."""
    return len(cells) > 1 and all(map(str.isdecimal, cells)) and all(int(b) - int(a) == 1 for a, b in pairwise(cells))
