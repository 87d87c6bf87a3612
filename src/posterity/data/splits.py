"""How the rows of a table are parted: at random, or by blocks that stay whole, of which the last are tested on, or some.

What is held out of the training rows for validation is parted by the same rule: it stands for the test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from posterity.data.cells import Cells
from posterity.data.columns import MISSING
from posterity.data.reading import Reading
from posterity.data.sheet import Sheet
from posterity.errors import InvalidInput, unknown
from posterity.text import short
from posterity.train.batches import TensorData

Kind: TypeAlias = Literal["time", "group"]
Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class By:
    """What rows are parted by: the order of a column, or its values.

    >>> By.read("time:day")
    By(kind='time', column='day')
    """

    kind: Kind
    column: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `time:COLUMN` or `group:COLUMN`.

        Raises:
            InvalidInput: for anything else.
        """
        kind, _, column = text.partition(":")
        if kind == "class":
            raise InvalidInput(f"--split-by {text}: rows are split so anyway, each class by its share. Leave it out.")
        for known in get_args(Kind):
            if kind == known and column.strip():
                return cls(known, column.strip())
        raise InvalidInput(
            f"--split-by {short(text)}: expected time:COLUMN, the last rows are tested on, or group:COLUMN, each group is on "
            "one side alone."
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.column}"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The block of each row; those of one are never parted.

    codes: (N,), in the order of time where that is what counts.
    names: of the blocks.
    """

    by: By
    codes: Rows
    names: tuple[str, ...]

    def rows(self, kept: Rows) -> "Blocks":
        """Return the blocks of some rows."""
        found, codes = np.unique(self.codes[kept], return_inverse=True)
        return Blocks(self.by, codes.reshape(-1).astype(np.int64), tuple(self.names[code] for code in found))

    def parted(self, share: float, seed: int) -> tuple[Rows, Rows]:
        """Return the rows that stay, and about a share of them that do not: the last blocks, or some drawn with the seed.

        Raises:
            InvalidInput: where there are not two blocks.

        >>> Blocks(By("time", "day"), np.array([1, 0, 2, 2]), ("Mon", "Tue", "Wed")).parted(0.5, seed=0)
        (array([0, 1]), array([2, 3]))
        """
        count = len(self.names)
        if count < 2:
            raise InvalidInput(
                f"--split-by {self.by}: all {len(self.codes):,} rows are of '{self.names[0]}', and cannot be parted by it."
            )
        if self.by.kind == "time":
            later = np.bincount(self.codes)[::-1].cumsum()[:-1]  # rows of the last block, of the last two, …
            last = 1 + int(np.abs(later - share * len(self.codes)).argmin())
            out = self.codes >= count - last
            return np.flatnonzero(~out), np.flatnonzero(out)
        from sklearn.model_selection import GroupShuffleSplit  # a second to load, and seldom needed

        size = min(max(round(share * count), 1), count - 1)
        drawn = GroupShuffleSplit(n_splits=1, test_size=size, random_state=seed).split(self.codes, groups=self.codes)
        stay, out = next(drawn)
        return stay.astype(np.int64), out.astype(np.int64)

    def said(self, test: Rows, seed: int) -> str:
        """Say which rows are tested on, and that those of validation are parted likewise."""
        own, whole = self.rows(test), f"Tested on: {len(test):,} of {len(self.codes):,} rows, "
        name = short(self.by.column)
        if self.by.kind == "time":
            return (
                f"{whole}the last by '{name}', from {short(own.names[0])} on. What is held out for validation is the last of "
                "the others."
            )
        return (
            f"{whole}{len(own.names):,} of the {len(self.names):,} groups of '{name}', drawn with seed {seed}. No group is on "
            "both sides, nor is one of validation trained on."
        )


def blocks_of(sheet: Sheet, readings: Mapping[str, Reading], target: str, by: By) -> tuple[NDArray[np.bool_], Blocks]:
    """Return which rows have a block, and the blocks of these.

    Raises:
        InvalidInput: for a column that is not there, that holds nothing or is the target; for an order of texts.
    """
    if by.column not in sheet.names:
        raise unknown(f"column for --split-by {by.kind}:", by.column, sheet.names)
    if by.column == target:
        raise InvalidInput(f"--split-by {by}: it is the target, which is what is not known of new rows.")
    reading = readings.get(by.column)
    if reading is None:
        raise InvalidInput(f"--split-by {by}: the column holds nothing that rows could be split by.")
    if by.kind == "time" and reading.kind not in ("date", "number"):
        dates = [name for name, one in readings.items() if one.kind == "date"]
        known = f" Columns of dates: {', '.join(map(short, dates[:5]))}." if dates else ""
        cells = sheet.cells[by.column]
        word = next(word for word in cells.words if word not in cells.markers)
        raise InvalidInput(
            f"--split-by {by}: '{short(word)}' and others are texts, neither dates of one order nor numbers.{known}"
        )
    column = reading.column(sheet, by.column)
    there = column.cells != MISSING if column.kind == "category" else ~np.isnan(column.cells)
    if column.kind == "category":
        words, codes = np.unique(column.cells[there].astype(str), return_inverse=True)
        return there, Blocks(by, codes.reshape(-1).astype(np.int64), tuple(words.tolist()))
    ordered = Cells(column.cells[there], kind=column.kind).worded()
    return there, Blocks(by, ordered.codes.astype(np.int64), ordered.words)


def held_out(data: TensorData, blocks: Blocks | None, share: float, seed: int) -> TensorData:
    """Hold a share of the training rows out for validation: at random, or by the blocks that the test rows are parted by.

    Raises:
        InvalidInput: where one block is all that there is.
    """
    if blocks is None or not share:
        return data.split(share, seed)
    if len(blocks.names) < 2:
        raise InvalidInput(
            f"--split-by {blocks.by}: all rows to train on are of '{blocks.names[0]}', and none of them can be held out for "
            "validation. Hold out none: --validation 0."
        )
    stay, out = blocks.parted(share, seed)
    return replace(
        data, inputs=data.inputs[stay], targets=data.targets[stay], held_out=(data.inputs[out], data.targets[out])
    )
