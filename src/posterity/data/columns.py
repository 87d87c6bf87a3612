"""Columns of a table as numbers: what becomes of missing cells, categories and dates, as the training rows told it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["number", "category", "date"]
DAY, WEEK, YEAR = 86_400.0, 7.0, 365.2425  # seconds; days; days
MISSING = "(missing)"  # the category of cells that hold none
RARE = "(rare)"  # the one that rare categories, and unknown ones, share
MAX_CATEGORIES = 30


@dataclass(frozen=True)
class Column:
    """One column's cells, and the kind that they were told to be: `number` (truth values are 0 and 1), `category` or `date`.

    cells: float64 with NaN where missing; of categories strings. Dates are days since 1970.
    """

    kind: Kind
    cells: Array


@dataclass(frozen=True)
class Code:
    """What one column becomes: `median` stands for missing numbers and dates, `gaps` asks for a column that says where.

    A date has waves of the year and the week, with a `clock` of the day too. Each of `words` is a column of 0 and 1; all
    other categories share one where there are `rare` ones, else they are 0 everywhere.
    """

    kind: Kind
    median: float | None = 0.0  # None: a missing cell is a mistake
    gaps: bool = False
    clock: bool = False
    words: tuple[str, ...] = ()
    rare: bool = False


@dataclass(frozen=True)
class Encoding:
    """What the columns of a table become, by their names; learnt from training rows, applied to any.

    >>> colour, size = np.array(["red", "blue", "red"], object), np.array([1.0, np.nan, 3.0])
    >>> encoding = Encoding.learnt({"colour": Column("category", colour), "size": Column("number", size)})
    >>> encoding.number_names, encoding.indicator_names
    (('size', 'size is missing'), ('colour = blue', 'colour = red'))
    >>> encoding.numbers({"colour": Column("category", colour[:1]), "size": Column("number", size[1:2])}).tolist()
    [[2.0, 1.0]]
    """

    codes: Mapping[str, Code]

    @classmethod
    def learnt(
        cls, columns: Mapping[str, Column], max_categories: int | None = MAX_CATEGORIES, min_frequency: int | float = 1
    ) -> Self:
        """Learn medians and categories.

        Args:
            columns: the training rows.
            max_categories: of one column; the rarest beyond them count as one.
            min_frequency: rows that a category needs for a column of its own; below 1, a share of them.
        """
        codes = {}
        for name, column in columns.items():
            if column.kind == "category":
                codes[name] = _categories(column.cells, max_categories, min_frequency)
                continue
            gone = np.isnan(column.cells)
            median = 0.0 if gone.all() else float(np.median(column.cells[~gone]))
            clock = column.kind == "date" and bool((column.cells[~gone] % 1).any())
            codes[name] = Code(column.kind, median, bool(gone.any()), clock)
        return cls(codes)

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the columns of `numbers`."""
        names, gaps = [], []
        for name, code in self.codes.items():
            if code.kind == "category":
                continue
            names.append(name)
            names += [f"{wave} of the {part} of {name}" for part in _periods(code) for wave in ("sine", "cosine")]
            gaps += [f"{name} is missing"] * code.gaps
        return (*names, *gaps)

    @property
    def indicator_names(self) -> tuple[str, ...]:
        """Names of the columns of `indicators`."""
        return tuple(
            f"{name} = {word}"
            for name, code in self.codes.items()
            for word in (*code.words, *[RARE] * code.rare)
            if code.kind == "category"
        )

    @property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Where each column is in the rows that the network takes: the columns of `numbers`, then those of `indicators`.

        >>> colour = Column("category", np.array(["red", "blue"], object))
        >>> Encoding.learnt({"colour": colour, "size": Column("number", np.array([1.0, np.nan]))}).places
        {'colour': (2, 3), 'size': (0, 1)}
        """
        numbers, gaps = {}, {}
        end = 0
        for name, code in self.codes.items():
            if code.kind != "category":
                numbers[name] = tuple(range(end, end + 1 + 2 * len(_periods(code))))
                end = numbers[name][-1] + 1
        for name, code in self.codes.items():
            if code.kind != "category" and code.gaps:
                gaps[name], end = (end,), end + 1
        found = {}
        for name, code in self.codes.items():
            if code.kind == "category":
                width = len(code.words) + code.rare
                found[name], end = tuple(range(end, end + width)), end + width
            else:
                found[name] = numbers[name] + gaps.get(name, ())
        return found

    def decoded(self, rows: Floats) -> dict[str, Column]:
        """Return the cells that rows (N, D) of the network's inputs, in the units of the table, were made of.

        Numbers that were missing are NaN again; categories that share a column are `RARE`, and those that have none too.

        >>> size = Column("number", np.array([1.0, np.nan, 3.0]))
        >>> encoding = Encoding.learnt({"size": size})
        >>> encoding.decoded(encoding.numbers({"size": size}))["size"].cells
        array([ 1., nan,  3.])
        """
        found = {}
        for name, places in self.places.items():
            code, own = self.codes[name], rows[:, list(places)]
            if code.kind == "category":
                words = np.array([*code.words, RARE], object)
                at = np.where(own.max(1) > 0.5, own.argmax(1), len(code.words))
                found[name] = Column("category", words[at])
            else:
                found[name] = Column(code.kind, np.where(code.gaps & (own[:, -1] > 0.5), np.nan, own[:, 0]))
        return found

    def numbers(self, columns: Mapping[str, Column]) -> Floats:
        """Return numbers and dates (N, D) in the units of the table, then the columns that say which were missing."""
        found: list[Array] = []
        gaps: list[Array] = []
        for name, code in self.codes.items():
            if code.kind == "category":
                continue
            cells = columns[name].cells
            gone = np.isnan(cells)
            cells = np.where(gone, code.median or 0.0, cells)
            found.append(cells)
            for period in _periods(code).values():
                angle = 2 * np.pi * (cells % period) / period
                found += [np.sin(angle), np.cos(angle)]
            gaps += [gone.astype(np.float64)] * code.gaps
        return np.stack([*found, *gaps], axis=1) if found else np.empty((_rows(columns), 0))

    def indicators(self, columns: Mapping[str, Column]) -> NDArray[np.float32]:
        """Return categories (N, D) as 0 and 1."""
        found = np.zeros((_rows(columns), len(self.indicator_names)), np.float32)
        start = 0
        for name, code in self.codes.items():
            if code.kind != "category":
                continue
            width = len(code.words) + code.rare
            place = {word: index for index, word in enumerate(code.words)}
            other = len(code.words) if code.rare else -1
            cells = columns[name].cells
            at = np.fromiter((place.get(cell, other) for cell in cells), np.int64, len(cells))
            rows = np.flatnonzero(at >= 0)
            found[rows, start + at[rows]] = 1
            start += width
        return found


def number_text(value: float) -> str:
    """Write a number as the name of a category, or class: no two have one name.

    >>> number_text(3.0), number_text(0.1)
    ('3', '0.1')
    """
    return str(int(value)) if value.is_integer() else repr(value)


def _rows(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values())).cells)


def _periods(code: Code) -> dict[str, float]:
    """Return the periods whose waves a date has; numbers have none."""
    if code.kind != "date":
        return {}
    return {"year": YEAR, "week": WEEK} | ({"day": 1.0} if code.clock else {})


def _categories(cells: Array, most: int | None, least: int | float) -> Code:
    times = Counter(cells.tolist())
    least = least * len(cells) if 0 < least < 1 else least
    kept = sorted(word for word, count in times.items() if count >= least)
    room = len(kept) if most is None else most
    if len(kept) + (len(kept) < len(times)) > room:
        kept = sorted(sorted(kept, key=lambda word: -times[word])[: max(room - 1, 0)])
    return Code("category", words=tuple(kept), rare=len(kept) < len(times))
