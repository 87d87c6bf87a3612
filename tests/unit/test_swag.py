"""SWAG: moments of recorded iterates by NumPy, its mean at the mode, batch normalisation's statistics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import posterity
from posterity import SWAG, Engine, Gaussian, InvalidInput, Normal, Optimizer, Problem, TensorData
from posterity.methods.swag import SWAGInference
from posterity.train.random import NamedStreams
from tests.conformance.table import Conjugate, small_classification, small_network

QUIET = {"progress": False, "device": "cpu"}


@pytest.mark.parametrize("where", [None, "weight"])
@pytest.mark.parametrize("rank", [3, 20])
def test_moments_are_those_of_the_iterates(rank: int, where: str | None) -> None:
    case = Conjugate.make()
    torch.manual_seed(0)
    problem = Problem(nn.Linear(2, 1).double(), Normal(0, 0.7), Gaussian(std=0.5), 24, where=where)
    inference = SWAGInference(problem, SWAG(rank=rank, burn_in=0.25, iterates=10), 40)
    state = inference.init(NamedStreams(0, "t"))
    thetas, generator = [], torch.Generator().manual_seed(0)
    for step in range(40):
        rows = torch.randint(24, (6,), generator=generator)
        inference.update(state, (case.x[rows], case.y[rows]))
        if step >= 10 and (step + 1 - 10) % 3 == 0:  # 30 steps for 10 iterates
            thetas.append(state["theta"].numpy().copy())
    iterates, start = np.stack(thetas), problem.coordinates.start
    assert start == (0 if where is None else 1)
    assert int(state["count"]) == len(iterates) == 10
    posterior = inference.posterior(state)
    np.testing.assert_allclose(posterior.loc.numpy(), iterates.mean(0), rtol=1e-10)
    np.testing.assert_allclose(posterior.std.numpy() ** 2, iterates.var(0)[start:] / 2, rtol=1e-8)
    running = np.cumsum(iterates, 0) / np.arange(1, 11)[:, None]
    last = (iterates - running)[-rank:, start:]
    expected = last.T @ last / (2 * (len(last) - 1))
    np.testing.assert_allclose((posterior.factor @ posterior.factor.T).numpy(), expected, rtol=1e-8)


def test_the_mean_is_at_the_mode_and_the_width_is_that_of_the_iterates() -> None:
    """Its mean over seeds is the MAP's within 4 standard errors; a small rate makes narrower iterates than a large one."""
    case = Conjugate.make()
    widths = {}
    for lr in (0.005, 0.02):
        method = SWAG(epochs=40, iterates=60, optimizer=Optimizer("SGD", lr=lr, schedule="constant"))
        fits = [case.fit(method, seed, batch_size=6) for seed in range(4)]
        means = torch.stack([f.mean for f in fits])
        assert ((means.mean(0) - case.mean).abs() < 4 * means.std(0) / 2).all()
        widths[lr] = torch.stack([f.marginal_std for f in fits]).mean(0)
    assert (widths[0.02] > 1.2 * widths[0.005]).all()


def test_running_statistics_are_those_of_the_data_at_the_mean() -> None:
    x, y = small_classification()
    data = TensorData(x, y, 10)
    posterior = posterity.fit(small_network(), data, method=SWAG(epochs=4), engine=Engine(**QUIET))
    plain = posterior.network()
    norm = posterior.problem.network[1]
    outputs = plain[0](x)
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    within = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in outputs.split(10)]).mean(0)
    assert (norm.running_var / within - 1).abs().max() < 0.3  # batches of the data in another order
    assert not norm.training
    assert norm.momentum == 0.1
    assert posterior.std.min() > 0


def test_each_draw_has_running_statistics_of_its_own(tmp_path: Path) -> None:
    x, y = small_classification()
    method = SWAG(epochs=4, statistics="draw", draws=5, optimizer=Optimizer("SGD", lr=0.2, schedule="constant"))
    posterior = posterity.fit(small_network(), TensorData(x, y, 40), method=method, engine=Engine(**QUIET))
    assert len(posterior.components) == 5
    for component in posterior.components:
        plain = component.network()
        outputs = plain[0](x).transpose(0, 1).flatten(1)
        torch.testing.assert_close(plain[1].running_mean, outputs.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(plain[1].running_var, outputs.var(1), rtol=1e-4, atol=1e-6)
    means = torch.stack([c.problem.network[1].running_mean for c in posterior.components])
    assert means.std(0).min() > 0
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    assert torch.equal(loaded.draw(x, 5), posterior.draw(x, 5))
    linear = Conjugate.make().fit(SWAG(epochs=4, statistics="draw"))
    assert linear.kind == "low_rank_gaussian"  # nothing to re-estimate


def test_what_cannot_be_collected_is_refused() -> None:
    with pytest.raises(ValueError, match="constant rate"):
        SWAG(optimizer=Optimizer("SGD", schedule="cosine"))
    with pytest.raises(InvalidInput, match="follow SWAG's burn-in.*more epochs"):
        Conjugate.make().fit(SWAG(epochs=2, burn_in=0.6))
