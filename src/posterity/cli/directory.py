"""A run's directory: what is where in it, and the rules by which it is made and refused."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import isdir  # False of names that are too long for any file
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posterity.cli.console import finite
from posterity.documents import content, damaged, parsed, sealed, unsealed
from posterity.errors import InvalidInput
from posterity.storage import append_text, refuse_links, replace_text
from posterity.text import file_name
from posterity.train import keeping, lock
from posterity.train.lock import Lock

MODEL, TWIN = "model", "twin"
Row = dict[str, Any]
LOG = 1 << 30  # bytes of a log, at most
LOST = "The run cannot be shown without it; train it again"
REMOVE = "Remove it, and run what wrote it again"
Number = Annotated[float, Field(allow_inf_nan=False)] | None  # what is not finite was written as null


class _Logged(BaseModel):
    """A row of the log: whose epoch it is, and numbers by name, some of them in groups."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Number | list[Number] | dict[str, Number | list[Number]]]

    run: str
    epoch: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class RunDirectory:
    """config.toml, log.jsonl, checkpoints/, posterior.safetensors, twin.safetensors, metrics.json, report.html, findings/."""

    path: Path
    lock: Lock | None = None  # where a run is being written to it

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def posterior(self, which: str = MODEL) -> Path:
        return self.path / ("twin.safetensors" if which == TWIN else "posterior.safetensors")

    def finding(self, name: str) -> Path:
        """Return the file of what a later command found, such as `diagnosis`."""
        return self.path / "findings" / f"{name}.json"

    def refuse_occupied(self, force: bool) -> None:
        """Raise `InvalidInput` where the directory holds something that may not be replaced, `Occupied` where it is in use."""
        lock.refuse_held(self.path)
        self._refuse_full(force)

    def _refuse_full(self, force: bool) -> None:
        if not self.path.is_dir() or not any(file.name != lock.NAME for file in self.path.iterdir()):
            return
        if force and not self.config.exists():
            raise InvalidInput(
                f"{self.path} is not empty, and holds no run that --force could replace: it has no config.toml, and what is in "
                "it may be anybody's. Choose another --out."
            )
        if not force:
            raise InvalidInput(
                f"{self.path} is not empty. Choose another --out, replace the run in it with --force, or go on with it: "
                f"posterity train --resume {self.path}"
            )

    @contextmanager
    def held(self, force: bool) -> Iterator[Lock]:
        """Make the directory, and hold it for writing; see then, alone, that nobody else has just put a run there.

        Raises:
            Occupied: where another process holds it. InvalidInput: as `refuse_occupied`, and as `verify` at the end.
        """
        with lock.held(self.path) as own:
            self._refuse_full(force)
            yield own
            own.verify()  # what was written last, when the folder was another one already, is not in the run's

    def verify(self) -> None:
        """Raise `InvalidInput` where the directory was removed, or replaced, since it was held."""
        if self.lock is not None:
            self.lock.verify()

    def claim(self) -> None:
        """Try to write in the directory, and remove an old run's files; it must be held, and `refuse_occupied` asked again.

        Raises:
            InvalidInput: where it cannot be written.
        """
        try:
            probe = self.path / ".writable"
            replace_text(probe, "")
            probe.unlink()
            for folder in (self.checkpoints, self.finding("any").parent):
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)
                else:
                    folder.unlink(missing_ok=True)  # of a link nothing of what it leads to
            for file in (self.log, self.metrics, self.report, *map(self.posterior, (MODEL, TWIN))):
                file.unlink(missing_ok=True)
            self.config.unlink(
                missing_ok=True
            )  # last: what it stands in is a run's, and may be replaced by another try
        except OSError as error:
            raise InvalidInput(
                f"--out {self.path} cannot be written: {error.strerror}. Choose another directory."
            ) from error

    def on_epoch(self, label: str) -> Callable[[str, Row], None]:
        """Return what appends each epoch's row to the log, for the engine of one model."""

        def append(name: str, row: Row) -> None:
            append_text(self.log, _line(_named(label, name.partition("/")[2]), row))

        return append

    def rebuild_log(self) -> None:
        """Write the log anew from the checkpoints: on resume it then holds each finished epoch once."""
        refuse_links(self.path)
        lines = [
            _line(_named(label, folder.relative_to(self.checkpoints / label).as_posix()), row)
            for label in (MODEL, TWIN)
            for folder in sorted({p.parent for p in (self.checkpoints / label).rglob("*.safetensors")}, key=_number)
            for row in keeping.history(folder)
        ]
        replace_text(self.log, "".join(lines))

    def begun(self) -> bool:
        """Tell whether there is a checkpoint that a run can go on from."""
        return any(keeping.begun(path.parent) for path in self.checkpoints.rglob("*.safetensors"))

    def rows(self, label: str) -> list[Row]:
        """Return the log's rows of one model; an ensemble's are its members' one after the other."""
        return [row for row in self._all_rows() if row["run"] == label or row["run"].startswith(f"{label}/")]

    def _all_rows(self) -> Iterator[Row]:
        if self.log.exists():
            for line in content(self.log, LOG).splitlines():
                yield _row(unsealed(_parsed(line, self.log, LOST), self.log, LOST), self.log)


def findings(path: Path) -> dict[str, dict[str, Any]]:
    """Read what later commands found about the run in a directory, by name."""
    return {file.stem: read_json(file) for file in path.glob("findings/*.json")}


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that a command wrote.

    Raises:
        CorruptFile: where it is damaged.
    """
    return unsealed(_parsed(content(file), file, REMOVE), file, REMOVE)


def _parsed(text: bytes, file: Path, advice: str) -> dict[str, Any]:
    values = parsed(text, file, advice)
    if not values:
        raise damaged(file, "it holds no values", advice)
    return values


def _row(values: Row, file: Path) -> Row:
    """Check that a row is one."""
    try:
        _Logged.model_validate(values)
        return values
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise damaged(file, f"{place}: {first['msg']}", LOST) from error


def default_path(data: str, model: str, method: str, now: datetime | None = None) -> Path:
    """Name a new run: runs/<data>-<model>-<method>-<UTC time>.

    >>> default_path("uci/wine", "mlp:50", "map", datetime(2025, 1, 2, 3, 4, 5)).as_posix()
    'runs/uci-wine-mlp-50-map-20250102-030405'
    """
    own = isdir(data) or bool(Path(data).suffix)
    stem = Path(Path(data).name).stem if own else data
    time = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / "-".join(map(file_name, (stem, model, method, time))).lower()
    number = 2
    while path.exists():
        path, number = path.with_name(f"{path.name.removesuffix(f'-{number - 1}')}-{number}"), number + 1
    return path


def seconds_of(rows: Sequence[Row]) -> float:
    """Return the training time that a log tells of; an ensemble's members add up."""
    last = {row["run"]: float(row["seconds"]) for row in rows}
    return sum(last.values(), 0.0)


def replace_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file all at once."""
    replace_text(path, json.dumps(finite(values), indent=2) + "\n")


def replace_finding(path: Path, values: Mapping[str, Any]) -> None:
    """Write what a command found, with its SHA-256, all at once."""
    replace_json(path, sealed(finite(values)))


def _line(run: str, row: Mapping[str, Any]) -> str:
    return json.dumps(sealed(finite({"run": run, **row}))) + "\n"


def _named(label: str, part: str) -> str:
    return label if part in ("", ".") else f"{label}/{part}"


def _number(path: Path) -> tuple[int, str]:
    digits = path.name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, str(path))
