"""The rate that waits for a plateau: torch's own rule, fed by the right score, resumed bit for bit."""

from math import inf
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from posterity import MAP, Engine, FullRank, Laplace, MCDropout, MeanField, Optimizer, TensorData, fit
from posterity.core.schedules import Plateau

X = torch.linspace(-2, 2, 90).reshape(30, 3)
Y = (X.sum(1) > 0.3).long()
WAITS = Optimizer(lr=0.3, schedule="plateau", plateau_patience=0, plateau_factor=0.5)
METHODS = {
    "map": MAP(epochs=8, optimizer=WAITS),
    "mean field": MeanField(epochs=8, optimizer=WAITS),
    "full rank": FullRank(epochs=8, optimizer=WAITS),
    "dropout": MCDropout(rate=0.2, epochs=8, optimizer=WAITS),
    "laplace": Laplace(MAP(epochs=8, optimizer=WAITS), "diag", prediction="sampled"),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data(validation: float = 0.2) -> TensorData:
    return TensorData(X, Y, 8).split(validation)


@pytest.mark.parametrize(("factor", "patience"), [(0.1, 6), (0.5, 0), (0.3, 2)])
def test_the_rule_is_torchs(factor: float, patience: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=0.0, eps=0.0)
    plateau, rates = Plateau(factor, patience), set()
    generator = torch.Generator().manual_seed(1)
    for epoch in range(60):
        score = 2.0 + 1 / (1 + epoch) + 0.1 * float(torch.rand((), generator=generator))
        reference.step(score)
        plateau.observe(score)
        assert plateau.rate == pytest.approx(optimizer.param_groups[0]["lr"])
        rates.add(plateau.rate)
    assert len(rates) > 2


def test_scores_below_zero_improve_downwards() -> None:
    plateau = Plateau(0.1, 0)
    for score in (-1.0, -2.0, -3.0):
        plateau.observe(score)
    assert plateau.rate == 1
    plateau.observe(-3.0001)  # by less than a ten-thousandth
    assert plateau.rate == 0.1


@pytest.mark.parametrize("name", METHODS)
def test_it_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(run: str, row: dict) -> None:
        if row["epoch"] == 5:
            raise Stopped

    method = METHODS[name]
    whole = fit(network(), data(), method=method, engine=Engine(progress=False))
    with pytest.raises(Stopped):
        fit(network(), data(), method=method, engine=Engine(progress=False, directory=tmp_path, on_epoch=stop))
    resumed = fit(network(), data(), method=method, engine=Engine(progress=False, directory=tmp_path, resume=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors().values(), resumed.tensors().values(), strict=True))


@pytest.mark.parametrize("name", ["map", "mean field"])
@pytest.mark.parametrize("validation", [0.2, 0.0])
def test_it_hears_the_validation_score_or_the_training_loss(
    name: str, validation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    rates: list[float] = []
    observe = Plateau.observe

    def spy(self: Plateau, score: float) -> None:
        heard.append(score)
        observe(self, score)
        rates.append(self.rate)

    monkeypatch.setattr(Plateau, "observe", spy)
    rows: list[dict] = []
    engine = Engine(progress=False, on_epoch=lambda run, row: rows.append(row))
    fit(network(), data(validation), method=METHODS[name], engine=engine)
    if validation:
        assert heard == [row["validation"]["nll"] for row in rows]
    else:
        objective = {"map": lambda row: row["nll"] - row["log_prior"], "mean field": lambda row: row["nelbo"]}
        assert heard == [objective[name](row) for row in rows]
    assert rates == sorted(rates, reverse=True)


def test_the_rate_of_a_step_falls_with_the_plateau() -> None:
    vectors = {"a": torch.zeros(2), "b": torch.zeros(2)}
    bound = Optimizer("SGD", lr=1.0, schedule="plateau", momentum=0, plateau_patience=0).bind(vectors, 9, {"b": 3.0})
    moved = []
    for score in (1.0, 1.0, 1.0):
        before = {n: v.clone() for n, v in vectors.items()}
        for grad in bound.grads.values():
            grad.fill_(1.0)
        bound.step(0)
        moved.append([float((before[n] - vectors[n])[0]) for n in vectors])
        bound.observe(score)
    assert moved == [pytest.approx(row) for row in ([1, 3], [1, 3], [0.1, 0.3])]
    assert bound.state()["optimizer.plateau"].tolist() == [2, 1, 0]
    other = Optimizer(schedule="constant").bind({"a": torch.zeros(1)}, 3)
    other.observe(inf)
    assert "optimizer.plateau" not in other.state()
