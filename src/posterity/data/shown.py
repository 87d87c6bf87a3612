"""Which pictures a folder holds, and what each shows: by a folder for each class, by `train` and `test`, or by a table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import read
from posterity.data.pictures import SUFFIXES, below
from posterity.data.sheet import Sheet, Wanted, read_sheet
from posterity.errors import DataNotFound, InvalidInput, unknown
from posterity.text import short, some

TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
TABLES = (".csv", ".tsv")
Labels: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures, what each shows, and which of them are tested on: None where that is drawn."""

    paths: tuple[Path, ...]
    labels: Labels  # (N,) texts or numbers
    tested: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def shown_in(folder: Path, target: str | None) -> Shown:
    """Find all pictures of a folder and what they show; a table that names pictures counts before the names of folders.

    Raises:
        DataNotFound: where there are no pictures to learn from, and where the table names one that is not there.
        InvalidInput: for an empty folder among those of classes, and for labels that are missing.
    """
    shown = _parts(folder) or _listed(folder, target)
    if shown is not None:
        return shown
    shown = _classes(folder)
    if shown is None:
        raise DataNotFound(
            f"Folder '{folder}' holds no pictures to learn from. Expected a folder for each class ({folder.name}/cat/1.jpg), "
            f"folders train and test of such, or {', '.join(SUFFIXES)} files beside a table of their names and labels."
        )
    if target is not None:
        raise InvalidInput(f"--target {target}: the folders of '{folder}' say what its pictures show. Leave it out.")
    return shown


def _parts(folder: Path) -> Shown | None:
    """Find the pictures of `train` and `test`, each with a folder for each class; None where there are no such two."""
    inner = _folders(folder)
    train, test, also = (
        next((f for f in inner if f.name.lower() in names), None) for names in (TRAIN, TEST, VALIDATION)
    )
    test, also = (also, None) if test is None else (test, also)
    if train is None or test is None or len(inner) != 2 + (also is not None):
        return None
    parts = {part: _part(part) for part in (train, test, also) if part is not None}
    known = sorted(set(parts[train].labels.tolist()), key=natural)
    for part, shown in parts.items():
        if strange := sorted(set(shown.labels.tolist()) - set(known)):
            raise unknown(f"class in '{part.name}', which '{train.name}' lacks,", strange[0], known)
    notes = [note for shown in parts.values() for note in shown.notes]
    if also is not None:
        notes.append(
            f"'{also.name}' is trained on; what is held out for validation is drawn from all that is (--validation)."
        )
    return Shown(
        tuple(path for shown in parts.values() for path in shown.paths),
        np.concatenate([shown.labels for shown in parts.values()]),
        np.concatenate([np.full(len(shown.paths), part is test) for part, shown in parts.items()]),
        tuple(notes),
    )


def _part(folder: Path) -> Shown:
    shown = _classes(folder)
    if shown is None:
        raise DataNotFound(f"Folder '{folder}' has no folder of pictures for each class.")
    return shown


def _classes(folder: Path) -> Shown | None:
    """Find the pictures of a folder for each class; None where no folder in it holds any."""
    found = {inner.name: below(inner) for inner in _folders(folder)}
    held = {name: paths for name, paths in found.items() if paths}
    if not held:
        return None
    if empty := sorted(set(found) - set(held)):
        raise InvalidInput(
            f"Folder '{folder / empty[0]}' holds no PNG or JPEG file: take it away, or put pictures there."
        )
    beside = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]
    taken = {path for paths in held.values() for path in paths}
    left = [path.relative_to(folder).as_posix() for path in beside if path not in taken]
    notes = (
        (f"Left out of '{folder.name}': {len(left):,} files in no class, or no PNG or JPEG ({some(left)}).",)
        if left
        else ()
    )
    paths = tuple(path for name in sorted(held, key=natural) for path in held[name])
    labels = np.array([name for name in sorted(held, key=natural) for _ in held[name]])
    return Shown(paths, labels, None, notes)


def _listed(folder: Path, target: str | None) -> Shown | None:
    """Find the pictures that the one table of a folder names, with their labels; None where no table does."""
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLES and not _hidden(path, folder)]
    if len(tables) != 1 or not below(folder):
        return None
    sheet = read_sheet(read(tables[0]), tables[0], Wanted())
    known = {key: path for path in below(folder) for key in _keys(path, folder)}
    column = next((name for name in sheet.names if _name_pictures(sheet, name, known)), None)
    if column is None:
        return None
    cells = sheet.cells[column].worded()
    paths = tuple(_named(cells.words[code], known, sheet, row, column) for row, code in enumerate(cells.codes))
    others = [name for name in sheet.names if name != column]
    target = others[-1] if target is None else target
    if target not in others:
        raise unknown("target column", target, others)
    values = sheet.cells[target]
    if (values.floats is not None and np.isnan(values.floats).any()) or "" in values.words:
        raise InvalidInput(
            f"'{tables[0]}': the column '{short(target)}' has empty cells. Say what these pictures show, or drop them."
        )
    labels = np.array(values.words)[values.codes] if values.floats is None else values.floats
    unused = len(below(folder)) - len(set(paths))
    notes = [f"'{tables[0].name}': pictures by '{short(column)}', target '{short(target)}'."]
    notes += [f"Left out: {unused:,} pictures that it does not name."] * bool(unused)
    return Shown(paths, labels, None, tuple(notes))


def _name_pictures(sheet: Sheet, name: str, known: Mapping[str, Path]) -> bool:
    """Tell whether at least half of a column's cells are names of pictures."""
    words = sheet.cells[name].worded().words
    return 2 * sum(word in known for word in words) >= max(len(words), 1)


def _named(word: str, known: Mapping[str, Path], sheet: Sheet, row: int, column: str) -> Path:
    if word not in known:
        raise DataNotFound(f"{sheet.place(column, row)}: there is no picture '{short(word)}' in '{sheet.path.parent}'.")
    return known[word]


def _keys(path: Path, folder: Path) -> tuple[str, ...]:
    """Return how a table may name a picture: by its path within the folder or its name, with or without what says its kind."""
    inner = path.relative_to(folder)
    return inner.as_posix(), inner.with_suffix("").as_posix(), path.name, path.stem


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Order 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name.lower())], name
