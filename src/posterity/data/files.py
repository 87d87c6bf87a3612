"""Reading files whole, within stated bounds: their bytes and SHA-256, and one form of words for what is wrong with them."""

import hashlib
import stat
import zlib
from pathlib import Path

from posterity.errors import CorruptFile, DataNotFound, InvalidInput, PosterityError

GZIP_MAGIC = b"\x1f\x8b"
MOST = 1 << 32  # bytes of a file that is read whole
MOST_UNPACKED = 1 << 28  # bytes that a compressed file may unpack to where nothing says how many there must be
MOST_MEMBERS = 100  # streams that one gzip file may be made of
LONGEST = 300  # characters of a problem that somebody has to read


def corrupt(path: Path, problem: str) -> CorruptFile:
    """Make the error for a file that cannot be used; of a long problem, which may quote the file, the middle is left out.

    >>> print(corrupt(Path("t10k-labels"), "it is empty"))
    File 't10k-labels' cannot be used: it is empty.
    """
    return CorruptFile(f"File '{path}' cannot be used: {shortened(problem)}.")


def shortened(words: str) -> str:
    """Bring words to one line that somebody reads; of many, the middle is left out.

    >>> len(shortened("many words " * 1000))
    303
    """
    line = " ".join(words.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def read(path: Path, most: int = MOST) -> bytes:
    """Return the bytes of a file of at most `most`.

    Raises `DataNotFound`, `CorruptFile` (empty, too large) or `InvalidInput` (a folder or device, no permission).
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(
                f"File '{path}' cannot be read: it is no regular file."
            )  # a device or a pipe might have no end
        if found.st_size > most:
            raise corrupt(path, f"it has {found.st_size:,} bytes, and at most {most:,} are read")
        content = path.read_bytes()
    except PosterityError:
        raise
    except FileNotFoundError as error:
        raise DataNotFound(f"There is no file '{path}'.") from error
    except OSError as error:
        raise InvalidInput(f"File '{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a name with a NUL in it
        raise InvalidInput(f"File {str(path)!r} cannot be read: {error}.") from error
    if not content:
        raise corrupt(path, "it is empty")
    return content


def unpack(content: bytes, path: Path, most: int = MOST_UNPACKED, what: str = "its gzip stream") -> bytes:
    """Undo gzip where the bytes are gzip's, whatever the file is called; no more than `most` bytes are ever made.

    `what` begins the sentence that says what is wrong with them.

    Raises `CorruptFile`, also where the file is longer, packed or not.

    >>> import gzip
    >>> unpack(gzip.compress(bytes(10**6)), Path("bomb.gz"), most=1000)
    Traceback (most recent call last):
    posterity.errors.CorruptFile: File 'bomb.gz' cannot be used: it holds more than the 1,000 bytes that it may have.
    """
    too_long = f"it holds more than the {most:,} bytes that it may have"
    if not content.startswith(GZIP_MAGIC):
        if len(content) > most:
            raise corrupt(path, too_long)
        return content
    made: list[bytes] = []
    left, room = content, most
    while left:  # a gzip file may have several members, one after the other
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = stream.decompress(left, room + 1)
        except zlib.error as error:
            raise corrupt(path, f"{what} is damaged ({error})") from error
        room -= len(part)
        if room < 0 or len(made) == MOST_MEMBERS:
            raise corrupt(path, too_long)
        if not stream.eof:
            raise corrupt(path, f"{what} is truncated")
        made.append(part)
        left = stream.unused_data.lstrip(b"\0")
    return b"".join(made)


def text(content: bytes, path: Path) -> str:
    """Decode UTF-8, with or without a byte-order mark. Raises `CorruptFile`, also for NUL, which no text has."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise corrupt(path, "it is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in content:
        raise corrupt(path, f"byte {content.index(0)} is NUL, which UTF-8 text does not have")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise corrupt(path, f"byte {error.start} is not UTF-8 text; save it as UTF-8") from error
