"""What a Hamiltonian sampler learns and when it stops learning: dual averaging, windows, and the run that uses them."""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, sqrt
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from posterity import NUTS, Gaussian, Normal, Problem
from posterity.core.adaptation import StepSize, window_ends
from posterity.core.hamiltonian import Point, Position, System, Transition
from posterity.methods.hamiltonian import HamiltonianInference
from posterity.train.random import NamedStreams

F64 = {"dtype": torch.float64}


def test_dual_averaging_is_that_of_hoffman_and_gelman() -> None:
    """Algorithm 5: H̄ with t₀ = 10, log ε = μ − √t/γ · H̄ with γ = 0.05, and the average with κ = 0.75."""
    step, target, start = StepSize(torch.zeros(5, **F64)), 0.8, 0.3
    step.restart(start)
    assert (step.current, step.average) == pytest.approx((start, start))
    gap, average = 0.0, 0.0
    for t, acceptance in enumerate((0.9, 0.1, 0.75, 1.0, 0.5, 0.85), start=1):
        step.learn(acceptance, target)
        gap = (1 - 1 / (t + 10)) * gap + (target - acceptance) / (t + 10)
        current = log(10 * start) - sqrt(t) / 0.05 * gap
        average = t**-0.75 * current + (1 - t**-0.75) * average
        assert step.current == pytest.approx(exp(current))
        assert step.average == pytest.approx(exp(average))
    step.restart(2.0)  # what was learnt before says nothing under another metric
    step.learn(0.8, 0.8)
    assert (step.current, step.average) == pytest.approx((20.0, 20.0))


@pytest.mark.parametrize("warmup", [20, 100, 149, 150, 200, 1000, 1234])
def test_windows_double_between_two_fast_intervals(warmup: int) -> None:
    ends = window_ends(warmup)
    first, last = (75, 50) if warmup >= 150 else (int(0.15 * warmup), int(0.1 * warmup))
    assert ends[0] == first
    assert ends[-1] == warmup - last
    lengths = [b - a for a, b in pairwise(ends)]
    if warmup >= 150:
        assert lengths[:-1] == [25 * 2**k for k in range(len(lengths) - 1)]
        assert 25 * 2 ** (len(lengths) - 1) <= lengths[-1] < 3 * 25 * 2 ** (len(lengths) - 1)
    assert window_ends(19) == ()


@dataclass(frozen=True)
class Recorded(NUTS):
    """Takes what it is told to take, and remembers the step size and the metric of each transition."""

    seen: ClassVar[list[tuple[float, Tensor]]] = []
    places: ClassVar[list[Tensor]] = []

    def transition(
        self, system: System, start: Position, step_size: float, generator: torch.Generator | None = None
    ) -> Transition:
        self.seen.append((step_size, system.metric.inverse_mass.clone()))
        theta = torch.randn(2, generator=generator, **F64) * torch.tensor([2.0, 0.5], **F64)
        self.places.append(theta)
        momentum = torch.zeros_like(theta)
        here = system.position(theta)
        accepted = 0.6 + 0.3 * (len(self.seen) % 2)
        return Transition(Point(here, momentum, momentum, -here.log_density), accepted, 1, len(self.seen) % 3 == 0)


def test_a_run_learns_while_it_warms_up_and_not_after() -> None:
    """Step sizes follow dual averaging, restarted with each metric; metrics are the windows' covariances; then both stand."""
    Recorded.seen.clear()
    Recorded.places.clear()
    method = Recorded(chains=1, warmup=200, draws=12, target_accept=0.7)
    problem = Problem(nn.Linear(2, 1, bias=False).double(), Normal(0, 1), Gaussian(std=1.0), 4)
    inference, batch = HamiltonianInference(problem, method), (torch.zeros(4, 2, **F64), torch.zeros(4, **F64))
    state = inference.init(NamedStreams(0, "twin"))
    for _ in range(212):
        state, _ = inference.update(state, batch)
    sizes, metrics = zip(*Recorded.seen, strict=True)
    places = torch.stack(Recorded.places)
    assert window_ends(200) == (75, 100, 150)
    for step in range(200):
        window = places[100:150] if step >= 150 else places[75:100]  # the last one that is over, by itself
        shrunk = (window.var(0) * len(window) + 1e-3 * 5) / (len(window) + 5)
        torch.testing.assert_close(metrics[step], shrunk if step >= 100 else torch.ones(2, **F64))
    for begin, end in (
        (0, 100),
        (100, 150),
        (150, 200),
    ):  # within each part the recursion holds, from the size that it began with
        twin = StepSize(torch.zeros(5, **F64))
        twin.restart(sizes[begin])
        for step in range(begin, end):
            assert sizes[step] == pytest.approx(twin.current)
            twin.learn(0.6 + 0.3 * ((step + 1) % 2), 0.7)
    assert sizes[200:] == pytest.approx([twin.average] * 12)  # the average, not the last
    assert twin.average != pytest.approx(twin.current, rel=1e-3)
    assert all(torch.equal(metric, metrics[199]) for metric in metrics[200:])
    posterior = inference.posterior(state)
    torch.testing.assert_close(posterior.thetas, places[200:])
    assert int(state["divergences"]) == sum((k + 1) % 3 == 0 for k in range(200, 212))
