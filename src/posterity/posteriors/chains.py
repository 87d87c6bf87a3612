"""Draws of several Markov chains, with what tells whether the chains have found the same posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from posterity.model.problem import Problem
from posterity.posteriors.samples import Samples
from posterity.posteriors.stated import Held, Stated, length, not_finite, outside, sized, whole


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
    def stated(cls, problem: Problem, held: Held) -> Stated:
        chains, draws = length(held, "energies"), length(held, "energies", 1)
        energies = held["energies"][0] if "energies" in held else torch.float64
        divergent = held["divergent"][0] if "divergent" in held else torch.int64
        return {
            "thetas": sized(problem, chains * draws, whole(problem)),
            "energies": (energies if energies.is_floating_point else torch.float64, (chains, draws)),
            "divergent": (torch.int64 if divergent.is_complex else divergent, (chains, draws)),
        }

    def flaw(self) -> str | None:
        return not_finite({"thetas": self.thetas}) or outside("divergent", self.divergent, most=1.0)

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["thetas"], tensors["energies"], tensors["divergent"])
