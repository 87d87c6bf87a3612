"""Tables that are packed: a gzip stream, or the one file of a zip archive."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

from posterity.data.files import GZIP_MAGIC, corrupt, unpack
from posterity.errors import PosterityError

PACKED = (".gz", ".zip")
ZIP_MAGIC = b"PK\x03\x04"
MOST = 1 << 30  # bytes that a table may unpack to
FLAWS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, NotImplementedError, ValueError)


def unpacked(content: bytes, path: Path) -> tuple[bytes, Path]:
    """Return a table's bytes, and a name whose end says of what kind they are; what is not packed is returned as it is.

    Raises:
        CorruptFile: for what is damaged, encrypted, too large, an office's workbook, or more than one file.

    >>> import gzip
    >>> unpacked(gzip.compress(b"a,b"), Path("mine.csv.gz"))
    (b'a,b', PosixPath('mine.csv'))
    """
    if content.startswith(GZIP_MAGIC):
        return unpack(content, path, MOST), _inner(path)
    if not content.startswith(ZIP_MAGIC):
        return content, path
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            member = _only(archive.infolist(), path)
            with archive.open(member) as stream:
                found = stream.read(MOST + 1)
    except PosterityError:
        raise
    except RuntimeError as error:  # what zipfile raises where a password is needed
        raise corrupt(path, "it is encrypted; unpack it first") from error
    except FLAWS as error:
        raise corrupt(path, f"it is a damaged zip archive ({error})") from error
    if len(found) > MOST:
        raise corrupt(path, f"it holds more than the {MOST:,} bytes that are unpacked")
    return found, path.with_name(Path(member.filename).name)


def _inner(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _only(members: list[zipfile.ZipInfo], path: Path) -> zipfile.ZipInfo:
    names = {one.filename for one in members}
    if {"[Content_Types].xml", "mimetype"} & names:
        raise corrupt(path, "it is a workbook of an office program; save its sheet as CSV")
    files = [one for one in members if not one.is_dir() and not one.filename.startswith(("__MACOSX/", "."))]
    if len(files) != 1:
        raise corrupt(path, f"it holds {len(files)} files, and one is read; unpack the table and name it")
    return files[0]
