"""NUTS by enumeration: the trajectory it grows, and the exact probabilities with which it leaves each point of an orbit.

Every random choice is asked of a script, so that a transition is a function of its choices, and all of them can be tried. The
points of an orbit (one trajectory of leapfrog steps, in both directions) are made once, and looked up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import exp

import pytest
import torch
from torch import Tensor

from posterity.core import nuts as module
from posterity.core.hamiltonian import Metric, Point, System
from posterity.core.nuts import nuts

F64 = {"dtype": torch.float64}
LogDensity = Callable[[Tensor], Tensor]


def standard(theta: Tensor) -> Tensor:
    return -0.5 * theta.square().sum()


def quartic(theta: Tensor) -> Tensor:
    """A density along whose trajectories long steps change the energy much."""
    return -0.25 * theta.pow(4).sum() - 0.5 * (theta[0] - 0.3).square()


class Orbit(System):
    """The points z_k of one trajectory, |k| ≤ reach; a transition starts at z_at, whatever momentum would be drawn."""

    def __init__(
        self,
        log_density: LogDensity,
        start: tuple[list[float], list[float]],
        step: float,
        reach: int,
        mass: float = 0.6,
    ) -> None:
        theta, momentum = (torch.tensor(v, **F64) for v in start)
        own = System(log_density, Metric(torch.linspace(1.0, mass, len(theta), **F64)))
        super().__init__(log_density, own.metric)
        first = own.at(own.position(theta), momentum)
        points = {0: first}
        for sign in (1, -1):
            for k in range(1, reach + 1):
                points[sign * k] = own.leapfrog(points[sign * (k - 1)], sign * step)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "places", {id(point): k for k, point in points.items()})
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "start", 0)

    def kicked(self, position: object, generator: object) -> Point:
        return self.points[self.start]

    def leapfrog(self, point: Point, step_size: float) -> Point:
        assert abs(step_size) == self.step
        return self.points[self.places[id(point)] + (1 if step_size > 0 else -1)]

    def ended(self, start: int, depth: int) -> tuple[int, int]:
        """Make a transition from z_start; return where it ended and how many steps it took."""
        object.__setattr__(self, "start", start)
        moved = nuts(self, self.points[start].position, self.step, depth)
        return self.places[id(moved.point)], moved.steps

    def turned(self, first: int, last: int) -> bool:
        """Whether M⁻¹p · Σp ≤ 0 at an end of the points first … last."""
        total = sum(self.points[k].momentum for k in range(first, last + 1))
        return any(float(self.points[k].velocity @ total) <= 0 for k in (first, last))

    def stops(self, first: int, last: int, halves: bool = True) -> bool:
        """Whether 2^d points turn: as a whole, or a half with the nearest point of the other; or a part of them does."""
        if first == last:
            return False
        middle = (first + last) // 2
        found = self.turned(first, last)
        if halves and last - first > 1:
            found = found or self.turned(first, middle + 1) or self.turned(middle, last)
        return found or self.stops(first, middle, halves) or self.stops(middle + 1, last, halves)


@dataclass
class Choices:
    """Answers `uniform() < p` by a script of outcomes, first True, and remembers the probabilities of what was chosen."""

    script: list[bool] = field(default_factory=list)
    asked: list[tuple[bool, float]] = field(default_factory=list)

    def __call__(self, like: Tensor, generator: object) -> "Choices":
        return self

    def __lt__(self, p: float) -> bool:
        if p >= 1:
            return True  # no choice
        outcome = self.script[len(self.asked)] if len(self.asked) < len(self.script) else True
        self.asked.append((outcome, p if outcome else 1 - p))
        return outcome


def transitions(orbit: Orbit, start: int, depth: int, patch: pytest.MonkeyPatch) -> Iterator[tuple[int, float]]:
    """Try all choices from a point: where each ends, and how probable it is."""
    script: list[bool] | None = []
    while script is not None:
        choices = Choices(script)
        patch.setattr(module, "uniform", choices)
        end, _ = orbit.ended(start, depth)
        probability = 1.0
        for _, p in choices.asked:
            probability *= p
        yield end, probability
        taken = [outcome for outcome, _ in choices.asked]
        while taken and not taken[-1]:
            taken.pop()
        script = [*taken[:-1], False] if taken else None


ORBITS = {  # log-density, (θ, p), step, doublings at most
    "a normal that turns": (standard, ([0.3, -0.5], [1.0, 0.4]), 1.3, 2),
    "a normal that does not": (standard, ([0.3, -0.5], [1.0, 0.4]), 0.2, 2),
    "a part that turns": (standard, ([1.1, -0.1], [-0.4, -0.4]), 1.1, 2),
    "energies that differ": (quartic, ([0.9, -0.4], [0.7, 1.1]), 0.8, 2),
    "long steps": (quartic, ([0.2, 1.1], [-1.0, 0.3]), 1.1, 2),
    "three doublings": (quartic, ([-0.6, -0.3], [0.1, -0.6]), 1.0, 3),
}


@pytest.mark.parametrize("name", ORBITS)
def test_transitions_keep_the_law_on_an_orbit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Σ_i e^(−H_i) P(i → 0) = e^(−H_0) over all points i from which z_0 can be reached: exact, to rounding."""
    *rest, depth = ORBITS[name]
    reach = 2**depth - 1
    orbit = Orbit(*rest, reach=2 * reach)
    flow = 0.0
    for start in range(-reach, reach + 1):
        total = 0.0
        for end, probability in transitions(orbit, start, depth, monkeypatch):
            total += probability
            flow += probability * exp(orbit.points[0].energy - orbit.points[start].energy) * (end == 0)
        assert total == pytest.approx(1)
    assert flow == pytest.approx(1, rel=1e-12)


def test_orbits_differ_in_what_they_ask() -> None:
    """Of the orbits above some turn, some do not, some do in one half alone; and their energies differ."""
    made = {name: Orbit(*rest, reach=2 ** (depth + 1)) for name, (*rest, depth) in ORBITS.items()}
    assert made["a normal that turns"].stops(0, 3)
    assert not made["a normal that does not"].stops(0, 3)
    for name in ("a part that turns", "three doublings"):
        assert made[name].stops(2, 3)
        assert not made[name].stops(0, 1)
    for name in ("energies that differ", "long steps"):
        near = torch.tensor([made[name].points[k].energy for k in range(-3, 4)])
        assert float(near.max() - near.min()) > 0.25


def forwards(orbit: Orbit, doublings: int) -> tuple[int, int]:
    """Double forwards only, taking what may be taken: the end and the steps, from the definition of what turns."""
    end = steps = 0
    for depth in range(doublings):
        first, last = 2**depth, 2 ** (depth + 1) - 1
        stop = next((k for k in range(first, last + 1) if part_turns(orbit, first, k)), None)
        steps = stop or last
        if stop is not None:
            return end, steps  # the doubling stopped in itself: nothing of it is taken
        end = last
        if orbit.stops(0, last):
            break
    return end, steps


def part_turns(orbit: Orbit, first: int, last: int) -> bool:
    """Whether one of the parts of a doubling from `first` on that are complete with its point `last` turns."""
    count, size = last - first + 1, 2
    while count % size == 0:
        if orbit.stops(last - size + 1, last):
            return True
        size *= 2
    return False


@pytest.mark.parametrize("step", [0.15, 0.3, 0.42, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("start", [([1.0, 0.0], [0.0, 1.0]), ([1.0, -0.4], [0.3, 0.9])])
def test_a_trajectory_grows_until_a_part_of_it_turns(
    start: tuple[list[float], list[float]], step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "uniform", lambda like, generator: 0.0)  # forwards, and taken
    orbit = Orbit(standard, start, step, 31)
    assert orbit.ended(0, 5) == forwards(orbit, 5)


ASYMMETRIC = [  # one of the checks alone stops them: of the left half, of the right, of a part within a doubling
    (([0.3, -0.2], [1.0, -0.6]), 0.35),
    (([-0.8, 0.4], [0.8, -0.6]), 0.55),
    (([0.9, -0.5], [0.2, 0.6]), 0.43),
    (([-0.4, 0.7], [0.7, -0.2]), 0.46),
    (([0.1, -0.1], [-0.8, -0.6]), 0.82),
    (([-0.1, -0.1], [-0.1, 0.5]), 0.34),
    (([-1.0, -0.8], [0.9, 0.8]), 0.34),
    (([0.3, 0.4], [-0.4, -0.3]), 0.43),
    (([0.8, 0.8], [-1.2, -0.8]), 1.1),
    (([0.4, 0.6], [0.0, -0.9]), 0.33),
    (([-0.1, 0.1], [0.8, 0.1]), 0.33),
]


@pytest.mark.parametrize(("start", "step"), ASYMMETRIC)
def test_so_it_does_on_trajectories_without_symmetry(
    start: tuple[list[float], list[float]], step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "uniform", lambda like, generator: 0.0)
    orbit = Orbit(quartic, start, step, 31)
    assert orbit.ended(0, 5) == forwards(orbit, 5)


def test_acceptance_is_the_mean_over_the_points_that_steps_were_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "uniform", lambda like, generator: 0.0)
    orbit = Orbit(quartic, ([0.9, -0.4], [0.7, 1.1]), 0.5, 31)
    moved = nuts(orbit, orbit.points[0].position, 0.5, 5)
    assert moved.steps >= 3
    each = [min(1.0, exp(orbit.points[0].energy - orbit.points[k].energy)) for k in range(1, moved.steps + 1)]
    assert moved.acceptance == pytest.approx(sum(each) / len(each))
    assert len(set(each)) > 1


def test_a_doubling_is_taken_by_the_ratio_of_its_weight_to_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """min(1, new/old), not its share: the points are e^(−H) apart, and one doubling leads to a neighbour (Betancourt 2017)."""
    orbit = Orbit(quartic, ([0.2, 1.1], [-1.0, 0.3]), 0.6, 2)
    found = {-1: 0.0, 0: 0.0, 1: 0.0}
    for end, probability in transitions(orbit, 0, 1, monkeypatch):
        found[end] += probability
    ratios = {k: exp(orbit.points[0].energy - orbit.points[k].energy) for k in (-1, 1)}
    assert min(ratios.values()) < 1 < max(ratios.values())
    for k, ratio in ratios.items():
        assert found[k] == pytest.approx(0.5 * min(1.0, ratio))


@pytest.mark.parametrize("step", [0.8, 0.85, 0.9])
def test_a_whole_period_is_seen_to_turn_by_halves_alone(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a circle M⁻¹p · Σp of n points is sin(nφ/2) cos((n − 1)φ/2): of 8 points that go all around, positive again."""
    monkeypatch.setattr(module, "uniform", lambda like, generator: 0.0)
    orbit = Orbit(standard, ([1.0, 0.0], [0.0, 1.0]), step, 31, mass=1.0)
    assert not orbit.stops(0, 7, halves=False)  # Stan's checks are what stops here
    assert orbit.stops(0, 7)
    assert orbit.ended(0, 5) == (7, 7)
