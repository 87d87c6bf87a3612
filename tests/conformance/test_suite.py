"""The suite itself: every method has a row, laws not asked are never green, and a posterior that breaks a law is told."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from posterity.conformance import LAWS, Inferred, Subject, Task, Verdict, judge
from posterity.conformance.densities import DENSITIES
from posterity.conformance.subjects import SUBJECTS
from posterity.conformance.table import SIGNS, markdown, values
from posterity.conformance.verdict import compared, counted, worst
from posterity.methods import KINDS
from tests.processes import posterity

EVERYWHERE = [3, 6, 8, 9, 11, 12, 17, 19]


def test_every_method_has_a_row() -> None:
    ours = {kind for kind, cls in KINDS.items() if cls.__module__.startswith("posterity.")}
    assert {name.partition("-")[0] for name in SUBJECTS} == ours


@pytest.mark.parametrize("law", EVERYWHERE)
@pytest.mark.parametrize("name", SUBJECTS)
def test_laws_of_any_posterior_are_kept(name: str, law: int) -> None:
    verdict = judge(SUBJECTS[name], law)
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", SUBJECTS)
def test_functions_have_statistics_of_their_own(name: str) -> None:
    verdict = judge(SUBJECTS[name], 18)
    assert verdict.passed or verdict.status == "not applicable", verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_law_10_is_not_broken(name: str) -> None:
    """In a process of its own: what checks types in these tests is nothing that torch can compile."""
    ran = posterity("conformance", name, "--laws", "10", "--json", "--quiet").done()
    found = json.loads(ran.stdout)["verdicts"][name]["10"]
    assert found["status"] == ("kept" if name.startswith("mean_field") else "not applicable"), found


@pytest.mark.slow
@pytest.mark.parametrize("law", [1, 2, 4, 5, 13, 16])
@pytest.mark.parametrize("name", SUBJECTS)
def test_no_method_breaks_a_law(name: str, law: int) -> None:
    verdict = judge(SUBJECTS[name], law)
    assert not verdict.failed, verdict
    assert verdict.status != "not asked"  # n/a has a reason


@pytest.mark.parametrize("name", ["map", "laplace-full"])
def test_a_datum_has_one_weight_however_the_data_are_cut(name: str) -> None:
    verdict = judge(SUBJECTS[name], 16)
    assert verdict.passed, verdict


@dataclass(frozen=True)
class Wrong(Inferred):
    """A posterior that breaks one thing."""

    what: str = ""

    def draw(self, inputs: Tensor, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed if self.what != "copies" else id(self) % 2**31)
        rows = len(inputs) if self.what == "coherence" else 1
        noise = torch.randn(n, rows, 1, generator=generator, dtype=torch.float64)
        drawn = noise * inputs.sum(-1, keepdim=True)
        return drawn / 0 if self.what == "finite" else drawn

    def decompositions(self, inputs: Tensor, n: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        epistemic = self.draw(inputs, n, seed)[..., 0].var(0, correction=1 if self.what == "variance" else 0)
        return {} if inputs.dtype != torch.float64 else {"variance": (torch.full_like(epistemic, 0.25), epistemic)}


def wrong(what: str) -> Subject:
    def infer(task: Task) -> Inferred:
        return Wrong(what)

    def resumed(task: Task) -> tuple[Tensor, Tensor]:
        return torch.ones(2), torch.ones(2) + (1e-7 if what == "resume" else 0)

    def refuses(task: Task) -> None:
        if what != "refusal":
            task.network.zero_grad()
        raise ValueError("no")

    return Subject(what, infer, resumed=resumed, refuses=refuses if what != "refusal" else lambda task: None)


@pytest.mark.parametrize(
    ("what", "law"),
    [("coherence", 3), ("resume", 6), ("copies", 8), ("finite", 9), ("refusal", 11)],
)
def test_a_posterior_that_breaks_a_law_is_red(what: str, law: int) -> None:
    assert judge(wrong("nothing"), law).passed
    assert judge(wrong(what), law).failed


def test_what_a_subject_does_not_offer_is_not_asked() -> None:
    bare = Subject("bare", wrong("nothing").infer)
    statuses = {law: judge(bare, law).status for law in LAWS if law not in (3, 8, 9, 12, 17, 18, 19)}
    assert set(statuses.values()) == {"not asked"}


def test_an_exception_breaks_a_law() -> None:
    def infer(task: Task) -> Inferred:
        raise RuntimeError("no posterior\nhere")

    verdict = judge(replace(SUBJECTS["map"], infer=infer), 3)
    assert verdict.failed
    assert "RuntimeError: no posterior" in verdict.note


def test_nan_and_a_zero_tolerance() -> None:
    assert worst(1, [compared("x", float("nan"), 1.0, atol=1.0)]).failed
    assert worst(1, [compared("x", torch.tensor([1.0, torch.inf]), 1.0, error=1.0)]).failed
    assert worst(1, [counted("x", [True, True])]).passed
    assert worst(1, [counted("x", [True, False])]).failed
    assert worst(1, [compared("x", 1.0, 1.0)]).passed
    assert worst(1, [compared("x", 1.0 + 1e-12, 1.0)]).failed


def test_densities_draws_and_moments_speak_of_one_distribution() -> None:
    """Guards law 13: E[∇ log p] = 0 and E[w·∇ log p] = −d for the density that the draws are of (Stein), and the moments."""
    for name in ("normal", "funnel", "banana"):
        density = DENSITIES[name]
        noise = torch.randn(
            100_000, density.dimensions, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        w = density.draw(noise).requires_grad_()
        (score,) = torch.autograd.grad(density.log_prob(w).sum(), [w])
        stein = torch.cat([score, (w * score).sum(1, keepdim=True) + density.dimensions], 1).detach()
        assert (stein.mean(0).abs() < 4 * stein.std(0) / len(stein) ** 0.5).all()
        moments = density.moments(w.detach())
        exact = torch.tensor(density.exact, dtype=torch.float64)
        assert ((moments.mean(0) - exact).abs() < 4 * moments.std(0) / len(w) ** 0.5).all()


def test_the_table_says_what_was_not_asked(tmp_path: Path) -> None:
    verdicts = [
        worst(1, [compared("mean", 1.0, 2.0, error=0.1)]),
        Verdict(2, "not applicable", note="no KL"),
        Verdict(7, "not asked"),
    ]
    page, found = markdown({"map": verdicts}), values({"map": verdicts})
    assert f"| map | {SIGNS['broken']} | n/a | — |" in page
    assert "| map | 1 | mean | 1 | 2 | 0.4 |" in page
    assert "- law 2, no KL: map" in page
    assert found["map"]["1"]["expected"] == 2.0
    assert found["map"]["7"] == {"status": "not asked", "seconds": 0.0}
