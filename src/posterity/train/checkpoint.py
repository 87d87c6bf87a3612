"""Checkpoints: an algorithm's state, the random streams, the run's record and what the run is of, in a file that is whole."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from posterity.errors import CorruptFile, InvalidInput, Mismatch
from posterity.storage import replacing
from posterity.types import State


@dataclass
class Record:
    """Where a run stands, and what it has been through."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps done in the epoch at hand
    sums: dict[str, float] = field(default_factory=dict)  # of each Info value over the data of those steps
    counts: dict[str, float] = field(default_factory=dict)  # how many each of them was summed over
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per finished epoch
    best_score: float | None = None
    best_epoch: int = 0
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


def save(path: Path, state: State, streams: dict[str, Tensor], about: About) -> None:
    """Write a checkpoint beside the old one, then put it in its place.

    Raises:
        InvalidInput: where it cannot be written (no permission, a full disk); the old one is then untouched.
    """
    tensors = {f"state.{k}": v.detach().cpu().clone().contiguous() for k, v in state.items()}
    tensors.update({f"stream.{k}": v for k, v in streams.items()})
    values = {**asdict(about.record), "identity": about.identity, "settings": about.settings}
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata={"record": json.dumps(values)})
    except (OSError, SafetensorError) as error:
        raise InvalidInput(
            f"Cannot write the checkpoint {path}: {error}. Choose another folder, or free some space."
        ) from error


def load(path: Path) -> tuple[State, dict[str, Tensor], About]:
    """Read a checkpoint.

    Raises:
        CorruptFile: where it is truncated or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # not a mapping
        about = _about(json.loads(metadata["record"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, error) from error
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    streams = {k.removeprefix("stream."): v for k, v in tensors.items() if k.startswith("stream.")}
    return state, streams, about


def load_about(path: Path) -> About:
    """Read what a checkpoint says beside its state. Errors are those of `load`."""
    try:
        with safe_open(path, framework="pt") as file:
            return _about(json.loads((file.metadata() or {})["record"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, error) from error


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
        with replacing(previous) as part:
            part.unlink()
            try:
                os.link(path, part, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copyfile(path, part)
    except OSError as error:
        raise InvalidInput(f"Cannot keep the checkpoint {previous}: {error}. Free some space.") from error


def _about(values: Mapping[str, Any]) -> About:
    own = dict(values)
    identity, settings = own.pop("identity", None), own.pop("settings", {})
    return About(Record(**own), identity, settings)


def _corrupt(path: Path, error: Exception) -> CorruptFile:
    return CorruptFile(f"{path} is empty, truncated or no checkpoint ({error}). Remove it to start afresh.")
