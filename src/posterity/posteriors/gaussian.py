"""Independent normals over θ: the mean-field posterior."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.core.layout import Layout
from posterity.errors import InvalidInput
from posterity.model.informative import Informative
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.descent import Descent
from posterity.posteriors.latents import natural
from posterity.posteriors.stated import Held, Stated, outside, random, sized, whole


@dataclass(frozen=True, eq=False, repr=False)
class DiagonalGaussian(FunctionPosterior):
    """q(θ) = N(loc, diag(std²)): loc (P,), and std of the random coordinates, which come last; the others are points."""

    loc: Tensor
    std: Tensor
    kind: ClassVar[str] = "diagonal_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        start = len(self.loc) - len(self.std)
        drawn = torch.addcmul(self.loc[start:], self.std, noise_like(self.std, generator))
        return torch.cat([self.loc[:start], drawn]) if start else drawn

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        count = len(self.loc) - self.problem.coordinates.network
        if not count:
            return {}
        mean, std = self.loc[-count:].expand(n, -1), self.std[-count:]
        return natural(self.problem.coordinates, torch.addcmul(mean, std, noise_like(mean.contiguous(), generator)))

    def as_prior(self) -> Informative:
        """Make this posterior of the network's random weights the prior of what comes next (Kirkpatrick et al. 2017).

        For sequential data, p(θ | D₁, D₂) ∝ p(D₂ | θ) p(θ | D₁), and for transfer. It speaks of the weights that are random
        here: select the same ones, or fewer, in the next problem, by the same `where`.
        """
        return informative(self.problem, self.loc, self.std)

    def descended(self, temperature: float) -> Self:
        return replace(self, descent=Descent(temperature))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def marginal_std(self) -> Tensor:
        return self.std

    def spread(self, rows: Tensor) -> Tensor:
        """Return J L, with Σ = L Lᵀ, for rows J (..., R) over the random coordinates: the std of J θ is its norm."""
        return rows * self.std

    def signal_to_noise(self) -> Tensor:
        """|μ|/σ of each of the network's random weights: how far it is from being prunable (Blundell et al. 2015, §5).

        0 for one that is exactly 0 in every draw.
        """
        start, end = self.problem.coordinates.start, self.problem.coordinates.network
        mean, std = self.loc[start:end].abs(), self.std[: end - start]
        return torch.where((mean == 0) & (std == 0), 0, mean / std)

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "std": self.std}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        return {"loc": sized(problem, whole(problem)), "std": sized(problem, random(problem, held))}

    def flaw(self) -> str | None:
        return super().flaw() or outside("std", self.std)

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["loc"], tensors["std"])


def informative(problem: Problem, loc: Tensor, std: Tensor, factor: Tensor | None = None) -> Informative:
    """Make N(loc, diag(std²) + factor·factorᵀ) of the random coordinates, restricted to the network's weights, a prior.

    Raises:
        InvalidInput: under a non-centred prior, where the weights are no Gaussian.
    """
    where = problem.coordinates
    if where.noncentred:
        raise InvalidInput("A posterior under a non-centred prior has no Gaussian over its weights; use centered=True.")
    parts = where.random_layout
    count = where.network - where.start
    own = None if factor is None else factor[:count].clone()
    layout = Layout(parts.names, parts.part_shapes)
    return Informative(loc[where.start : where.network].clone(), std[:count].clone(), layout, own)
