"""The suite's oracle of cyclical chains has a schedule of its own, and sees where the method's is another."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, cos, pi

import pytest

from posterity.conformance import judge
from posterity.conformance.chains import cycle_steps
from posterity.conformance.subjects import SUBJECTS
from posterity.methods.cyclical import Cycles

Patch = pytest.MonkeyPatch


def without_half(patch: Patch) -> None:
    """ε (1 + cos(π r)): twice the rate."""
    own = Cycles.factor
    patch.setattr(Cycles, "factor", lambda self, step: 2 * own(self, step))


def noise_in_exploration(patch: Patch) -> None:
    patch.setattr(Cycles, "noisy", lambda self, step: True)


def one_long_cycle(patch: Patch) -> None:
    """A rate that falls over the whole run."""
    patch.setattr(Cycles, "factor", lambda self, step: (1 + cos(pi * step / self.steps)) / 2)


def constant_rate(patch: Patch) -> None:
    patch.setattr(Cycles, "factor", lambda self, step: 1.0)


def longer_exploration(patch: Patch) -> None:
    own = Cycles.of
    patch.setattr(Cycles, "of", lambda steps, cycles, exploration: own(steps, cycles, exploration + 0.2))


MUTATIONS = (without_half, noise_in_exploration, one_long_cycle, constant_rate, longer_exploration)


QUICK = (
    without_half,
    longer_exploration,
)  # of steps and of sampling; the last test has the whole schedule, step by step


@pytest.mark.parametrize("mutate", [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in MUTATIONS])
def test_another_schedule_is_red_on_a_known_density(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    subject = replace(SUBJECTS["cyclical"], densities=("normal",))
    mutate(monkeypatch)
    assert judge(subject, 13).failed


def test_its_own_schedule_is_kept_on_known_densities() -> None:
    assert judge(SUBJECTS["cyclical"], 13).passed


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [without_half, noise_in_exploration, constant_rate])
def test_another_schedule_is_red_on_conjugate_regression(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    verdict = judge(SUBJECTS["cyclical"], 1)
    assert verdict.failed
    assert verdict.check is not None, verdict.note


@pytest.mark.parametrize(
    ("steps", "cycles", "exploration"), [(10, 2, 0.5), (1200, 40, 0.5), (47, 5, 0.37), (9, 1, 0.0)]
)
def test_the_methods_steps_are_the_papers(steps: int, cycles: int, exploration: float) -> None:
    plan, length = Cycles.of(steps, cycles, exploration), ceil(steps / cycles)
    theirs = cycle_steps(steps, cycles, exploration)
    assert [plan.factor(t) for t in range(steps)] == pytest.approx([factor for factor, _ in theirs])
    assert [plan.noisy(t) for t in range(steps)] == [noisy for _, noisy in theirs]
    positions = [plan.position(t) for t in range(steps)]
    assert [p for p in positions if p is not None] == list(range(plan.sampling_steps))
    assert [p is not None for p in positions] == [noisy for _, noisy in theirs]
    assert theirs[0] == (1.0, exploration == 0)
    assert theirs[length - 1][0] < 0.1
