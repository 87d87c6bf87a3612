"""The engine runs any streaming inference: epochs, validation, early stopping, checkpoints, Ctrl-C, progress.

All that an algorithm remembers is in its State, so that resuming, keeping the best and stopping are done here, once.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from posterity.errors import Interrupted, InvalidInput, unknown
from posterity.options import Count, convert
from posterity.train import keeping, progress
from posterity.train.checkpoint import Record
from posterity.train.device import autocast, device_of
from posterity.train.identity import Identity
from posterity.train.keeping import LAST, Keeping
from posterity.train.lock import Lock, held
from posterity.train.mapped import mapped
from posterity.train.random import NamedStreams, derived_seed
from posterity.train.signals import finish_step_first
from posterity.train.sums import Sums, means, monitored, objective
from posterity.train.validation import scored
from posterity.types import Batch, Budget, Data, Inference, Info, Observing, Scores, State, Watchful
from posterity.weighing import size

EVERY = 10  # steps between two updates of what people see
_TYPES: dict[str, Any] = {"seed": int, "precision": str, "resume": bool, "progress": bool, "validation_draws": Count}
_TYPES |= {"label": str, "name": str, "directory": Path | str | None, "on_epoch": Callable[..., Any] | None}


@dataclass(frozen=True)
class Engine:
    """Where a fit runs, and what it leaves behind.

    Args:
        device: `auto` takes CUDA, then MPS, then the CPU.
        seed: of everything random in the fit.
        precision: `bfloat16` runs the network under autocast; parameters, variances and KL stay in their own precision.
        directory: where checkpoints go, after an epoch as soon as writing one takes less than a twentieth of the time since
            the last; None keeps nothing on disk, unless the fit is interrupted.
        resume: continue from the checkpoint in `directory`, where there is one. It must be of the same run: network, prior,
            likelihood, method, data, seed and precision. Device and threads may change, and epochs may become more where the
            learning rate does not depend on their number.
        progress: show a bar on stderr.
        validation_draws: functions averaged for the validation scores.
        on_epoch: called with (name of the run, row) after each epoch.
        label: what the progress bar calls this fit.
        name: the path of this part of the work, which its random numbers derive from; `fork` extends it.
    """

    device: str = "auto"
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    directory: Path | str | None = None
    resume: bool = False
    progress: bool = True
    validation_draws: int = 8
    on_epoch: Callable[[str, dict[str, Any]], None] | None = None
    label: str = "fit"
    name: str = field(default="fit", repr=False)
    ready: Callable[[Any, int], Any] | None = field(default=None, repr=False)
    identity: Identity = field(default_factory=Identity, repr=False)
    lock: Lock | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.torch_device()
        convert(self, **_TYPES)
        if self.precision not in ("float32", "bfloat16"):
            raise unknown("precision", self.precision, ("float32", "bfloat16"))

    def path(self, name: str) -> Path | None:
        """Return where the safetensors file of this name belongs; None where nothing is kept on disk."""
        return None if self.directory is None else Path(self.directory) / f"{name}.safetensors"

    def torch_device(self) -> torch.device:
        """Resolve `device`. Raises `InvalidInput` where there is no such device."""
        return device_of(self.device)

    def fork(self, name: str) -> "Engine":
        """Return the engine of a named part of the work: its own random streams and checkpoints."""
        directory = None if self.directory is None else Path(self.directory) / name
        return replace(self, name=f"{self.name}/{name}", label=f"{self.label} {name}", directory=directory)

    def validating(self, ready: Callable[[Any, int], Any]) -> "Engine":
        """Return the engine that validates `ready(posterior, n)` in place of a posterior, by n functions."""
        return replace(self, ready=ready)

    def streams(self) -> NamedStreams:
        return NamedStreams(self.seed, self.name, self.torch_device())

    def mapped(self, name: str, like: Tensor, rows: int) -> Tensor:
        """Return a tensor (rows, *like) whose numbers are those of NAME.safetensors, beside the checkpoints.

        A run that is resumed finds there what it left; any other has a new file, and an earlier posterior keeps its own.

        Raises:
            InvalidInput: without a `directory`, on an accelerator, and where the disk has no such space.
        """
        path = self.path(name)
        if path is None:
            raise InvalidInput(f"There is no folder for a file of {name}: give one, Engine(directory='runs/mine').")
        if like.device.type != "cpu":
            raise InvalidInput(f"A mapped file is on the processor, this network on {like.device}: device='cpu'.")
        with self.alone():
            again = self.resume and keeping.begun(path.parent)
            return mapped(path, name, (rows, *like.shape), like.dtype, again=again)

    @contextmanager
    def alone(self) -> "Iterator[Engine]":
        """Hold `directory` for writing while the block runs, and yield the engine that does.

        Raises `Occupied` where another process or thread is writing to it.
        """
        if self.directory is None or self.lock is not None:
            yield self
            return
        with held(Path(self.directory)) as lock:
            yield replace(self, lock=lock)

    def of(self, identity: Identity) -> "Engine":
        """Return the engine that stores what the fit is of; raise `Mismatch` where its checkpoints are of another."""
        own = {**identity.values, **self.identity.values, "seed": self.seed, "precision": self.precision}
        later = self.identity.later if "data" in own else identity.later  # whoever made the data knows them better
        engine = replace(self, identity=Identity(own, identity.growing, later))
        if self.resume and self.directory is not None:
            keeping.going_on(Path(self.directory), engine.identity, self.settings)
        return engine

    @property
    def settings(self) -> dict[str, Any]:
        """Where it runs, which may change when a run goes on."""
        return {"device": str(self.torch_device()), "threads": torch.get_num_threads(), "torch": torch.__version__}

    def run(self, inference: Inference, data: Data, budget: Budget) -> State:
        """Run to the end of the budget; return the best state by validation, or the last where there is no validation.

        Raises:
            Diverged: where the loss is no longer finite; checkpoints then hold a good epoch, of moments before.
            Interrupted: after Ctrl-C, once the step was finished and saved.
            Mismatch: where the checkpoint to resume from is of another network or method.
        """
        with self.alone() as engine:
            run = _Run(engine, inference, data, budget)
            with run.streams.lent():
                run.restore()
                with finish_step_first() as stop, progress.line(self.label, budget.steps, self.progress) as line:
                    line.advance(run.record.epoch * budget.steps_per_epoch + run.record.step)
                    while not run.done:
                        run.epoch(line, stop)
                if stop.is_set():  # after the last step: this run is done, but whoever has more to run must hear of it
                    run.interrupt()
        return run.result()


class _Run:
    """One run at work: the live state, the record, and the best state so far."""

    def __init__(self, engine: Engine, inference: Inference, data: Data, budget: Budget) -> None:
        self.engine, self.inference, self.data, self.budget = engine, inference, data, budget
        self.streams = engine.streams()
        self.state = inference.init(self.streams)
        self.record = Record()
        self.best: State | None = None
        self._unsaved: tuple[State, Record] | None = None  # the best, where it is not on disk
        self.keeping = None if engine.directory is None else self._keeper(Path(engine.directory))

    @property
    def done(self) -> bool:
        return self.record.finished or self.record.epoch >= self.budget.epochs

    def restore(self) -> None:
        if self.keeping is None:
            return
        self.keeping.watch(self.state)
        if self.engine.resume:
            self.record, self.best = self.keeping.restore(self.state, self.streams, self.budget)

    def epoch(self, line: progress.Line, stop: threading.Event) -> None:
        """Run what is left of the epoch at hand, then validate, record and save it."""
        record, started = self.record, time.perf_counter()
        generator = Generator().manual_seed(derived_seed(self.engine.seed, self.engine.name, "data", record.epoch))
        skip, sums = record.step, Sums(record.sums, record.counts)
        for index, batch in enumerate(self.data.batches(record.epoch, generator)):
            if index < skip:
                self.streams.again()
                continue
            with autocast(self.engine.torch_device(), self.engine.precision):
                self.state, info = self.inference.update(self.state, batch)
            sums.add(info, size(batch))
            record.step += 1
            if record.step % EVERY == 0:
                self._watch(sums, info, line)
            if stop.is_set():
                sums.refuse_strange(self.record.epoch + 1, self.record.step, EVERY)
                record.sums, record.counts = sums.sums, sums.counts
                record.seconds += time.perf_counter() - started
                self.interrupt()
        self._watch(sums, info if record.step > skip else {}, line, record.step % EVERY)
        self._finish(sums.means(), time.perf_counter() - started)

    def result(self) -> State:
        if isinstance(self.inference, Watchful):
            self.inference.ended(self.record.history, None if self.best is None else self.record.best_epoch)
        return self.state if self.best is None else self.best

    def _finish(self, means: Scores, seconds: float) -> None:
        record = self.record
        record.epoch, record.step, record.sums, record.counts = record.epoch + 1, 0, {}, {}
        record.seconds += seconds
        row: dict[str, Any] = {"epoch": record.epoch, **means, "seconds": record.seconds}
        if isinstance(self.inference, Watchful):
            row["watched"] = self.inference.watched(self.state)
        batches = self.data.validation()
        if batches is None:
            self._observe(objective(means))
        elif self.budget.validates(record.epoch) and (scores := self._validate(batches, means)):
            row["validation"], score = scores, monitored(scores, self.budget.monitor)
            self._keep_best(score)
            self._observe(score)
        record.history.append(row)
        if self.keeping is not None and not self.keeping.due(self.done):
            self.keeping.refuse_broken(self.state, record)
        else:
            self._save()
        self._report(row)

    def _report(self, row: dict[str, Any]) -> None:
        try:
            if self.engine.on_epoch is not None:
                self.engine.on_epoch(self.engine.name, row)
        except BaseException:  # whoever listens may end the run: the epoch is whole, and is kept
            self._save()
            raise

    def _observe(self, score: float) -> None:
        if isinstance(self.inference, Observing):
            self.inference.observe(score)

    def _validate(self, batches: Iterable[Batch], means: Scores) -> Scores:
        posterior = self.inference.posterior(self.state)
        if self.engine.ready is not None:
            posterior = self.engine.ready(posterior, self.engine.validation_draws)
        result = scored(posterior, batches, self.engine.validation_draws, derived_seed(self.engine.seed, "validation"))
        if "nelbo" in means and "expected_nll" in result:
            result["nelbo"] = result["expected_nll"] + means["nelbo"] - means["nll"]
        return result

    def _keep_best(self, score: float) -> None:
        record = self.record
        if record.epoch <= min(self.budget.warmup_epochs, self.budget.epochs - 1):
            return
        if record.best_score is None or score < record.best_score:
            record.best_score, record.best_epoch = score, record.epoch
            self.best = {k: v.clone() for k, v in self.state.items()}
            self._unsaved = self.best, replace(record, history=[*record.history])
        elif self.budget.patience is not None and record.epoch - record.best_epoch >= self.budget.patience:
            record.finished = True

    def _watch(self, sums: Sums, info: Info, line: progress.Line, steps: int = EVERY) -> None:
        sums.refuse_strange(self.record.epoch + 1, self.record.step, steps or EVERY)
        shown = means(info)
        validation: Scores = next(
            (row["validation"] for row in reversed(self.record.history) if "validation" in row), {}
        )
        text = progress.summary(shown)
        if validation:
            text += "  | val " + progress.summary({k: v for k, v in validation.items() if k != "nelbo"})
        line.advance(steps, f"epoch {self.record.epoch + 1}/{self.budget.epochs}  {text}")

    def interrupt(self) -> None:
        """Save, and say how to go on."""
        hint = "run again with resume to go on from there."
        if self.keeping is None:  # nothing computed is lost, also where nobody asked for checkpoints
            root = Path(mkdtemp(prefix="posterity-"))
            self.keeping = self._keeper(root.joinpath(*self.engine.name.split("/")[1:]))
            hint = f"run again with resume, Engine(directory='{root}', resume=True), to go on from there."
        self._save()
        at = f"in epoch {self.record.epoch + 1} of {self.budget.epochs}, step {self.record.step}"
        done = f"Interrupted {'after the last epoch' if self.done else at}."
        raise Interrupted(f"{done} Saved in {self.keeping.folder / LAST}; {hint}")

    def _keeper(self, folder: Path) -> Keeping:
        identity = self.engine.identity.of_run(self.engine.name, self.engine.seed, self.inference, self.budget)
        return Keeping(folder, identity, self.engine.settings, self.engine.lock)

    def _save(self) -> None:
        if self.keeping is not None:
            self.keeping.save_all(self.state, self.streams, self.record, self._unsaved)
            self._unsaved = None
