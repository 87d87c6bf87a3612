"""Text tables: CSV files with a header, and the conversion of cells to numbers that says which cell is wrong."""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import corrupt
from posterity.data.scale import Floats
from posterity.errors import InvalidInput, unknown

DELIMITERS = ",;\t"
MAX_COLUMNS = 100_000
LONGEST_NAME = 200  # characters of a column's or class's; the longest sets the memory that all rows' take
LARGEST_WHOLE = 2**53  # up to which float64 holds every whole number
MAX_CLASSES = 20  # whole numbers with more distinct values than this are taken as a quantity


@dataclass(frozen=True, eq=False)
class Cells:
    """A table as text: `lines` are the rows' line numbers in the file, from 1."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]


def parse_csv(content: str, path: Path, min_columns: int = 2) -> Cells:
    """Read a CSV with a header (separator: comma, semicolon or tab); empty lines are passed over.

    Raises `CorruptFile` (ragged rows, no rows, a broken header) or `InvalidInput` (no header at all).

    >>> cells = parse_csv("a;b\\n1;2\\n", Path("mine.csv"))
    >>> cells.columns, cells.rows
    (('a', 'b'), [['1', '2']])
    """
    delimiter = max(DELIMITERS, key=content.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise corrupt(path, f"line {reader.line_num} is no CSV ({error})") from error
    if len(rows) < 2:
        raise corrupt(path, "it has no rows below its header")
    header = tuple(rows[0])
    _check_header(header, path, min_columns)
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise corrupt(path, f"line {line} has {len(row)} cells, the header has {len(header)}")
    return Cells(path, header, rows[1:], lines[1:])


def _check_header(header: tuple[str, ...], path: Path, min_columns: int) -> None:
    if all(_number(cell) is not None for cell in header):
        raise InvalidInput(f"File '{path}' begins with numbers: its first line must be the names of the columns.")
    if len(header) < min_columns:
        raise InvalidInput(f"File '{path}' has one column ('{header[0]}'): inputs and a target are needed.")
    if len(header) > MAX_COLUMNS:
        raise corrupt(path, f"it has {len(header):,} columns, and at most {MAX_COLUMNS:,} are read")
    if (length := max(map(len, header))) > LONGEST_NAME:
        raise corrupt(path, f"the name of a column has {length:,} characters, and at most {LONGEST_NAME} are read")
    times = Counter(header)
    if "" in times or len(times) < len(header):
        repeated = next(name for name in header if not name or times[name] > 1)
        raise corrupt(path, f"its header repeats the name '{repeated}'" if repeated else "a column has no name")


def numbers(cells: Cells, columns: Sequence[int]) -> Floats:
    """Convert some columns to float64 (N, len(columns)). Raises `CorruptFile`, which names the line and the column."""
    try:
        values = np.array([[_float(row[column]) for column in columns] for row in cells.rows], np.float64)
    except ValueError:
        values = np.full((1, 1), np.nan)
    if not np.isfinite(values).all():
        raise _bad_cell(cells, columns)
    values = values.reshape(len(cells.rows), len(columns))
    _refuse_wide(cells, values, columns)
    return values


def _refuse_wide(cells: Cells, values: Floats, columns: Sequence[int]) -> None:
    """Refuse whole numbers that float64 does not tell from their neighbours: long identifiers, mostly."""
    for row, place in np.argwhere(np.abs(values) > LARGEST_WHOLE):
        if (cell := cells.rows[row][columns[place]]).lstrip("+-").isdigit():
            where = f"line {cells.lines[row]}, column '{cells.columns[columns[place]]}'"
            raise corrupt(cells.path, f"{where}: {cell} is above 2^53, where not every whole number is one of float64")


def _float(cell: str) -> float:
    if "_" in cell:  # Python reads 1_2 as 12; in a table it is a name
        raise ValueError(cell)
    return float(cell)


def _number(cell: str) -> float | None:
    try:
        return _float(cell)
    except ValueError:
        return None


def _bad_cell(cells: Cells, columns: Sequence[int]) -> Exception:
    for row, line in zip(cells.rows, cells.lines, strict=True):
        for column in columns:
            value = _number(row[column])
            if value is None or not math.isfinite(value):
                what = f"'{row[column]}' is no finite number" if row[column] else "the cell is empty"
                return corrupt(cells.path, f"line {line}, column '{cells.columns[column]}': {what}")
    raise AssertionError("a cell was not finite, and now all are")


def target_column(cells: Cells, target: str | None) -> int:
    """Return the index of the target's column: the last one, or the one named. Raises `InvalidInput`."""
    if target is None:
        return len(cells.columns) - 1
    if target not in cells.columns:
        raise unknown(f"column of '{cells.path}'", target, cells.columns)
    return cells.columns.index(target)


def column_values(cells: Cells, column: int) -> NDArray[Any]:
    """Return one column as float64 where all cells are finite numbers, else as strings. Raises for empty cells."""
    texts = [row[column] for row in cells.rows]
    if (length := max(map(len, texts))) > LONGEST_NAME:
        raise corrupt(
            cells.path, f"column '{cells.columns[column]}' has a cell of {length:,} characters, no class name"
        )
    values = [_number(cell) for cell in texts]
    if all(value is None for value in values) and all(texts):
        return np.array(texts)
    if "" in texts or any(value is not None and not math.isfinite(value) for value in values):
        raise _bad_cell(cells, [column])
    return np.array(texts) if None in values else numbers(cells, [column])[:, 0]


def encode_targets(values: NDArray[Any], task: str | None, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Tell classes from quantities: (int64 class indices, class names), or (float64 targets, ()).

    Without a `task`, text and whole numbers with at most 20 distinct values, each at least twice on average, are
    classes. Classes are ordered by value. Raises `InvalidInput` where the task does not suit the values.

    >>> encode_targets(np.array(["no", "yes", "no"]), None, "mine.csv")
    (array([0, 1, 0]), ('no', 'yes'))
    >>> encode_targets(np.array([0.5, 1.5]), None, "mine.csv")
    (array([0.5, 1.5]), ())
    """
    is_text = values.dtype.kind == "U"
    values = values if is_text else values.astype(np.float64)
    distinct, indices = np.unique(values, return_inverse=True)
    if task is None:
        whole = is_text or bool((values == np.floor(values)).all())
        few = is_text or (len(distinct) <= MAX_CLASSES and 2 * len(distinct) <= len(values))
        task = "classification" if whole and few else "regression"
    if task == "regression":
        if is_text:
            raise InvalidInput(f"'{name}': the target is text ('{values[0]}'), which regression cannot use.")
        return values, ()
    if len(distinct) < 2 or len(distinct) == len(values):
        raise InvalidInput(
            f"'{name}': the target has {len(distinct)} classes in {len(values)} rows; is it the right one?"
        )
    names = (str(value) if is_text else _named(float(value)) for value in distinct)
    return indices.reshape(-1).astype(np.int64), tuple(names)


def _named(value: float) -> str:
    """Name a class that is a number so that no two have one name."""
    return str(int(value)) if value.is_integer() else repr(value)
