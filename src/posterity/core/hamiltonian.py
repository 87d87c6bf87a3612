"""Hamiltonian dynamics on a log-density: points of phase space, kinetic energy, leapfrog steps, one HMC transition.

H(θ, p) = −log π(θ) + ½ pᵀ M⁻¹ p,      dθ/dt = M⁻¹ p,      dp/dt = ∇ log π(θ)

θ is the position, (P,); p ~ N(0, M) the momentum; M the mass matrix; H the energy, in nats. The flow keeps H and volume,
so that a proposal taken along it is nearly always accepted (Duane et al. 1987; Neal 2011). The leapfrog integrator is
reversible, keeps volume exactly, and is wrong in H by O(step²).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, isfinite, log

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.errors import Diverged, InvalidInput

LogDensity = Callable[[Tensor], Tensor]  # θ (P,) -> log π(θ), (), in nats up to a constant, differentiable
DIVERGENCE = 1000.0  # an energy error, in nats, that no healthy trajectory has (Betancourt 2017, §6.2)
STEPS_TRIED = 100  # doublings or halvings before a first step size is given up


@dataclass(frozen=True, eq=False)
class Metric:
    """The inverse mass matrix M⁻¹, best an estimate of the posterior's covariance: a diagonal (P,), or dense (P, P).

    >>> metric = Metric(torch.tensor([4.0, 0.25]))
    >>> metric.velocity(torch.tensor([1.0, 1.0])), metric.kinetic(torch.tensor([1.0, 2.0]))
    (tensor([4.0000, 0.2500]), 2.5)
    """

    inverse_mass: Tensor

    @cached_property
    def _root(self) -> Tensor:
        """R with R Rᵀ = M⁻¹: then p = R⁻ᵀ z has the covariance M."""
        return self.inverse_mass.sqrt() if self.inverse_mass.dim() == 1 else torch.linalg.cholesky(self.inverse_mass)

    def velocity(self, momentum: Tensor) -> Tensor:
        """Return M⁻¹ p, (P,)."""
        return self.inverse_mass * momentum if self.inverse_mass.dim() == 1 else self.inverse_mass @ momentum

    def kinetic(self, momentum: Tensor) -> float:
        """Return ½ pᵀ M⁻¹ p, in nats."""
        return 0.5 * float(momentum @ self.velocity(momentum))

    def momentum(self, generator: Generator | None) -> Tensor:
        """Draw p ~ N(0, M), (P,)."""
        noise = noise_like(self.inverse_mass[0] if self.inverse_mass.dim() == 2 else self.inverse_mass, generator)
        if self.inverse_mass.dim() == 1:
            return noise / self._root
        column: Tensor = torch.linalg.solve_triangular(self._root.T, noise[:, None], upper=True)
        return column[:, 0]


@dataclass(frozen=True, eq=False)
class Position:
    """θ, with log π(θ), in nats, and ∇ log π(θ), (P,)."""

    theta: Tensor
    log_density: float
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Point:
    """A point of phase space, with what was computed there: velocity M⁻¹ p and energy H (∞ where π is 0 or no number)."""

    position: Position
    momentum: Tensor
    velocity: Tensor
    energy: float


@dataclass(frozen=True, eq=False)
class Transition:
    """Where a transition ended.

    `acceptance` is the mean Metropolis acceptance probability along the trajectory, which adapts the step size; `steps` are
    leapfrog steps, each one gradient; `diverged`: the energy was wrong by more than 1000 nats.
    """

    point: Point
    acceptance: float
    steps: int
    diverged: bool


@dataclass(frozen=True, eq=False)
class System:
    """A log-density and a metric: all that the dynamics need."""

    log_density: LogDensity
    metric: Metric

    def position(self, theta: Tensor) -> Position:
        """Evaluate log π and its gradient at θ."""
        return differentiated(self.log_density, theta)

    def at(self, position: Position, momentum: Tensor) -> Point:
        """Give a position a momentum."""
        velocity = self.metric.velocity(momentum)
        return Point(position, momentum, velocity, energy(position.log_density, float(momentum @ velocity)))

    def kicked(self, position: Position, generator: Generator | None) -> Point:
        """Give a position a fresh momentum, p ~ N(0, M)."""
        return self.at(position, self.metric.momentum(generator))

    def leapfrog(self, point: Point, step_size: float) -> Point:
        """Make one leapfrog step; a negative step goes back in time.

        p ← p + ½ε ∇log π(θ),      θ ← θ + ε M⁻¹ p,      p ← p + ½ε ∇log π(θ)
        """
        half = point.momentum + 0.5 * step_size * point.position.gradient
        position = self.position(point.position.theta + step_size * self.metric.velocity(half))
        return self.at(position, half + 0.5 * step_size * position.gradient)


def differentiated(log_density: LogDensity, theta: Tensor) -> Position:
    """Evaluate log π and ∇ log π at θ; where they are no numbers, or θ is refused, log π = −∞ and the gradient is 0.

    >>> differentiated(lambda t: -0.5 * t.square().sum(), torch.tensor([1.0, -2.0])).gradient
    tensor([-1.,  2.])
    """
    leaf = theta.detach().requires_grad_()
    try:
        with torch.enable_grad():
            value = log_density(leaf)
            (gradient,) = torch.autograd.grad(value, [leaf])
    except Diverged:  # a distribution that refuses such parameters gives the data no density
        return Position(leaf.detach(), -inf, torch.zeros_like(leaf.detach()))
    here = float(value.detach())
    # A sum is not finite where any of its terms is not: one pass, and one number to wait for.
    if not (isfinite(here) and isfinite(float(gradient.sum()))):
        return Position(leaf.detach(), -inf, torch.zeros_like(gradient))
    return Position(leaf.detach(), here, gradient)


def energy(log_density: float, square: float) -> float:
    """Return H = ½ pᵀ M⁻¹ p − log π(θ) from log π(θ) and pᵀ M⁻¹ p; ∞ where it is no finite number.

    >>> energy(-1.0, 3.0), energy(-inf, 3.0)
    (2.5, inf)
    """
    total = 0.5 * square - log_density
    return total if isfinite(total) else inf


def acceptance(before: float, after: float) -> float:
    """Return Metropolis' probability min(1, e^(H − H′)) for the energies before and after.

    >>> acceptance(1.0, 0.5), round(acceptance(0.0, 1.0), 4), acceptance(0.0, inf)
    (1.0, 0.3679, 0.0)
    """
    return exp(min(0.0, before - after))


def hmc(system: System, start: Position, step_size: float, steps: int, generator: Generator | None) -> Transition:
    """Make one HMC transition: fresh momentum, `steps` leapfrog steps, accepted or not (Neal 2011, §5.3).

    Args:
        system: log-density and metric.
        start: where the chain is.
        step_size: ε of the leapfrog steps, in units of time.
        steps: L ≥ 1; a trajectory that diverges ends sooner, and is rejected.
        generator: source of momentum and acceptance; torch's global one where None.

    >>> system = System(lambda t: -0.5 * t.square().sum(), Metric(torch.ones(2)))
    >>> moved = hmc(system, system.position(torch.zeros(2)), 0.1, 10, torch.Generator().manual_seed(0))
    >>> moved.steps, moved.acceptance > 0.99
    (10, True)
    """
    first = point = system.kicked(start, generator)
    taken, diverged = 0, False
    while taken < steps and not diverged:
        point, taken = system.leapfrog(point, step_size), taken + 1
        diverged = point.energy - first.energy > DIVERGENCE
    probability = acceptance(first.energy, point.energy)
    accepted = uniform(first.momentum, generator) < probability
    return Transition(point if accepted else first, probability, taken, diverged)


def uniform(like: Tensor, generator: Generator | None) -> float:
    """Draw a number uniformly between 0 and 1, on the device of `like`."""
    return float(torch.rand((), generator=generator, device=like.device))


def first_step_size(system: System, start: Position, generator: Generator | None, step_size: float = 1.0) -> float:
    """Find a step size whose single leapfrog step is accepted with probability 0.8, within a factor of 2.

    It is doubled, or halved, until e^(H − H′) crosses 0.8 (Hoffman & Gelman 2014, algorithm 4, whose threshold is 0.5; each
    trial here has a momentum of its own).

    Raises:
        InvalidInput: where no step size crosses it: the density is flat, or has no finite gradient.
    """

    def accepted(step_size: float) -> bool:
        point = system.kicked(start, generator)
        return point.energy - system.leapfrog(point, step_size).energy > log(0.8)

    growing = accepted(step_size)
    for _ in range(STEPS_TRIED):
        following = step_size * (2.0 if growing else 0.5)
        if accepted(following) != growing:
            return following if not growing else step_size
        step_size = following
    raise InvalidInput(
        f"No step size works at the start: at {step_size:.1e} steps are still {'accepted' if growing else 'rejected'}. "
        "Give the parameters a proper prior, and start from weights at which the log joint is smooth."
    )
