"""What a step is worth in each coordinate, so that a learnt noise level can go where it must, and the weights go with it.

A noise level moves by factors: from a start near the targets' std to a hundredth of it are five units of ρ, where weights may
have to move by one. And as it comes down the curvature in the weights grows as 1/std², until a step that was right for the
start is stable no more, and heats the chain until the noise level is that of its own errors.
"""

import torch
from torch import Tensor

from posterity.core.optimizer import Optimizer
from posterity.model.coordinates import Coordinates
from posterity.model.problem import Problem
from posterity.types import LIKELIHOOD

LEAST_RATE = 0.01  # of a likelihood's own coordinates, where an optimiser's steps are as long as its rate,
TIMES = 10.0  # but no more than so many times that: who asks for a rate that moves nothing gets it


def units(where: Coordinates, vector: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the units of a vector of coordinates for `Optimizer.bind`: those of the prior's form, and of the latents.

    Coordinates of the likelihood take steps of a rate of 0.01 at least, or of ten times the optimiser's where that is less.
    SGD's steps go with the gradient, which is near 1 wherever a noise level is wrong: it has no other unit.
    """
    found = where.units(vector)
    latents = [n for n in where.latents if n.startswith(LIKELIHOOD)]
    if not latents or optimizer.name == "SGD" or optimizer.lr >= LEAST_RATE:
        return found
    unit = found.get(vector, torch.ones_like(where.theta()))
    for name, part in where.layout.views(unit).items():
        if name in latents:
            part.mul_(max(optimizer.lr / LEAST_RATE, 1 / TIMES))
    return {vector: unit}


@torch.no_grad()
def scale(problem: Problem, theta: Tensor) -> Tensor | None:
    """Return what weights are measured in for steps by the gradient, (): the learnt size of an error, 1 at most.

    With w = s · z the curvature in z is that of squared errors, whatever s is. A sampler may change s from step to step
    where it is a function of the noise level alone: with G = s² for the weights and 1 for the noise level, Γ_i =
    Σ_j ∂G_ij/∂θ_j is zero, and so it is for the pair of weights and velocities (Ma et al. 2015). Above 1 the prior's
    curvature would grow in its place. None where the likelihood learns no such size.
    """
    latents = problem.latents(problem.layout.views(theta))
    found = problem.likelihood.error_size(latents) if latents else None
    return None if found is None else found.clamp(max=1.0)


def unit_of(problem: Problem, theta: Tensor, unit: Tensor | None) -> Tensor | None:
    """Return the units of all coordinates at θ, (P,), from those of the prior's form; None where all are 1."""
    size = scale(problem, theta)
    if size is None:
        return unit
    found = torch.ones_like(theta) if unit is None else unit.clone()
    found[: problem.coordinates.network].div_(size)
    return found
