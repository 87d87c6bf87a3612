"""CIFAR-10 and CIFAR-100 as they are distributed: pickles, the binary version, or either archive, as (N, 3, 32, 32).

A file of the binary version is a sequence of records: the label in 1 byte (CIFAR-100: the coarse label, then the fine one),
then 3072 bytes of pixels, 32 rows of red, of green, and of blue. A pickle, written by Python 2, is a dictionary of the same.
"""

import io
import struct
import tarfile
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.data.dataset import Dataset
from posterity.data.files import corrupt, digest, read, unpack
from posterity.data.images import resize
from posterity.data.locate import Place
from posterity.data.opcodes import Array, unpickled
from posterity.data.published import remark
from posterity.data.sets import Known

Bytes = NDArray[np.uint8]
PICKLE = b"\x80"  # protocol 2 and later begin with it; no label is as large
ROOM, HEADS = (
    1.1,
    1 << 20,
)  # bytes of a file or archive: for each of its pixels (labels and names of files too), and at least
MOST_MEMBERS = 100  # of an archive that are looked at


def load_cifar(known: Known, place: Place, image_size: int | None) -> Dataset:
    """Read one of the sets from the place where it was found; another `image_size` than 32 is interpolated.

    Raises `CorruptFile` (truncated or damaged files, a pickle that holds anything but arrays and lists, wrong sizes and
    labels, one file twice) and `InvalidInput` (`image_size`).
    """
    contents, source, notes = _contents(known, place)
    seen: dict[str, Path] = {}
    parts: dict[str, tuple[Bytes, Bytes]] = {}
    for file, (path, content) in contents.items():
        copy = seen.setdefault(digest(content), path)
        if copy != path:
            raise corrupt(path, f"it has the same content as '{copy.name}'")
        rows = known.sizes[1] if "test" in file else known.sizes[0] // (len(known.files) - 1)
        read_one = _pickled if content.startswith(PICKLE) else _binary
        parts[file] = _checked(known, read_one(known, content, path), rows, path)
    *train, test = (parts[file] for file in known.files)
    return Dataset(
        name=known.name,
        task="classification",
        train_inputs=resize(_pixels(train), image_size),
        train_targets=torch.from_numpy(np.concatenate([labels for _, labels in train]).astype(np.int64)),
        test_inputs=resize(_pixels([test]), image_size),
        test_targets=torch.from_numpy(test[1].astype(np.int64)),
        classes=known.classes,
        source=source,
        notes=notes,
    )


def _contents(known: Known, place: Place) -> tuple[dict[str, tuple[Path, bytes]], dict[str, str], tuple[str, ...]]:
    """Return name -> (path, bytes) for each file, the checksum of each as it lies, and which are not the published ones."""
    packed = {name: read(path) for name, path in place.files.items()}
    source = {place.files[name].name: digest(content) for name, content in packed.items()}
    most = round(ROOM * sum(known.sizes) * prod(known.input_shape)) + HEADS
    if path := next((place.files[name] for name in known.archives if name in place.files), None):
        archive = unpack(packed[path.name], path, most, "the archive is truncated or damaged: its gzip stream")
        return _members(known, archive, path), source, remark(known, packed)
    contents = {name: (place.files[name], unpack(content, place.files[name], most)) for name, content in packed.items()}
    named = {name + ".bin" * (not content.startswith(PICKLE)): content for name, (_, content) in contents.items()}
    return contents, source, remark(known, named)


def _members(known: Known, content: bytes, path: Path) -> dict[str, tuple[Path, bytes]]:
    """Read the files of a set out of its unpacked archive, without writing anything onto the disk."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in islice(archive, MOST_MEMBERS):
                name = Path(member.name).name.removesuffix(".bin")
                if name in known.files and member.isreg() and not member.issparse():
                    stream = archive.extractfile(member)
                    assert stream is not None  # it is a file
                    found[name] = (path / name, stream.read())
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, struct.error) as error:
        raise corrupt(path, f"the archive is truncated or damaged ({error})") from error
    if missing := [file for file in known.files if file not in found]:
        raise corrupt(path, f"the archive lacks {', '.join(missing)}")
    return found


def _binary(known: Known, content: bytes, path: Path) -> tuple[Bytes, Bytes]:
    """Read a file of the binary version: images (n, 3072) and labels (n,)."""
    labels = 1 if len(known.classes) == 10 else 2
    length = labels + int(np.prod(known.input_shape))
    if len(content) % length:
        raise corrupt(path, f"its {len(content):,} bytes are no whole number of records of {length:,} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, labels:], records[:, labels - 1]


def _pickled(known: Known, content: bytes, path: Path) -> tuple[Bytes, Bytes]:
    """Read a pickle: images (n, 3072) and labels (n,)."""
    found = unpickled(content, path)
    key = b"labels" if len(known.classes) == 10 else b"fine_labels"
    if not isinstance(found, dict) or b"data" not in found or key not in found:
        raise corrupt(path, f"it is no dictionary with 'data' and '{key.decode()}'")
    images, labels = found[b"data"], found[key]
    if not isinstance(images, Array) or not isinstance(labels, list):
        raise corrupt(path, f"its 'data' are no array, or its '{key.decode()}' no list")
    if not all(type(label) is int and 0 <= label < len(known.classes) for label in labels):
        raise corrupt(path, f"its '{key.decode()}' are not all whole numbers from 0 to {len(known.classes) - 1}")
    return images.bytes(path), np.array(labels, np.uint8)


def _checked(known: Known, part: tuple[Bytes, Bytes], rows: int, path: Path) -> tuple[Bytes, Bytes]:
    images, labels = part
    width = int(np.prod(known.input_shape))
    if images.shape != (rows, width):
        shape = " x ".join(map(str, images.shape))
        raise corrupt(path, f"it holds {shape} values, this file of '{known.name}' has {rows} x {width}")
    if len(labels) != rows:
        raise corrupt(path, f"it has {len(labels)} labels for {rows} images")
    if labels.max() >= len(known.classes):
        row = int(np.argmax(labels >= len(known.classes)))
        raise corrupt(path, f"label {labels[row]} at position {row} is above {len(known.classes) - 1}")
    return images, labels


def _pixels(parts: list[tuple[Bytes, Bytes]]) -> Tensor:
    """Turn bytes (n, 3072) into float32 (N, 3, 32, 32) in [0, 1]."""
    images = torch.from_numpy(np.concatenate([images for images, _ in parts]))
    return images.reshape(-1, 3, 32, 32).float().div_(255)
