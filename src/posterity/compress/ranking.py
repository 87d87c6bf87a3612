"""How much each weight matters: by its signal-to-noise ratio, by the evidence that would be lost without it, by its size.

All are numbers per random weight of a network, of a Gaussian mean-field posterior q(w) = N(μ, σ²); the smallest go first.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Size, Tensor

from posterity.core import gaussian
from posterity.errors import InvalidInput, unknown
from posterity.model.location_scale import Elementwise
from posterity.model.patterns import flatten, split
from posterity.model.priors import Product
from posterity.model.problem import Problem
from posterity.options import require
from posterity.posteriors.asked import check_posterior
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point
from posterity.types import Prior

Prunable: TypeAlias = DiagonalGaussian | Point


def importance(posterior: FunctionPosterior, by: str = "signal_to_noise") -> Tensor:
    """Return how much each of the network's R random weights matters, (R,), in θ's order; −∞ for one that is gone.

    - `signal_to_noise`: |μ|/σ (Graves 2011; Blundell et al. 2015, §5). Graves removes weights for which q(0) is near q's
      greatest density, exp(−μ²/2σ²) > γ: the same order.
    - `kl`: log p(0) − log q(0), in nats: the log evidence that is lost when the prior of this weight becomes a point mass at
      0 and all others stay as they are. Where q is the posterior this is exact (the Savage–Dickey ratio: Dickey 1971); for
      any q it is what Bayesian model reduction takes for it (Friston & Penny 2011). For p = N(m, s²)

          log p(0) − log q(0) = μ²/(2σ²) − m²/(2s²) − log(s/σ)

      so a weight counts that the data have made certain, too, where |μ|/σ looks at its sign alone. Below 0 the evidence
      rises: the model is better without the weight. A sum over weights is that of removing them together.
    - `magnitude`: |μ|, which knows nothing of σ, to compare with; the only one for a `Point`.

    `kl` reads the prior's density of each weight by itself; it is infinite at 0 for a `Horseshoe`, whose values are then
    all too large by the same number.

    Raises:
        InvalidInput: for another posterior, a non-centred prior, an unknown criterion, a `Point` by any but magnitude, and a
            prior that ties weights (`Hierarchical`), or one of your own, by `kl`.

    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(torch.nn.Linear(2, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> posterior = DiagonalGaussian(problem, torch.tensor([0.5, 0.2]), torch.tensor([0.5, 0.02]))
    >>> importance(posterior), importance(posterior, "kl"), importance(posterior, "magnitude")
    (tensor([ 1., 10.]), tensor([-0.1931, 46.0880]), tensor([0.5000, 0.2000]))
    """
    check_posterior(posterior)
    require(by=(by, str))
    if by not in CRITERIA:
        raise unknown("criterion", by, CRITERIA)
    mean, std = moments(posterior)
    if isinstance(posterior, Point) and by != "magnitude":
        raise InvalidInput(f"A point has no width to rank its weights by '{by}'; use by='magnitude'.")
    return CRITERIA[by](posterior.problem, mean, std).masked_fill((mean == 0) & (std == 0), -torch.inf)


def moments(posterior: FunctionPosterior) -> tuple[Tensor, Tensor]:
    """Return mean and std of the network's random weights, (R,) each, in θ's order; the std of a point is 0.

    Raises:
        InvalidInput: where the posterior is no diagonal Gaussian or point of the weights themselves.
    """
    where = posterior.problem.coordinates
    if not isinstance(posterior, Prunable):
        raise InvalidInput(
            f"Weights of a {type(posterior).__name__} cannot be ranked; expected a DiagonalGaussian, as MeanField and IVON "
            "return it, or a Point."
        )
    if where.noncentred:
        raise InvalidInput("A posterior under a non-centred prior has no Gaussian over its weights; use centered=True.")
    mean = posterior.mean[where.start : where.network]
    std = torch.zeros_like(mean) if isinstance(posterior, Point) else posterior.std[: len(mean)]
    return mean, std


def log_prior_at_zero(problem: Problem) -> Tensor:
    """Return log p(w = 0) of each of the network's random weights, (R,), in nats.

    Raises:
        InvalidInput: where the prior's weights are not independent, or it does not give the density of one of them.
    """
    where = problem.coordinates
    zeros = torch.zeros_like(problem.theta()[where.free : where.network])
    if where.normal is not None:
        found = gaussian.log_prob(zeros, *where.normal)
    else:
        found = _elementwise(problem.prior, where.shapes(), zeros)
    return found[where.start - where.free :]


def _elementwise(prior: Prior, shapes: Mapping[str, Size], w: Tensor) -> Tensor:
    if isinstance(prior, Elementwise):
        return prior.elementwise(w, shapes)
    if not isinstance(prior, Product):
        raise InvalidInput(
            f"The prior {type(prior).__name__} does not give the density of one weight by itself, which by='kl' needs; use "
            "by='signal_to_noise'."
        )
    values, found = split(w, shapes), dict[str, Tensor]()
    for part, own in prior.assigned(shapes):
        found.update(split(_elementwise(part, own, flatten({n: values[n] for n in own})), own))
    return flatten({n: found[n] for n in shapes})


def _signal_to_noise(problem: Problem, mean: Tensor, std: Tensor) -> Tensor:
    return mean.abs() / std


def _kl(problem: Problem, mean: Tensor, std: Tensor) -> Tensor:
    return log_prior_at_zero(problem) - gaussian.log_prob(torch.zeros_like(mean), mean, std)


def _magnitude(problem: Problem, mean: Tensor, std: Tensor) -> Tensor:
    return mean.abs()


CRITERIA: Mapping[str, Callable[[Problem, Tensor, Tensor], Tensor]] = MappingProxyType(
    {"signal_to_noise": _signal_to_noise, "kl": _kl, "magnitude": _magnitude}
)


def share_of(part: float, size: int) -> int:
    """Return how many of `size` things a share is, rounded down: 0.29 of 100 are 29, whatever the product is in binary.

    >>> share_of(0.29, 100), int(0.29 * 100)
    (29, 28)
    """
    return int(part * size + 1e-6)
