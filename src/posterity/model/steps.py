"""What a step is worth in each coordinate, so that a learnt noise level can go where it must, and the weights go with it.

A noise level moves by factors: from a start near the targets' std to a hundredth of it are five units of ρ, where weights may
have to move by one. And as it comes down the curvature in the weights grows as 1/std², until a step that was right for the
start is stable no more, and heats the chain until the noise level is that of its own errors.
"""

from dataclasses import replace

import torch
from torch import Tensor

from posterity.core.optimizer import Optimizer
from posterity.core.schedules import learning_rates
from posterity.model.coordinates import Coordinates
from posterity.model.problem import Problem
from posterity.types import LIKELIHOOD

LEAST_RATE = 0.05  # of a likelihood's own coordinates, where an optimiser's steps are as long as its rate,
SCALE_RATE = 0.01  # of those of a prior, whose step may move all weights of a tensor,
TIMES = 50.0  # but no more than so many times that: who asks for a rate that moves nothing gets it
STEPS = 3000.0  # at its full rate, that an optimiser's least rate is made for; fewer steps take more,
WIDTH = 0.3  # up to this over the most inputs of a unit, as Adam's stable rate falls with the width


def paced(optimizer: Optimizer, problem: Problem, steps: int) -> Optimizer:
    """Return an optimiser whose rate was left open with the one for this network and so many steps.

    lr = max(least, min(least · 3000 / Σ_t schedule(t), 0.3 / n)), n the most inputs that a unit has. A rate of 0.001 is made
    for networks some hundred units wide, whose weights are small and where Adam's stable rate falls as 1/n (Yang et al.
    2021); in a thousand steps it cannot carry the weight of a line to 2.
    """
    rate = optimizer.rate
    if optimizer.lr is None and optimizer.normalised:
        schedule = "constant" if optimizer.schedule == "plateau" else optimizer.schedule
        inputs = max((shape[1:].numel() for shape in problem.layout.shapes if len(shape) > 1), default=1)
        share = STEPS / sum(learning_rates(schedule, 1.0, steps))
        rate = max(rate, min(rate * share, WIDTH / inputs))
    return replace(optimizer, lr=rate)


def units(where: Coordinates, vector: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the units of a vector of coordinates for `Optimizer.bind`: those of the prior's form, and of the latents.

    Coordinates of the likelihood take steps of a rate of 0.05 at least, scales of the prior of 0.01, or of fifty times the
    optimiser's where that is less. SGD's steps go with the gradient, which is near 1 wherever a noise level is wrong: it has
    no other unit.
    """
    found = where.units(vector)
    least = {n: LEAST_RATE if n.startswith(LIKELIHOOD) else SCALE_RATE for n in where.latents}
    slow = {n: max(optimizer.rate / rate, 1 / TIMES) for n, rate in least.items() if optimizer.rate < rate}
    if not slow or optimizer.name == "SGD":
        return found
    unit = found.get(vector, torch.ones_like(where.theta()))
    for name, part in where.layout.views(unit).items():
        part.mul_(slow.get(name, 1.0))
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
