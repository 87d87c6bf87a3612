"""Law 5: doubling the data = doubling num_data; batch size does not move the optimum."""

import pytest
import torch
from torch import nn

from posterity import Gaussian, MeanField, Normal, Optimizer, Problem
from posterity.methods.map import PointInference
from posterity.methods.mean_field import MeanFieldInference
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import FAST, TABLE, Conjugate


def problem(num_data: int) -> Problem:
    torch.manual_seed(0)
    return Problem(nn.Linear(2, 1).double(), Normal(0, 0.7), Gaussian(), num_data)


def test_log_joint_counts_the_data_once() -> None:
    case = Conjugate.make()
    twice = case.x.repeat(2, 1), case.y.repeat(2)
    theta = torch.tensor([0.5, -0.3, 0.1, -1.0]).double()
    torch.testing.assert_close(problem(48).log_joint(theta, twice), problem(48).log_joint(theta, (case.x, case.y)))
    prior = problem(1).log_prior(theta)
    once = problem(24).log_joint(theta, (case.x, case.y)) - prior
    torch.testing.assert_close(problem(48).log_joint(theta, twice) - prior, 2 * once)
    parts = [problem(24).log_joint(theta, (case.x[i : i + 8], case.y[i : i + 8])) for i in (0, 8, 16)]
    torch.testing.assert_close(torch.stack(parts).mean(), once + prior)


@pytest.mark.parametrize("kind", ["map", "weight", "local_reparam", "flipout"])
def test_gradient_of_a_step_is_that_of_the_log_joint(kind: str) -> None:
    """A step's gradient × −N is the gradient of `log_joint` (point), or its mean under q plus the entropy's (mean field)."""
    case, target = Conjugate.make(), problem(24)
    batch, budget = (case.x, case.y), Budget(1, 1)
    if kind == "map":
        inference = PointInference(target, FAST, 1)
        state = inference.init(NamedStreams(0, "test"))
        theta = state["theta"].clone().requires_grad_()
        (exact,) = torch.autograd.grad(target.log_joint(theta, batch), [theta])
        inference.update(state, batch)
        torch.testing.assert_close(inference._optimizer.grads["theta"], -exact / 24)
        return
    # Gradients are read where the optimiser takes them: at a rate of .05 the noise level's have the units of all others.
    inference = MeanFieldInference(target, MeanField(kind, initial_std=0.2, optimizer=Optimizer(lr=0.05)), budget)
    state = inference.init(NamedStreams(0, "test"))
    start = {k: v.clone() for k, v in state.items()}
    n = 1200
    rows = []
    for _ in range(n):
        for key, value in start.items():
            state[key].copy_(value)
        inference.update(state, batch)
        rows.append(torch.cat(list(inference._optimizer.grads.values())))
    drawn = torch.stack(rows)
    mean, rho = start["mean"].requires_grad_(), start["rho"].requires_grad_()
    noise = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1)).double()
    std = nn.functional.softplus(rho)
    w = mean + std * torch.cat([noise, -noise])
    # The ELBO of this regression by hand, on many draws: quadratic in the weights, with the learned noise level drawn too.
    s = nn.functional.softplus(w[:, 3:])
    residual = case.y - (w[:, :2] @ case.x.T + w[:, 2:3])
    log_likelihood = (-0.5 * (residual / s).square() - s.log() - 0.9189385332).sum(1)
    prior_w = (-0.5 * (w[:, :3] / 0.7).square()).sum(1)
    prior_s = -torch.log1p(s.square()).squeeze(1) + nn.functional.logsigmoid(w[:, 3])
    elbo = (log_likelihood + prior_w + prior_s).mean() + std.log().sum()
    exact = -torch.cat(torch.autograd.grad(elbo, [mean, rho])) / 24
    error = (drawn.var(0) / n + drawn.var(0) / 20_000).sqrt()
    assert ((drawn.mean(0) - exact).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    "name", ["map", "mean_field-weight", pytest.param("mean_field-flipout", marks=pytest.mark.slow)]
)
def test_batch_size_does_not_move_the_optimum(name: str) -> None:
    """Batches of 9 do not divide 24 data: the last one of an epoch has 6, and must not pull."""
    case, row = Conjugate.make(), TABLE[name]
    fits = [case.fit(row.method, seed, batch_size=9) for seed in range(1 if row.family == "point" else 4)]
    means = torch.stack([f.mean for f in fits])
    if row.family == "point":
        torch.testing.assert_close(means[0], case.mean, atol=0.01, rtol=0)
        return
    stds, exact = torch.stack([f.std for f in fits]), case.precision.diagonal().rsqrt()
    assert ((means.mean(0) - case.mean).abs() < 4 * means.std(0) / 2 + 1e-3).all()
    assert ((stds.mean(0) - exact).abs() < 4 * stds.std(0) / 2 + 0.01 * exact).all()


@pytest.mark.parametrize("name", ["map", "mean_field-local_reparam"])
def test_doubled_data_halve_the_variance_beside_the_prior(name: str) -> None:
    case, row = Conjugate.make(), TABLE[name]
    doubled = case.fit(row.method, copies=2)
    likelihood = case.design.T @ case.design / case.noise**2
    precision = 2 * likelihood + torch.eye(3).double() / case.prior_std**2
    exact = torch.linalg.solve(precision, 2 * case.design.T @ case.y / case.noise**2)
    assert ((doubled.mean - exact).abs() < 0.02).all()
    if row.family == "mean_field":
        # One fit's std is within about 4 % of its optimum (law 1); data that were not counted twice would be 40 % off.
        torch.testing.assert_close(doubled.std, precision.diagonal().rsqrt(), rtol=0.12, atol=0)
