"""Fetching files: into `NAME.part`, resumed where it stopped, checked by SHA-256, then renamed in one step."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from posterity.data.sets import Known
from posterity.errors import CorruptFile, DataNotFound
from posterity.storage import unlinked

CHUNK = 1 << 16
TIMEOUT = 30  # seconds without a byte
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206


_Bar: TypeAlias = Callable[[int, int | None], None]  # bytes so far, bytes in all


def download(known: Known, folder: Path, *, progress: bool | None = None) -> None:
    """Fetch the files of a known set that `folder` does not hold yet.

    Raises `DataNotFound` where the set has no mirror or the network fails (what arrived is kept, the next call goes on
    from there), and `CorruptFile` where a checksum is not the known one.
    """
    if not known.mirror:
        raise DataNotFound(f"'{known.name}' cannot be fetched; it comes from {known.origin}.")
    for file, sha256 in known.sha256.items():
        destination = folder / file
        if not (destination.is_file() and _sha256(destination) == sha256):
            fetch(known.mirror + file, destination, sha256, progress=progress)


def fetch(url: str, destination: Path, sha256: str, *, progress: bool | None = None) -> None:
    """Fetch one file; a `.part` beside it from an earlier try is gone on with, where the server can.

    Raises as `download` does. A finished file is either whole and checked, or not there.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists() and part.stat().st_size > 0
        _transfer(url, part, progress)
        if resumed and _sha256(part) != sha256:  # the old beginning may be of another file: once more, from zero
            part.unlink()
            _transfer(url, part, progress)
        found = _sha256(part)
        if found != sha256:
            part.unlink()
            raise CorruptFile(
                f"What {url} sent is not '{destination.name}': SHA-256 {found}, expected {sha256}. Nothing was kept."
            )
        os.replace(part, destination)
    except HTTPError as error:
        raise DataNotFound(f"{url} answers {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DataNotFound(
            f"Fetching {url} into '{part}' failed: {reason}. The same command goes on from there."
        ) from error


def _transfer(url: str, part: Path, progress: bool | None) -> None:
    offset = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "posterity", **({"Range": f"bytes={offset}-"} if offset else {})}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if offset and error.code == RANGE_NOT_SATISFIABLE:  # the part is whole already, or too long: its checksum tells
            return
        raise
    with response:
        if response.status != PARTIAL_CONTENT:  # the server knows no ranges and sends the whole file
            offset = 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        mode = "ab" if offset else "wb"
        with open(part, mode, opener=unlinked) as sink, _progress(part.stem, progress) as advance:
            done = _copy(response, sink, offset, (advance, total))
    if total is not None and done < total:
        raise OSError(f"the connection closed after {done} of {total} bytes")


def _copy(response: HTTPResponse, sink: IO[bytes], done: int, report: tuple[_Bar, int | None]) -> int:
    advance, total = report
    while chunk := response.read(CHUNK):
        sink.write(chunk)
        done += len(chunk)
        advance(done, total)
    return done


@contextmanager
def _progress(name: str, wanted: bool | None) -> Iterator[_Bar]:
    """Show a progress bar on stderr, or nothing where it is not wanted."""
    from rich.console import Console  # imported here: only a download needs it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    shown = sys.stderr.isatty() if wanted is None else wanted
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
