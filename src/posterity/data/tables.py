"""What a table is asked to predict, and what of it says nothing: targets, and columns that are left out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.cells import Cells
from posterity.data.columns import Column, number_text
from posterity.data.dates import truth
from posterity.data.files import corrupt
from posterity.data.numerals import is_number
from posterity.data.reading import Reading
from posterity.data.sheet import LONGEST_NAME, Sheet
from posterity.errors import InvalidInput, unknown
from posterity.text import short

MAX_CLASSES = 20  # whole numbers with more distinct values than this are taken as a quantity
ALL_DIFFERENT = 0.9  # of the texts of a column, from which on they are names of the rows
FEW = 10  # rows of which nothing is called all different
INDEX_NAMES = ("id", "index", "idx", "no", "nr", "num", "number", "row", "rownames", "instant", "key", "#", "")
SHOWN = 5  # lines in a sentence


@dataclass(frozen=True, eq=False)
class Target:
    """The target's column: float64, or texts; `kept` are the rows that have one, but for those left out for another reason."""

    name: str
    values: NDArray[Any]
    kept: NDArray[np.bool_]
    how: str = ""  # its numbers are written
    others: NDArray[np.bool_] | None = None  # rows that are left out for another reason

    @property
    def task(self) -> str | None:
        """What the writing tells of the task: nobody gives classes a currency, or thousands."""
        return "regression" if self.how else None


def target_of(sheet: Sheet, name: str, reading: Reading | None, task: str | None) -> Target:
    """Read the target: numbers by their writing, all else as the names of classes.

    Raises:
        CorruptFile: for infinite numbers, texts too long for names, and text where a quantity is asked for.
        InvalidInput: where every cell is missing.
    """
    cells = sheet.cells[name]
    if reading is None:
        raise InvalidInput(
            f"'{sheet.path}': the target '{name}' has no cell that holds something. Another: --target NAME."
        )
    number = reading.kind == "number" or (reading.kind == "category" and task == "regression")
    if number:
        values = Reading("number", reading.writing).column(sheet, name).cells
        return Target(name, values[~np.isnan(values)], ~np.isnan(values), str(reading.writing))
    cells = cells.worded()
    gone = [
        word in cells.markers and word.lower() not in ("none", "null") for word in cells.words
    ]  # of which classes are made
    kept = ~np.array(gone, bool)[cells.codes]
    words = [word for word, no in zip(cells.words, gone, strict=True) if not no]
    numbers = sum(map(is_number, words))
    if task is None and MAX_CLASSES < numbers < len(words):
        odd = next(word for word in words if not is_number(word))
        raise corrupt(
            sheet.path,
            f"{sheet.place(name, cells.row_of(odd))}: '{odd}' is no number, and {numbers:,} others of the target are. Mend or "
            f"empty the cell; if it stands for a missing one: --data.missing '{odd}'",
        )
    if (length := max(map(len, words))) > LONGEST_NAME:
        raise corrupt(sheet.path, f"column '{name}' has a cell of {length:,} characters, no class name")
    return Target(name, np.array(_one_writing(cells.words, words))[cells.codes[kept]], kept)


def _one_writing(words: Sequence[str], there: Sequence[str]) -> list[str]:
    """Write truth values in small letters where one is written in several ways: yes, Yes and YES are one class."""
    small = [word.lower() for word in words]
    several = truth(there) and len({word.lower() for word in there}) < len(set(there))
    return small if several else list(words)


def target_name(sheet_names: Collection[str], target: str | None, path: object) -> str:
    """Return the target's column: the last one, or the one named. Raises `InvalidInput`."""
    if target is None:
        return list(sheet_names)[-1]
    if target not in sheet_names:
        raise unknown(f"column of '{path}'", target, sheet_names)
    return target


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
    distinct = np.unique(values)
    if task is None:
        whole = is_text or bool((values == np.floor(values)).all())
        few = is_text or (len(distinct) <= MAX_CLASSES and 2 * len(distinct) <= len(values))
        task = "classification" if whole and few else "regression"
        if is_text and len(distinct) > MAX_CLASSES and 2 * len(distinct) > len(values):
            raise InvalidInput(
                f"'{name}': the target has {len(distinct):,} classes in {len(values):,} rows, as '{distinct[0]}'; is it the "
                "right one? Another: --target NAME. If it is: --task classification."
            )
    if task == "regression":
        if is_text:
            raise InvalidInput(f"'{name}': the target is text ('{values[0]}'), which regression cannot use.")
        return values, ()
    if len(distinct) < 2:
        only = distinct[0] if is_text else number_text(float(distinct[0]))
        raise InvalidInput(
            f"'{name}': the target is '{short(str(only))}' in all {len(values):,} rows, so there is nothing to learn. Another: "
            "--target NAME."
        )
    if len(distinct) == len(values):
        raise InvalidInput(
            f"'{name}': the target has {len(distinct):,} classes in {len(values):,} rows, none of which is there twice. "
            "Another: --target NAME, or --task regression."
        )
    return coded(values)


def coded(values: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number classes by value, and name them: (indices, names).

    >>> coded(np.array([2.0, 1.0, 2.0]))
    (array([1, 0, 1]), ('1', '2'))
    """
    distinct, indices = np.unique(values, return_inverse=True)
    names = (str(value) if values.dtype.kind == "U" else number_text(float(value)) for value in distinct)
    return indices.reshape(-1).astype(np.int64), tuple(names)


def uninformative(
    sheet: Sheet, readings: Mapping[str, Reading], columns: Mapping[str, Column], keep: Collection[str]
) -> tuple[dict[str, str], list[str], str]:
    """Tell which inputs are left out, and why; what else is to be said of some; and the first that names the rows, if any.

    Args:
        sheet: the table; of `columns`, which are its inputs, those that `readings` know.
        keep: columns that stay, whatever they look like.
    """
    left = {name: "empty" for name in sheet.cells if name not in readings and name in columns}
    notes: list[str] = []
    naming: list[str] = []
    seen: dict[bytes, str] = {}
    for name, column in columns.items():
        if name in keep or name in left:
            continue
        if why := _names_rows(sheet, name, readings[name], column):
            left[name] = why
            naming.append(name)
            continue
        first = not sheet.headed and name == sheet.names[0]
        if _whole_and_different(column) and (_is_index(name) or (first and counts(column))):
            left[name] = "a number for each row"
            naming.append(name)
        elif counts(column):
            notes.append(f"'{name}' counts the rows; if that says nothing: --drop '{name}'.")
        twin = seen.setdefault(key(column), name)
        if twin != name:
            left.setdefault(name, f"equal to '{twin}'")
    if not set(columns) - set(left):
        left = {name: why for name, why in left.items() if why != "a number for each row"}  # better than nothing
    return left, notes, next((name for name in naming if name in left), "")


def _names_rows(sheet: Sheet, name: str, reading: Reading, column: Column) -> str:
    """Say why a column of texts is no category; an empty text where it may be one."""
    cells: Cells = sheet.cells[name]
    if reading.kind != "category":
        return ""
    words = [word for word in cells.words if word not in cells.markers]
    if (length := max(map(len, words), default=0)) > LONGEST_NAME:
        return f"texts of up to {length:,} characters"
    count = len(cells.codes) - cells.markers.total()
    if count >= FEW and len(words) > ALL_DIFFERENT * count:
        return f"{len(words):,} different texts in {count:,} cells"
    return ""


def _whole_and_different(column: Column) -> bool:
    """Tell whether a column is a whole number of its own for each row."""
    cells = column.cells
    if column.kind != "number" or len(cells) < FEW or not np.isfinite(cells).all() or (cells % 1).any():
        return False
    return len(np.unique(cells)) == len(cells)


def counts(column: Column) -> bool:
    """Tell whether a column goes up by one from row to row."""
    return _whole_and_different(column) and bool((np.diff(column.cells) == 1).all())


def _is_index(name: str) -> bool:
    """Tell whether a column's name says that it names the rows: `PassengerId`, `row_id`, `Unnamed: 0`."""
    small = name.lower().strip()
    return (
        small in INDEX_NAMES
        or small.startswith(("unnamed", "column 1", "__index_level_"))
        or name.endswith(("Id", "ID", "Index"))
        or small.endswith(("_id", " id", ".id", "-id", "_no", " no", "index"))
    )


def key(column: Column) -> bytes:
    """Return what equal columns have in common."""
    if column.kind == "category":
        codes: dict[str, int] = {}
        found = np.fromiter((codes.setdefault(cell, len(codes)) for cell in column.cells), np.int64, len(column.cells))
        return b"c" + sha256(found.tobytes() + "\0".join(codes).encode()).digest()
    return column.kind[:1].encode() + sha256(column.cells.tobytes()).digest()
