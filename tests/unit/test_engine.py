"""What the engine returns and when it stops, on a run whose validation scores are written down beforehand."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from math import log, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from posterity import Engine, Interrupted, TensorData
from posterity.predict.predictive import Regression
from posterity.train.keeping import Keeping
from posterity.types import Batch, Budget, Info, State, Streams

STEPS = 3  # per epoch
EMPTY = torch.zeros(6, 1, dtype=torch.float64)


@dataclass(frozen=True)
class Scripted:
    """An inference whose posterior after epoch k is off by `errors[k − 1]`; `nelbos` are what its objective reads."""

    errors: tuple[float, ...]
    nelbos: tuple[float, ...] = ()

    def init(self, streams: Streams) -> State:
        return {"steps": torch.zeros((), dtype=torch.int64), "error": torch.full((1,), 99.0, dtype=torch.float64)}

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        epoch = int(state["steps"]) // STEPS
        state["steps"] += 1
        state["error"].fill_(self.errors[epoch])  # in place, as real ones do
        nll = torch.zeros((), dtype=torch.float64)
        return state, {"nelbo": nll + self.nelbos[epoch], "nll": nll} if self.nelbos else {"nll": nll}

    def posterior(self, state: State) -> "Scripted.Off":
        return self.Off(state["error"].clone())

    @dataclass(frozen=True)
    class Off:
        error: Tensor

        def predict(self, inputs: Tensor, n: int = 1, **rest: object) -> Regression:
            means = self.error.expand(1, len(inputs))
            return Regression(means, torch.ones_like(means))


def data(validation: bool = True) -> TensorData:
    return TensorData(EMPTY, EMPTY[:, 0], 2, (EMPTY, EMPTY[:, 0]) if validation else None)


def run(
    script: Scripted, budget: dict[str, object], validation: bool = True, **engine: object
) -> tuple[float, int, int]:
    """Return the error of the state returned, its step, and how many epochs were run."""
    rows: list[dict[str, object]] = []
    own = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row), **engine)
    state = own.run(script, data(validation), Budget(len(script.errors), STEPS, **budget))
    return float(state["error"]), int(state["steps"]), len(rows)


def test_the_best_state_by_validation_is_returned_not_the_last() -> None:
    assert run(Scripted((5.0, 3.0, 1.0, 2.0, 4.0)), {}) == (1.0, 3 * STEPS, 5)


def test_without_validation_the_last_state_is_returned() -> None:
    assert run(Scripted((5.0, 3.0, 1.0, 2.0, 4.0)), {}, validation=False) == (4.0, 5 * STEPS, 5)


def test_of_equal_scores_the_first_is_the_best() -> None:
    assert run(Scripted((2.0, 1.0, 1.0, 3.0)), {}) == (1.0, 2 * STEPS, 4)


@pytest.mark.parametrize(("patience", "epochs", "error"), [(1, 3, 3.0), (2, 6, 2.0), (3, 8, 1.0), (None, 8, 1.0)])
def test_patience_counts_epochs_since_the_best(patience: int | None, epochs: int, error: float) -> None:
    script = Scripted((5.0, 3.0, 4.0, 2.0, 4.0, 5.0, 1.0, 6.0))
    found = run(script, {"patience": patience})
    assert found == (error, STEPS * (script.errors.index(error) + 1), epochs)


def test_epochs_of_a_warm_up_are_neither_the_best_nor_counted_by_patience() -> None:
    script = Scripted((1.0, 2.0, 3.0, 6.0, 5.0, 7.0, 8.0, 9.0))
    assert run(script, {"patience": 2, "warmup_epochs": 3}) == (5.0, 5 * STEPS, 7)


def test_a_warm_up_as_long_as_the_run_leaves_its_last_epoch() -> None:
    assert run(Scripted((1.0, 2.0, 3.0)), {"warmup_epochs": 3}) == (3.0, 3 * STEPS, 3)
    assert run(Scripted((1.0, 2.0, 3.0)), {"warmup_epochs": 9}) == (3.0, 3 * STEPS, 3)


def test_the_score_that_is_monitored_decides() -> None:
    """Validation's nelbo is its expected nll and the epoch's KL: the best by it is another epoch than the best nll."""
    script = Scripted((1.0, 2.0, 3.0), nelbos=(50.0, 0.0, 20.0))
    assert run(script, {"monitor": "nll"})[0] == 1.0
    assert run(script, {"monitor": "nelbo"})[0] == 2.0  # ½ + 50, 2 + 0, 4.5 + 20


@pytest.mark.parametrize("stop", [2, 4])
def test_a_resumed_run_still_has_its_best(stop: int, tmp_path: Path) -> None:
    script, epochs = Scripted((5.0, 1.0, 3.0, 2.0, 4.0)), []

    def interrupt(name: str, row: dict[str, object]) -> None:
        epochs.append(row["epoch"])
        if row["epoch"] == stop:
            signal.raise_signal(signal.SIGINT)

    engine = Engine(progress=False, device="cpu", directory=tmp_path, on_epoch=interrupt)
    with pytest.raises(Interrupted):
        engine.run(script, data(), Budget(5, STEPS))
    again = Engine(progress=False, device="cpu", directory=tmp_path, resume=True, on_epoch=interrupt)
    state = again.run(script, data(), Budget(5, STEPS))
    assert epochs == [1, 2, 3, 4, 5]
    assert (float(state["error"]), int(state["steps"])) == (1.0, 2 * STEPS)


def test_of_many_epochs_some_are_validated_and_the_last_is() -> None:
    errors = tuple(float(abs(700 - k)) for k in range(1, 1003))
    rows: list[dict[str, object]] = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    state = engine.run(Scripted(errors), data(), Budget(len(errors), STEPS))
    looked = [row["epoch"] for row in rows if "validation" in row]
    assert looked == [*range(4, 1002, 4), 1002]
    assert float(state["error"]) == 0.0


def test_short_epochs_share_a_checkpoint_and_lose_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only checkpoints move, an epoch in twenty is kept; one that is killed ends as one that is not."""
    errors = (*range(40, 10, -1), *range(20, 50))
    script, budget = Scripted(tuple(map(float, errors))), Budget(len(errors), STEPS)
    now, saved, save = [0.0], [], Keeping.save

    def slow(keeping: Keeping, name: str, *rest: object) -> None:
        save(keeping, name, *rest)
        now[0] += 1.0
        saved.append(name)

    def killed(self: Scripted, state: State, batch: Batch) -> tuple[State, Info]:
        now[0] += 1.5
        if int(state["steps"]) == 35 * STEPS:
            raise KeyboardInterrupt
        return update(self, state, batch)

    update = Scripted.update
    monkeypatch.setattr("posterity.train.engine.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(Keeping, "save", slow)
    with monkeypatch.context() as during:
        during.setattr(Scripted, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            Engine(progress=False, device="cpu", directory=tmp_path).run(script, data(), budget)
    assert 2 <= saved.count("last.safetensors") <= 5
    again = Engine(progress=False, device="cpu", directory=tmp_path, resume=True)
    assert float(again.run(script, data(), budget)["error"]) == min(errors)


def test_a_resumed_run_keeps_its_patience(tmp_path: Path) -> None:
    """Two epochs without a better score before the interruption, and one after it, are three."""
    script, epochs = Scripted((5.0, 1.0, 3.0, 2.0, 4.0, 0.5)), []

    def interrupt(name: str, row: dict[str, object]) -> None:
        epochs.append(row["epoch"])
        if len(epochs) == 4:
            signal.raise_signal(signal.SIGINT)

    budget = Budget(6, STEPS, patience=3)
    with pytest.raises(Interrupted):
        Engine(progress=False, device="cpu", directory=tmp_path, on_epoch=interrupt).run(script, data(), budget)
    again = Engine(progress=False, device="cpu", directory=tmp_path, resume=True, on_epoch=interrupt)
    assert float(again.run(script, data(), budget)["error"]) == 1.0
    assert epochs == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("sizes", [(6,), (4, 2), (1, 5), (2, 2, 2)])
def test_validation_scores_weigh_each_datum_once(sizes: tuple[int, ...]) -> None:
    """However validation data are cut: the rmse is that of all of them, and the nll their mean."""
    targets = torch.tensor([0.0, 1.0, -2.0, 4.0, 0.5, 9.0], dtype=torch.float64)
    held_out = list(zip(EMPTY.split(sizes), targets.split(sizes), strict=True))

    class Cut(TensorData):
        def validation(self) -> Iterator[Batch]:
            return iter(held_out)

    rows: list[dict[str, Any]] = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    engine.run(Scripted((1.0,)), Cut(EMPTY, EMPTY[:, 0], 2), Budget(1, STEPS))
    scores, squares = rows[0]["validation"], (targets - 1.0).square()
    assert scores["rmse"] == pytest.approx(float(squares.mean().sqrt()))
    assert scores["nll"] == pytest.approx(float(0.5 * squares.mean()) + 0.5 * log(2 * pi))
