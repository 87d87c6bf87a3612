"""The user's own data: a table, or a NumPy archive."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.data import archive
from posterity.data.dataset import Dataset, Options
from posterity.data.files import corrupt, digest, read, shortened
from posterity.data.frames import FRAMES
from posterity.data.images import resize
from posterity.data.packed import PACKED
from posterity.data.scale import Rows, Table, split_rows, standardised
from posterity.data.sheet import LARGEST_WHOLE
from posterity.data.splits import Blocks
from posterity.data.tables import encode_targets
from posterity.data.understanding import load_table, load_tables
from posterity.errors import InvalidInput

TEXTS = (".csv", ".tsv", ".txt", ".data", ".dat")
TABLES = (*TEXTS, *FRAMES, *PACKED)
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
SUFFIXES = (*TABLES, ".npz")
TEST_FRACTION = 0.2
MIN_ROWS = 5
Array = NDArray[Any]


def load_csv(path: Path, split: int, options: Options) -> Dataset:
    """Read a text table: the last column, or `options.target`, is the target, the others are inputs of any kind.

    A fifth of the rows that have a target, drawn with the seed `split` or parted by `options.table.split_by`, is the test
    part, or another table is. Raises `CorruptFile`, which names the line and column, and `InvalidInput`.
    """
    by = options.table.by
    if by is not None and by.kind == "time" and split:
        raise InvalidInput(f"--split {split}: rows that are split by '{by.column}' need no seed. Leave it out.")
    if options.table.test is not None:
        test = Path(options.table.test).expanduser()
        found = load_tables(read(path), path, options, read(test), test)
        _check_rows(path, len(found.train_inputs))
        return found
    return load_table(read(path), path, options, partial(_split, path, seed=split))


def load_npz(path: Path, split: int, image_size: int | None, options: Options) -> Dataset:
    """Read an archive with `x`, `y`, or with `x_train`, `y_train`, `x_test`, `y_test`.

    x of shape (N, D) is a table and is standardised; uint8 x of shape (N, H, W) or (N, C, H, W) are images and come to
    [0, 1]; any other x is used as it is. Raises `CorruptFile` and `InvalidInput`.
    """
    content = read(path)
    inputs, raw_targets, sizes = _parts(archive.arrays(content, path), path)
    targets, classes = encode_targets(raw_targets, options.task, path.name)
    whole = np.arange(len(targets))
    train, test = (whole[: sizes[0]], whole[sizes[0] :]) if sizes else _split(path, targets, classes, seed=split)[:2]
    source = {path.name: digest(content)}
    if inputs.ndim == 2:
        if image_size is not None:
            raise InvalidInput(f"image_size={image_size}: '{path}' holds a table, not images.")
        features = tuple(f"x{index}" for index in range(inputs.shape[1]))
        return standardised(
            Table(path.stem, inputs.astype(np.float64), targets, features, classes, source), train, test
        )
    tensor = _single(inputs, "x", path)
    if inputs.dtype == np.uint8 and inputs.ndim in (3, 4):
        tensor = tensor.div_(255)
        tensor = tensor[:, None] if inputs.ndim == 3 else tensor
    if image_size is not None and tensor.ndim != 4:
        raise InvalidInput(f"image_size={image_size}: '{path}' holds inputs of shape {inputs.shape[1:]}, not images.")
    tensor = resize(tensor, image_size)
    values = torch.from_numpy(targets.astype(np.int64)) if classes else _single(targets, "y", path)
    return Dataset(
        name=path.stem,
        task="classification" if classes else "regression",
        train_inputs=tensor[train],
        train_targets=values[train],
        test_inputs=tensor[test],
        test_targets=values[test],
        classes=classes,
        source=source,
    )


def _split(
    path: Path, targets: Array, classes: tuple[str, ...], blocks: Blocks | None = None, *, seed: int
) -> tuple[Rows, Rows, str]:
    _check_rows(path, len(targets))
    if blocks is not None:
        train, test = blocks.parted(TEST_FRACTION, seed)
        return train, test, blocks.said(test, seed)
    labels = targets if classes else np.zeros(len(targets))
    train, test = split_rows(labels, num_test=round(TEST_FRACTION * len(targets)), seed=seed)
    share = ", each class by its share" * bool(classes)
    said = f"Tested on: {len(test):,} of {len(targets):,} rows, drawn with seed {seed}{share}."
    return train, test, said


def _check_rows(path: Path, count: int) -> None:
    if count < MIN_ROWS:
        raise InvalidInput(f"File '{path}' has {count} rows: at least {MIN_ROWS} are needed to keep some for a test.")


def _parts(found: dict[str, Array], path: Path) -> tuple[Array, Array, tuple[int, int] | None]:
    """Return inputs and targets of all rows, and the sizes of the two parts where the file divides them itself."""
    if {"x_train", "y_train", "x_test", "y_test"} <= set(found):
        pairs = [_pair(found, f"x_{part}", f"y_{part}", path) for part in ("train", "test")]
        if pairs[0][0].shape[1:] != pairs[1][0].shape[1:]:
            raise corrupt(path, f"x_train and x_test differ in shape: {pairs[0][0].shape}, {pairs[1][0].shape}")
        inputs, targets = (np.concatenate([pair[index] for pair in pairs]) for index in (0, 1))
        return inputs, targets, (len(pairs[0][0]), len(pairs[1][0]))
    if {"x", "y"} <= set(found):
        return *_pair(found, "x", "y", path), None
    names = shortened(", ".join(sorted(found)) or "nothing")
    raise InvalidInput(f"File '{path}' holds {names}; expected x, y or x_train, y_train, x_test, y_test.")


def _pair(found: dict[str, Array], x: str, y: str, path: Path) -> tuple[Array, Array]:
    inputs, targets = found[x], found[y]
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if targets.ndim != 1 or inputs.ndim < 2 or len(inputs) != len(targets) or not len(inputs):
        shapes = f"{x} has shape {found[x].shape}, {y} {found[y].shape}"
        raise corrupt(path, f"{shapes}; expected (N, ...) and (N,) with the same N > 0")
    if inputs.dtype.kind not in "fiub" or targets.dtype.kind not in "fiubU":
        raise corrupt(path, f"{x} is {inputs.dtype}, {y} is {targets.dtype}; expected numbers (or class names in {y})")
    for name, values in ((x, inputs), (y, targets)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0].tolist()
            raise corrupt(path, f"{name}{place} is {values[tuple(place)]}, no finite number")
        if values.dtype.kind in "iu" and ((values > LARGEST_WHOLE) | (values < -LARGEST_WHOLE)).any():
            raise corrupt(path, f"{name} holds whole numbers above 2^53, where not every one is one of float64")
    return inputs, targets


def _single(values: Array, what: str, path: Path) -> Tensor:
    """Convert to float32. Raises `CorruptFile` where a value is beyond it."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        largest = np.abs(values).max()
        raise corrupt(path, f"{what} reaches {largest:g}, which float32 does not hold; give it in another unit")
    return torch.from_numpy(single)
