"""What a run keeps on disk: its last checkpoint, the one before, and its best; and how it goes on from them as the same run."""

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterity.errors import CorruptFile, Diverged, InvalidInput, Mismatch, PosterityWarning
from posterity.train import checkpoint
from posterity.train.checkpoint import About, Record
from posterity.train.identity import Identity, differences
from posterity.train.lock import Lock, removed
from posterity.train.random import NamedStreams
from posterity.types import Budget, State

SPARE = 20  # times what a checkpoint costs, until the next: epochs of milliseconds are not kept one by one
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"


def begun(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint that a run can go on from."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def going_on(folder: Path, identity: Identity, settings: dict[str, Any]) -> None:
    """Compare a fit with all checkpoints in its folder and below, before anything is changed; say what has changed.

    Raises:
        Mismatch: where one of them is of another run, with all that differs.

    Warns:
        PosterityWarning: where the run goes on with more epochs or in other settings, and where checkpoints of an earlier
            version do not say what they are of.
    """
    said: dict[str, None] = {}
    for path in sorted(folder.rglob(LAST)):
        try:
            about = checkpoint.load_about(path)
        except CorruptFile:  # its own run falls back on the one before, or says so
            continue
        if about.identity is None:
            said[
                "its checkpoints are of an earlier version, and what they were trained on and with is not compared"
            ] = None
            continue
        saved = {k: v for k, v in about.identity.items() if k != "part"}
        said |= dict.fromkeys(identity.grown(saved, str(path)))
        changed = [k for k in settings if k in about.settings and about.settings[k] != settings[k]]
        said |= dict.fromkeys(differences(changed, about.settings, settings))
    if said:
        warnings.warn(f"The run in {folder} goes on: {'; '.join(said)}.", PosterityWarning, stacklevel=3)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the finished epochs that a run would go on from."""
    kept = None
    for name in (LAST, PREVIOUS):
        try:
            if (folder / name).exists():
                return checkpoint.load_about(folder / name).record.history
        except CorruptFile as error:
            kept = kept or error
    if kept is not None:
        raise kept
    return []


@dataclass
class Keeping:
    """The files of one run.

    Args:
        folder: theirs.
        identity: what the run is of.
        settings: where it runs.
        lock: that it is written under, if any.
    """

    folder: Path
    identity: Identity
    settings: dict[str, Any]
    lock: Lock | None = None
    _watched: list[str] = field(default_factory=list)
    _due: float = 0.0

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"{self.folder} cannot be written: {error.strerror}. Choose another folder.") from error

    def watch(self, state: State) -> None:
        """Note which tensors are finite at the start: they must be so whenever they are saved."""
        self._watched = [name for name, value in state.items() if _finite(value)]

    def restore(self, live: State, streams: NamedStreams, budget: Budget) -> tuple[Record, State | None]:
        """Put the state and the streams back where they were; return the record, and the best state so far.

        Raises:
            Mismatch: before anything is changed, where the checkpoint is of another run.
            CorruptFile: where neither the last checkpoint nor the one before can be read, or the best state that the record
                speaks of is not there.
        """
        found = self._latest()
        if found is None:
            return Record(), None
        path, (state, generators, about) = found
        record = about.record
        self._refuse_other(about, path, budget)
        _forget_warm_up(record, budget)
        best = self._best(record)
        checkpoint.restore(live, state, path)
        streams.restore(generators)
        return record, None if best is None else {k: best[k].to(v.device) for k, v in live.items()}

    def due(self, done: bool) -> bool:
        """Tell whether it is time for checkpoints: at the end, and where the last ones' time is a small part of that since."""
        return done or time.perf_counter() >= self._due

    def save_all(self, state: State, streams: NamedStreams, record: Record, best: tuple[State, Record] | None) -> None:
        """Write the last checkpoint, after the best one where that is new. Errors are those of `save`."""
        started = time.perf_counter()
        if best is not None:
            self.save(BEST, best[0], streams, best[1])
        self.save(LAST, state, streams, record)
        ended = time.perf_counter()
        self._due = ended + SPARE * (ended - started)

    def save(self, name: str, state: State, streams: NamedStreams, record: Record) -> None:
        """Write a checkpoint; the one before `last` stays, too.

        Raises:
            InvalidInput: where it cannot be written, or the folder is not there any more.
            Diverged: where the state is not finite; the files then stay as they are.
        """
        if self.lock is not None:
            self.lock.verify()
        if not self.folder.is_dir():
            raise removed(self.folder)
        self.refuse_broken(state, record)
        path = self.folder / name
        if name == LAST:
            for file in self._mapped():
                _sync(file)
            checkpoint.kept(path, self.folder / PREVIOUS)
        checkpoint.save(path, state, streams.states(), About(record, self.identity.flat, self.settings))

    def refuse_broken(self, state: State, record: Record) -> None:
        """Raise `Diverged` where what was finite at the start is not any more."""
        for key in self._watched:
            if not _finite(state[key]):
                raise Diverged(
                    f"The state of the fit, its {key}, is no longer finite after epoch {record.epoch}, step {record.step}; the "
                    "checkpoints stay as they were before. Use a smaller learning rate, a smaller initial std, or check the "
                    "scale of inputs and targets."
                )

    def _latest(self) -> "tuple[Path, tuple[State, dict[str, Tensor], About]] | None":
        """Read the last checkpoint; where it is damaged, the one before."""
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        if not begun(self.folder):
            return None
        try:
            if last.exists():
                return last, checkpoint.load(last)
            why = f"There is no {last} any more"
        except CorruptFile as error:
            if not previous.exists():
                raise
            why = str(error).partition(". ")[0]
        loaded = checkpoint.load(previous)
        record = loaded[2].record
        warnings.warn(
            f"{why}. The run goes on from the checkpoint before it, epoch {record.epoch}, step {record.step}; nothing but the "
            "time since is lost.",
            PosterityWarning,
            stacklevel=2,
        )
        return previous, loaded

    def _refuse_other(self, about: About, path: Path, budget: Budget) -> None:
        record = about.record
        if about.identity is not None:
            self.identity.grown(about.identity, str(path))
        elif record.finished and record.epoch < budget.epochs and budget.patience is None:
            raise Mismatch(
                f"{path} is of a run of {record.epoch} epochs by an earlier version, which has ended; {budget.epochs} were "
                "asked for. Train it afresh in another folder."
            )

    def _best(self, record: Record) -> State | None:
        if record.best_score is None:
            return None
        path = self.folder / BEST
        advice = "Put the file back, or start afresh in another folder: what it held cannot be made anew from the last epoch."
        try:
            state, _, about = checkpoint.load(path)
        except (CorruptFile, InvalidInput) as error:
            what = "damaged" if path.exists() else "not there"
            raise CorruptFile(f"{path}, of the best epoch ({record.best_epoch}), is {what}. {advice}") from error
        if about.identity is not None:
            self.identity.grown(about.identity, str(path))
        if (about.record.epoch, about.record.step) != (about.record.best_epoch, 0):
            raise CorruptFile(f"{path} is of epoch {about.record.epoch}, and no best that a run has kept. {advice}")
        # A run that was stopped between the two saves has a best that is newer than its record; it will find it again.
        if about.record.best_epoch != record.best_epoch and about.record.best_epoch <= record.epoch:
            raise CorruptFile(
                f"{path} is of epoch {about.record.best_epoch}, the best was {record.best_epoch}. {advice}"
            )
        return state

    def _mapped(self) -> Iterator[Path]:
        """Yield the files of tensors that live on disk, which a checkpoint counts on."""
        return (p for p in self.folder.glob("*.safetensors") if p.name not in (LAST, PREVIOUS, BEST))


def _forget_warm_up(record: Record, budget: Budget) -> None:
    """Where a run grows longer, what was its last epoch may be one that is never the best."""
    if record.best_score is not None and record.best_epoch <= min(budget.warmup_epochs, budget.epochs - 1):
        record.best_score, record.best_epoch = None, 0


def _finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    least, most = torch.aminmax(value.detach())  # no copy, and NaN is passed on
    return bool(least.isfinite() & most.isfinite())


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
