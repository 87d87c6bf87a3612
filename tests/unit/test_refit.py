"""Fitting on from a pruned posterior, against the exact posterior of the weights that remain."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from posterity import Engine, Gaussian, InvalidInput, MeanField, Normal, Optimizer, Problem, TensorData, fit, prune
from posterity.compress.prune import removed, sparsity
from posterity.compress.refit import refit
from posterity.posteriors.gaussian import DiagonalGaussian

QUIET = Engine(progress=False, seed=0)
N, WIDTH, NOISE = 64, 0.5, 0.4


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(N, 4, generator=generator))[0] * N**0.5  # orthogonal: mean field is exact
    y = x @ torch.tensor([1.0, -0.7, 0.3, 0.1]) + NOISE * torch.randn(N, generator=generator)
    return x, y


def start(where: str | None = None) -> DiagonalGaussian:
    problem = Problem(nn.Linear(4, 1, bias=False), Normal(0, WIDTH), Gaussian(std=NOISE), N, where).snapshot()
    return DiagonalGaussian(problem, torch.tensor([0.5, 0.0, 0.5, 0.0]), torch.tensor([0.1, 0.0, 0.1, 0.0]))


def test_what_remains_becomes_the_posterior_of_the_smaller_model() -> None:
    x, y = data()
    method = MeanField(
        gradient="path", epochs=600, optimizer=Optimizer(lr=0.03, schedule="cosine")
    )  # no noise at the end
    found = refit(start(), TensorData(x, y, batch_size=N), method, QUIET)
    precision = N / NOISE**2 + 1 / WIDTH**2
    exact = (x[:, [0, 2]].T @ y) / NOISE**2 / precision
    torch.testing.assert_close(found.mean[[0, 2]], exact, atol=0.01 * precision**-0.5, rtol=0)
    torch.testing.assert_close(found.std[[0, 2]], torch.full((2,), precision**-0.5), rtol=0.01, atol=0)
    assert found.mean[[1, 3]].tolist() == found.std[[1, 3]].tolist() == [0.0, 0.0]
    assert sparsity(found) == 0.5
    assert found.provenance["refit"]["epochs"] == 600
    assert start().mean.tolist() == [0.5, 0.0, 0.5, 0.0]  # the one that it started from is as it was


def test_without_removed_weights_it_starts_at_means_and_stds() -> None:
    posterior = start()
    posterior = replace(posterior, loc=torch.ones(4), std=torch.full((4,), 0.2))
    found = refit(posterior, data(), MeanField(epochs=1, optimizer=Optimizer(lr=1e-6)), QUIET)
    torch.testing.assert_close(found.mean, torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std, torch.full((4,), 0.2), atol=1e-4, rtol=0)


def test_latents_and_points_go_on_too() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    problem = Problem(network, Normal(0, WIDTH), Gaussian(), N, "2").snapshot()
    size, start = problem.layout.size, problem.coordinates.start
    std = torch.full((size - start,), 0.1)
    theta = torch.linspace(-1, 1, size)
    theta[start] = std[0] = 0.0
    posterior = DiagonalGaussian(problem, theta, std)
    found = refit(posterior, data(), MeanField(epochs=1, optimizer=Optimizer(lr=1e-6)), QUIET)
    torch.testing.assert_close(found.mean, theta, atol=1e-4, rtol=0)
    assert removed(found).nonzero().flatten().tolist() == [0]


def test_the_log_has_no_kl_and_a_run_resumes(tmp_path: Path) -> None:
    rows: list[dict] = []
    method = MeanField(epochs=2)
    engine = replace(QUIET, on_epoch=lambda _, row: rows.append(row), directory=tmp_path)
    whole = refit(start(), data(), method, engine)
    assert {"nll", "rmse"} <= rows[0].keys()
    assert not {"kl", "nelbo"} & rows[0].keys()
    again = refit(start(), data(), method, replace(engine, resume=True))
    assert torch.equal(whole.mean, again.mean)
    assert len(rows) == 2


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="monitor='nll'"):
        refit(start(), data(), MeanField(monitor="nelbo"))
    with pytest.raises(InvalidInput, match="learn_prior=None"):
        refit(start(), data(), MeanField(learn_prior="layer"))
    with pytest.raises(InvalidInput, match="cannot take inputs of shape"):
        refit(start(), (torch.zeros(5, 3), torch.zeros(5)), engine=QUIET)


def test_functions_of_a_normalised_network_have_statistics_of_their_own_again() -> None:
    """Also those that validation looks at, and those of what is returned: the suite takes the warning for an error."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    source, likelihood = TensorData(*data(), batch_size=32).split(0.25), Gaussian(std=NOISE)
    posterior = fit(network, source, likelihood=likelihood, method=MeanField(epochs=2), engine=QUIET)
    found = refit(prune(posterior, 0.3), source, MeanField(epochs=2), QUIET)
    gone = removed(found)
    assert gone.any()
    assert (found.functions.thetas[:, found.problem.coordinates.start :][:, gone] == 0).all()
    assert found.functions.statistics["1.running_mean"].std(0).max() > 0
    assert found.predict(data()[0]).mean.isfinite().all()
