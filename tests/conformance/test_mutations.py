"""The suite can see: a noise, KL or curvature that is wrong by a factor of 2 turns each method's verdict red."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from posterity import fitting
from posterity.conformance import Subject, Task, judge
from posterity.conformance.subjects import SUBJECTS
from posterity.core import dynamics, newton
from posterity.core.covariance import CholeskyCovariance, LowRankCovariance
from posterity.core.hamiltonian import Metric
from posterity.methods import expansion
from posterity.model.correlated import CorrelatedDivergence
from posterity.model.divergence import Divergence

Patch = pytest.MonkeyPatch
EXACT = [name for name, s in SUBJECTS.items() if s.covariance is not None and 1 not in s.not_applicable]
SAMPLERS = [name for name, s in SUBJECTS.items() if s.sample is not None]


def doubled(patch: Patch, home: Any, name: str, factor: float = 2.0) -> None:
    """Multiply what a function returns."""
    own = getattr(home, name)
    patch.setattr(home, name, lambda *given: factor * own(*given))


def sampler_noise(patch: Patch, factor: float = 2.0) -> None:
    doubled(patch, dynamics, "langevin_std", factor)
    doubled(patch, dynamics, "hamiltonian_std", factor)
    doubled(patch, Metric, "momentum", factor)


def kl_gradient(patch: Patch) -> None:
    own = Divergence._add_closed
    patch.setattr(Divergence, "_add_closed", lambda self, scale, *rest: own(self, 2 * scale, *rest))
    for family in (LowRankCovariance, CholeskyCovariance):
        whole = family.add_divergence_gradient
        patch.setattr(
            family,
            "add_divergence_gradient",
            lambda self, out, weight, precision, whole=whole: whole(self, out, 2 * weight, precision),
        )


def num_data(patch: Patch) -> None:
    """Weigh the KL, or the prior, half: as a library that counts its data twice would."""
    whole = fitting.watched
    patch.setattr(
        fitting, "watched", lambda problem, seen: whole(replace(problem, num_data=2 * problem.num_data), seen)
    )


def curvature(patch: Patch) -> None:
    measured, std = expansion.measured, newton.std

    def doubled(*arguments: Any) -> Any:
        found = measured(*arguments)
        return replace(found, curvature=found.curvature.scaled(2.0))

    patch.setattr(expansion, "measured", doubled)
    patch.setattr(newton, "std", lambda hessian, decay, scale: std(2 * hessian, decay, scale))


def takes_noise_twice(subject: Subject) -> Subject:
    """Return the subject that takes the observations' noise for twice what it is."""

    def infer(task: Task) -> Any:
        return subject.infer(replace(task, noise_std=2 * (task.noise_std or 0)))

    return replace(subject, infer=infer)


def few(name: str) -> Subject:
    """Three seeds are enough to see a factor of 2; cycles, whose draws say the least, take more."""
    subject = SUBJECTS[name]
    return replace(subject, replicates=16 if name == "cyclical" else min(3, subject.replicates))


MUTATIONS: list[tuple[str, Callable[[Patch], None]]] = [
    *((name, kl_gradient) for name in EXACT if SUBJECTS[name].kl is not None and name != "ivon"),
    *((name, curvature) for name in EXACT if name.startswith("laplace") or name == "ivon"),
    *((name, sampler_noise) for name in EXACT if name in SAMPLERS),
    *((name, num_data) for name in ("map", "ensemble", "sampled_ensemble")),
]

# One of each kind in every run; others of their kind, and noise of whole chains, by -m slow: law 13 sees it sooner.
QUICK = ("mean_field-weight", "laplace-full", "laplace-diag", "map")


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        pytest.param(name, mutate, marks=() if name in QUICK else pytest.mark.slow, id=f"{name}-{mutate.__name__}")
        for name, mutate in MUTATIONS
    ],
)
def test_a_method_that_is_wrong_by_2_is_red(name: str, mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    verdict = judge(few(name), 1)
    assert verdict.failed
    assert verdict.check is not None, verdict.note  # measured and found wrong, not merely stopped


def test_every_exact_method_has_a_mutation() -> None:
    assert {name for name, _ in MUTATIONS} == set(EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_twice_the_noise_is_red(name: str) -> None:
    assert judge(takes_noise_twice(few(name)), 1).failed


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_twice_the_data_count_is_red(name: str, monkeypatch: Patch) -> None:
    num_data(monkeypatch)
    for law in (1, 5):
        assert judge(SUBJECTS[name], law).failed


@pytest.mark.parametrize(("name", "factors"), [("sgld", (1e-2, 2.0)), ("sghmc", (1e-2, 2.0)), ("hmc", (2.0,))])
def test_a_sampler_with_wrong_noise_is_red(name: str, factors: tuple[float, ...], monkeypatch: Patch) -> None:
    """The normal is enough to see it: each density of the law must be kept."""
    normal = replace(SUBJECTS[name], densities=("normal",))
    assert judge(normal, 13).passed
    for factor in factors:
        with monkeypatch.context() as patch:
            sampler_noise(patch, factor)
            verdict = judge(normal, 13)
        assert verdict.failed
        assert verdict.check is not None, verdict.note


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-2, 2.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_any_sampler_with_wrong_noise_is_red(name: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "cyclical" and factor > 1:
        pytest.skip("louder noise visits both of two equal modes, too; law 1 sees it")
    sampler_noise(monkeypatch, factor)
    verdict = judge(SUBJECTS[name], 13)
    assert verdict.failed
    assert verdict.check is not None, verdict.note


@pytest.mark.parametrize("factor", [0.5, 2.0, 1 / 61_706])
@pytest.mark.parametrize("name", ["mean_field-weight", "low_rank"])
def test_a_kl_that_is_scaled_is_red(name: str, factor: float, monkeypatch: Patch) -> None:
    assert judge(SUBJECTS[name], 2).passed
    for family in (Divergence, CorrelatedDivergence):
        doubled(monkeypatch, family, "value", factor)
    assert judge(SUBJECTS[name], 2).failed


def test_a_layer_with_twice_the_noise_is_red() -> None:
    own = SUBJECTS["mean_field-flipout"]

    def layer(q: tuple[torch.Tensor, torch.Tensor], *rest: Any) -> torch.Tensor:
        return own.layer((q[0], 2 * q[1]), *rest)

    assert judge(own, 4).passed
    assert judge(replace(own, layer=layer), 4).failed
