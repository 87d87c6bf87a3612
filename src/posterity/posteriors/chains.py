"""Draws of several Markov chains, with what tells whether the chains have found the same posterior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from posterity.core import diagnostics
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.base import split
from posterity.posteriors.diagnosis import Convergence, Diagnosis
from posterity.posteriors.samples import Samples


@dataclass(frozen=True, eq=False)
class Chains(Samples):
    """C chains of S draws each: `thetas` (C·S, P), one chain after the other; n draws are spread over chains and draws.

    Args:
        energies: H of each draw, (C, S), in nats.
        divergent: whether the transition to each draw diverged, (C, S), 1 or 0.
    """

    energies: Tensor
    divergent: Tensor
    kind: ClassVar[str] = "chains"

    @property
    def by_chain(self) -> Tensor:
        """θ, (C, S, P)."""
        return self.thetas.reshape(*self.energies.shape, -1)

    @torch.no_grad()
    def diagnose(self, inputs: Tensor | None = None) -> Diagnosis:
        """Tell whether the chains have converged: R-hat, effective sample sizes, divergences, E-BFMI; `print` it.

        Args:
            inputs: probes (B, ...) at which all C·S functions are evaluated and diagnosed, too: a few dozen that matter.

        Raises:
            InvalidInput: for fewer than 4 draws per chain, and inputs that do not fit the network.
        """
        chains, count = self.energies.shape
        where, own = self.problem.coordinates, self.by_chain
        latents = own[..., where.network :]
        return Diagnosis(
            chains=chains,
            draws=count,
            weights=Convergence.of(own[..., : where.network]),
            latents=Convergence.of(latents) if latents.shape[-1] else None,
            functions=None if inputs is None else Convergence.of(self._functions(inputs)),
            divergences=int(self.divergent.sum()),
            e_bfmi=float(diagnostics.e_bfmi(self.energies).min()),
        )

    def tensors(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas, "energies": self.energies, "divergent": self.divergent}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["thetas"], tensors["energies"], tensors["divergent"])

    def _functions(self, inputs: Tensor) -> Tensor:
        """Evaluate every draw, (C, S, B, *out)."""
        check_inputs(inputs)
        batches = split(self.problem, inputs.to(self.thetas.device), None)
        outputs = torch.stack([self._evaluate(theta, batches)[0] for theta in self.thetas])
        return outputs.reshape(*self.energies.shape, *outputs.shape[1:])
