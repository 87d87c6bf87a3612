"""One writer: a folder that a process writes a run into is its own until it ends, however it ends."""

import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from posterity.errors import InvalidInput, PosterityError

try:
    import fcntl
except ImportError:  # Windows: threads of one process are kept apart, processes are not
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
SHOWN = 200  # characters of what a lock file says
PATIENCE, PAUSE = 300, 0.1  # seconds, at most and between two looks
_FLAGS = os.O_RDWR | os.O_CREAT
for _name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)


class Occupied(PosterityError):
    """A folder that another process, or another thread, is writing a run into."""


class Lock:
    """A folder held for writing, by `held`."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder, self.descriptor = folder, descriptor

    def verify(self) -> None:
        """See that the folder is still the one that was locked.

        Raises:
            InvalidInput: where it was removed, or replaced.
        """
        if not _same(self.descriptor, self.folder / NAME):
            raise removed(self.folder)


def removed(folder: Path) -> InvalidInput:
    """Make the error for a folder that is not there any more."""
    return InvalidInput(
        f"{folder} was removed or replaced while this run was writing to it: nothing more can be saved there. Put it back and "
        "go on with it by resume, or start afresh."
    )


_held: set[int] = set()  # descriptors of this process
_guard = threading.Lock()
_threads: set[Path] = set()  # folders held, where the system has no locks


def _leave_to_parent() -> None:
    """A child that is forked closes what it was given: a lock must not outlive the process that holds it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Hold a folder for writing while the block runs; it is made where there is none.

    The system gives the lock up when the process dies, so that no lock is ever left behind.

    Raises:
        Occupied: where another process or thread holds it, with its name.
        InvalidInput: where the folder cannot be written, or its lock file is a link.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root, held(Path(root) / "run"):
    ...     with held(Path(root) / "run"):
    ...         pass
    Traceback (most recent call last):
    posterity.train.lock.Occupied: .../run is being written by process ...
    """
    lock = _acquired(folder)
    with _guard:
        _held.add(lock.descriptor)
    try:
        yield lock
    finally:
        with _guard:
            mine = lock.descriptor in _held  # not so in a forked child
            _held.discard(lock.descriptor)
            _threads.discard(folder.absolute())
        if mine:
            if _same(lock.descriptor, folder / NAME):
                (folder / NAME).unlink(missing_ok=True)
            os.close(lock.descriptor)


@contextmanager
def awaited(folder: Path, say: Callable[[str], None]) -> Iterator[Lock]:
    """Hold a folder as `held` does, once whoever holds it has ended: for what is written in seconds, after long work.

    Args:
        folder: which.
        say: told once whom it waits for.

    Raises:
        Occupied: where it is held for longer than `PATIENCE` seconds.
    """
    with ExitStack() as stack:
        end, told = time.monotonic() + PATIENCE, False
        while True:
            try:
                lock = stack.enter_context(held(folder))
                break
            except Occupied as error:
                if time.monotonic() > end:
                    raise
                if not told:
                    say(f"Waiting: {str(error).partition('. ')[0]}.")
                told = True
                time.sleep(PAUSE)
        yield lock


def refuse_held(folder: Path) -> None:
    """Refuse a folder that another process or thread is writing to, and leave it as it is.

    Raises:
        Occupied: with the name of that process.
    """
    if (folder / NAME).exists():
        with held(folder):
            pass


def _acquired(folder: Path) -> Lock:
    path = folder / NAME
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            raise InvalidInput(
                f"{folder} cannot be written ({error.strerror}: {error.filename}). Choose another folder."
            ) from error
        try:
            _refuse_planted(descriptor, path)
            if not _locked(descriptor, folder):
                raise Occupied(
                    f"{folder} is being written by {_holder(descriptor)}. Wait until it has ended, stop it, or choose another "
                    "folder."
                )
            if _same(descriptor, path):  # else its holder ended, and took the file away, in between
                _sign(descriptor)
                return Lock(folder, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _locked(descriptor: int, folder: Path) -> bool:
    if fcntl is None:
        with _guard:
            free = folder.absolute() not in _threads
            _threads.add(folder.absolute())
        return free
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be locked ({error.strerror}). Choose a folder on another disk.") from error
    return True


def _refuse_planted(descriptor: int, path: Path) -> None:
    """Refuse what somebody has put there: writing to it would write to another file."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise InvalidInput(f"{path} is no lock file of a run, but a link or a device. Remove it.")


def _same(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _sign(descriptor: int) -> None:
    """Say who holds it; a disk without room for a line of text keeps nobody from working."""
    text = f"process {os.getpid()} on {socket.gethostname()}: {' '.join(sys.argv)[:SHOWN]}\n"
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(errors="replace"), 0)
    except OSError:
        pass


def _holder(descriptor: int) -> str:
    pread: Any = getattr(os, "pread", None)
    text = pread(descriptor, 4 * SHOWN, 0).decode(errors="replace") if pread else ""
    return "".join(c for c in text.strip() if c.isprintable())[: 2 * SHOWN] or "another process"
