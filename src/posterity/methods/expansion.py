"""The log joint around a trained network to second order: what a Laplace approximation and its evidence are made of."""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from posterity.core.curvature import DiagonalCurvature, FullCurvature, LowRankCurvature
from posterity.core.kronecker import Block, KroneckerBlock, KroneckerCurvature, taken
from posterity.core.layout import Layout
from posterity.errors import InvalidInput
from posterity.methods.passes import measured
from posterity.methods.totals import Curvature, Options
from posterity.model.problem import Problem
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian, Part
from posterity.posteriors.linearised import WeightGaussian
from posterity.posteriors.point import Point
from posterity.types import Data


@dataclass(frozen=True, eq=False)
class Expansion:
    """log p(D, θ) ≈ log p(D, θ*) − ½ (θ − θ*)ᵀ (G + P) (θ − θ*) of the random coordinates, in nats; all tensors in float64.

    Args:
        point: θ*, and the problem, whose network is in eval mode.
        curvature: G, of the network's random coordinates.
        precision: P's diagonal, the prior's, of the same coordinates.
        latent_precision: the diagonal of G + P of the likelihood's latents, which have no cross terms with the network.
        log_likelihood: Σ_n log p(y_n | x_n, θ*).
        num_targets: numbers among the targets, N D, as often as they count.
    """

    point: Point
    curvature: Curvature
    precision: Tensor
    latent_precision: Tensor
    log_likelihood: Tensor
    num_targets: float

    @property
    def deviation(self) -> Tensor:
        """θ* − prior mean, of the network's random coordinates."""
        where = self.point.problem.coordinates
        assert where.normal is not None  # `prior_precision` saw to it
        own = self.point.theta[where.start : where.network].double()
        return own - where.normal[0][where.start - where.free :].double()

    def log_evidence(self) -> Tensor:
        """Return Laplace's approximation to log p(D), given the point coordinates if there are any, shape ().

        log p(D | θ*) + log p(θ*) + R/2 log 2π − ½ log|G + P| over the R random coordinates, noise level included.
        """
        where = self.point.problem.coordinates
        latents = where.log_prob_of_latents(where.layout.views(self.point.theta)).double()
        volume = len(self.latent_precision) / 2 * log(2 * pi) - 0.5 * self.latent_precision.log().sum()
        return self.log_likelihood + self.marginal(self.precision) + latents + volume

    def marginal(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return log ∫ exp(−½ (θ − θ*)ᵀ scale · G (θ − θ*)) p(θ) dθ to second order at θ*, (), differentiable in both.

        That is log N(θ*; m, P⁻¹) + R/2 log 2π − ½ log|scale · G + P| over the network's random coordinates.
        """
        square = (precision * self.deviation.square()).sum()
        return 0.5 * (precision.log().sum() - square - self.curvature.log_det(precision, scale))

    def gaussian(self) -> WeightGaussian:
        """Return N(θ*, (G + P)⁻¹)."""
        problem, theta = self.point.problem, self.point.theta
        own = self.latent_precision.rsqrt()
        match self.curvature:
            case DiagonalCurvature(values=values):
                std = torch.cat([(values + self.precision).rsqrt(), own])
                return DiagonalGaussian(problem, theta, std.to(theta))
            case FullCurvature(matrix=matrix):
                root = torch.block_diag(inverse_root(matrix + self.precision.diag()), own.diag())
                return FullRankGaussian(problem, theta, root.to(theta))
            case LowRankCurvature(factor=factor):
                return self._low_rank(factor)
            case KroneckerCurvature(blocks=blocks):
                parts = [_part(block, self.precision, theta) for block in blocks]
                parts += [_column(((len(self.precision), len(self.precision) + len(own)),), own, theta)] * bool(
                    len(own)
                )
                return KroneckerGaussian(problem, theta, tuple(parts))

    def _low_rank(self, factor: Tensor) -> LowRankPrecisionGaussian:
        """Return the inverse of P + F Fᵀ: with P^(−½) F = V √μ Wᵀ it is P^(−½) (1 − V diag(μ/(1 + μ)) Vᵀ) P^(−½)."""
        theta, own = self.point.theta, self.latent_precision.rsqrt()
        std = self.precision.rsqrt()
        basis, singular, _ = torch.linalg.svd(std[:, None] * factor, full_matrices=False)
        basis = torch.cat([basis, basis.new_zeros(len(own), basis.shape[1])])
        shrunk = (1 + singular.square()).rsqrt()
        parts = (t.to(theta).contiguous() for t in (torch.cat([std, own]), basis, shrunk))
        return LowRankPrecisionGaussian(self.point.problem, theta, *parts)


def expanded(point: Point, data: Data, options: Options) -> Expansion:
    """Measure the curvature around a point on the whole training data.

    Raises:
        InvalidInput: see `Laplace.infer`.
    """
    problem = point.problem
    precision = prior_precision(problem)
    found = measured(problem, point.theta, data, options)
    latents = found.latents.double() + _latent_precision(problem, point.theta)
    if not bool((latents > 0).all()):
        raise InvalidInput("The log joint has no maximum in the noise level here; train longer, or fix the noise.")
    return Expansion(point, found.curvature, precision, latents, found.log_likelihood, found.num_targets)


def refuse_uneven(problem: Problem) -> None:
    """Refuse a prior with another std for each element of a tensor, which Kronecker factors cannot be combined with."""
    where, precision = problem.coordinates, prior_precision(problem)
    named = zip(where.layout.names, where.layout.offsets, where.layout.numels, strict=True)
    for name, offset, count in named:
        own = (
            precision[offset - where.start : offset - where.start + count]
            if name in where.random_names
            else precision[:0]
        )
        if not bool((own == own[:1]).all()):
            raise InvalidInput(
                f"The prior of '{name}' has a std of its own for each element, with which Kronecker factors cannot be "
                "combined. Use structure='diag', 'full' or 'low_rank'."
            )


def prior_precision(problem: Problem) -> Tensor:
    """Return 1/std² of the prior, of the network's random coordinates, in float64.

    Raises:
        InvalidInput: where the prior is not independent normals.
    """
    where = problem.coordinates
    if where.normal is None:
        raise InvalidInput(
            f"A Laplace approximation needs a prior of independent normals; this problem has {problem.prior!r}. Use Normal(0, "
            "std), by name pattern if need be, with tune='layer' to fit its scales."
        )
    std: Tensor = where.normal[1][where.start - where.free :].double()
    return std.square().reciprocal()


def inverse_root(matrix: Tensor) -> Tensor:
    """Return the lower triangular L with L Lᵀ = matrix⁻¹: the Cholesky factor, taken from the last row upwards, inverted.

    Raises:
        InvalidInput: where the matrix is not positive definite.

    >>> inverse_root(torch.tensor([[4.0]]))
    tensor([[0.5000]])
    """
    lower, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1))
    if int(failed):
        raise InvalidInput("The curvature is not positive definite; narrow the prior, which is added to it.")
    upper = lower.flip(0, 1)
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, eye, upper=True)
    return inverse.T


def _part(block: Block, precision: Tensor, like: Tensor) -> Part:
    own = taken(precision, block.slices)
    if isinstance(block, KroneckerBlock):
        white, columns = block.whitened(own)
        std = (1 + torch.outer(white.left_values, white.right_values)).rsqrt()
        right = columns.rsqrt()[:, None] * white.right_basis
        left = std.new_zeros(0) if white.left_basis is None else white.left_basis
        slices = torch.tensor(block.slices, device=like.device)
        return Part(slices, *(t.to(like).contiguous() for t in (std, left, right)))
    if isinstance(block.curvature, DiagonalCurvature):
        return _column(block.slices, (block.curvature.values + own).rsqrt(), like)
    root = inverse_root(block.curvature.matrix + own.diag())
    return _column(block.slices, torch.ones_like(own), like, root)


def _column(slices: tuple[tuple[int, int], ...], std: Tensor, like: Tensor, left: Tensor | None = None) -> Part:
    """Make a part of one column: independent coordinates, or those that `left` correlates."""
    empty = like.new_zeros(0)
    left = empty if left is None else left.to(like).contiguous()
    return Part(torch.tensor(slices, device=like.device), std.to(like)[:, None], left, empty)


def _latent_precision(problem: Problem, theta: Tensor) -> Tensor:
    """Return −∂² log p of each latent, (L,), float64; its sign may be any."""
    where = problem.coordinates
    tail = theta[where.network :].double()
    if not len(tail):
        return tail
    layout = Layout.of({n: where.params[n] for n in where.latents})

    def log_prob(values: Tensor) -> Tensor:
        return where.log_prob_of_latents(layout.views(values))

    hessian: Tensor = torch.func.hessian(log_prob)(tail)
    return -hessian.diagonal()
