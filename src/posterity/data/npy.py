"""NumPy's `.npy` format: plain numbers, truth values and text, read by a header that is matched, never evaluated."""

import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import corrupt

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; NumPy itself reads no more
MOST_DIMENSIONS, LARGEST_SIZE = 32, 1 << 48
LENGTHS = {1: 2, 2: 4, 3: 4}  # version -> bytes that hold the length of the header
KINDS, WIDEST = "biufcU", 8  # bytes of a real number
LAST_CHARACTER, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)  # of Unicode
PAIR = re.compile(
    r"\s*'(?:descr'\s*:\s*'(?P<descr>[<>|=]?[A-Za-z]\d{0,9})'"
    r"|fortran_order'\s*:\s*(?P<fortran_order>True|False)"
    r"|shape'\s*:\s*\((?P<shape>(?:\s*\d{1,20}\s*,)*(?:\s*\d{1,20})?\s*)\))\s*(?:,\s*|$)"
)


def array(content: bytes, path: Path) -> NDArray[Any]:
    """Read an array; `path` only names it in errors.

    Its shape and type must account for every byte that is there, so no header takes memory that the file does not have.
    Raises `CorruptFile`: for a damaged file, and for whatever is neither numbers, truth values nor text; Python objects would
    need a pickle, which can run any code.

    >>> import io
    >>> stream = io.BytesIO()
    >>> np.save(stream, np.arange(3))
    >>> array(stream.getvalue(), Path("mine.npy"))
    array([0, 1, 2])
    """
    header, start = _header(content, path)
    kind = _kind(header["descr"], path)
    sizes = [int(size) for size in header["shape"].split(",") if size.strip()]
    if len(sizes) > MOST_DIMENSIONS or any(size > LARGEST_SIZE for size in sizes):
        raise corrupt(path, f"its header promises the shape ({header['shape']})")
    count = len(content) - start
    if count != prod(sizes) * kind.itemsize:
        promised = " x ".join(map(str, sizes)) or "1"
        raise corrupt(path, f"it holds {count:,} bytes of values, its header promises {promised} of {kind.itemsize}")
    flat = np.frombuffer(content, kind, offset=start)
    _refuse_impossible(flat, path)
    raw = flat.reshape(sizes[::-1]).T if header["fortran_order"] == "True" else flat.reshape(sizes)
    return np.array(raw, kind.newbyteorder("="), order="C")


def _header(content: bytes, path: Path) -> tuple[dict[str, str], int]:
    """Return the three entries of a header as text, and where the values begin."""
    if not content.startswith(MAGIC) or len(content) < 8 or content[6] not in LENGTHS:
        raise corrupt(path, "it is no .npy array of a version from 1 to 3")
    start = 8 + LENGTHS[content[6]]
    length = int.from_bytes(content[8:start], "little")
    if not len(content[8:start]) + 8 == start <= start + length <= len(content) or length > LONGEST_HEADER:
        raise corrupt(path, f"its header of {length:,} bytes is not all there, or above {LONGEST_HEADER:,}")
    text = content[start : start + length].decode("latin-1").strip()
    body = text.removeprefix("{").removesuffix("}").strip()
    place, entries = 0, {}
    while found := PAIR.match(body, place):
        entries.update({key: value for key, value in found.groupdict().items() if value is not None})
        place = found.end()
    if place != len(body) or len(text) < len(body) + 2 or len(entries) < 3:
        raise corrupt(path, f"its header is not one of plain numbers, truth values or text: {text}")
    return entries, start + length


def _kind(name: str, path: Path) -> np.dtype[Any]:
    try:
        kind = np.dtype(name)
    except (TypeError, ValueError) as error:
        raise corrupt(path, f"it holds values of the unknown type '{name}'") from error
    if kind.kind not in KINDS or not kind.itemsize or (kind.kind in "iuf" and kind.itemsize > WIDEST):
        what = "Python objects, which would need a pickle" if kind.kind == "O" else f"values of the type '{name}'"
        raise corrupt(path, f"it holds {what}; expected numbers, truth values or text")
    return kind


def _refuse_impossible(values: NDArray[Any], path: Path) -> None:
    """Refuse bits that no truth value, and no character, has."""
    if values.dtype.kind == "b" and (values.view(np.uint8) > 1).any():
        raise corrupt(path, "a truth value in it is neither 0 nor 1")
    if values.dtype.kind == "U" and values.size:
        unit = np.dtype(np.uint32).newbyteorder(values.dtype.byteorder)
        codes = np.frombuffer(values.tobytes(), unit)
        if (codes > LAST_CHARACTER).any() or ((codes >= SURROGATES[0]) & (codes <= SURROGATES[1])).any():
            raise corrupt(path, "a text in it holds what is no character of Unicode")
