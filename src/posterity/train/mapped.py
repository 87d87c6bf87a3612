"""A tensor that lives in a safetensors file, mapped into memory: larger than the memory that is to spare, and never lost."""

import json
import mmap
import os
from math import prod
from os.path import lexists
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from posterity.errors import InvalidInput, Mismatch
from posterity.storage import reading
from posterity.tensors import NAMES

_LINKED = getattr(os, "O_NOFOLLOW", 0)  # no link is followed
_THERE = os.O_RDWR | _LINKED
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | _LINKED


def mapped(path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype, again: bool = False) -> Tensor:
    """Return a tensor whose numbers are those of a file; writing to it writes to the file.

    The file is valid safetensors at any moment, and its whole size is claimed at once: a disk that becomes full later cannot
    break it. A file that is replaced stays what it is for whoever has it mapped already.

    Args:
        path: of the file; its folder is made.
        name: of the tensor in it.
        again: go on with a file of this very tensor; otherwise, and where there is none, it is a new one of zeros.

    Raises:
        Mismatch: where there is another file to go on with, which is left as it is.
        InvalidInput: where the file cannot be written, or the disk has no such space.

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = again and lexists(path)
        if there:
            _check(path, header, size)
        else:
            path.unlink(missing_ok=True)  # not emptied: an earlier posterior may read from it
        descriptor = os.open(path, _THERE if there else _NEW, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            try:
                _claim(file, header, size)
            except OSError:
                if not there:
                    path.unlink(missing_ok=True)
                raise
            memory = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise InvalidInput(
            f"Cannot keep {size:,} bytes in {path}: {error}. Choose another folder, or free some space."
        ) from error
    return torch.frombuffer(memory, dtype=dtype, offset=len(header)).view(shape)


def _check(path: Path, header: bytes, size: int) -> None:
    """Refuse a file that is not of this very tensor: it is another run's, or damaged, and stays as it is."""
    if path.is_symlink():
        raise Mismatch(f"{path} is a link, which is not written through. Put the file itself there, or start afresh.")
    with reading(path) as file:
        same = os.fstat(file.fileno()).st_size == len(header) + size and file.read(len(header)) == header
    if not same:
        raise Mismatch(
            f"{path} holds other draws than this run is to go on with, or is damaged: it was left as it is. Go on with the "
            "options that it was made by, put it back, or start afresh in another folder."
        )


def _claim(file: BinaryIO, header: bytes, size: int) -> None:
    """Write the header and take the space; what is there already stays."""
    file.write(header)
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, len(header) + size)
    else:
        file.truncate(len(header) + size)
