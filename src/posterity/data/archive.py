"""NumPy archives (`.npz`), read without pickles and within stated bounds."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from posterity.data import npy
from posterity.data.files import MOST, MOST_UNPACKED, corrupt
from posterity.errors import PosterityError

ZIP_MAGIC, ENTRY = b"PK", b"PK\1\2"
MOST_ARRAYS = 1000
MOST_RATIO = 100  # bytes that each byte of a large archive may unpack to; deflate itself reaches 1000
ENCRYPTED = 1
SUFFIX = ".npy"


def arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Return an archive's arrays by name; `path` only names it in errors.

    What it unpacks to is known before anything is: at most 256 MiB, or 100 times the size of the archive, and never more
    than it said. Raises `CorruptFile` where it is no archive, is truncated, unpacks to more, or holds Python objects: those
    would need a pickle, which can run any code.

    >>> import numpy as np
    >>> stream = io.BytesIO()
    >>> np.savez(stream, y=np.arange(3))
    >>> arrays(stream.getvalue(), Path("mine.npz"))
    {'y': array([0, 1, 2])}
    """
    if not content.startswith(ZIP_MAGIC):
        raise corrupt(path, "it is no .npz archive")
    if content.count(ENTRY) > MOST_ARRAYS:
        raise corrupt(path, f"it holds more than {MOST_ARRAYS:,} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _refuse_unusual(members, len(content), path)
            return {
                m.filename.removesuffix(SUFFIX): npy.array(_member(archive, m, path), path / m.filename)
                for m in members
            }
    except PosterityError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, NotImplementedError) as error:
        raise corrupt(path, f"it is truncated or damaged ({error})") from error
    except (OverflowError, IndexError, ValueError) as error:
        raise corrupt(path, f"its table of contents is damaged ({error})") from error


def _refuse_unusual(members: list[zipfile.ZipInfo], packed: int, path: Path) -> None:
    """Refuse what `numpy.savez` never writes, before anything is unpacked."""
    names: set[str] = set()
    for member in members:
        if not member.filename.endswith(SUFFIX):
            raise corrupt(path, f"'{member.filename}' in it is no {SUFFIX} array")
        if member.filename in names:
            raise corrupt(path, f"it holds '{member.filename}' twice")
        names.add(member.filename)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & ENCRYPTED:
            raise corrupt(path, f"'{member.filename}' in it is encrypted, or packed as numpy.savez packs nothing")
    whole, most = sum(member.file_size for member in members), min(max(MOST_UNPACKED, MOST_RATIO * packed), MOST)
    if whole > most:
        raise corrupt(path, f"it says that its {packed:,} bytes unpack to {whole:,}, and at most {most:,} are unpacked")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    with archive.open(member) as stream:
        content = stream.read(member.file_size + 1)  # to the end, where the checksum is compared
    if len(content) != member.file_size:
        raise corrupt(path, f"'{member.filename}' in it is truncated")
    return content
