"""Tables whose files say what their columns are, Parquet and Arrow, read by polars; only texts are told from their cells."""

import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posterity.data.cells import Cells, Gathering
from posterity.data.columns import DAY
from posterity.data.files import corrupt
from posterity.data.packed import unpacked
from posterity.data.sheet import LARGEST_WHOLE, Sheet, Wanted, named, read_sheet, refuse_width
from posterity.errors import InvalidInput, PosterityError

FRAMES = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
MOST = 1 << 30  # cells that are read: a small file may hold far more than its bytes
PARQUET, FILE, STREAM, OLD = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"  # as a file begins
SECOND = 1e6  # microseconds
STDERR = 2


def read_table(content: bytes, path: Path, wanted: Wanted, min_columns: int = 2) -> Sheet:
    """Read a table of any kind, by the end of its file's name; one that is packed is unpacked.

    Raises:
        CorruptFile, InvalidInput: as `read_sheet`, and as `read_frame`.
    """
    content, inner = unpacked(content, path)
    read = read_frame if inner.suffix.lower() in FRAMES else read_sheet
    return read(content, path, wanted, min_columns)


def read_frame(content: bytes, path: Path, wanted: Wanted, min_columns: int = 2) -> Sheet:
    """Read Parquet or Arrow; columns of lists and the like are not read, and said.

    Raises:
        CorruptFile: for what is neither, or is damaged; for no rows, too many cells, or whole numbers above 2^53.
        InvalidInput: where polars is not installed, and for fewer columns than are needed.
    """
    polars = _polars(path)
    form = "Parquet" if content.startswith(PARQUET) else "Arrow" if content.startswith((FILE, STREAM)) else ""
    if not form:
        what = "Feather of version 1; write it anew" if content.startswith(OLD) else "no Parquet, and no Arrow"
        raise corrupt(path, f"it is {what}")
    with _readable(path, form):
        lazy = _opened(polars, content)
        header = _index_first(polars, content, lazy.collect_schema().names())
        refuse_width(len(header), header, path, min_columns)
        rows = lazy.select(polars.len()).collect().item()
        if not rows:
            raise corrupt(path, "it has no rows")
        if rows * len(header) > MOST:
            raise corrupt(
                path, f"it has {rows:,} rows of {len(header):,} columns, more than the {MOST:,} cells that are read"
            )
        names, notes = named(header, path)
        places = {name: column for name, column in zip(names, header, strict=True) if wanted.column(name)}
        frame = lazy.select(places.values()).collect()
        cells = {name: _cells(polars, frame[column], name, wanted, path) for name, column in places.items()}
    if strange := [f"{name} ({frame.schema[places[name]]})" for name, one in cells.items() if one is None]:
        notes = (*notes, f"Not read, as neither numbers, texts nor dates: {', '.join(strange)}.")
    known = {name: one for name, one in cells.items() if one is not None}
    return Sheet(path, known, names, np.arange(1, rows + 1, dtype=np.int64), "", True, notes, form)


def _polars(path: Path) -> Any:
    try:
        import polars  # an extra, and slow to load
    except ImportError as error:
        raise InvalidInput(
            f"'{path}' is read by polars, which is not installed: pip install 'posterity[tables]', or save it as CSV."
        ) from error
    return polars


@contextmanager
def _readable(path: Path, form: str) -> Iterator[None]:
    """Say in our words what polars finds wrong with a file, also where it panics, which is no `Exception`."""
    try:
        with _silent():
            yield
    except (PosterityError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise corrupt(path, f"it is {form} that cannot be read ({error})") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the traces off the terminal that threads of Rust write to it where they panic."""
    try:
        terminal = os.dup(STDERR)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(terminal, STDERR)
        os.close(terminal)
        os.close(nowhere)


def _opened(polars: Any, content: bytes) -> Any:
    if content.startswith(STREAM):
        return polars.read_ipc_stream(io.BytesIO(content)).lazy()
    scan = polars.scan_parquet if content.startswith(PARQUET) else polars.scan_ipc
    return scan(io.BytesIO(content))


def _index_first(polars: Any, content: bytes, names: list[str]) -> list[str]:
    """Put the columns that were the index of a pandas frame first, as in CSV: it writes them last, where a target is."""
    index = [name for name in names if name.startswith("__index_level_")]
    if content.startswith(PARQUET) and hasattr(polars, "read_parquet_metadata"):  # polars of 2025
        said = json.loads(polars.read_parquet_metadata(io.BytesIO(content)).get("pandas", "{}"))
        index += [name for name in said.get("index_columns", []) if name in names and name not in index]
    return [*index, *(name for name in names if name not in index)]


def _cells(polars: Any, series: Any, name: str, wanted: Wanted, path: Path) -> Cells | None:
    """Return a column's cells by its type; None for lists and the like."""
    kind = series.dtype
    if kind.is_numeric():
        if kind.is_integer():
            _refuse_large(series, name, path)
        return Cells(_floats(polars, series), markers=_gone(series), kind="number")
    if kind in (polars.Date, polars.Datetime):
        return Cells(_floats(polars, series.dt.timestamp("us")) / SECOND / DAY, markers=_gone(series), kind="date")
    if kind == polars.Duration:
        return Cells(_floats(polars, series.dt.total_microseconds()) / SECOND, markers=_gone(series), kind="number")
    if kind not in (polars.String, polars.Categorical, polars.Enum, polars.Boolean, polars.Time, polars.Null):
        return None
    category = kind in (polars.Categorical, polars.Enum)
    gathering = Gathering(name, category, wanted.missing)
    gathering.add(series.cast(polars.String).fill_null("").to_list())
    found = gathering.cells()
    return replace(found, markers=_gone(series), kind="category") if category else found


def _floats(polars: Any, series: Any) -> Any:
    return series.cast(polars.Float64).to_numpy()


def _gone(series: Any) -> Counter[str]:
    """Count the cells that hold nothing, as empty ones of a text."""
    return Counter({"": count} if (count := series.null_count()) else {})


def _refuse_large(series: Any, name: str, path: Path) -> None:
    for value in (series.min(), series.max()):
        if value is not None and abs(value) > LARGEST_WHOLE:
            raise corrupt(
                path,
                f"column '{name}': {value} is above 2^53, where not every whole number is one of float64; leave the column "
                f"out: --drop '{name}'",
            )
