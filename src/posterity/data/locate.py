"""Where a data set's files are: every place that the usual tools put them, in a fixed order."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from posterity.data.sets import Known
from posterity.errors import DataNotFound


@dataclass(frozen=True)
class Place:
    """A folder that holds a whole data set; `files` maps the name of each file to its path."""

    folder: Path
    files: Mapping[str, Path]


def cache_folder() -> Path:
    """Return the library's own cache: `$XDG_CACHE_HOME/posterity`, or `~/.cache/posterity`; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "posterity"


def locate(known: Known, files: tuple[str, ...], root: Path | None = None) -> Place:
    """Find the first place that has all `files` of a data set (or an archive of them).

    The order: `root`, `$POSTERITY_DATA`, the own cache, then the places of torchvision and Keras. Raises
    `DataNotFound`, which lists them all and says what to do, also where a `root` is given that is no folder.
    """
    if root is not None and not root.is_dir():
        raise DataNotFound(f"'{root}' is no folder: give the folder below which the files of '{known.name}' lie.")
    tried = []
    for folder in _candidates(known, root):
        found = {file: path for file in files if (path := _present(folder, file))}
        if len(found) == len(files):
            return Place(folder, found)
        for beside in (folder, folder.parent):
            for archive in known.archives:
                if (beside / archive).is_file():
                    return Place(beside, {archive: beside / archive})
        missing = [file for file in files if file not in found]
        tried.append(f"  {folder}" + (f"  (lacks {', '.join(missing)})" if found else ""))
    raise DataNotFound(_message(known, files, tried))


def located(file: str) -> Path:
    """Find a file of a table that is no known data set, by its path below `$POSTERITY_DATA` or the other folders of data.

    Raises `DataNotFound`, which lists them.
    """
    tried = [base / file for base in _roots()]
    for path in tried:
        if path.is_file():
            return path
    raise DataNotFound(f"'{file}' is in none of these places:\n" + "\n".join(f"  {path}" for path in tried))


def _roots() -> Iterator[Path]:
    if given := os.environ.get("POSTERITY_DATA"):
        yield Path(given).expanduser()
    yield cache_folder()
    home = Path.home()
    yield from (Path.cwd() / "data", home / "data", home / "datasets", home / ".cache" / "torchvision")
    yield Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"


def _candidates(known: Known, root: Path | None) -> Iterator[Path]:
    if root is not None:
        yield from (root / folder for folder in known.folders)
        # MNIST and Fashion-MNIST name their files alike: the root itself counts only where its name says which it is.
        yield from (root for folder in known.folders if root.resolve().as_posix().endswith(f"/{folder}"))
    yield from (base / folder for base in _roots() for folder in known.folders)


def _present(folder: Path, file: str) -> Path | None:
    return next((path for end in (".gz", ".bin", "") if (path := folder / f"{file}{end}").is_file()), None)


def _message(known: Known, files: tuple[str, ...], tried: list[str]) -> str:
    home = cache_folder() / known.folders[0]
    suffix = {"idx": " (.gz or unpacked)", "cifar": " (pickles, or .bin)"}.get(known.kind, "")
    lines = [
        f"The files of '{known.name}' are in none of these places:",
        *dict.fromkeys(tried),
        f"Put {', '.join(files)}{suffix}",
        f"into {home}, or into {known.folders[0]} below a folder named by --root or POSTERITY_DATA.",
    ]
    if known.archives:
        lines.append(f"{' or '.join(known.archives)} in or beside such a folder serves as well.")
    if known.mirror:
        lines.append(f"Or fetch them: posterity data {known.name} --download")
    else:
        lines.append(f"They come from {known.origin}; `posterity data {known.name} --download` cannot fetch these.")
    return "\n".join(lines)
