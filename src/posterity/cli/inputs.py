"""The files that `posterity predict` reads, brought to the form that the network was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posterity.cli.saved import Saved
from posterity.data.files import corrupt, read, text
from posterity.data.sets import SETS
from posterity.data.tables import numbers, parse_csv
from posterity.errors import InvalidInput

IMAGES = (".png", ".jpg", ".jpeg")
TABLES = (".csv", ".tsv")
SIXTEEN_BIT, EIGHT_BIT = 65535, 255


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs for the network, and the name of each."""

    inputs: Tensor
    names: tuple[str, ...]


def read_inputs(paths: Sequence[Path], saved: Saved, invert: bool) -> Rows:
    """Read images, tables and arrays, in the order given.

    Raises:
        InvalidInput: for a missing or unreadable file, and where its columns, channels or shape are not the network's.
        CorruptFile: for a damaged file.
    """
    parts = [_read(path, saved, invert) for path in paths]
    return Rows(torch.cat([p.inputs for p in parts]), tuple(name for p in parts for name in p.names))


def _read(path: Path, saved: Saved, invert: bool) -> Rows:
    suffix = path.suffix.lower()
    shape = tuple(saved.data["input_shape"])
    if suffix not in (*IMAGES, *TABLES, ".npy"):
        raise InvalidInput(f"{path}: expected a file of kind {', '.join((*IMAGES, *TABLES, '.npy'))}.")
    if invert and suffix not in IMAGES:
        raise InvalidInput(f"--invert is for images; {path} is none.")
    if suffix in IMAGES:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise InvalidInput(f"{path} is an image; this network takes inputs of shape {shape}.")
        return Rows(_scaled(fitted(_image(path, shape[0], invert), saved)[None], saved), (str(path),))
    inputs = _table(path, saved) if suffix in TABLES else _array(path, saved, shape)
    return Rows(inputs, tuple(f"{path}:{row}" for row in range(1, len(inputs) + 1)))


def _image(path: Path, channels: int, invert: bool) -> Tensor:
    """Read an image as (C, H, W) in [0, 1]; what is transparent is background: black, or white before inverting."""
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    content = read(path)
    try:
        with Image.open(BytesIO(content)) as found:
            found.load()
            if found.mode.startswith("I"):  # 16 bits, which conversion would clip
                found = Image.fromarray((np.asarray(found, np.float64) * EIGHT_BIT / SIXTEEN_BIT).astype(np.uint8))
            if found.mode in ("LA", "RGBA", "PA") or "transparency" in found.info:
                layer = found.convert("RGBA")
                ground = Image.new("RGBA", layer.size, "white" if invert else "black")
                found = Image.alpha_composite(ground, layer)
            pixels = np.asarray(found.convert("L" if channels == 1 else "RGB"), np.float32) / EIGHT_BIT
    except UnidentifiedImageError as error:
        raise corrupt(path, "it is no image that can be read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise corrupt(path, f"its image is damaged ({error})") from error
    image = torch.from_numpy(pixels.copy())
    image = image[None] if channels == 1 else image.permute(2, 0, 1)
    return 1 - image if invert else image


def fitted(image: Tensor, saved: Saved) -> Tensor:
    """Bring images (..., C, H, W) to the network's size as the training images were brought to it.

    The longer side is resized, the rest filled with black. MNIST-like images of 28 pixels were padded to 32 in training,
    so new ones get the same margin.
    """
    channels, height, width = saved.data["input_shape"]
    if image.shape[-2:] == (height, width):
        return image
    known = SETS.get(str(saved.data["name"]))
    inner = known.input_shape[-1] if known is not None and known.kind == "idx" else min(height, width)
    scale = inner / max(image.shape[-2:])
    size = tuple(max(1, round(side * scale)) for side in image.shape[-2:])
    batch = image.reshape(-1, channels, *image.shape[-2:])
    if size != tuple(image.shape[-2:]):
        batch = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    spare_h, spare_w = height - size[0], width - size[1]
    batch = functional.pad(batch, [spare_w // 2, spare_w - spare_w // 2, spare_h // 2, spare_h - spare_h // 2])
    return batch.reshape(*image.shape[:-3], channels, height, width)


def _table(path: Path, saved: Saved) -> Tensor:
    """Read the training table's columns by name, in any order, and scale them as the training rows were."""
    features = saved.data["features"]
    if not features:
        raise InvalidInput(f"{path} is a table; this network takes inputs of shape {tuple(saved.data['input_shape'])}.")
    cells = parse_csv(text(read(path), path), path, min_columns=1)
    if missing := [name for name in features if name not in cells.columns]:
        raise InvalidInput(f"{path} lacks {', '.join(missing)}; it has {', '.join(cells.columns)}.")
    values = numbers(cells, [cells.columns.index(name) for name in features])
    return _scaled(torch.from_numpy(values), saved)


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
    return _scaled(fitted(tensor, saved) if image else tensor, saved)


def _load_npy(path: Path) -> NDArray[Any]:
    from io import BytesIO

    content = BytesIO(read(path))
    try:
        values: NDArray[Any] = np.load(content, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise corrupt(path, f"it is no .npy array, or would need a pickle ({error})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise corrupt(path, "it holds no array of numbers")
    return values


def _scaled(inputs: Tensor, saved: Saved) -> Tensor:
    """Scale inputs in original units as the training data were."""
    scaling = saved.scaling
    if scaling is None:
        return inputs.float()
    return ((inputs.double() - scaling.input_mean.double()) / scaling.input_std.double()).float()
