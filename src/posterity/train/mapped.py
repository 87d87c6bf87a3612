"""A tensor that lives in a safetensors file, mapped into memory: larger than the memory that is to spare, and never lost."""

import json
import mmap
import os
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from posterity.errors import InvalidInput, Mismatch

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}


def mapped(path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype, again: bool = False) -> Tensor:
    """Return a tensor whose numbers are those of a file; writing to it writes to the file.

    The file is valid safetensors at any moment, and its whole size is claimed at once: a disk that becomes full later cannot
    break it. A file that is replaced stays what it is for whoever has it mapped already.

    Args:
        path: of the file; its folder is made.
        name: of the tensor in it.
        again: go on with the file that is there; otherwise, and where there is none, it is a new one of zeros.

    Raises:
        InvalidInput: where the file cannot be written, or the disk has no such space.
        Mismatch: where the file to go on with is of another tensor; it is not touched.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     mapped(Path(folder) / "draws.safetensors", "draws", (2, 3), torch.float32)[1] = 7
    ...     mapped(Path(folder) / "draws.safetensors", "draws", (2, 3), torch.float32, again=True)
    tensor([[0., 0., 0.],
            [7., 7., 7.]])
    """
    size = prod(shape) * dtype.itemsize
    entry = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({name: entry}).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8 bytes
    header = len(text).to_bytes(8, "little") + text
    there = again and path.exists()
    if there and not _is_of(path, header, size):
        raise Mismatch(
            f"{path} holds other {name} than those of a run of {' × '.join(map(str, shape))} numbers ({NAMES[dtype]}), and a "
            "checkpoint counts on it: it is left as it is. Go on with the settings that it was made with, or start afresh in "
            "another folder."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not there:
            path.unlink(missing_ok=True)  # not emptied: an earlier posterior may read from it
        with path.open("r+b" if there else "w+b") as file:
            _claim(file, header, size)
            memory = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        if not there:
            path.unlink(missing_ok=True)
        raise InvalidInput(
            f"Cannot keep {size:,} bytes in {path}: {error}. Choose another folder, or free some space."
        ) from error
    return torch.frombuffer(memory, dtype=dtype, offset=len(header)).view(shape)


def _is_of(path: Path, header: bytes, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != len(header) + size:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _claim(file: BinaryIO, header: bytes, size: int) -> None:
    """Write the header and take the space; what is there already stays."""
    file.write(header)
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, len(header) + size)
    else:
        file.truncate(len(header) + size)
