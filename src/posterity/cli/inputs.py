"""The files that `posterity predict` reads, brought to the form that the network was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import isdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.cli.saved import Saved
from posterity.data import npy, pictures
from posterity.data.files import corrupt, read
from posterity.data.form import listed
from posterity.data.naming import identified
from posterity.data.own import TABLES, WORKBOOKS
from posterity.data.sets import SETS
from posterity.errors import InvalidInput

IMAGES = tuple(pictures.SUFFIXES)
EIGHT_BIT = 255


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs for the network, the name of each, and what is to be said of how they were read.

    identifiers: of each, what its table calls it, by the name of that column; nothing where it has none.
    """

    inputs: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    identifiers: tuple[Mapping[str, str], ...] = ()

    def named(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Put before the records of all inputs their names, and what their tables call them."""
        known = self.identifiers or ({},) * len(self.names)
        return [
            {"input": name, **{f"{k} of the table" if k in record else k: v for k, v in own.items()}, **record}
            for name, own, record in zip(self.names, known, records, strict=True)
        ]


def read_inputs(paths: Sequence[Path], saved: Saved, invert: bool, max_pixels: int = pictures.MAX_PIXELS) -> Rows:
    """Read images of at most `max_pixels`, tables and arrays, in the order given, and all images in a folder.

    Raises:
        InvalidInput: for a missing or unreadable file, and where its columns, channels or shape are not the network's.
        CorruptFile: for a damaged file.
    """
    parts = [_read(path, saved, invert, max_pixels) for given in paths for path in _files(given)]
    names = tuple(name for p in parts for name in p.names)
    notes = tuple(note for p in parts for note in p.notes)
    known = [one for p in parts for one in (p.identifiers or ({},) * len(p.names))]
    columns = dict.fromkeys(column for one in known for column in one)
    own = tuple({column: one.get(column, "") for column in columns} for one in known)
    return Rows(torch.cat([p.inputs for p in parts]), names, notes, own)


def _files(given: Path) -> list[Path]:
    if not isdir(given):
        return [given]
    if found := pictures.below(given):
        return found
    raise InvalidInput(f"{given} is a folder without images ({', '.join(IMAGES)}).")


def _read(path: Path, saved: Saved, invert: bool, max_pixels: int) -> Rows:
    suffix = path.suffix.lower()
    shape = tuple(saved.data["input_shape"])
    if suffix in WORKBOOKS:
        raise InvalidInput(f"{path} is a workbook of an office program: save its sheet as CSV.")
    if suffix not in (*IMAGES, *TABLES, ".npy"):
        raise InvalidInput(f"{path}: expected a file of kind {', '.join((*IMAGES, *TABLES, '.npy'))}.")
    if invert and suffix not in IMAGES:
        raise InvalidInput(f"--invert is for images; {path} is none.")
    if suffix in IMAGES:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise InvalidInput(f"{path} is an image; this network takes inputs of shape {shape}.")
        fit = partial(fitted, saved=saved)
        image = pictures.picture(path, shape[0], invert=invert, max_pixels=max_pixels, fit=fit)
        return Rows(_scaled(image[None], saved, path), (str(path),))
    if suffix in TABLES:
        return _table(path, saved)
    inputs = _array(path, saved, shape)
    return Rows(inputs, _numbered(path, inputs))


def _numbered(path: Path, inputs: Tensor) -> tuple[str, ...]:
    return tuple(f"{path}:{row}" for row in range(1, len(inputs) + 1))


def fitted(image: Tensor, saved: Saved) -> Tensor:
    """Bring images (..., H, W) to the network's size as the training images were brought to it.

    The longer side is resized, the rest filled with black. MNIST-like images of 28 pixels were padded to 32 in training,
    so new ones get the same margin.
    """
    _, height, width = saved.data["input_shape"]
    known = SETS.get(str(saved.data["name"]))
    inner = known.input_shape[-1] if known is not None and known.kind == "idx" else min(height, width)
    return pictures.padded(image, (height, width), inner)


def _table(path: Path, saved: Saved) -> Rows:
    """Read the training table's columns by name, in any order, as they were read and scaled in training."""
    if not saved.data["features"]:
        raise InvalidInput(f"{path} is a table; this network takes inputs of shape {tuple(saved.data['input_shape'])}.")
    form = saved.form
    sheet = form.sheet(read(path), path)
    columns, notes = form.cells(sheet)
    numbers, indicators = form.encoding.numbers(columns), form.encoding.indicators(columns)
    inputs = _scaled(torch.from_numpy(np.concatenate([numbers, indicators], axis=1)), saved, path)
    unused = [name for name in sheet.names if name not in (*form.names, form.identifier)]
    said = [*sheet.notes, *notes, *([f"Not used: {listed(unused)}."] if unused else [])]
    text = identified(sheet, form.identifier)
    known = tuple({form.identifier: text(row)} for row in range(len(inputs))) if form.identifier in sheet.cells else ()
    return Rows(inputs, _numbered(path, inputs), tuple(f"{path.name}: {note}" for note in said), known)


def _array(path: Path, saved: Saved, shape: tuple[int, ...]) -> Tensor:
    """Read an array (N, ...), or one input: tables in the original units, uint8 images in 0 … 255."""
    values = _load_npy(path)
    if values.shape == shape:
        values = values[None]
    if len(shape) == 3 and shape[0] == 1 and values.ndim == 3:
        values = values[:, None]
    image = len(shape) == 3 and values.ndim == 4 and values.shape[1] == shape[0]
    if values.ndim != len(shape) + 1 or (values.shape[1:] != shape and not image):
        raise InvalidInput(f"{path} has shape {values.shape}; expected (N, {', '.join(map(str, shape))}).")
    if not len(values):
        raise InvalidInput(f"{path} holds no inputs.")
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InvalidInput(f"{path}: the value at {place} is {values[tuple(place)]}; remove or mend that input.")
    tensor = torch.from_numpy(values.astype(np.float64))
    if values.dtype == np.uint8 and len(shape) == 3:
        tensor = tensor / EIGHT_BIT
    elif len(shape) == 3 and str(saved.data["name"]) in SETS and not 0 <= values.min() <= values.max() <= 1:
        raise InvalidInput(
            f"{path} holds {values.dtype} values from {values.min():g} to {values.max():g}; pixels are uint8 from 0 to 255, "
            "or floats from 0 to 1. Divide by the largest value that a pixel can have."
        )
    return _scaled(fitted(tensor, saved) if image else tensor, saved, path)


def _load_npy(path: Path) -> NDArray[Any]:
    values = npy.array(read(path), path)
    if values.dtype.kind not in "fiub":
        raise corrupt(path, "it holds no array of numbers")
    return values


def _scaled(inputs: Tensor, saved: Saved, path: Path) -> Tensor:
    """Scale inputs in original units as the training data were. Raises `InvalidInput` where float32 does not hold them."""
    scaling = saved.scaling
    if scaling is None:
        scaled = inputs.float()
    else:
        scaled = ((inputs.double() - scaling.input_mean.double()) / scaling.input_std.double()).float()
    if not scaled.isfinite().all():
        row, *place = (~scaled.isfinite()).nonzero()[0].tolist()
        what = f"'{saved.data['features'][place[0]]}'" if saved.data["features"] else f"the value at {place}"
        value = inputs[row][tuple(place)].item()
        raise InvalidInput(
            f"{path}: {what} of input {row + 1} is {value:g}, too far from the training data for float32."
        )
    return scaled
