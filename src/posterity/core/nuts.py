"""One transition of the No-U-Turn sampler: a trajectory that grows by doubling until it would turn back.

Each doubling goes forwards or backwards in time with equal chance and adds as many points as there are. It ends where the
trajectory turns, M⁻¹p · Σp ≤ 0 at one of its ends, with Σp the sum of the momenta between them; where the energy is wrong
by more than 1000 nats (a divergence); or at `max_depth`. Of the points one is taken, with probability ∝ e^(−H).

Hoffman & Gelman 2014; multinomial instead of slice sampling and the criterion for any metric: Betancourt 2017, A.3–A.4; the
two further checks, between each half and the neighbouring point of the other, are those of Stan since 2.20: without them a
trajectory of one whole period, of a normal say, is not seen to turn.
"""

from dataclasses import dataclass
from math import exp, inf, log

from torch import Generator, Tensor

from posterity.core.hamiltonian import DIVERGENCE, Point, Position, System, Transition, acceptance, uniform


@dataclass(frozen=True, eq=False)
class _Tree:
    """Consecutive points of a trajectory: its ends in the order of time, and sums over the points."""

    first: Point
    last: Point
    momentum: Tensor  # Σ p, (P,)
    proposal: Point
    log_weight: float  # log Σ e^(H₀ − H)
    acceptance: float  # Σ min(1, e^(H₀ − H)) over the points that a step was made to
    steps: int
    turning: bool = False
    diverged: bool = False

    @property
    def stopped(self) -> bool:
        return self.turning or self.diverged


def nuts(
    system: System, start: Position, step_size: float, max_depth: int, generator: Generator | None = None
) -> Transition:
    """Make one NUTS transition; it leaves exp(log_density) invariant.

    Args:
        system: log-density and metric.
        start: where the chain is.
        step_size: ε of the leapfrog steps, in units of time.
        max_depth: doublings at most: 2^max_depth − 1 leapfrog steps.
        generator: source of momentum, directions and choices; torch's global one where None.

    >>> import torch
    >>> from posterity.core.hamiltonian import Metric
    >>> system = System(lambda t: -0.5 * t.square().sum(), Metric(torch.ones(2)))
    >>> moved = nuts(system, system.position(torch.zeros(2)), 0.5, 10, torch.Generator().manual_seed(0))
    >>> moved.steps in (3, 7), moved.diverged
    (True, False)
    """
    point = system.kicked(start, generator)
    growth = _Growth(system, step_size, point.energy, generator)
    tree, depth = _Tree(point, point, point.momentum, point, 0.0, 0.0, 0), 0
    while depth < max_depth and not tree.stopped:
        forwards = uniform(point.momentum, generator) < 0.5
        tree = growth.joined(tree, growth.grow(tree, depth, forwards), forwards, biased=True)
        depth += 1
    return Transition(tree.proposal, tree.acceptance / max(1, tree.steps), tree.steps, tree.diverged)


@dataclass(frozen=True, eq=False)
class _Growth:
    """What all parts of one trajectory share."""

    system: System
    step_size: float
    energy: float  # H₀
    generator: Generator | None

    def grow(self, start: _Tree, depth: int, forwards: bool) -> _Tree:
        """Build 2^depth points beyond one end of a tree, fewer where they stop."""
        if depth == 0:
            return self._step(start.last if forwards else start.first, forwards)
        inner = self.grow(start, depth - 1, forwards)
        if inner.stopped:
            return inner
        return self.joined(inner, self.grow(inner, depth - 1, forwards), forwards, biased=False)

    def joined(self, inner: _Tree, outer: _Tree, forwards: bool, biased: bool) -> _Tree:
        """Join a tree with the one that was grown from it, and choose between their proposals.

        Within a doubling the outer one is taken with its share of the weight; between the old trajectory and a doubling
        with probability min(1, outer/inner), which moves further and keeps the law (Betancourt 2017, A.3.2). A doubling
        that stopped gives no proposal.
        """
        total = _log_add(inner.log_weight, outer.log_weight)
        ratio = outer.log_weight - (inner.log_weight if biased else total)
        take = not outer.stopped and uniform(inner.momentum, self.generator) < exp(min(0.0, ratio))
        left, right = (inner, outer) if forwards else (outer, inner)
        return _Tree(
            first=left.first,
            last=right.last,
            momentum=inner.momentum + outer.momentum,
            proposal=outer.proposal if take else inner.proposal,
            log_weight=total,
            acceptance=inner.acceptance + outer.acceptance,
            steps=inner.steps + outer.steps,
            turning=outer.turning or (not outer.diverged and _turns(left, right)),
            diverged=outer.diverged,
        )

    def _step(self, point: Point, forwards: bool) -> _Tree:
        new = self.system.leapfrog(point, self.step_size if forwards else -self.step_size)
        return _Tree(
            first=new,
            last=new,
            momentum=new.momentum,
            proposal=new,
            log_weight=self.energy - new.energy,
            acceptance=acceptance(self.energy, new.energy),
            steps=1,
            diverged=new.energy - self.energy > DIVERGENCE,
        )


def _turns(left: _Tree, right: _Tree) -> bool:
    """Tell whether two neighbouring trees turn: as a whole, or one of them with the other's nearest point."""
    if _turned(left.first, right.last, left.momentum + right.momentum):
        return True
    if left.first is left.last and right.first is right.last:
        return False  # of two points all three checks are one
    return _turned(left.first, right.first, left.momentum + right.first.momentum) or _turned(
        left.last, right.last, left.last.momentum + right.momentum
    )


def _turned(first: Point, last: Point, momentum: Tensor) -> bool:
    return float(first.velocity @ momentum) <= 0 or float(last.velocity @ momentum) <= 0


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -inf else high + log(1 + exp(low - high))
