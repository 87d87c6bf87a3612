"""Frames and arrays as numbers of about unit size, as a transformer of scikit-learn's.

Frames are read through narwhals, so that pandas, polars and whatever else it knows are read alike; what columns become is
`posterity.data.columns`'s, as for the tables of the command line; scaling is scikit-learn's.
"""

from typing import Any, Self

import narwhals.stable.v1 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from posterity.data.columns import DAY, MISSING, Array, Column, Encoding, Kind, number_text
from posterity.errors import InvalidInput

LARGEST = 1e30  # of a number: float32 has no square of a larger one


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
        self.encoding_ = Encoding.learnt(columns, self.max_categories, self.min_frequency)
        numbers = self.encoding_.numbers(columns)
        self.scaler_ = StandardScaler().fit(numbers) if numbers.shape[1] else None
        return self

    def transform(self, X: Any) -> Array:
        """Return the table as (N, D) float32.

        Raises:
            InvalidInput: for columns that are missing, or of another kind than `fit` saw.
        """
        check_is_fitted(self, "kinds_")
        columns = self._read(X, reset=False)
        numbers = self.encoding_.numbers(columns)
        if self.scaler_ is not None:
            numbers = self.scaler_.transform(numbers)
        return np.concatenate([numbers.astype(np.float32), self.encoding_.indicators(columns)], axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return a name for each column of `transform`."""
        check_is_fitted(self, "kinds_")
        return np.array([*self.encoding_.number_names, *self.encoding_.indicator_names], dtype=object)

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


def _as_kind(name: str, column: Column, kind: Kind) -> Column:
    """Read a column as the kind that it had in training.

    Raises:
        InvalidInput: where that cannot be, and for infinite or too large numbers.
    """
    if kind == "category" and column.kind != "category":
        texts = [MISSING if np.isnan(cell) else number_text(float(cell)) for cell in column.cells]
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
