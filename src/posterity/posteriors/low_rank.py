"""A Gaussian over θ with a few directions of correlation: what low-rank variational inference and SWAG return."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.informative import Informative
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.descent import Descent
from posterity.posteriors.gaussian import informative
from posterity.posteriors.latents import natural
from posterity.posteriors.stated import Held, Stated, length, outside, random, sized, whole


@dataclass(frozen=True, eq=False, repr=False)
class LowRankGaussian(FunctionPosterior):
    """q(θ) = N(loc, diag(std²) + factor·factorᵀ), drawn as loc + std·ε + factor·z.

    Args:
        loc: (P,).
        std: of the random coordinates' independent part, (R,); they come last in θ, the others are points.
        factor: (R, K).
    """

    loc: Tensor
    std: Tensor
    factor: Tensor
    kind: ClassVar[str] = "low_rank_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        draw, start = self.loc.clone(), len(self.loc) - len(self.std)
        draw[start:].addcmul_(self.std, noise_like(self.std, generator))
        draw[start:].addmv_(self.factor, noise_like(self.factor[0], generator))
        return draw

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        count = len(self.loc) - self.problem.coordinates.network
        if not count:
            return {}
        mean, factor = self.loc[-count:].expand(n, -1), self.factor[-count:]
        independent = self.std[-count:] * noise_like(mean.contiguous(), generator)
        common = noise_like(factor[:1].expand(n, -1), generator) @ factor.T
        return natural(self.problem.coordinates, mean + independent + common)

    def descended(self, temperature: float) -> Self:
        return replace(self, descent=Descent(temperature))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def marginal_std(self) -> Tensor:
        """Standard deviation of each random coordinate by itself, (R,)."""
        return (self.std.square() + self.factor.square().sum(1)).sqrt()

    def as_prior(self) -> Informative:
        """Make this posterior of the network's random weights the prior of what comes next; see `DiagonalGaussian`."""
        return informative(self.problem, self.loc, self.std, self.factor)

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "std": self.std, "factor": self.factor}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        count = random(problem, held)
        factor = sized(problem, count, length(held, "factor", 1))
        return {"loc": sized(problem, whole(problem)), "std": sized(problem, count), "factor": factor}

    def flaw(self) -> str | None:
        return super().flaw() or outside("std", self.std)

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["loc"], tensors["std"], tensors["factor"])
