"""Microcanonical chains and sampled ensembles as methods: the exact posterior, starts of their own, what is refused."""

import pytest
import torch
from torch import Tensor, nn

from posterity import (
    Engine,
    Flat,
    Gaussian,
    InvalidInput,
    Microcanonical,
    Normal,
    Optimizer,
    PosterityWarning,
    SampledEnsemble,
    TensorData,
    fit,
)
from posterity.methods import sampled_ensemble
from posterity.methods.map import PointInference
from posterity.methods.members import MembersInference
from posterity.model.problem import Problem
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.samples import Samples

STD, SCALE = 0.5, 2.0
QUIET = Engine(progress=False, device="cpu")
SHORT = Microcanonical(warmup=30, draws=20, steps=5)


@pytest.fixture(scope="module")
def table() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    noise = STD * torch.randn(40, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + noise


def linear(inputs: int = 2) -> nn.Module:
    return nn.Linear(inputs, 1, bias=False).double()


def thetas(posterior: Mixture) -> Tensor:
    """Return the draws of each chain, (K, S, P)."""
    return torch.stack([part.thetas for part in posterior.components if isinstance(part, Samples)])


def agrees(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Hold the moments of K chains against exact ones, within 4.5 standard errors and a bias of 3 %."""
    std, chains = covariance.diagonal().sqrt(), len(draws)
    z = (draws - mean) / std
    assert (z.mean((0, 1)).abs() < 4.5 * z.mean(1).std(0) / chains**0.5 + 0.02).all()
    squares = z.square().mean(1)
    assert ((squares.mean(0) - 1).abs() < 4.5 * squares.std(0) / chains**0.5 + 0.03).all()


@pytest.mark.parametrize("inputs", [1, 2])
def test_chains_have_the_exact_posterior(inputs: int, table: tuple[Tensor, Tensor]) -> None:
    """Of one weight, too, which is a line that no direction can turn on."""
    x, y = table[0][:, :inputs], table[1]
    method = Microcanonical(chains=16, warmup=60, draws=120, steps=10, energy_variance=1e-4)
    posterior = fit(
        linear(inputs), (x, y), likelihood=Gaussian(std=STD), prior=Normal(0, SCALE), method=method, engine=QUIET
    )
    precision = x.T @ x / STD**2 + torch.eye(inputs, dtype=torch.float64) / SCALE**2
    covariance = precision.inverse()
    agrees(thetas(posterior), covariance @ (x.T @ y) / STD**2, covariance)
    assert posterior.provenance["remarks"] == []


def test_members_start_apart_and_arrive_side_by_side(table: tuple[Tensor, Tensor]) -> None:
    """Each row of the matrix descends to the mode, which is one here."""
    x, y = table
    problem = Problem(linear(), Normal(0, SCALE), Gaussian(std=STD), 40)
    inference = MembersInference(problem, 3, Optimizer("SGD", lr=0.05, schedule="constant"), 600)
    state = inference.init(QUIET.streams())
    assert len(state["theta"].unique(dim=0)) == 3
    for _ in range(600):
        inference.update(state, (x, y))
    precision = x.T @ x / STD**2 + torch.eye(2, dtype=torch.float64) / SCALE**2
    torch.testing.assert_close(state["theta"], (precision.inverse() @ (x.T @ y) / STD**2).expand(3, 2))


def test_an_ensemble_is_a_chain_from_each_member(table: tuple[Tensor, Tensor]) -> None:
    method = SampledEnsemble(3, 20, sampler=SHORT)
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    posterior = fit(
        network, TensorData(*table, 16), likelihood=Gaussian(), prior=Normal(0, 1), method=method, engine=QUIET
    )
    found = thetas(posterior)
    assert found.shape == (3, 20, posterior.problem.layout.size)
    assert found.std(1).amin() > 0  # every coordinate moves
    again = fit(network, TensorData(*table, 16), likelihood=Gaussian(), prior=Normal(0, 1), method=method, engine=QUIET)
    assert torch.equal(found, thetas(again))


def test_members_that_ended_nowhere_are_left_out(table: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    started = MembersInference.init

    def broken(self: MembersInference, streams: object) -> dict[str, Tensor]:
        state = started(self, streams)  # type: ignore[arg-type]
        state["theta"][1] = 1e200
        return state

    monkeypatch.setattr(sampled_ensemble.MembersInference, "init", broken)
    with pytest.warns(PosterityWarning, match="Members 2 of 3"):
        posterior = fit(
            linear(),
            table,
            likelihood=Gaussian(std=STD),
            prior=Normal(0, 1),
            method=SampledEnsemble(3, 3, sampler=SHORT),
            engine=QUIET,
        )
    assert len(thetas(posterior)) == 2


@pytest.mark.parametrize("method", [SHORT, SampledEnsemble(2, 5, sampler=SHORT)], ids=["chains", "ensemble"])
def test_what_cannot_be_sampled_is_refused_by_name(method: object, table: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InvalidInput, match="flat prior"):
        fit(linear(), table, likelihood=Gaussian(std=STD), prior=Flat(), method=method, engine=QUIET)
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    with pytest.raises(InvalidInput, match="0.weight, 0.bias are points"):
        fit(network, table, likelihood=Gaussian(std=STD), where="1.*", method=method, engine=QUIET)


def test_draws_that_do_not_fit_are_refused_before_anything_is_trained(table: tuple[Tensor, Tensor]) -> None:
    method = SampledEnsemble(2, 10**9, sampler=Microcanonical(max_bytes=100))
    with pytest.raises(InvalidInput, match="max_bytes=100"):
        fit(linear(), table, likelihood=Gaussian(std=STD), method=method, engine=QUIET)


def test_steps_that_err_by_more_than_was_asked_say_so() -> None:
    from posterity.methods.mixing import energy_remarks

    assert energy_remarks([0.01, 0.02], 0.005) == []
    assert "asked" in energy_remarks([0.1, 0.2], 0.005)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_member_takes_the_steps_of_one_that_is_alone(dtype: torch.dtype) -> None:
    """Weights of data, missing numbers, a batch that counts for nothing, and the prior in each step: as `MAP` does."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).to(dtype)
    problem = Problem(network, Normal(0, 0.1), Gaussian(std=0.5), 30, mean_batch_size=5.0)
    optimizer = Optimizer("SGD", lr=1e-3, schedule="constant")
    members, alone = MembersInference(problem, 2, optimizer, 9), PointInference(problem, optimizer, 9)
    side_by_side = members.init(QUIET.streams())
    start = side_by_side["theta"][1].clone()
    one = alone.init(QUIET.streams())
    one["theta"].copy_(start)
    x, y = torch.randn(6, 2, dtype=dtype), torch.randn(6, 2, dtype=dtype)
    rows = torch.tensor([3.0, 0.0, 0.5, 1.0, 2.0, 1.0], dtype=dtype)
    numbers = rows[:, None] * torch.tensor([[1, 1, 0], [1, 1, 1], *[[1, 0, 1]] * 4], dtype=dtype)
    for weights in (rows, numbers, torch.zeros_like(rows)):
        members.update(side_by_side, (x, y, weights))
        alone.update(one, (x, y, weights))
        torch.testing.assert_close(side_by_side["theta"][1] - start, one["theta"] - start, rtol=1e-4, atol=1e-7)


def test_weights_that_repeat_rows_make_the_same_chains(table: tuple[Tensor, Tensor]) -> None:
    """In float64, where rounding does not part the chains that soon."""
    x, y = table
    weights = torch.arange(40) % 3
    whole = x.repeat_interleave(weights, 0), y.repeat_interleave(weights)
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    found = [
        thetas(fit(network, data, likelihood=Gaussian(), prior=Normal(0, 1), method=method, engine=QUIET))
        for method in [SampledEnsemble(3, 20, sampler=Microcanonical(warmup=4, draws=4, steps=5, precision="float64"))]
        for data in (TensorData(x, y, 64, weights=weights.double()), TensorData(*whole, 64))
    ]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)
