"""Whether chains have settled: by the nll and the weights of stochastic ones, the energies of Hamiltonian ones, their latents.

Weights themselves are not asked: a network has many equal modes, and a chain may go from one to the other.
"""

from collections.abc import Sequence
from math import isfinite, isnan, log

import numpy as np
from torch import Tensor

from posterity.core import diagnostics
from posterity.methods.arrival import SHARE, Remark, counts, line
from posterity.types import LIKELIHOOD, Row

# |log| of the range of a latent's draws, beside what its own width explains: a scale of weights that matter little is free
SWING, NOISE_SWING = log(5.0), log(2.0)
GROWTH = 1.3  # of the weights' size over the part that is kept
DIVERGENT = 0.01  # of the transitions
LOW_BFMI, DISAGREEING = 0.3, 1.1
COARSE = 10.0  # times the variance of the energy's change that was asked
LOST, LOST_IN_ALL = 0.5, 30.0  # nats per datum, and of all data, above the chain in the middle
FEW = 50  # draws of a chain, below which R-hat and E-BFMI are noise


def chain_remarks(rows: Sequence[Row], kept: Sequence[bool], excess: float, cyclical: bool) -> list[Remark]:
    """Say that a chain ran away, or drifts in the part that is kept.

    Args:
        rows: of the whole run.
        kept: whether each epoch belongs to the part that draws are kept of.
        excess: what the equilibrium may have above the least nll, in nats per datum: about T P/(2 N).
        cyclical: whether the kept parts are of several cycles, which need not be alike.
    """
    values = [row["nll"] for row in rows]
    part = [v for v, k in zip(values, kept, strict=True) if k]
    if not part:
        return []
    mean, least = float(np.mean(part)), min(values)
    sizes = [row.get("watched", {}).get("weights", 0.0) for row, k in zip(rows, kept, strict=True) if k]
    grown = sizes[-1] / sizes[0] if sizes[0] > 0 and isfinite(sizes[-1]) else 1.0
    if mean > least + 0.5 + SHARE * abs(least) + 3 * excess:
        return [
            Remark(
                "step",
                f"The step is too large, or the chain ran away: the nll of the kept part is {_number(mean)} nats per "
                f"datum, where {_number(least)} had been reached. Use a smaller lr (a tenth), and "
                "check the scale of inputs and targets.",
            )
        ]
    if cyclical:
        return []
    return drifting(part, grown, "Run more epochs, or burn in longer.")


def drifting(part: Sequence[float], grown: float, cure: str) -> list[Remark]:
    """Say that the nll (of epochs that are kept, or of as long stretches) or the weights' size goes one way."""
    half = len(part) // 2
    if half < 3 or not np.isfinite(part).all():
        return []
    first, second, found = np.mean(part[:half]), np.mean(part[-half:]), line(part)
    # Halves of a line differ by half of its rise; epochs of a chain are alike, and say as much as a quarter of them.
    drifts = abs(found.change) / 2 > max(counts(float(second)), 3 * found.error)
    if not drifts and grown < GROWTH:
        return []
    said = f"its nll went from {first:.3g} to {second:.3g} nats per datum between its halves"
    if grown >= GROWTH:
        said += f", and the weights grew by a factor of {grown:.2g}"
    return [Remark("drift", f"The part of the chain that is kept still drifts: {said}. {cure}")]


def lost(levels: Tensor, num_data: float) -> list[int]:
    """Return which chains' draws explain far less of the data than those of most chains, by their nll per datum (K, S).

    Chains that do not meet weigh the same in a mixture, whatever the posterior has where they are. One that is ½ nat per datum,
    and 30 nats in all, above the chain in the middle, and out of line with the spread of the better half, is in no place
    that the posterior would be found in. Half of the chains are never lost.

    >>> import torch
    >>> lost(torch.tensor([[1.0, 1.1], [1.0, 1.2], [1.1, 1.1], [3.9, 3.8]]), 200.0)
    [3]
    """
    means = levels.double().mean(1)
    middle = means.median()  # the lower of two
    spread = middle - means.min()
    bound = middle + max(LOST, LOST_IN_ALL / num_data, 3 * float(spread))
    return [chain for chain, mean in enumerate(means.tolist()) if mean > bound]


def lost_remarks(levels: Tensor, chains: Sequence[int]) -> list[Remark]:
    """Say which chains are left out, and why."""
    if not chains:
        return []
    means = levels.double().mean(1)
    worst, middle = float(means[list(chains)].max()), float(means.median())
    who = f"chains {', '.join(str(c + 1) for c in chains)} are" if len(chains) > 1 else f"chain {chains[0] + 1} is"
    return [
        Remark(
            "lost",
            f"Of {len(means)} chains {who} left out: an nll of {worst:.3g} nats per datum where most have {middle:.3g}. "
            "Networks were trained to no good place there; a smaller lr of the optimizer, or more steps of training, may help.",
        )
    ]


def swinging(name: str, draws: Tensor, weights: int) -> list[Remark]:
    """Say that the draws of one positive latent differ by more than `weights` numbers leave open.

    A scale that n numbers share has a posterior of relative width 1/√(2n): ± 3 of these are no swing.
    """
    values = draws.double().reshape(len(draws), -1)
    if len(values) < 2 or not (values > 0).all():
        return []
    low, high = values.min(0).values, values.max(0).values
    ratios = (high / low).log()
    worst = int(ratios.argmax())
    swing = NOISE_SWING if name.startswith(LIKELIHOOD) else SWING
    if float(ratios[worst]) < swing + 6 / (2 * max(weights, 1)) ** 0.5:
        return []
    return [
        Remark(
            "swing:" + name.partition(".")[0],
            f"{name} swings from {low[worst]:.3g} to {high[worst]:.3g} between the posterior's draws, a factor of "
            f"{high[worst] / low[worst]:.2g}: it is not sampled but thrown about. Use a smaller learning rate, or fix it.",
        )
    ]


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


def energy_remarks(errors: Sequence[float], asked: float) -> list[Remark]:
    """Say that steps of fixed size err by far more energy than was asked of them, each number a variance per dimension."""
    if not errors or float(np.median(errors)) < COARSE * asked:
        return []
    return [
        Remark(
            "energy",
            f"The steps change the energy by a variance of {float(np.median(errors)):.2g} per dimension, and {asked:.2g} was "
            "asked: the chains are where steps of their size are too coarse, and the draws are biased. Warm up longer.",
        )
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
