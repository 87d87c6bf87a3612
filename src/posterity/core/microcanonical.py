"""Microcanonical Langevin dynamics of K chains side by side (Robnik, De Luca, Silverstein & Seljak 2023, MCLMC).

dθ = D u dt,      du = (I − uuᵀ) (D ∇log π(θ) dt/(P − 1) + η dW),      |u| = 1

θ is a position in R^P, u the direction of its motion, of unit speed, D a diagonal of scales, and η makes u forget itself
after a length ℓ. The dynamics keep the density π(θ) exactly, whatever the speed of u, and have no temperature to lose. Steps of
a length ε keep it up to O(ε²). How wrong they are shows in the energy E = (P − 1) log|p| − log π(θ), which exact dynamics
conserve: the variance of its change in a step, per dimension, goes with the bias of what is averaged, and sets ε.

All tensors have a row for each chain: K small networks are one batched product, at much less than K times the price.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import log

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.core.lockstep import Densities

RUNAWAY = 1000.0  # a change of energy, in nats, that no healthy step has
MEMORY, SPREAD = 150, 1.5  # steps that the step size is averaged over; of log errors that are believed, a sixth
BACK_OFF = 0.8  # of the step size, after a step that was taken back
LEAST = 1e-8


@dataclass(frozen=True, eq=False)
class Moving:
    """Where K chains are and where they head: θ and u (K, P), log π (K,) in nats, ∇log π (K, P)."""

    theta: Tensor
    direction: Tensor
    log_density: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Moving":
        """Take the four from a state."""
        return cls(*(tensors[field.name].clone() for field in fields(cls)))

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the four into a state."""
        for field in fields(self):
            tensors[field.name].copy_(getattr(self, field.name))


def begin(densities: Densities, theta: Tensor, generators: Sequence[Generator]) -> Moving:
    """Give positions (K, P) a direction each, drawn uniformly."""
    log_density, gradient = densities(theta)
    return Moving(theta, _unit(_noise(theta, generators)), log_density, gradient)


def advance(
    densities: Densities, here: Moving, step: Tensor, length: Tensor, scale: Tensor, generators: Sequence[Generator]
) -> tuple[Moving, Tensor, Tensor]:
    """Make one step: half of the forces, the whole way, half of the forces, and a turn by chance.

    Args:
        densities: log π and its gradient, of all chains at once.
        here: where the chains are.
        step: ε (K,), in units of length of θ/D.
        length: ℓ (K,), after which a direction is forgotten.
        scale: the diagonal of D (K, P).
        generators: one for each chain.

    Returns:
        where they are then; the change of energy (K,), in nats; and which chains (K,) would have run away: these stand
        where they stood and have turned round.

    >>> def normal(theta):
    ...     return -0.5 * theta.square().sum(1), -theta
    >>> g = [torch.Generator().manual_seed(0)]
    >>> here = begin(normal, torch.ones(1, 3), g)
    >>> there, change, stood = advance(normal, here, torch.tensor([0.1]), torch.tensor([1.7]), torch.ones(1, 3), g)
    >>> bool(change.abs() < 0.01), bool(stood)
    (True, False)
    """
    size = here.theta.shape[1]
    ways, half = step[:, None], step[:, None] / 2
    turn = (torch.expm1(2 * ways / length[:, None]) / size).sqrt()
    direction = _unit(here.direction + turn * _noise(here.theta, generators))
    direction, gained = _kicked(direction, here.gradient * scale, half)
    theta = here.theta + ways * scale * direction
    log_density, gradient = densities(theta)
    direction, more = _kicked(direction, gradient * scale, half)
    change = gained + more - (log_density - here.log_density)
    stood = ~(change.abs() < RUNAWAY)  # what is no number, too
    back = stood[:, None]
    there = Moving(
        torch.where(back, here.theta, theta),
        torch.where(back, -here.direction, direction),
        torch.where(stood, here.log_density, log_density),
        torch.where(back, here.gradient, gradient),
    )
    return there, change, stood


class StepLengths:
    """ε of each chain, such that the change of energy has the variance v P: it goes with the sixth power of ε.

    ε ← (Σ w / Σ w ξ ε⁻⁶)^(1/6),      ξ = (ΔE)²/(v P),      w = exp(−(log ξ/6)²/(2 · 1.5²))

    The sums forget at the rate of 1/150; w disregards steps whose error is far from what is asked. After a step that
    was taken back, ε is at most 0.8 times what it was. (Robnik et al. 2023, §4; Cabezas et al. 2024.)

    Args:
        memory: (4, K) in float64: ε, Σ w ξ ε⁻⁶, Σ w, and the largest ε that is allowed; updated in place.
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory

    @staticmethod
    def begun(step: Tensor) -> Tensor:
        """Return a memory that starts with these ε (K,)."""
        nothing, unbounded = torch.zeros_like(step), torch.full_like(step, torch.inf)
        return torch.stack([step, nothing, nothing, unbounded]).double()

    def restart(self, step: Tensor) -> None:
        self._memory.copy_(self.begun(step))

    @property
    def steps(self) -> Tensor:
        return self._memory[0]

    def learn(self, change: Tensor, stood: Tensor, variance: float, size: int) -> None:
        """Take the changes of energy (K,) of a step; `variance` is v, `size` P."""
        step, errors, weights, most = self._memory
        error = change.double().square() / (variance * size) + LEAST
        weight = torch.where(stood, 0.0, torch.exp(-0.5 * (error.log() / (6 * SPREAD)).square()))
        most = torch.where(stood, torch.minimum(most, BACK_OFF * step), most)
        keep = (MEMORY - 1) / (MEMORY + 1)
        errors = keep * errors + torch.where(stood, 0.0, weight * error / step.pow(6))
        weights = keep * weights + weight
        found = torch.where(errors > 0, (weights / errors).pow(1 / 6), step)
        self._memory.copy_(torch.stack([torch.minimum(found, most), errors, weights, most]))


def _kicked(direction: Tensor, force: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Turn directions towards a force for a while, which is exact where the force is constant; return the energy gained.

    u ← (u + e (sinh δ + (u·e)(cosh δ − 1)))/(cosh δ + (u·e) sinh δ),      δ = ε |F|/(P − 1),      e = F/|F|
    """
    others = max(direction.shape[1] - 1, 1)
    strength = force.norm(dim=1, keepdim=True)
    unit = force / strength.clamp_min(torch.finfo(force.dtype).tiny)
    delta, along = step * strength / others, (direction * unit).sum(1, keepdim=True)
    fall = torch.exp(-delta)  # all of it times e^(−δ), which cannot overflow
    turned = direction * (2 * fall) + unit * ((1 - fall) * (1 + fall + along * (1 - fall)))
    grown = delta - log(2) + (1 + along + (1 - along) * fall.square()).clamp_min(torch.finfo(force.dtype).tiny).log()
    # Dead against a force of such strength that nothing is left to turn, a direction stays.
    turned = torch.where(turned.abs().amax(1, keepdim=True) > 0, turned, direction)
    return _unit(turned), (others * grown)[:, 0]


def _noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    return torch.stack([noise_like(row, generator) for row, generator in zip(like, generators, strict=True)])


def _unit(vectors: Tensor) -> Tensor:
    found: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return found
