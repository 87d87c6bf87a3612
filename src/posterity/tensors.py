"""Safetensors files that are whole or refused: checked before memory is taken, sealed when they are written.

The header holds, beside the names, types and shapes, a JSON text under an entry's name: what the file says of itself. In it is
the SHA-256 of all the tensors, and beside it that of the text. Files of earlier versions have neither, and are read.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedReader
from math import prod
from os import fstat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from posterity.documents import AGAIN as AGAIN
from posterity.documents import SEAL as SEAL
from posterity.documents import SIZE, damaged, parsed
from posterity.errors import InvalidInput
from posterity.storage import reading, replacing

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TEXT = rb"(" + _STRING + rb":" + _STRING + rb")"
TWO_TEXTS = re.compile(rb'\{"__metadata__":\{' + _TEXT + rb"," + _TEXT + rb"\}")
DIMS = 32  # of one tensor, at most
COUNT = 1 << 60  # of its numbers


class Entry(NamedTuple):
    """What a header says of one tensor: its type, its shape, and where its bytes lie behind the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What stands before the tensors.

    Args:
        metadata: texts by name, of any writer's.
        entries: of each tensor, by name, in the order of the file.
        size: bytes before the first tensor.
    """

    metadata: dict[str, str]
    entries: dict[str, Entry]
    size: int


Values = dict[str, Any]
Check = Callable[[Values, Mapping[str, Entry]], None]


def write(path: Path, tensors: Mapping[str, Tensor], entry: str, values: Mapping[str, Any]) -> None:
    """Write tensors, and under `entry` the values (JSON) that say what they are, all at once, with their SHA-256.

    Raises:
        InvalidInput: where the file cannot be written, or the values are no plain JSON.
    """
    own = {n: v.detach().cpu().clone().contiguous() for n, v in tensors.items()}
    try:
        text = json.dumps({**values, SEAL: digest(own)})
        parsed(text, path)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Cannot write {path}: what it says of itself is no plain JSON ({error}).") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(own, part, metadata={entry: text, SEAL: sha256(text.encode()).hexdigest()})
            _put_in_order(part)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"Cannot write {path}: {error}. Choose another folder, or free some space.") from error


def _put_in_order(path: Path) -> None:
    """Order a header's two texts by their names: safetensors has another order each time, and equal files are to be equal."""
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        if found := TWO_TEXTS.match(header):
            start, (first, second) = found.start(1), sorted(found.groups())
            file.seek(8 + start)
            file.write(first + b"," + second)


def read(path: Path, entry: str | None, check: Check | None = None) -> tuple[Values, dict[str, Tensor]]:
    """Read what a file says of itself under `entry`, and its tensors, in memory of their own.

    Args:
        path: of a file that `write` wrote, or an earlier version.
        entry: None for a file of tensors alone, by anybody; its values are {}.
        check: raises where the values, or the tensors' types and shapes, are not what is needed: before memory is taken.

    Raises:
        InvalidInput: where there is no such file.
        CorruptFile: where it is no safetensors file, damaged, or not what was written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a.safetensors", {"x": torch.ones(2)}, "about", {"of": "nothing"})
    ...     read(Path(folder) / "a.safetensors", "about")
    ({'of': 'nothing'}, {'x': tensor([1., 1.])})
    """
    with _opened(path) as file:
        found = _header(file, path)
        values, seal = ({}, None) if entry is None else _values(found, entry, path)
        if check is not None:
            check(values, found.entries)
        tensors = {name: _tensor(file, found.size, one, path) for name, one in found.entries.items()}
    if seal is not None and digest(tensors) != seal:
        raise damaged(path, "its numbers are not those that were written, by their SHA-256", AGAIN)
    return values, tensors


def read_values(path: Path, entry: str) -> tuple[Values, dict[str, Entry]]:
    """Read what a file says of itself and of its tensors, without their numbers. Errors are those of `read`."""
    found = read_header(path)
    return _values(found, entry, path)[0], found.entries


def read_header(path: Path) -> Header:
    """Read the header of a file by anybody. Errors are those of `read`."""
    with _opened(path) as file:
        return _header(file, path)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: names, types, shapes and numbers, in the order of the names.

    >>> digest({"a": torch.ones(2)})[:8], digest({"a": torch.ones(2, 1)})[:8]
    ('13ce2fcc', '48546e23')
    """
    found = sha256()
    for name in sorted(tensors):
        value = tensors[name]
        found.update(json.dumps([name, NAMES.get(value.dtype, str(value.dtype)), list(value.shape)]).encode())
        found.update(memory(value.detach().cpu().contiguous()))
    return found.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with reading(path) as file:
            yield file
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {path}.") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}.") from error


def _header(file: BufferedReader, path: Path) -> Header:
    """Read a header, and hold it against the size of its file."""
    length = fstat(file.fileno()).st_size
    size = int.from_bytes(file.read(8), "little")
    if length < 8 or size > min(length - 8, SIZE):
        raise damaged(path, "it is empty, truncated, or no safetensors file", AGAIN)
    own = parsed(file.read(size), path, AGAIN)
    metadata = own.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise damaged(path, "its metadata are not texts by name", AGAIN)
    entries = {name: _entry(name, one, path) for name, one in own.items()}
    rows = sorted(entries.items(), key=lambda row: row[1][2:])
    end = 0
    for name, one in rows:
        if one.start != end:
            raise damaged(path, f"its tensor {name[:80]!r} does not begin where the one before it ends", AGAIN)
        end = one.stop
    if end != length - 8 - size:
        raise damaged(path, f"its tensors take {end:,} bytes, and it has {length - 8 - size:,} for them", AGAIN)
    return Header(metadata, dict(rows), 8 + size)


def _entry(name: str, values: Any, path: Path) -> Entry:
    """Check what a header says of one tensor by itself."""
    known = isinstance(values, dict) and values.keys() == {"dtype", "shape", "data_offsets"}
    dtype = DTYPES.get(values["dtype"]) if known and isinstance(values["dtype"], str) else None
    if dtype is not None and _whole(values["shape"], DIMS) and _whole(values["data_offsets"], 2):
        shape, offsets = tuple(values["shape"]), values["data_offsets"]
        few = prod(max(1, n) for n in shape) <= COUNT
        if few and len(offsets) == 2 and offsets[1] - offsets[0] == prod(shape) * dtype.itemsize:
            return Entry(dtype, shape, *offsets)
    raise damaged(path, f"what its header says of tensor {name[:80]!r} is no type, shape and place of one", AGAIN)


def _whole(values: Any, most: int) -> bool:
    """Tell whether these are a few whole numbers ≥ 0."""
    return isinstance(values, list) and len(values) <= most and all(type(n) is int and n >= 0 for n in values)


def _values(found: Header, entry: str, path: Path) -> tuple[Values, str | None]:
    """Read what a file says of itself, and the SHA-256 of its tensors where it holds one."""
    text = found.metadata.get(entry)
    if text is None:
        raise damaged(path, f"it is a safetensors file without an entry {entry!r} in its header", AGAIN)
    values = parsed(text, path, AGAIN)
    seal = values.pop(SEAL, None)
    texts = {entry: text} if seal is None else {entry: text, SEAL: sha256(text.encode()).hexdigest()}
    if texts != found.metadata or not isinstance(seal, str | None):
        raise damaged(path, "its header is not the one that was written, by its SHA-256", AGAIN)
    return values, seal


def _tensor(file: BufferedReader, first: int, entry: Entry, path: Path) -> Tensor:
    """Read one tensor into memory of its own, aligned as any tensor's: kernels then round as before it was written."""
    value = torch.empty(entry.shape, dtype=entry.dtype)
    file.seek(first + entry.start)
    if file.readinto(memory(value)) != entry.stop - entry.start:
        raise damaged(path, "it became shorter while it was read", AGAIN)
    if entry.dtype == torch.bool and value.numel() and int(value.view(torch.uint8).max()) > 1:
        raise damaged(path, "a truth value in it is neither 0 nor 1", AGAIN)
    return value


def memory(value: Tensor) -> memoryview:
    """Show the bytes of a contiguous tensor; one number alone is contiguous with any stride."""
    flat = value.reshape(-1)
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8).numpy().data
