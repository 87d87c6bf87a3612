"""Microcanonical dynamics: a turn by its equation, the order of the energy's error, the density that is kept, runaways."""

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from posterity import Engine, Gaussian, Normal, Problem
from posterity.core import microcanonical
from posterity.core.microcanonical import Moving, StepLengths, advance, begin
from posterity.methods.microcanonical import FIRST_VARIANCE, Microcanonical, MicrocanonicalInference

F64 = {"dtype": torch.float64}


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + k) for k in range(count)]


def normal(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Independent normals of stds 0.5, 1, 2, 1, 1."""
    precision = torch.tensor([4.0, 1.0, 0.25, 1.0, 1.0], **F64)
    return -0.5 * (precision * theta.square()).sum(1), -precision * theta


def test_a_turn_solves_its_equation() -> None:
    """du/dt = (I − uuᵀ) F/(P − 1), and the energy gained is (P − 1) times the integral of u·F/(P − 1)."""
    force, start = torch.tensor([[3.0, -1.0, 2.0, 0.5]], **F64), torch.tensor([[0.5, 0.5, -0.5, 0.5]], **F64)

    def slope(_: float, state: object) -> object:
        u, f = torch.as_tensor(state[:4]), force[0] / 3  # type: ignore[index]
        return [*(f - u * (u @ f)).tolist(), float(force[0] @ u)]

    found = solve_ivp(slope, (0, 0.7), [*start[0].tolist(), 0.0], rtol=1e-10, atol=1e-12).y[:, -1]
    direction, gained = microcanonical._kicked(start, force, torch.tensor([[0.7]], **F64))
    torch.testing.assert_close(direction[0], torch.tensor(found[:4]), rtol=0, atol=1e-8)
    assert float(gained) == pytest.approx(found[4], abs=1e-8)


@pytest.mark.parametrize("strength", [0.0, 1e4])
def test_a_turn_is_finite_whatever_the_force(strength: float) -> None:
    start, force = torch.tensor([[1.0, 0.0]], **F64), torch.tensor([[-strength, 0.0]], **F64)
    direction, gained = microcanonical._kicked(start, force, torch.tensor([[1.0]], **F64))
    assert direction.isfinite().all()
    assert gained.isfinite().all()
    assert float(direction.norm()) == pytest.approx(1)


def spread(chains: int, seed: int = 0) -> Tensor:
    return torch.randn(chains, 5, generator=torch.Generator().manual_seed(seed), **F64)


def test_the_energy_of_a_step_errs_by_the_third_power_of_its_size() -> None:
    """Its variance goes with the sixth, which is what `StepLengths` counts on."""
    theta, length = spread(4000), torch.full((4000,), 1e9, **F64)
    variances = []
    for size in (0.2, 0.1):
        here = begin(normal, theta, generators(4000))
        _, change, _ = advance(
            normal, here, torch.full((4000,), size, **F64), length, torch.ones_like(theta), generators(4000)
        )
        variances.append(float(change.square().mean()))
    assert variances[0] / variances[1] == pytest.approx(64, rel=0.1)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_density_is_kept(scaled: bool) -> None:
    """Means and variances within 4 standard errors of chains that forget, and a bias of some per cent for small steps."""
    chains, std = 200, torch.tensor([0.5, 1.0, 2.0, 1.0, 1.0], **F64)
    own, scale = generators(chains), std.expand(chains, 5) if scaled else torch.ones(chains, 5, **F64)
    here = begin(normal, std * spread(chains), own)
    size, length = torch.full((chains,), 0.4, **F64), torch.full((chains,), 5**0.5, **F64)
    seen = []
    for step in range(400):
        here, _, stood = advance(normal, here, size, length, scale, own)
        assert not stood.any()
        if step % 10 == 9:
            seen.append(here.theta)
    draws = torch.stack(seen, 1)  # (K, S, P)
    error = draws.mean(1).std(0) / chains**0.5
    assert (draws.mean((0, 1)).abs() < 4 * error).all()
    squares = (draws / std).square().mean(1)
    assert ((squares.mean(0) - 1).abs() < 4 * squares.std(0) / chains**0.5 + 0.03).all()


def test_a_chain_that_would_run_away_stands_and_turns_round() -> None:
    def wall(theta: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = normal(theta)
        return torch.where(theta[:, 0] > 1, -torch.inf, value), gradient

    theta = torch.tensor([[0.9, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]], **F64)
    east = torch.zeros_like(theta)
    east[:, 0] = 1
    here = Moving(theta, east, *wall(theta))
    size, length = torch.full((2,), 0.5, **F64), torch.full((2,), 1e12, **F64)
    there, _, stood = advance(wall, here, size, length, torch.ones_like(theta), generators(2))
    assert stood.tolist() == [True, False]
    assert torch.equal(there.theta[0], theta[0])
    assert float(there.direction[0, 0]) == pytest.approx(-1, abs=1e-3)
    assert there.log_density[0] == here.log_density[0]
    assert torch.equal(there.gradient[0], here.gradient[0])


def test_steps_grow_or_shrink_to_the_error_that_is_asked() -> None:
    chains, own = 8, generators(8)
    for first in (0.01, 5.0):
        tuning = StepLengths(StepLengths.begun(torch.full((chains,), first)))
        here, changes = begin(normal, spread(chains), own), []
        length, scale = torch.full((chains,), 5**0.5, **F64), torch.ones(chains, 5, **F64)
        for step in range(1500):
            here, change, stood = advance(normal, here, tuning.steps, length, scale, own)
            if step < 700:
                tuning.learn(change, stood, 0.001, 5)
            else:
                changes.append(change)
        variance = float(torch.stack(changes).square().mean() / 5)
        assert 0.0003 < variance < 0.003


def inference(starts: Tensor | None) -> MicrocanonicalInference:
    problem = Problem(torch.nn.Linear(2, 1), Normal(0, 1), Gaussian(std=0.1), num_data=10)
    return MicrocanonicalInference(problem, Microcanonical(warmup=30, draws=80, energy_variance=0.005), starts)


def test_only_chains_that_must_find_their_way_begin_with_coarse_steps() -> None:
    lost, found = inference(None), inference(torch.zeros(2, 3))
    assert [lost._variance(0), lost._variance(30)] == pytest.approx([FIRST_VARIANCE, 0.005])
    assert [found._variance(t) for t in (0, 10, 30)] == [0.005] * 3


@pytest.mark.parametrize(("slope", "remarks"), [(0.0, []), (-0.01, ["drift"])])
def test_draws_whose_nll_goes_one_way_say_so(slope: float, remarks: list[str]) -> None:
    chains = inference(torch.zeros(2, 3))
    noise = torch.randn(80, generator=torch.Generator().manual_seed(0), **F64)
    chains._levels = (0.02 * noise + slope * torch.arange(80)).expand(2, 80)
    chains.ended([{"nll": 0.0, "energy_variance": 0.005}] * 5, None)
    assert [remark.kind for remark in chains.remarks()] == remarks


def test_a_lost_chain_of_an_ensemble_is_left_out_with_a_word() -> None:
    """Networks whose training ended in no good place must not weigh as much as the others."""
    chains = inference(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    state = chains.init(Engine(device="cpu").streams())
    state["step"].fill_(110)
    state["levels"][:] = torch.tensor([1.0, 1.1, 9.0, 0.9])[:, None]
    assert len(chains.posterior(state).components) == 3
    chains.ended([{"nll": 3.0, "energy_variance": 0.005}] * 5, None)
    (remark,) = chains.remarks()
    assert "chain 3 is left out: an nll of 9 nats per datum where most have 1" in remark
    state["levels"][2] = 1.3
    assert len(chains.posterior(state).components) == 4
    alone = inference(None)  # chains that start anywhere are compared by whoever runs them
    state = alone.init(Engine(device="cpu").streams())
    state["step"].fill_(110)
    state["levels"][:] = torch.tensor([1.0, 1.1, 9.0, 0.9])[:, None]
    assert len(alone.posterior(state).components) == 4


def test_a_direction_lasts_as_long_as_its_decoherence_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """ℓ = decoherence · √P is what the steps are given."""
    problem, seen = Problem(torch.nn.Linear(2, 1), Normal(0, 1), Gaussian(std=0.1), num_data=10), []

    def noted(densities, here, step, length, *rest):
        seen.append(length)
        return advance(densities, here, step, length, *rest)

    monkeypatch.setattr("posterity.methods.microcanonical.advance", noted)
    method = Microcanonical(warmup=3, draws=4, steps=1, decoherence=5.0)
    chains = MicrocanonicalInference(problem, method, torch.zeros(2, 3))
    chains.update(chains.init(Engine(device="cpu").streams()), (torch.zeros(10, 2).double(), torch.zeros(10).double()))
    torch.testing.assert_close(seen[0], torch.full((2,), 5 * 3**0.5, **F64))
