"""Whether a sampler's steps fit the curvature at its draws: where they hardly do, draws are wider than the posterior.

A chain of constant rate has the variance 1/(1 − λ/λ₀) times the posterior's in a direction of curvature λ, where λ₀ is the
curvature at which its steps are stable no more (see `core.dynamics`). The nll does not tell of it: it settles, too high, and
a noise level that is learnt with it. Curvatures are those in the units of the steps (`model.steps`).
"""

import torch
from torch import Generator, Tensor

from posterity.core.estimators import differentiate
from posterity.methods.arrival import Remark
from posterity.model.problem import Problem
from posterity.model.steps import unit_of
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.samples import Samples
from posterity.types import Batch

DRAWS, ITERATIONS = 4, 10
REACH = 1e-2  # of the differences, in weights
WIDE = 2.0  # times the posterior's std


def stiff(posterior: FunctionPosterior, batch: Batch, limit: float | None) -> list[Remark]:
    """Say that draws are wider than the posterior by their steps alone; `limit` is λ₀, None where nobody knows it."""
    problem = posterior.problem
    if limit is None or not isinstance(posterior, Samples) or problem.coordinates.noncentred:
        return []
    thetas = posterior.thetas[:: -(-len(posterior.thetas) // DRAWS)]
    share = sum(sharpness(problem, theta, batch) for theta in thetas) / len(thetas) / limit
    if not share > 1 - 1 / WIDE**2:
        return []
    excess = "without bound" if share >= 1 else f"by a factor of {(1 - share) ** -0.5:.2g}"
    return [
        Remark(
            "step",
            f"The step is too large: the curvature at the draws is {100 * share:.0f} % of what steps of this lr are stable "
            f"for, so that they are wider than the posterior in the steepest direction, {excess} in std, and a noise level "
            "that is learnt stays too high. Use a smaller lr (a tenth) and more epochs, or fix the noise.",
        )
    ]


def sharpness(problem: Problem, theta: Tensor, batch: Batch) -> float:
    """Return the largest curvature of the mean nll at θ, by power iteration on differences of gradients.

    It is that in the units that steps are taken in, see `model.steps`.

    >>> from torch import nn
    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(nn.Linear(2, 1), Normal(0, 1), Gaussian(std=0.5), num_data=2)
    >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> round(sharpness(problem, problem.theta(), (x, torch.zeros(2))), 2)  # of XᵀX/(N s²), with the bias
    20.25
    """
    unit = unit_of(problem, theta, None)
    size = 1.0 if unit is None else unit.reciprocal()
    direction = torch.randn(len(theta), generator=Generator().manual_seed(0), dtype=theta.dtype).to(theta.device)
    value = 0.0
    for _ in range(ITERATIONS):
        direction = direction / direction.norm()
        before, after = (size * _gradient(problem, theta + sign * REACH * size * direction, batch) for sign in (-1, 1))
        change = (after - before) / (2 * REACH)
        value = float(change @ direction)
        if not change.isfinite().all() or not change.any():
            return 0.0
        direction = change
    return value


def _gradient(problem: Problem, theta: Tensor, batch: Batch) -> Tensor:
    gradient = torch.zeros_like(theta)
    with problem.bound(theta), torch.enable_grad():
        nll, _ = problem.nll(batch)
        differentiate(nll / problem.weight(batch), (problem.params, gradient, problem.layout))
    return gradient
