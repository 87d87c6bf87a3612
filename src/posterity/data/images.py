"""The MNIST family: IDX files or a Keras archive, checked against each other, as (N, 1, H, W) in [0, 1]."""

from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posterity.data import archive, idx
from posterity.data.dataset import Dataset, Options
from posterity.data.files import corrupt, digest, read, unpack
from posterity.data.locate import Place
from posterity.data.published import remark
from posterity.data.sets import SETS, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, Known
from posterity.errors import InvalidInput

Bytes = NDArray[np.uint8]
PADDED = 32  # what LeNet-5 takes
MAX_SIZE = 512
LONGEST_HEADER = 4 + 4 * idx.MAX_DIMENSIONS  # bytes
ARCHIVE_NAMES = {TRAIN_IMAGES: "x_train", TRAIN_LABELS: "y_train", TEST_IMAGES: "x_test", TEST_LABELS: "y_test"}


def load_images(known: Known, place: Place, image_size: int | None, options: Options) -> Dataset:
    """Read a set of the MNIST family from the place where it was found.

    `image_size` is 28 (or None), or 32: two rows of zeros on each side. Raises `CorruptFile` and `InvalidInput`.
    """
    if image_size not in (None, known.input_shape[-1], PADDED):
        raise InvalidInput(
            f"image_size={image_size}: '{known.name}' comes in {known.input_shape[-1]} or {PADDED} pixels."
        )
    images, labels = {}, {}
    contents, source = _contents(known, place)
    notes = remark(known, {file: idx.written(content) for file, (_, content) in contents.items()})
    for part, size in zip(("train", "test"), known.sizes, strict=True):
        images[part], labels[part] = _part(known, contents, part, size)
    if known.name == "notmnist" and not options.keep_flawed:
        images["test"], labels["test"], left_out = _without_flawed(images["test"], labels["test"])
        notes = (*left_out, *notes)
    return Dataset(
        name=known.name,
        task="classification",
        train_inputs=pixels(images["train"], image_size),
        train_targets=torch.from_numpy(labels["train"].astype(np.int64)),
        test_inputs=pixels(images["test"], image_size),
        test_targets=torch.from_numpy(labels["test"].astype(np.int64)),
        classes=known.classes,
        source=source,
        notes=notes,
    )


def pixels(images: Bytes, image_size: int | None) -> Tensor:
    """Turn bytes (N, H, H) into float32 (N, 1, S, S) in [0, 1], with zeros around where S is larger than H."""
    scaled = torch.from_numpy(images[:, None].astype(np.float32)).div_(255)
    margin = ((image_size or images.shape[-1]) - images.shape[-1]) // 2
    return functional.pad(scaled, [margin] * 4) if margin else scaled


def resize(images: Tensor, image_size: int | None) -> Tensor:
    """Resize images (N, C, H, W) to (N, C, S, S) by bilinear interpolation; None leaves them. Raises `InvalidInput`.

    >>> resize(torch.ones(2, 1, 8, 8), 32).shape
    torch.Size([2, 1, 32, 32])
    """
    if image_size is None:
        return images
    if not images.shape[-1] <= image_size <= MAX_SIZE:
        raise InvalidInput(f"image_size={image_size}: expected from {images.shape[-1]} to {MAX_SIZE} pixels.")
    return functional.interpolate(images, size=(image_size, image_size), mode="bilinear", align_corners=False)


def _contents(known: Known, place: Place) -> tuple[dict[str, tuple[Path, Bytes]], dict[str, str]]:
    """Return name -> (path, values) for each file of the set, and the checksum of each file as it lies."""
    values, source = {}, {}
    if path := next((place.files[name] for name in known.archives if name in place.files), None):
        content = read(path)
        found = archive.arrays(content, path)
        for file in known.files:
            values[file] = (path, _from_archive(found, ARCHIVE_NAMES[file], path))
        return values, {path.name: digest(content)}
    for file, path in place.files.items():
        content = read(path)
        source[path.name] = digest(content)
        unpacked = unpack(content, path, LONGEST_HEADER + max(known.sizes) * prod(known.input_shape))
        _refuse_swapped(known, file, path, digest(unpacked))
        values[file] = (path, idx.parse(unpacked, path, dimensions=3 if "images" in file else 1))
    return values, source


def _from_archive(found: dict[str, NDArray[np.generic]], name: str, path: Path) -> Bytes:
    if name not in found:
        raise corrupt(path, f"it has no array '{name}' (it has: {', '.join(sorted(found)) or 'nothing'})")
    dimensions = 3 if name.startswith("x") else 1
    if found[name].dtype != np.uint8 or found[name].ndim != dimensions:
        what = f"{found[name].dtype} with {found[name].ndim} dimensions"
        raise corrupt(path, f"array '{name}' is {what}, expected uint8 with {dimensions}")
    return found[name].astype(np.uint8)


def _refuse_swapped(known: Known, file: str, path: Path, content: str) -> None:
    """Refuse a file that is known to be another one: MNIST and Fashion-MNIST name theirs alike."""
    for other in SETS.values():
        for name, known_content in other.content.items():
            if known_content == content and (other.name, name) != (known.name, file):
                raise corrupt(path, f"it is {name} of '{other.name}', expected {file} of '{known.name}'")


def _part(known: Known, contents: dict[str, tuple[Path, Bytes]], part: str, size: int) -> tuple[Bytes, Bytes]:
    side = known.input_shape[-1]
    if size == 0:
        return np.empty((0, side, side), np.uint8), np.empty(0, np.uint8)
    names = (TRAIN_IMAGES, TRAIN_LABELS) if part == "train" else (TEST_IMAGES, TEST_LABELS)
    (image_path, images), (label_path, labels) = contents[names[0]], contents[names[1]]
    if len(images) != len(labels):
        raise corrupt(label_path, f"it has {len(labels)} labels for the {len(images)} images of '{image_path.name}'")
    if images.shape != (size, side, side):
        shape = " x ".join(map(str, images.shape))
        raise corrupt(image_path, f"it holds {shape} values, '{known.name}' has {size} x {side} x {side} ({part})")
    if labels.max() >= len(known.classes):
        row = int(np.argmax(labels >= len(known.classes)))
        raise corrupt(label_path, f"label {labels[row]} at position {row} is above {len(known.classes) - 1}")
    return images, labels


def _without_flawed(images: Bytes, labels: Bytes) -> tuple[Bytes, Bytes, tuple[str, ...]]:
    """Leave out images without a letter (all pixels white) and every exact copy of an earlier image."""
    white = (images == 255).all(axis=(1, 2))
    first = np.zeros(len(images), bool)
    first[np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1]] = True
    copies = int((~white & ~first).sum())
    note = f"{int(white.sum())} all-white images and {copies} exact copies of other images were left out."
    return images[first & ~white], labels[first & ~white], (note,)
