"""The UCI regression sets with the twenty splits of Hernández-Lobato and Adams, in the files of Gal's repository."""

import math
from pathlib import Path

import numpy as np

from posterity.data.columns import Floats
from posterity.data.dataset import Dataset
from posterity.data.files import corrupt, digest, read, text, unpack
from posterity.data.locate import Place
from posterity.data.scale import Rows, Table, standardised
from posterity.data.sets import Known


def load_uci(known: Known, place: Place, split: int) -> Dataset:
    """Read one split; `split` counts from 0. Columns are named by their position in `data.txt`.

    Raises `CorruptFile`: a ragged or non-finite table, an index that is no row or column, a split that is no partition
    of the rows, other sizes than the published ones.
    """
    packed = {file: read(path) for file, path in place.files.items()}
    contents = {file: unpack(content, place.files[file]) for file, content in packed.items()}
    data = _matrix(contents["data.txt"], place.files["data.txt"])

    def indices(file: str, limit: int) -> Rows:
        return _indices(contents[file], place.files[file], limit)

    columns, target = indices("index_features.txt", data.shape[1]), indices("index_target.txt", data.shape[1])
    if len(target) != 1 or target[0] in columns:
        raise corrupt(
            place.files["index_target.txt"], f"it must name one column that is no feature, has {target.tolist()}"
        )
    train_file, test_file = split_files(split)
    train, test = indices(train_file, len(data)), indices(test_file, len(data))
    if not np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(data))):
        raise corrupt(place.files[train_file], f"with '{test_file}' it is no partition of the {len(data)} rows")
    if (len(train), len(test)) != known.sizes:
        raise corrupt(
            place.files[train_file], f"the split has {len(train)}/{len(test)} rows, '{known.name}' {known.sizes}"
        )
    table = Table(
        name=known.name,
        inputs=data[:, columns],
        targets=data[:, target[0]],
        features=tuple(f"column {index}" for index in columns),
        source={place.files[file].name: digest(content) for file, content in packed.items()},
    )
    return standardised(table, train, test)


def split_files(split: int) -> tuple[str, str]:
    """Name the two index files of a split.

    >>> split_files(3)
    ('index_train_3.txt', 'index_test_3.txt')
    """
    return f"index_train_{split}.txt", f"index_test_{split}.txt"


def _matrix(content: bytes, path: Path) -> Floats:
    lines = [(line, row.split()) for line, row in enumerate(text(content, path).splitlines(), start=1) if row.strip()]
    if not lines:
        raise corrupt(path, "it has no rows")
    width = len(lines[0][1])
    for line, row in lines:
        if len(row) != width:
            raise corrupt(path, f"line {line} has {len(row)} cells, the first row has {width}")
    try:
        values = np.array([list(map(float, row)) for _, row in lines], np.float64)
    except ValueError:
        values = np.full((1, 1), np.nan)
    if not np.isfinite(values).all() or b"_" in content:
        raise _bad_cell(lines, path)
    return values


def _bad_cell(lines: list[tuple[int, list[str]]], path: Path) -> Exception:
    for line, row in lines:
        for column, cell in enumerate(row):
            if not _is_finite(cell):
                return corrupt(path, f"line {line}, column '{column}': '{cell}' is no finite number")
    raise AssertionError("a cell was not finite, and now all are")


def _is_finite(cell: str) -> bool:
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def _indices(content: bytes, path: Path, limit: int) -> Rows:
    values = _matrix(content, path).reshape(-1)
    wrong = (values != np.floor(values)) | (values < 0) | (values >= limit)
    if wrong.any():
        raise corrupt(path, f"{values[wrong][0]:g} is no index from 0 to {limit - 1}")
    return values.astype(np.int64)
