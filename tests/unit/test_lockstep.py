"""A log-density at many positions at once is that at each of them, whatever torch can record."""

from itertools import count

import pytest
import torch
from torch import Tensor, nn

from posterity import Categorical, Gaussian, HeteroscedasticGaussian, Hierarchical, Likelihood, Normal, Prior, Problem
from posterity.core.lockstep import SideBySide
from posterity.types import Batch

F64 = {"dtype": torch.float64}


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, width)).double()


CASES = {
    "noise of each row": (mlp(2), Normal(0, 1), HeteroscedasticGaussian(), torch.randn(7, **F64)),
    "hierarchical": (mlp(1), Hierarchical(), Gaussian(), torch.randn(7, **F64)),
    "noncentred": (mlp(1), Hierarchical(centered=False), Gaussian(), torch.randn(7, **F64)),
    "classes": (mlp(3), Normal(0, 1), Categorical(), torch.arange(7) % 3),
}


class Branching(nn.Module):
    """A network whose operations depend on values, which no batched pass can record."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y if bool(y.sum() > 0) else 2 * y


CASES["branching"] = (Branching(), Normal(0, 1), Gaussian(), torch.randn(7, **F64))


@pytest.mark.parametrize(("network", "prior", "likelihood", "targets"), CASES.values(), ids=CASES)
def test_many_are_as_one(network: nn.Module, prior: Prior, likelihood: Likelihood, targets: Tensor) -> None:
    problem, batch = Problem(network, prior, likelihood, 7), (torch.randn(7, 3, **F64), targets)
    theta = problem.theta() + torch.randn(5, len(problem.theta()), **F64)
    side_by_side = SideBySide(problem.log_joint)
    side_by_side(theta + 1, batch)  # what is recorded at one θ holds at others
    values, gradients = side_by_side(theta, batch)
    for row, value, gradient in zip(theta, values, gradients, strict=True):
        leaf = row.clone().requires_grad_()
        expected = problem.log_joint(leaf, batch)
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, [leaf])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_each_batchs_own_in_either_precision(dtype: torch.dtype) -> None:
    """Sums of weights are float64, beside which float32 numbers of one example grow to it, and those of many do not."""
    network, x = nn.Linear(3, 1).to(dtype), torch.randn(7, 3, dtype=dtype)
    problem = Problem(network, Normal(0, 1), Gaussian(), 7)
    theta = problem.theta() + torch.randn(5, len(problem.theta()), dtype=dtype)
    side_by_side = SideBySide(problem.log_joint)
    for weights in (torch.rand(7), torch.arange(7.0, dtype=torch.float64)):
        batch = (x, x.sum(1), weights)
        values, gradients = side_by_side(theta, batch)
        assert values.dtype == gradients.dtype == dtype
        for row, value, gradient in zip(theta, values, gradients, strict=True):
            leaf = row.clone().requires_grad_()
            expected = problem.log_joint(leaf, batch)
            torch.testing.assert_close(value, expected.detach().to(dtype))
            torch.testing.assert_close(gradient, torch.autograd.grad(expected, [leaf])[0])


def test_what_is_recorded_is_what_runs() -> None:
    """The batched pass is used where it can be: the density itself is asked for the recording and the comparison alone."""
    calls = count()

    def density(theta: Tensor, batch: Batch) -> Tensor:
        next(calls)
        return -(theta * batch[0]).square().sum()

    side_by_side, batch = SideBySide(density), (torch.ones(2), torch.ones(2))
    for _ in range(5):
        side_by_side(torch.randn(3, 2), batch)
    assert next(calls) == 1 + 3


def test_a_recording_that_says_otherwise_is_not_used() -> None:
    calls = count()

    def density(theta: Tensor, batch: Batch) -> Tensor:
        return -(1.0 + (next(calls) == 0)) * theta.square().sum()

    value, gradient = SideBySide(density)(torch.ones(2, 3), (torch.ones(1), torch.ones(1)))
    assert value.tolist() == [-3, -3]
    assert (gradient == -2).all()


def test_no_number_is_minus_infinity() -> None:
    value, gradient = SideBySide(lambda theta, _: theta.log().sum())(
        torch.tensor([[1.0, 2.0], [-1.0, 2.0]]), (torch.ones(1), torch.ones(1))
    )
    assert value[1] == -torch.inf
    assert (gradient[1] == 0).all()
    assert value[0] > 0


SOME_MISSING = torch.rand(7, 1) * torch.tensor([[1.0, 1.0, 1.0], *[[1.0, 0.0, 1.0]] * 3, *[[1.0, 1.0, 0.0]] * 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [torch.rand(7), SOME_MISSING, torch.zeros(7)], ids=["rows", "numbers", "none"])
def test_data_that_count_differently_count_so_side_by_side(weights: Tensor, dtype: torch.dtype) -> None:
    """A sum of weights is a tensor of another type than what it divides, and may be 0."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    problem = Problem(network, Normal(0, 1), Gaussian(), 20)
    batch = (torch.randn(7, 3, dtype=dtype), torch.randn(7, 2, dtype=dtype), weights.to(dtype))
    theta = problem.theta() + torch.randn(5, len(problem.theta()), dtype=dtype)
    side_by_side = SideBySide(problem.log_joint)
    side_by_side(theta, batch)
    batch = (batch[0], batch[1], batch[2].flip(0))  # what is recorded of some weights holds of others
    values, gradients = side_by_side(theta, batch)
    assert values.dtype == gradients.dtype == dtype
    for row, value, gradient in zip(theta, values, gradients, strict=True):
        leaf = row.clone().requires_grad_()
        own = batch[2][:, None] if batch[2].dim() == 1 else batch[2][:, 1:]
        share = 20 / (batch[2] if batch[2].dim() == 1 else batch[2][:, 0]).sum().clamp(min=1e-9)
        with problem.bound(row):
            log_probs = problem.predict(batch[0]).base_dist.log_prob(batch[1])
        expected = share * (log_probs * own).sum() + problem.log_prior(row)
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-4)
        (exact,) = torch.autograd.grad(problem.log_joint(leaf, batch), [leaf])
        torch.testing.assert_close(gradient, exact, rtol=1e-4, atol=1e-4)
