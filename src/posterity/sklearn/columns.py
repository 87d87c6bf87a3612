"""Columns of a table as numbers of about unit size: numbers, categories, dates and truth values, with missing cells.

Frames are read through narwhals, so that pandas, polars and whatever else it knows are read alike; imputation, scaling and
encoding are scikit-learn's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import narwhals.stable.v1 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from posterity.errors import InvalidInput

Array = NDArray[Any]
LARGEST = 1e30  # of a number: float32 has no square of a larger one
DAY, WEEK, YEAR = 86_400.0, 7.0, 365.2425  # seconds; days; days
MISSING = "(missing)"  # the category of cells that hold none


@dataclass(frozen=True)
class Column:
    """One column's cells, and the kind that they were told to be: `number`, `category` or `date`.

    cells: float64 with NaN where missing; of categories strings. Dates are days since 1970.
    """

    kind: str
    cells: Array


class ColumnEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Turns a table into an array (N, D) of float32 in which every column has about unit size.

    - numbers and truth values: missing cells take the median of the column, and a column of 0 and 1 says which were missing;
      then (x − mean)/std of the rows seen by `fit`;
    - categories, and texts: a column of 0 and 1 for each; missing is a category; those rarer than `min_frequency` rows, beyond
      `max_categories`, or unknown to `fit` share one;
    - dates: days, as numbers, and the sines and cosines of the time of the year, of the week, and of the day where it varies.

    Of arrays each column is one of numbers where all its cells can be read as such, else one of categories.

    Args:
        max_categories: of one column, the rare ones together counting as one.
        min_frequency: rows that a category needs for a column of its own.

    Attributes:
        kinds_: the kind of each column, by name (`x0`, `x1`, … of arrays).
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    >>> encoder = ColumnEncoder().fit([[1.0, "red"], [3.0, "blue"], [None, "red"], [2.0, "blue"]])
    >>> encoder.kinds_
    {'x0': 'number', 'x1': 'category'}
    >>> encoder.get_feature_names_out().tolist()
    ['x0', 'x0 is missing', 'x1 = blue', 'x1 = red']
    >>> encoder.transform([[2.0, "green"]]).tolist()
    [[0.0, -0.5773502588272095, 0.0, 0.0]]
    """

    # scikit-learn checks nothing before `fit`: parameters are of any type here.
    def __init__(self, max_categories: Any = 30, min_frequency: Any = 1):
        self.max_categories = max_categories
        self.min_frequency = min_frequency

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn each column's kind, median, mean, std and categories.

        Raises:
            InvalidInput: for numbers that are infinite or beyond ±1e30, by the name of the column.
        """
        columns = self._read(X, reset=True)
        self.kinds_ = {name: column.kind for name, column in columns.items()}
        self.clock_ = {
            name: bool((np.nan_to_num(column.cells) % 1).any())
            for name, column in columns.items()
            if column.kind == "date"
        }
        numbers, categories = self._numbers(columns), self._categories(columns)
        self.numbers_: Pipeline | None = None
        self.categories_: OneHotEncoder | None = None
        if numbers.shape[1]:
            self.numbers_ = make_pipeline(
                SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
            ).fit(numbers)
        if categories.shape[1]:
            self.categories_ = OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                max_categories=self.max_categories,
                min_frequency=self.min_frequency,
                sparse_output=False,
            ).fit(categories)
        return self

    def transform(self, X: Any) -> Array:
        """Return the table as (N, D) float32.

        Raises:
            InvalidInput: for columns that are missing, or of another kind than `fit` saw.
        """
        check_is_fitted(self, "kinds_")
        columns = self._read(X, reset=False)
        parts = []
        if self.numbers_ is not None:
            parts.append(self.numbers_.transform(self._numbers(columns)))
        if self.categories_ is not None:
            parts.append(self.categories_.transform(self._categories(columns)))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return a name for each column of `transform`."""
        check_is_fitted(self, "kinds_")
        names: list[str] = []
        if self.numbers_ is not None:
            inner = self._number_names()
            missing = self.numbers_[0].indicator_.features_
            names += inner + [f"{inner[i]} is missing" for i in missing]
        if self.categories_ is not None:
            own = [n for n, kind in self.kinds_.items() if kind == "category"]
            names += list(self.categories_.get_feature_names_out(own))
            names = [_category_name(n, own) for n in names]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # float32 of everything
        return tags

    def _read(self, X: Any, reset: bool) -> dict[str, Column]:
        """Read the cells of a table; at `transform` with the kinds of `fit`."""
        if nw.dependencies.is_into_dataframe(X):
            try:
                frame = nw.from_native(X, eager_only=True)
            except DuplicateError as error:
                raise InvalidInput(
                    f"{str(error).replace(chr(10), ' ')}; each column needs a name of its own."
                ) from error
            known = [] if reset else list(getattr(self, "feature_names_in_", ()))
            if known and set(known) <= set(frame.columns):
                frame = frame.select(known)  # by name: other orders, and columns beside them, are as good
                X = frame.to_native()
            validate_data(self, X, reset=reset, skip_check_array=True)
            names = [name if isinstance(name, str) else f"x{i}" for i, name in enumerate(frame.columns)]
            cells = {name: _of_series(series) for name, series in zip(names, frame.iter_columns(), strict=True)}
            if not len(frame):
                raise InvalidInput("Found array with 0 sample(s): the table has no rows.")
        else:
            array = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
            cells = {f"x{i}": _of_array(array[:, i]) for i in range(array.shape[1])}
        found = {}
        for name, column in cells.items():
            kind = column.kind if reset else self.kinds_[name]
            found[name] = _as_kind(name, column, kind)
        return found

    def _number_names(self) -> list[str]:
        names = []
        for name, kind in self.kinds_.items():
            if kind == "number":
                names.append(name)
            elif kind == "date":
                parts = ["year", "week"] + ["day"] * self.clock_[name]
                names += [name, *(f"{wave} of the {part} of {name}" for part in parts for wave in ("sine", "cosine"))]
        return names

    def _numbers(self, columns: Mapping[str, Column]) -> Array:
        rows = len(next(iter(columns.values())).cells)
        found: list[Array] = []
        for name, column in columns.items():
            if column.kind == "number":
                found.append(column.cells)
            elif column.kind == "date":
                found.append(column.cells)
                for period in (YEAR, WEEK) + (1.0,) * self.clock_[name]:
                    angle = 2 * np.pi * (column.cells % period) / period
                    found += [np.sin(angle), np.cos(angle)]
        return np.stack(found, axis=1) if found else np.empty((rows, 0))

    def _categories(self, columns: Mapping[str, Column]) -> Array:
        rows = len(next(iter(columns.values())).cells)
        found = [column.cells for column in columns.values() if column.kind == "category"]
        return np.stack(found, axis=1) if found else np.empty((rows, 0), dtype=object)


def _of_series(series: Any) -> Column:
    """Read a frame's column by its type."""
    kind = series.dtype
    if kind.is_temporal() and kind in (nw.Date, nw.Datetime):
        seconds = series.cast(nw.Datetime("us")).dt.timestamp("us").to_numpy().astype(np.float64) / 1e6
        return Column("date", np.where(np.asarray(series.is_null().to_numpy(), bool), np.nan, seconds / DAY))
    if kind.is_numeric() or kind == nw.Boolean:
        missing = np.asarray(series.is_null().to_numpy(), bool)
        return Column("number", _floats(series.to_numpy(), missing))
    return _of_array(np.array(series.to_list(), dtype=object))


def _of_array(cells: Array) -> Column:
    """Read an array's column: numbers where every cell that is not missing is one, also in writing; else categories."""
    if cells.dtype.kind in "biuf":
        return Column("number", cells.astype(np.float64))
    if cells.dtype.kind == "M":
        days = cells.astype("datetime64[us]").astype(np.int64) / (1e6 * DAY)
        return Column("date", np.where(np.isnat(cells), np.nan, days))
    missing = np.array([_is_missing(cell) for cell in cells], bool)
    try:
        return Column("number", _floats(cells, missing))
    except (TypeError, ValueError):
        texts = [MISSING if gone else _text(cell) for cell, gone in zip(cells, missing, strict=True)]
        return Column("category", np.array(texts, dtype=object))


def _floats(cells: Array, missing: Array) -> Array:
    found = np.full(len(cells), np.nan)
    found[~missing] = cells[~missing].astype(np.float64)
    return found


def _is_missing(cell: Any) -> bool:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    different = cell != cell  # NaN, NaT; pandas.NA says neither yes nor no
    return bool(different) if isinstance(different, bool | np.bool_) else True


def _text(cell: Any) -> str:
    if isinstance(cell, dict | list | set | tuple | np.ndarray):
        raise TypeError(f"A cell is {cell!r}: argument must be a string or a number, or a date.")
    return str(cell)


def _as_kind(name: str, column: Column, kind: str) -> Column:
    """Read a column as the kind that it had in training.

    Raises:
        InvalidInput: where that cannot be, and for infinite or too large numbers.
    """
    if kind == "category" and column.kind != "category":
        texts = [MISSING if np.isnan(cell) else _number_text(cell) for cell in column.cells]
        column = Column("category", np.array(texts, dtype=object))
    if column.kind != kind:
        example = next((cell for cell in column.cells if cell != MISSING), MISSING)
        raise InvalidInput(f"Column '{name}' was one of {kind}s in training and now holds {example!r}.")
    if kind != "category":
        large = np.abs(column.cells) > LARGEST  # NaN is not
        if large.any():
            row = int(large.argmax())
            raise InvalidInput(
                f"Column '{name}' is {column.cells[row]} in row {row}: infinity, or too large for float32. "
                "Remove or mend that row, or take the logarithm of the column."
            )
    return column


def _number_text(value: float) -> str:
    return str(int(value)) if value.is_integer() else str(value)


def _category_name(name: str, columns: list[str]) -> str:
    """Spell scikit-learn's `column_category` as `column = category`."""
    for column in sorted(columns, key=len, reverse=True):
        if name.startswith(f"{column}_"):
            return f"{column} = {name[len(column) + 1 :]}"
    return name
