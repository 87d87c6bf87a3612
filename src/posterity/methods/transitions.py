"""What the energies of Hamiltonian chains tell: they do not depend on which of its equal modes a chain is in."""

from math import isnan

from torch import Tensor

from posterity.core import diagnostics
from posterity.methods.arrival import Remark

DIVERGENT = 0.01  # of the transitions
LOW_BFMI, DISAGREEING = 0.3, 1.1
FEW = 50  # draws of a chain, below which R-hat and E-BFMI are noise


def hamiltonian_remarks(energies: Tensor, divergent: Tensor) -> list[Remark]:
    """Say where the transitions of C chains, both (C, S), tell that they have not explored the posterior.

    >>> import torch
    >>> hamiltonian_remarks(torch.randn(2, 100, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 100))
    []
    """
    found, share = [], float(divergent.double().mean())
    if share > DIVERGENT:
        found.append(
            Remark(
                "divergences",
                f"{100 * share:.0f} % of the transitions diverged: the step size is too large for parts of the posterior. "
                "Raise target_accept (0.95), or use a non-centred prior.",
            )
        )
    if energies.shape[1] < FEW:
        return found
    rhat, bfmi = float(diagnostics.rhat(energies)), float(diagnostics.e_bfmi(energies).min())
    if isnan(rhat) or rhat > DISAGREEING:
        found.append(
            Remark(
                "energy",
                f"The chains' energies disagree (R-hat {rhat:.2f}, 1 where they agree): they have not settled. Warm up longer "
                "(warmup=1000), or take more draws.",
            )
        )
    if bfmi < LOW_BFMI:
        found.append(
            Remark(
                "bfmi",
                f"E-BFMI {bfmi:.2f} is low: the tails are hardly reached. Take more draws, or a prior with lighter tails.",
            )
        )
    return found
