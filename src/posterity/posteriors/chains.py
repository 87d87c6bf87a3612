"""Draws of several Markov chains, with what tells whether the chains have found the same posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from posterity.model.problem import Problem
from posterity.posteriors.samples import Samples


@dataclass(frozen=True, eq=False, repr=False)
class Chains(Samples):
    """C chains of S draws each: `thetas` (C·S, P), one chain after the other; n draws are spread over chains and draws.

    Args:
        energies: H of each draw, (C, S), in nats.
        divergent: whether the transition to each draw diverged, (C, S), 1 or 0.
    """

    energies: Tensor
    divergent: Tensor
    kind: ClassVar[str] = "chains"
    shares_statistics: ClassVar[bool] = True

    @property
    def by_chain(self) -> Tensor:
        """θ, (C, S, P)."""
        return self.thetas.reshape(*self.energies.shape, -1)

    @property
    def size(self) -> int:
        return self.thetas.numel()

    def _inner(self) -> str:
        chains, draws = self.energies.shape
        return f"{chains} × {draws:,} draws, "

    def tensors(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas, "energies": self.energies, "divergent": self.divergent}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["thetas"], tensors["energies"], tensors["divergent"])
