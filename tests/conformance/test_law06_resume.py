"""Law 6: interrupt + resume = uninterrupted, bit for bit on CPU, random numbers included."""

import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import posterity
from posterity import (
    IVON,
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Interrupted,
    LoaderData,
    LowRank,
    MCDropout,
    MeanField,
    Mismatch,
    Optimizer,
    TensorData,
)
from tests.conformance.table import small_classification, small_network

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here

METHODS = {
    "map": MAP(epochs=4),
    "map-sgd": MAP(epochs=4, optimizer=Optimizer("SGD", lr=0.05, schedule="one_cycle")),
    "mean_field-weight": MeanField("weight", epochs=4, draws=2, antithetic=True, kl_schedule="blundell"),
    "mean_field-local_reparam": MeanField("local_reparam", epochs=4),
    "mean_field-flipout": MeanField("flipout", epochs=4),
    "mean_field-path": MeanField(gradient="path", draws=2, antithetic=True, epochs=4),
    "mean_field-importance": MeanField(objective="importance_weighted", draws=3, epochs=4),
    "low_rank": LowRank(3, epochs=4, draws=2, antithetic=True),
    "full_rank": FullRank(epochs=4, kl_schedule="warmup"),
    "sgld": SGLD(epochs=4, draws=10, burn_in=0.1, lr=0.03, schedule="polynomial"),
    "sgld-rmsprop": SGLD(epochs=4, draws=10, burn_in=0.25, lr=0.01, preconditioner="rmsprop"),
    "sghmc": SGHMC(epochs=4, draws=10, burn_in=0.1),
    "sghmc-on-disk": SGHMC(epochs=4, draws=10, burn_in=0.1, on_disk=True),
    "cyclical": Cyclical(SGHMC(epochs=4, draws=6), cycles=3, exploration=0.5),
    "ivon": IVON(epochs=4, draws=2),
    "swag": SWAG(4, epochs=4, iterates=10),
    "mc_dropout": MCDropout(0.2, epochs=4),
    "ensemble": Ensemble(MAP(epochs=4), 2),
    "ensemble-sgld": Ensemble(SGLD(epochs=4, draws=10), 2),
}


class Stopper:
    """A validation set that sends this process Ctrl-C in the n-th step: it counts batches as they are taken."""

    def __init__(self, data: TensorData, after: int) -> None:
        self.data, self.left = data, after
        self.num_data, self.steps_per_epoch = data.num_data, data.steps_per_epoch
        self.validation = data.validation

    def batches(self, epoch, generator):
        for batch in self.data.batches(epoch, generator):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    def checked(self, check, device) -> "Stopper":
        return self


def data() -> TensorData:
    x, y = small_classification(60)
    return TensorData(x, y, 10, (x[:20], y[:20]))


def run(name: str, engine: Engine, source):
    problem = posterity.Problem(small_network(), posterity.Normal(0, 0.3), posterity.Categorical(), 60)
    return METHODS[name].infer(problem, source, engine)


@pytest.mark.parametrize("step", [3, 6, 9])
@pytest.mark.parametrize("name", METHODS)
def test_resumed_equals_uninterrupted(name: str, step: int, tmp_path: Path) -> None:
    whole = run(name, Engine(progress=False, device="cpu", directory=tmp_path / "whole"), data())
    engine = Engine(progress=False, device="cpu", directory=tmp_path / "cut")
    with pytest.raises(Interrupted, match="run again with resume"):
        run(name, engine, Stopper(data(), step))
    resumed = run(name, replace(engine, resume=True), data())
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[key]), key
    for a, b in zip(whole.problem.network.buffers(), resumed.problem.network.buffers(), strict=True):
        assert torch.equal(a, b)


def test_an_interrupted_run_is_saved_even_where_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Interrupted) as stopped:
        run("map", Engine(progress=False, device="cpu"), Stopper(data(), 6))
    (saved,) = tmp_path.glob("posterity-*")
    assert f"Engine(directory='{saved}', resume=True)" in str(stopped.value)
    resumed = run("map", Engine(progress=False, device="cpu", directory=str(saved), resume=True), data())
    whole = run("map", Engine(progress=False, device="cpu"), data())
    assert torch.equal(resumed.mean, whole.mean)


def test_ctrl_c_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    """While the last epoch is validated and saved, say: an ensemble must not go on with its next member."""
    rows = []

    def last(name, row):
        rows.append(row)
        if len(rows) == METHODS["map"].epochs:
            os.kill(os.getpid(), signal.SIGINT)

    engine = Engine(progress=False, device="cpu", directory=tmp_path, on_epoch=last)
    with pytest.raises(Interrupted, match="after the last epoch"):
        run("map", engine, data())
    resumed = run("map", replace(engine, resume=True, on_epoch=None), data())
    whole = run("map", Engine(progress=False, device="cpu"), data())
    assert torch.equal(resumed.theta, whole.theta)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    engine = Engine(progress=False, directory=tmp_path)
    first = run("map", engine, data())
    rows: list = []
    again = run("map", replace(engine, resume=True, on_epoch=lambda *row: rows.append(row)), data())
    assert torch.equal(first.mean, again.mean)
    assert rows == []


def test_loader_batches_depend_on_the_seed_alone() -> None:
    x, y = small_classification(30)
    loader = DataLoader(TensorDataset(x, y), 7, shuffle=True)
    epochs = []
    for _ in range(2):
        torch.randn(5)  # torch's global random numbers are somewhere else each time
        batches = LoaderData(loader).counted().batches(3, torch.Generator().manual_seed(1))
        epochs.append(torch.cat([b[1] for b in batches]))
    assert torch.equal(*epochs)
    before = torch.get_rng_state()
    list(LoaderData(loader).counted().batches(0, torch.Generator().manual_seed(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    engine = Engine(progress=False, directory=tmp_path, resume=True)
    run("map", engine, data())
    x, y = small_classification(60)
    with pytest.raises(Mismatch, match="of another run. What differs: .*epochs"):
        posterity.fit(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)), (x, y), method=MAP(epochs=4), engine=engine
        )
    with pytest.raises(Mismatch, match="inference PointInference → MeanFieldInference"):
        run("mean_field-weight", engine, data())
