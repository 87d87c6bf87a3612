"""Reading files whole: their bytes and SHA-256, and one form of words for what is wrong with them."""

import gzip
import hashlib
import zlib
from pathlib import Path

from posterity.errors import CorruptFile, DataNotFound, InvalidInput

GZIP_MAGIC = b"\x1f\x8b"


def corrupt(path: Path, problem: str) -> CorruptFile:
    """Make the error for a file that cannot be used.

    >>> print(corrupt(Path("t10k-labels"), "it is empty"))
    File 't10k-labels' cannot be used: it is empty.
    """
    return CorruptFile(f"File '{path}' cannot be used: {problem}.")


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises `DataNotFound`, `CorruptFile` (empty) or `InvalidInput` (folder, no permission)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFound(f"There is no file '{path}'.") from error
    except OSError as error:
        raise InvalidInput(f"File '{path}' cannot be read: {error.strerror}.") from error
    if not content:
        raise corrupt(path, "it is empty")
    return content


def unpack(content: bytes, path: Path) -> bytes:
    """Undo gzip where the bytes are gzip's, whatever the file is called. Raises `CorruptFile`."""
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except EOFError as error:
        raise corrupt(path, "its gzip stream is truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise corrupt(path, f"its gzip stream is damaged ({error})") from error


def text(content: bytes, path: Path) -> str:
    """Decode UTF-8, with or without a byte-order mark. Raises `CorruptFile`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise corrupt(path, f"byte {error.start} is not UTF-8 text") from error
