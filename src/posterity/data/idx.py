"""The IDX format of MNIST: two zero bytes, a type, the number of dimensions, their sizes (big-endian), the values."""

import struct
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import corrupt

UNSIGNED_BYTE = 0x08
MAX_DIMENSIONS = 4


def parse(content: bytes, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an unpacked IDX file of bytes with a given number of dimensions; `path` only names it in errors.

    Raises `CorruptFile` where the magic number, the number of dimensions or the length is not what it must be.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]), Path("labels"), dimensions=1)
    array([7, 2, 1], dtype=uint8)
    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2]), Path("labels"), dimensions=1)
    Traceback (most recent call last):
    posterity.errors.CorruptFile: File 'labels' cannot be used: it holds 2 values, its header promises 3 (3).
    """
    if (
        len(content) < 4
        or content[:2] != b"\0\0"
        or content[2] != UNSIGNED_BYTE
        or not 1 <= content[3] <= MAX_DIMENSIONS
    ):
        raise corrupt(path, f"it is no IDX file of bytes (it begins {content[:4].hex(' ')})")
    if content[3] != dimensions:
        raise corrupt(
            path, f"it has {content[3]} dimensions, expected {dimensions} (images for labels, or the reverse?)"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise corrupt(path, "it ends inside its header")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    count = len(content) - start
    if count != prod(shape):
        sizes = " x ".join(map(str, shape))
        raise corrupt(path, f"it holds {count} values, its header promises {prod(shape)} ({sizes})")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def written(values: NDArray[np.uint8]) -> bytes:
    """Write values as the IDX file that holds them.

    >>> written(np.array([7, 2], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 02 07 02'
    """
    return bytes([0, 0, UNSIGNED_BYTE, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
