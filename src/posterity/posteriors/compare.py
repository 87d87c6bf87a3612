"""Two posteriors of one task against each other, by functions drawn of each."""

from math import nan

import torch
from torch import Generator, Tensor

from posterity.metrics.agreement import ClassAgreement, ValueAgreement, compare_predictives, wasserstein2
from posterity.posteriors.asked import check_posterior, check_request
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.mixture import Mixture
from posterity.predict.predictive import Classification, Regression, classes_or_values, predictive

MANY = 200  # θ drawn of each posterior to compare its coordinates


@torch.no_grad()
def compare_posteriors(
    a: FunctionPosterior, b: FunctionPosterior, x: Tensor, *, n: int = 200, generator: Generator | None = None
) -> ClassAgreement | ValueAgreement:
    """Compare two posteriors of one task, on inputs x (B, ...), by n functions of each.

    Both are estimated from draws: with few, two draws of one posterior differ, W2 by about std/√n and the others likewise;
    the comparison of a posterior with itself, by two generators, is the floor.

    Args:
        a, b: of networks with equal outputs; they may differ in everything else.
        x: inputs (B, ...).
        n: functions of each.
        generator: source of the draws.

    Raises:
        InvalidInput: where one predicts classes and the other values, or of other shapes.

    >>> from posterity import Gaussian, Normal, Problem
    >>> from posterity.posteriors.gaussian import DiagonalGaussian
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> a = DiagonalGaussian(problem, torch.tensor([0.0]), torch.tensor([1.0]))
    >>> b = DiagonalGaussian(problem, torch.tensor([2.0]), torch.tensor([1.0]))
    >>> print(compare_posteriors(a, b, torch.ones(5, 1), n=4000, generator=torch.Generator().manual_seed(0)))
    RMSE of means                                 2.01
    Predictive std, ratio                            1
    Epistemic std, ratio                             1
    W2 of functions' marginals                    2.01
    Symmetric KL of predictives, nats             1.99
    W2 of weights' marginals                      1.89
    """
    check_posterior(a, "a")
    check_posterior(b, "b")
    check_request(n, "functions", generator)
    p, q = (functions_of(posterior, x, n, generator) for posterior in (a, b))
    return compare_predictives(p, q, _weights(a, b, generator))


@torch.no_grad()
def functions_of(
    posterior: FunctionPosterior, x: Tensor, n: int, generator: Generator | None = None
) -> Classification | Regression:
    """Return the predictive of n drawn functions, also where `predict` would take a closed form instead of them."""
    if isinstance(posterior, Mixture):  # each component by its own likelihood, and never in closed form
        return classes_or_values(posterior.predict(x, n, generator=generator))
    draws = posterior.draws(x, n, generator)
    return classes_or_values(predictive(posterior.problem.likelihood(draws.outputs, draws.latents), draws.outputs))


def _weights(a: FunctionPosterior, b: FunctionPosterior, generator: Generator | None) -> float:
    if any(isinstance(p, Mixture) and not p.alike for p in (a, b)):
        return nan
    layouts = {(p.problem.layout.names, p.problem.layout.shapes, p.problem.coordinates.noncentred) for p in (a, b)}
    if len(layouts) > 1:
        return nan
    drawn = [torch.stack([p.sample(generator) for _ in range(MANY)]) for p in (a, b)]
    return wasserstein2(*drawn).square().mean().sqrt().item()
