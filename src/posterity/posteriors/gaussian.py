"""Independent normals over θ: the mean-field posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior


@dataclass(frozen=True, eq=False)
class DiagonalGaussian(FunctionPosterior):
    """q(θ) = N(loc, diag(std²)): loc (P,), and std of the random coordinates, which come last; the others are points."""

    loc: Tensor
    std: Tensor
    kind: ClassVar[str] = "diagonal_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        draw = self.loc.clone()
        draw[len(draw) - len(self.std) :].addcmul_(self.std, noise_like(self.std, generator))
        return draw

    @property
    def mean(self) -> Tensor:
        return self.loc

    def signal_to_noise(self) -> Tensor:
        """|μ|/σ of each of the network's random weights: how far it is from being prunable (Blundell et al. 2015, §5)."""
        start, end = self.problem.coordinates.start, self.problem.coordinates.network
        return self.loc[start:end].abs() / self.std[: end - start]

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "std": self.std}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["loc"], tensors["std"])
