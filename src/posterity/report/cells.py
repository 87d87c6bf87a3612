"""The cells of a table's test rows, written as its file has them, and what each row is called there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, isnan, log10

import numpy as np

from posterity.data.columns import DAY, MISSING, Column, Encoding
from posterity.data.dataset import Dataset

NO_YES = ("no", "yes")


@dataclass(frozen=True, eq=False)
class Cells:
    """Columns by name, in the order of the file, and the names of their rows.

    truths: columns whose 0 and 1 are no and yes. clocks: columns of dates with a time.
    """

    columns: Mapping[str, Column]
    rows: Sequence[str]
    truths: Collection[str] = ()
    clocks: Collection[str] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> "Cells | None":
        """Take those of a data set's test rows; None where it is no table."""
        if dataset.test_inputs.dim() != 2 or not dataset.features or not len(dataset.test_inputs):
            return None
        rows = dataset.test_inputs.double()
        if dataset.scaling is not None:  # in float64: dates are large numbers with small differences
            rows = rows * dataset.scaling.input_std.double() + dataset.scaling.input_mean.double()
        known = len(dataset.test_names) == len(rows)
        names = dataset.test_names if known else tuple(f"row {row + 1}" for row in range(len(rows)))
        if dataset.form is None:
            columns = {
                name: Column("number", cells.numpy()) for name, cells in zip(dataset.features, rows.T, strict=True)
            }
            return cls(columns, names)
        truths = [one.name for one in dataset.form.columns if one.reading.kind == "truth"]
        clocks = [one.name for one in dataset.form.columns if one.code.clock]
        return cls(dataset.form.encoding.decoded(rows.numpy()), names, truths, clocks)

    def text(self, name: str, row: int) -> str:
        """Write one cell."""
        return self.written(name, self.columns[name].cells[row])

    def written(self, name: str, value: str | float) -> str:
        """Write a value of a column."""
        if isinstance(value, str):
            return value
        if isnan(value):
            return MISSING
        if name in self.truths and round(value, 3) in (0, 1):
            return NO_YES[round(value)]
        if self.columns[name].kind == "date":
            return moment(value, name in self.clocks)
        return as_written(float(value), self._largest[name])

    @cached_property
    def _largest(self) -> dict[str, float]:
        """The largest magnitude of each column of numbers."""
        numbers = {name: one.cells for name, one in self.columns.items() if one.kind == "number"}
        return {name: float(np.abs(np.nan_to_num(cells)).max()) for name, cells in numbers.items()}


def places_of(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """Say which of the network's inputs each column of the table became.

    >>> from posterity.data import load
    >>> places_of(load("diabetes"))["bmi"]
    (2,)
    """
    if dataset.form is None:
        return {name: (place,) for place, name in enumerate(dataset.features)}
    encoding: Encoding = dataset.form.encoding
    return encoding.places


def as_written(value: float, largest: float) -> str:
    """Write a number of a column as its file would: six digits of the largest, beyond which float32 only rounds.

    >>> as_written(1250.0001, 20000.0), as_written(-4.77e-07, 22.2), as_written(0.0228253, 0.058)
    ('1250', '0', '0.0228253')
    """
    places = 5 - floor(log10(largest)) if largest > 0 else 0
    if not 0 <= places <= 12:
        return f"{value:.6g}"
    text = f"{value:.{places}f}"
    shorter = text.rstrip("0").rstrip(".") if places else text
    return "0" if not float(shorter) else shorter


def moment(days: float, clock: bool) -> str:
    """Write days since 1970 as a date, or with its time to five minutes: float32 holds it no better.

    >>> moment(-0.001, False), moment(19723.4368, True)
    ('1970-01-01', '2024-01-01 10:30')
    """
    if not clock:
        return str(np.datetime64("1970-01-01") + round(days))
    minutes = 5 * round(days * DAY / 300)
    return str(np.datetime64("1970-01-01T00:00") + np.timedelta64(minutes, "m")).replace("T", " ")
