"""JSON from files that anyone may have written: bounded in size, depth and numbers of things, and plain when it is read."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from posterity.errors import CorruptFile, InvalidInput
from posterity.storage import reading

AGAIN = "Save or copy it again"
SEAL = "sha256"
SIZE = 1 << 25  # bytes of one text, at most
ITEMS = 2_000_000  # each takes some 70 bytes when read, whatever little it takes in the text
DEPTH = 64
SHOWN = 120  # characters of a reason


def parsed(text: str | bytes, path: Path, advice: str = AGAIN) -> dict[str, Any]:
    """Read a JSON object that is in a file, or all of it.

    NaN and infinities, as Python writes them, are read. What is larger than `SIZE`, nests deeper than `DEPTH`, names a key
    twice, or holds text that no terminal can print, is refused before it can do harm.

    Args:
        text: of the object.
        path: of its file, and `advice`: what to do with a damaged one, for the message.

    Raises:
        CorruptFile: where it is no such object.

    >>> parsed('{"a": [1, 2]}', Path("a.json"))
    {'a': [1, 2]}
    >>> parsed('{"a": 1, "a": 2}', Path("a.json"))
    Traceback (most recent call last):
    posterity.errors.CorruptFile: a.json is damaged: 'a' is there twice. Save or copy it again.
    """
    try:
        own = text.encode() if isinstance(text, str) else text
        if len(own) > SIZE or own.count(b",") + own.count(b"[") + own.count(b"{") > ITEMS:
            raise ValueError(f"it is larger than the {SIZE >> 20} MiB, or the {ITEMS:,} values, that are read")
        values = json.loads(own.decode(), object_pairs_hook=_unique)
        _check_plain(values)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error), advice) from error
    if not isinstance(values, dict):
        raise damaged(path, "it holds no values by name", advice)
    return values


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with the SHA-256 of what `json.dumps` makes of them.

    >>> unsealed(sealed({"a": 1.5}), Path("a.json"))
    {'a': 1.5}
    >>> unsealed({**sealed({"a": 1.5}), "a": 2.5}, Path("a.json"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    posterity.errors.CorruptFile: a.json is damaged: its values are not those that were written, by their SHA-256. ...
    """
    return {**values, SEAL: sha256(json.dumps(values).encode()).hexdigest()}


def unsealed(values: Mapping[str, Any], path: Path, advice: str = AGAIN) -> dict[str, Any]:
    """Return what was sealed; of an earlier version, which sealed nothing, all.

    Raises:
        CorruptFile: where it is not what was written.
    """
    own = {key: value for key, value in values.items() if key != SEAL}
    last = [*values.values(), None][-2:][0]
    renamed = SEAL not in values and isinstance(last, str) and len(last) == sha256().digest_size * 2
    if renamed or (SEAL in values and sealed(own) != values):
        raise damaged(path, "its values are not those that were written, by their SHA-256", advice)
    return own


def content(path: Path, size: int = SIZE) -> bytes:
    """Read a whole file of at most `size` bytes: one that is no regular file is never waited for.

    Raises:
        InvalidInput: where there is none, or it cannot be read.
        CorruptFile: where it is larger.
    """
    try:
        with reading(path) as file:
            there = os.fstat(file.fileno()).st_size
            found = file.read(
                min(there, size) + 1
            )  # a reader takes the memory that it is asked for, and returns some of it
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(found) > size:
        raise CorruptFile(f"{path} is larger than the {size >> 20} MiB that are read of such a file.")
    return found


def damaged(path: Path, reason: str, advice: str) -> CorruptFile:
    """Make the error for a file that is not what it should be, in one line."""
    line = " ".join(reason.split())
    short = line if len(line) <= SHOWN else line[:SHOWN] + "…"
    return CorruptFile(f"{path} is damaged: {short}. {advice}.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:40]!r} is there twice")
    return values


def _check_plain(values: Any) -> None:
    """Refuse what nests too deep, and halves of characters, which cannot be written again."""
    level = [values]
    for _ in range(DEPTH):
        held: list[Any] = [one for part in level if isinstance(part, list) for one in part]
        for part in level:
            if isinstance(part, dict):
                held += [*part, *part.values()]
        "".join(one for one in held if isinstance(one, str)).encode()
        level = [one for one in held if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {DEPTH}")
