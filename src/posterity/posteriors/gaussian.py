"""Independent normals over θ: the mean-field posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior


@dataclass(frozen=True, eq=False)
class DiagonalGaussian(FunctionPosterior):
    """q(θ) = N(loc, diag(std²)), both (P,)."""

    loc: Tensor
    std: Tensor
    kind: ClassVar[str] = "diagonal_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.addcmul(self.loc, self.std, noise_like(self.std, generator))

    @property
    def mean(self) -> Tensor:
        return self.loc

    def signal_to_noise(self) -> Tensor:
        """|μ|/σ of each of the network's weights: how far each is from being prunable (Blundell et al. 2015, §5)."""
        n = self.problem.network_size
        return self.loc[:n].abs() / self.std[:n]

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "std": self.std}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["loc"], tensors["std"])
