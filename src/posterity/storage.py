"""Files that are whole or not there: made new under a name of their own, synced to the disk, then put in place in one step."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_MORE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new, empty file beside `path` to write; afterwards it takes the place of `path`, which is whole at any moment.

    The new file is made exclusively, so that whatever somebody has put there, a link included, is never written through; a
    `path` that is a link is itself replaced. Permissions are those that the user's umask gives. File and folder are synced:
    once this returns, the new content survives a loss of power. Where the block fails, `path` stays as it was.

    Raises:
        OSError: as the system does, with the name of `path`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('a.txt', 'whole')]
    """
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(part, _NEW, 0o666))
        mode = part.stat().st_mode & 0o777
        yield part
        os.chmod(part, mode)  # a writer that makes the file anew, as safetensors does, chooses its own
        _synced(part)
        os.replace(part, path)
        _synced(path.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # it is not there any more, or never was; what went wrong before is what is said
            part.unlink()


def replace_text(path: Path, text: str) -> None:
    """Write a text file, as `replacing` does."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Add to a text file, all or nothing: a disk that is full takes what it can of a write. A link in its place is refused.

    Raises:
        OSError: as the system does, with the name of `path`.
    """
    try:
        descriptor = os.open(path, _MORE, 0o666)
        try:
            _add(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, under which it stays when a newer one takes its place.

    Raises:
        OSError: as the system does, with the name of `other`.
    """
    with replacing(other) as part:
        part.unlink()
        try:
            os.link(path, part, follow_symlinks=False)
        except OSError:  # a file system without links
            shutil.copyfile(path, part)


def unlinked(path: str, flags: int) -> int:
    """Open a file that is gone on with, as an `opener` of Python's `open`; a link in its place is refused.

    Raises:
        OSError: as the system does.
    """
    return os.open(path, flags | _NO_LINK, 0o666)


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which another one, however deep, is a link: what is written to it would land elsewhere.

    Links in the place of files are no matter: `replacing` takes their place, and `append_text` refuses them.

    Raises:
        OSError: with the name of the link.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / "findings").symlink_to("/")
    ...     try:
    ...         refuse_links(Path(folder))
    ...     except OSError as error:
    ...         print(error.strerror)
    it is a link to another folder, and nothing is written outside of this one; remove it
    """
    for here, folders, _ in os.walk(folder):
        for name in folders:
            if (path := Path(here) / name).is_symlink():
                words = "it is a link to another folder, and nothing is written outside of this one; remove it"
                raise OSError(errno.ELOOP, words, str(path))


@contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file to be read. A pipe, a device or a folder in its place is refused, and never waited for.

    Raises:
        OSError: as the system does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a zero byte in its name
        raise FileNotFoundError(errno.ENOENT, "there is no file of this name", repr(str(path))) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file, but a folder, a pipe or a device", str(path))
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _add(descriptor: int, more: bytes) -> None:
    size = os.fstat(descriptor).st_size
    try:
        while more:
            more = more[os.write(descriptor, more) :]
    except BaseException:
        os.ftruncate(descriptor, size)
        raise


def _synced(path: Path) -> None:
    """Have the disk hold what the system remembers of a file, or of a folder's list of names where it can be asked to."""
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if folder:  # Windows opens none
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not folder:  # some file systems sync files alone
            raise
    finally:
        os.close(descriptor)
