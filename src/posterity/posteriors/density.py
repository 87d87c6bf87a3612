"""The log-density log q(θ) and the variances of posteriors that are Gaussian in θ, whatever the shape of their covariance."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from posterity.core.gaussian import LOG_2PI
from posterity.errors import InvalidInput
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian, Part
from posterity.posteriors.low_rank import LowRankGaussian


@singledispatch
def log_density(posterior: FunctionPosterior, theta: Tensor) -> Tensor:
    """Return log q(θ) of the random coordinates, in nats and float64: (...) for θ of shape (..., P).

    Raises:
        InvalidInput: for a posterior that has no density in θ: a point, a sample, a mixture of these.

    >>> import posterity
    >>> from posterity import Gaussian, Problem
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), posterity.Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> log_density(DiagonalGaussian(problem, torch.zeros(1), torch.ones(1)), torch.zeros(1))
    tensor(-0.9189, dtype=torch.float64)
    """
    families = ", ".join(t.__name__ for t in log_density.registry if t is not object)
    raise InvalidInput(f"A {type(posterior).__name__} has no density in θ. Those that have: {families}.")


@log_density.register
def _(posterior: DiagonalGaussian, theta: Tensor) -> Tensor:
    std = posterior.std.double()
    return _density(Independent(Normal(_random(posterior.loc, std), std), 1), theta, std)


@log_density.register
def _(posterior: LowRankGaussian, theta: Tensor) -> Tensor:
    std = posterior.std.double()
    q = LowRankMultivariateNormal(_random(posterior.loc, std), posterior.factor.double(), std.square())
    return _density(q, theta, std)


@log_density.register
def _(posterior: FullRankGaussian, theta: Tensor) -> Tensor:
    root = posterior.cholesky.double()
    return _density(MultivariateNormal(_random(posterior.loc, root), scale_tril=root), theta, root)


@log_density.register
def _(posterior: KroneckerGaussian, theta: Tensor) -> Tensor:
    away = (theta - posterior.loc).double()[..., posterior.problem.coordinates.start :]
    return torch.stack([_of_part(part, away) for part in posterior.parts]).sum(0)


@log_density.register
def _(posterior: LowRankPrecisionGaussian, theta: Tensor) -> Tensor:
    std, shrunk, basis = posterior.std.double(), posterior.shrunk.double(), posterior.basis.double()
    z = (_random(theta, std) - _random(posterior.loc, std)) / std
    square = z.square().sum(-1) + ((z @ basis).square() * (shrunk.reciprocal().square() - 1)).sum(-1)
    return -0.5 * (square + len(std) * LOG_2PI) - std.log().sum() - shrunk.log().sum()


def has_density(posterior: FunctionPosterior) -> bool:
    """Tell whether `log_density` knows the family."""
    return log_density.dispatch(type(posterior)) is not log_density.dispatch(object)


def _of_part(part: Part, away: Tensor) -> Tensor:
    """Return log q of one block: E = left⁻¹ M right⁻ᵀ / std is standard normal, for its deviation M from the mean."""
    own = part._matrix(torch.cat([away[..., a:b] for a, b in part.slices.tolist()], -1))
    std, left, right = part.std.double(), part.left.double(), part.right.double()
    log_det = std.log().sum()
    if left.numel():
        own = torch.linalg.solve(left, own)
        log_det = log_det + std.shape[1] * torch.linalg.slogdet(left).logabsdet
    if right.numel():
        own = torch.linalg.solve(right, own.mT).mT
        log_det = log_det + std.shape[0] * torch.linalg.slogdet(right).logabsdet
    return -0.5 * ((own / std).square().sum((-1, -2)) + std.numel() * LOG_2PI) - log_det


def _density(q: Distribution, theta: Tensor, like: Tensor) -> Tensor:
    found: Tensor = q.log_prob(_random(theta, like))
    return found


def _random(theta: Tensor, like: Tensor) -> Tensor:
    """Return the last, random, coordinates in float64."""
    return theta[..., theta.shape[-1] - len(like) :].double()
