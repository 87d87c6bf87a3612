"""A Gaussian over θ with all correlations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.informative import Informative
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.descent import Descent
from posterity.posteriors.gaussian import informative
from posterity.posteriors.latents import natural
from posterity.posteriors.stated import Held, Stated, outside, random, sized, whole


@dataclass(frozen=True, eq=False, repr=False)
class FullRankGaussian(FunctionPosterior):
    """q(θ) = N(loc, L Lᵀ), drawn as loc + L ε.

    Args:
        loc: (P,).
        cholesky: L, lower triangular with a positive diagonal, (R, R), of the random coordinates, which come last in θ; the
            others are points.
    """

    loc: Tensor
    cholesky: Tensor
    kind: ClassVar[str] = "full_rank_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        draw, start = self.loc.clone(), len(self.loc) - len(self.cholesky)
        draw[start:].addmv_(self.cholesky, noise_like(self.loc[start:], generator))
        return draw

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        count = len(self.loc) - self.problem.coordinates.network
        if not count:
            return {}
        rows = self.cholesky[-count:]
        noise = noise_like(rows[:1].expand(n, -1), generator)
        return natural(self.problem.coordinates, self.loc[-count:] + noise @ rows.T)

    def descended(self, temperature: float) -> Self:
        return replace(self, descent=Descent(temperature))

    @property
    def mean(self) -> Tensor:
        return self.loc

    def spread(self, rows: Tensor) -> Tensor:
        """Return J L, with Σ = L Lᵀ, for rows J (..., R) over the random coordinates: the std of J θ is its norm."""
        return rows @ self.cholesky

    @property
    def covariance(self) -> Tensor:
        """Covariance of the random coordinates, (R, R)."""
        return self.cholesky @ self.cholesky.T

    @property
    def marginal_std(self) -> Tensor:
        """Standard deviation of each random coordinate by itself, (R,)."""
        return self.cholesky.square().sum(1).sqrt()

    def as_prior(self) -> Informative:
        """Make this posterior of the network's random weights the prior of what comes next; see `DiagonalGaussian`.

        Its covariance is split exactly, Σ = λ/2 + (Σ − λ/2) with Σ's smallest eigenvalue λ: the first is the prior's std, the
        second its factor.
        """
        eigen, basis = torch.linalg.eigh(self.covariance)
        floor = 0.5 * eigen[0].clamp_min(torch.finfo(eigen.dtype).eps * eigen[-1])
        factor = basis * (eigen - floor).clamp_min(0).sqrt()
        return informative(self.problem, self.loc, floor.sqrt().expand(len(eigen)), factor)

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "cholesky": self.cholesky}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        count = random(problem, held, "cholesky")
        return {"loc": sized(problem, whole(problem)), "cholesky": sized(problem, count, count)}

    def flaw(self) -> str | None:
        above = "'cholesky' is not lower triangular" if self.cholesky.triu(1).any() else None
        return super().flaw() or above or outside("cholesky", self.cholesky.diagonal())

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["loc"], tensors["cholesky"])
