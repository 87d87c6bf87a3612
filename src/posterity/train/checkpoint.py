"""Checkpoints: an algorithm's state, the random streams, the run's record and what the run is of, in a file that is whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from posterity import tensors
from posterity.documents import damaged
from posterity.errors import InvalidInput, Mismatch
from posterity.storage import keep_as
from posterity.types import State

ENTRY = "record"  # of the header
ADVICE = "Remove it to start afresh"
Count = Annotated[int, Field(ge=0)]


@dataclass
class Record:
    """Where a run stands, and what it has been through."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    epoch: Count = 0  # epochs finished
    step: Count = 0  # steps done in the epoch at hand
    sums: dict[str, float] = field(default_factory=dict)  # of each Info value over the data of those steps
    counts: dict[str, float] = field(default_factory=dict)  # how many each of them was summed over
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per finished epoch
    best_score: float | None = None
    best_epoch: Count = 0
    seconds: float = 0.0
    finished: bool = False  # before its last epoch, by patience


@dataclass(frozen=True, eq=False)
class About:
    """What a checkpoint says beside the state.

    Args:
        record: where the run stands.
        identity: what the run is of, by names with dots; None of files of earlier versions, which do not know it.
        settings: where it ran, which may change: device, threads.
    """

    record: Record
    identity: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


_RECORD = TypeAdapter(Record)
_VALUES = TypeAdapter(tuple[dict[str, Any] | None, dict[str, Any]])


def save(path: Path, state: State, streams: dict[str, Tensor], about: About) -> None:
    """Write a checkpoint beside the old one, with the SHA-256 of its tensors, then put it in its place.

    Raises:
        InvalidInput: where it cannot be written (no permission, a full disk); the old one is then untouched.
    """
    parts = {**{f"state.{k}": v for k, v in state.items()}, **{f"stream.{k}": v for k, v in streams.items()}}
    values = {**asdict(about.record), "identity": about.identity, "settings": about.settings}
    tensors.write(path, parts, ENTRY, values)


def load(path: Path) -> tuple[State, dict[str, Tensor], About]:
    """Read a checkpoint.

    Raises:
        InvalidInput: where there is none.
        CorruptFile: where it is damaged, or no checkpoint.
    """
    values, parts = tensors.read(path, ENTRY, lambda found, _: _check(found, path))
    state = {k.removeprefix("state."): v for k, v in parts.items() if k.startswith("state.")}
    streams = {k.removeprefix("stream."): v for k, v in parts.items() if k.startswith("stream.")}
    return state, streams, _about(values, path)


def load_about(path: Path) -> About:
    """Read what a checkpoint says beside its state. Errors are those of `load`."""
    return _about(tensors.read_values(path, ENTRY)[0], path)


def restore(live: State, saved: State, path: Path) -> None:
    """Copy a saved state into the live one.

    Raises:
        Mismatch: before anything is copied, where the checkpoint is of another network or method.
    """
    have, need = ({k: tuple(v.shape) for k, v in state.items()} for state in (saved, live))
    if have != need:
        rows = [
            f"  {k}: checkpoint {have.get(k, 'absent')}, this run {need.get(k, 'absent')}" for k in {**have, **need}
        ]
        rows = [row for row, k in zip(rows, {**have, **need}, strict=True) if have.get(k) != need.get(k)]
        raise Mismatch(f"{path} is a checkpoint of another network or method:\n" + "\n".join(rows[:8]))
    for key, value in saved.items():
        live[key].copy_(value)


def kept(path: Path, previous: Path) -> None:
    """Give a checkpoint a second name, under which it stays when a newer one takes its place.

    Raises:
        InvalidInput: where that cannot be written.
    """
    if not path.exists():
        return
    try:
        keep_as(path, previous)
    except OSError as error:
        raise InvalidInput(
            f"Cannot keep the checkpoint {previous}: {error}. Choose another folder, or free some space."
        ) from error


def _check(values: Mapping[str, Any], path: Path) -> None:
    _about(values, path)


def _about(values: Mapping[str, Any], path: Path) -> About:
    """Check what a file says of a run, value by value."""
    own = dict(values)
    try:
        identity, settings = _VALUES.validate_python((own.pop("identity", None), own.pop("settings", {})), strict=True)
        record = _RECORD.validate_json(json.dumps(own), strict=True)  # from no object, only from values
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"its record of the run is no such thing ({where}: {first['msg']})", ADVICE) from error
    return About(record, identity, settings)
