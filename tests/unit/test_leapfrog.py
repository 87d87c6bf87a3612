"""Compiled leapfrog steps are the plain ones up to rounding, in NUTS and in HMC; what cannot be compiled is refused."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.exc import InductorError

import posterity
from posterity import HMC, NUTS, Engine, Gaussian, Hierarchical, InvalidInput, Normal, Problem, TensorData
from posterity.core.hamiltonian import Metric, Point, System, hmc
from posterity.core.leapfrog import CompiledSystem, Kernel, compiled_leapfrog
from posterity.core.nuts import nuts
from posterity.methods import hamiltonian

F64 = {"dtype": torch.float64}


def problem() -> tuple[Problem, tuple[Tensor, Tensor]]:
    """A small network under a hierarchical prior, with a noise that is learnt: latents of both kinds."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(20, 2, **F64)
    y = torch.sin(2 * x[:, 0]) + 0.1 * torch.randn(20, **F64)
    return Problem(network, Hierarchical(), Gaussian(), 20), (x, y)


def systems(dense: bool) -> tuple[System, CompiledSystem]:
    own, batch = problem()
    size = own.layout.size
    root = torch.eye(size, **F64) + 0.05 * torch.randn(size, size, **F64)
    metric = Metric(0.01 * root @ root.T if dense else 0.01 * torch.rand(size, **F64) + 0.005)
    kernel = compiled_leapfrog(own.log_joint, torch.zeros(size, **F64), metric.inverse_mass, batch)
    plain = System(lambda theta: own.log_joint(theta, batch), metric)
    return plain, CompiledSystem(plain.log_density, metric, kernel, batch)


@pytest.fixture(scope="module", params=[False, True], ids=["diag", "dense"])
def both(request: pytest.FixtureRequest) -> tuple[System, CompiledSystem]:
    return systems(request.param)


def same(a: Point, b: Point) -> None:
    torch.testing.assert_close(a.position.theta, b.position.theta, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.momentum, b.momentum, rtol=0, atol=1e-9)
    torch.testing.assert_close(a.velocity, b.velocity, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.position.gradient, b.position.gradient, rtol=1e-9, atol=1e-9)
    assert a.position.log_density == pytest.approx(b.position.log_density, rel=1e-11)
    assert a.energy == pytest.approx(b.energy, rel=1e-11)


def test_steps_are_the_same(both: tuple[System, CompiledSystem]) -> None:
    generator = torch.Generator().manual_seed(0)
    plain, compiled = both
    theta = problem()[0].theta()
    a = b = plain.kicked(plain.position(theta), generator)
    for step_size in (0.1, 0.1, -0.2, 0.05):
        a, b = plain.leapfrog(a, step_size), compiled.leapfrog(b, step_size)
        same(a, b)
    assert not torch.equal(a.position.theta, theta)


@pytest.mark.parametrize("name", ["nuts", "hmc"])
def test_transitions_are_the_same(both: tuple[System, CompiledSystem], name: str) -> None:
    moves = []
    for system in both:
        generator = torch.Generator().manual_seed(3)
        start = system.position(problem()[0].theta())
        transition = nuts if name == "nuts" else hmc
        moves.append(transition(system, start, 0.15, 6, generator))
    assert moves[0].steps == moves[1].steps > 3
    assert not moves[0].diverged
    same(moves[0].point, moves[1].point)
    assert moves[0].acceptance == pytest.approx(moves[1].acceptance, abs=1e-9)


def test_a_metric_that_changes_needs_no_other_kernel(both: tuple[System, CompiledSystem]) -> None:
    plain, compiled = (replace(system, metric=Metric(3 * system.metric.inverse_mass)) for system in both)
    start = plain.kicked(plain.position(problem()[0].theta()), torch.Generator().manual_seed(0))
    same(plain.leapfrog(start, 0.1), compiled.leapfrog(start, 0.1))


def test_what_is_no_number_is_a_wall() -> None:
    def walled(theta: Tensor, data: tuple[Tensor, Tensor]) -> Tensor:
        return torch.where(theta.sum() > data[0], torch.nan, -0.5 * theta.square().sum())

    data = (torch.ones((), **F64), torch.zeros((), **F64))
    kernel = compiled_leapfrog(walled, torch.zeros(1, **F64), torch.ones(1, **F64), data)
    system = CompiledSystem(lambda theta: walled(theta, data), Metric(torch.ones(1, **F64)), kernel, data)
    start = system.at(system.position(torch.full((1,), 0.9, **F64)), torch.ones(1, **F64))
    beyond = system.leapfrog(start, 1.0)
    assert beyond.energy == inf
    assert beyond.position.log_density == -inf
    assert beyond.position.gradient.tolist() == [0.0]
    assert system.leapfrog(start, -1.0).energy < 2


def line() -> TensorData:
    x = torch.linspace(-1, 1, 12, **F64)[:, None]
    return TensorData(x, 2 * x[:, 0] + 0.1 * torch.cos(20 * x[:, 0]), 12)


@pytest.mark.parametrize(
    "method", [NUTS(chains=2, warmup=24, draws=4, max_depth=4), HMC(chains=2, warmup=24, draws=4, steps=4)]
)
def test_whole_runs_are_the_same(method: NUTS | HMC, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step sizes, a learnt metric and all choices are in it; one kernel serves all of it."""
    kept, kernels = [], []

    def counted(*given: Any) -> Kernel:
        kernels.append(compiled_leapfrog(*given))
        return kernels[-1]

    monkeypatch.setattr(hamiltonian, "compiled_leapfrog", counted)
    for compiled in (False, True):
        torch.manual_seed(0)
        posterior = posterity.fit(
            nn.Linear(1, 1).double(),
            line(),
            likelihood=Gaussian(std=0.1),
            prior=Normal(0, 1),
            method=replace(method, compiled=compiled),
            engine=Engine(progress=False, device="cpu"),
        )
        kept.append(posterior)
    torch.testing.assert_close(kept[0].thetas, kept[1].thetas, rtol=0, atol=1e-7)
    torch.testing.assert_close(kept[0].energies, kept[1].energies, rtol=0, atol=1e-6)
    assert kept[0].thetas.std() > 0.01
    assert len(kernels) == 1


class Branching(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(self.weight.sum()) > 0 else -super().forward(x)


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # torch's word on such a network, once in a process
def test_a_density_whose_operations_depend_on_values_is_refused() -> None:
    with pytest.raises(InvalidInput, match="operations and shapes are the same at every value.*Leave compiled=False"):
        posterity.fit(
            Branching(1, 1).double(),
            line(),
            likelihood=Gaussian(std=0.1),
            prior=Normal(0, 1),
            method=NUTS(chains=1, warmup=2, draws=4, compiled=True),
            engine=Engine(progress=False, device="cpu"),
        )


def test_no_compiler_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: object) -> object:
        raise InductorError(RuntimeError("No working C++ compiler found"), None)

    monkeypatch.setattr("torch._inductor.compile", failing)
    one = torch.ones(1)
    with pytest.raises(InvalidInput, match="needs a working compiler.*No working C.* Install one"):
        compiled_leapfrog(lambda theta, batch: -theta.square().sum(), one, one, (one, one))
