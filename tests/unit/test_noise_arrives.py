"""A learnt noise level goes where the data say, however far below the targets' std that is; where it does not, it says so."""

import pytest
import torch
from torch import Tensor, nn

from posterity import (
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Engine,
    Gaussian,
    HalfNormal,
    Hierarchical,
    MeanField,
    Normal,
    Optimizer,
    TensorData,
    fit,
)
from posterity.errors import NotArrived
from posterity.methods.line import Line, beside_line
from posterity.model import steps
from posterity.model.problem import Problem

QUIET = Engine(progress=False, device="cpu")
NOISE = 0.01


def line(noise: float = NOISE, rows: int = 100) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1, generator=generator)
    return x, 2 * x.squeeze() + 1 + noise * torch.randn(rows, generator=generator)


BY_GRADIENTS = [SGLD(epochs=500), SGHMC(epochs=500), SWAG(epochs=500)]
BY_RATES = [MAP(epochs=600), MeanField("local_reparam", epochs=600)]
TASKS = [(method, NOISE) for method in BY_GRADIENTS] + [(method, 0.05) for method in BY_RATES]


@pytest.mark.parametrize(("method", "noise"), TASKS, ids=lambda m: getattr(m, "kind", str(m)))
def test_methods_as_they_come_find_a_small_noise(method: object, noise: float) -> None:
    """Steps by the gradient are stable at the start alone, unless they go with the noise level; those of Adam are too short."""
    torch.manual_seed(0)
    data = TensorData(*line(noise), batch_size=100 if noise == NOISE else 50)
    found = fit(nn.Linear(1, 1), data, likelihood=Gaussian(), prior=Normal(0, 3), method=method, engine=QUIET)
    assert found.latents["likelihood.std"].mean.item() == pytest.approx(noise, rel=0.2)
    assert found.provenance["remarks"] == []


def test_a_fit_that_is_worse_than_a_line_says_so() -> None:
    torch.manual_seed(0)
    with pytest.warns(NotArrived, match=r"a linear model of the same inputs leaves 0\.09"):
        fit(nn.Linear(1, 1), line(0.1), likelihood=Gaussian(), method=MAP(epochs=20), engine=QUIET)


def test_a_line_bounds_the_noise_of_each_target() -> None:
    x, y = line(0.1)
    data = TensorData(x, torch.stack([y, 5 * y], 1))
    found = Line.of(data, (x, y))
    assert found is not None
    assert not beside_line(found, torch.tensor([[0.1, 0.5]]))
    assert "0.7" in beside_line(found, torch.tensor([[0.1, 0.7]]))[0]
    assert not beside_line(found, torch.tensor([[0.01, 0.01]]))  # a network may leave less
    assert Line.of(TensorData(x, y, weights=torch.rand(100)), (x, y)) is None
    assert Line.of(TensorData(x, torch.arange(100)), (x, y)) is None


def test_steps_are_measured_by_what_is_learnt_alone() -> None:
    net = nn.Linear(1, 1)
    learnt = Problem(net, Normal(0, 1), Gaussian(initial_std=(0.1,)), 10)
    assert steps.scale(learnt, learnt.theta()).item() == pytest.approx(0.1)
    torch.testing.assert_close(steps.unit_of(learnt, learnt.theta(), None), torch.tensor([10.0, 10.0, 1.0]))
    coarse = Problem(net, Normal(0, 1), Gaussian(initial_std=50.0), 10)
    assert steps.scale(coarse, coarse.theta()).item() == 1.0  # the prior's curvature would outgrow the step
    fixed = Problem(net, Normal(0, 1), Gaussian(std=0.1), 10)
    assert steps.scale(fixed, fixed.theta()) is None


def test_a_noise_level_is_as_fast_as_it_must_be() -> None:
    problem = Problem(nn.Linear(1, 1), Normal(0, 1), Gaussian(initial_std=0.3), 10)
    slow = steps.units(problem.coordinates, "theta", Optimizer(lr=1e-3))["theta"]
    torch.testing.assert_close(slow, torch.tensor([1.0, 1.0, 0.02]))
    theta = problem.theta()
    before = theta.clone()
    optimizer = Optimizer(lr=1e-3).bind({"theta": theta}, 10, units={"theta": slow})
    optimizer.grads["theta"].fill_(1.0)
    optimizer.step(0)
    torch.testing.assert_close(before - theta, torch.tensor([1e-3, 1e-3, 5e-2]), rtol=1e-3, atol=1e-6)
    assert not steps.units(problem.coordinates, "theta", Optimizer(lr=0.1))
    assert not steps.units(problem.coordinates, "theta", Optimizer("SGD", lr=1e-3))


@pytest.mark.parametrize(
    ("optimizer", "inputs", "count", "rate"),
    [
        (Optimizer(), 400, 100, 1e-3),  # wide: as it is everywhere
        (Optimizer(), 50, 100, 6e-3),  # narrow, and few steps: as far as the width allows
        (Optimizer(schedule="constant"), 50, 1000, 3e-3),
        (Optimizer(schedule="plateau"), 50, 1000, 3e-3),
        (Optimizer(), 50, 10_000, 1e-3),
        (Optimizer(least=4e-3), 50, 100, 6e-3),
        (Optimizer(lr=1e-3), 50, 100, 1e-3),  # what was said is taken
        (Optimizer("SGD"), 50, 100, 1e-3),  # its steps go with the gradient
    ],
)
def test_a_rate_that_is_left_open(optimizer: Optimizer, inputs: int, count: int, rate: float) -> None:
    network = nn.Sequential(nn.Linear(3, inputs), nn.Linear(inputs, 1))
    paced = steps.paced(optimizer, Problem(network, Normal(0, 1), Gaussian(), 10), count)
    assert paced.lr == pytest.approx(rate)


def test_a_scale_of_the_prior_moves_by_a_hundredth() -> None:
    """One that moved as its weights do stood where it began after four epochs of MNIST."""
    prior = Hierarchical(scale=HalfNormal(1.0), per="tensor", initial_std=0.1)
    problem = Problem(nn.Linear(1, 1), prior, Gaussian(std=0.3), 10)
    found = steps.units(problem.coordinates, "theta", Optimizer(lr=1e-3))["theta"]
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 0.1, 0.1]))
    assert not steps.units(problem.coordinates, "theta", Optimizer(lr=0.02))
