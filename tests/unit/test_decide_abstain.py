"""Abstention: the promised risk is broken at most as often as was said, over many validation sets; naive choices break it.

A problem is a curve η(u), the expected loss at uncertainty u ~ Uniform(0, 1); R(t) = (1/t) ∫₀ᵗ η is its risk below t.
"""

from collections.abc import Callable
from importlib import import_module
from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats
from torch import Tensor

from posterity import InvalidInput
from posterity.decide import Abstention, abstain, choose_threshold
from posterity.decide.abstain import needed
from posterity.decide.binomial import binomial_p_value, hoeffding_bentkus_p_value
from posterity.predict.predictive import Classification, Regression

abstain_module = import_module("posterity.decide.abstain")  # the package has a function of this name
RISK, CONFIDENCE, TRIALS, SIZE = 0.1, 0.9, 600, 300
GRID = np.linspace(0, 1, 20001)
CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rising": lambda u: 0.4 * u**2,  # R(t) = 0.4 t²/3: never above 0.1 before t = 0.87
    "wavy": lambda u: 0.1 + 0.14 * np.sin(9 * u) * (u > 0.15) * np.minimum(1, 0.7 / (0.1 + u)),
    "flat": lambda u: np.full_like(u, 0.1001),  # any acceptance breaks the promise
}


def risks(curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """R at every point of the grid."""
    eta = np.clip(curve(GRID), 0, 1)
    area = np.concatenate([[0.0], ((eta[1:] + eta[:-1]) / 2 * np.diff(GRID)).cumsum()])
    return np.append(eta[0], area[1:] / GRID[1:])


def trials(curve: Callable, choose: Callable, bounded: bool = False, size: int = SIZE) -> tuple[float, float]:
    """Return how often the promise was broken, and the mean share of inputs that were accepted."""
    rng, risk = np.random.default_rng(5), risks(curve)
    broken, accepted = 0, 0.0
    for _ in range(TRIALS):
        u = rng.random(size)
        eta = np.clip(curve(u), 1e-6, 1)
        losses = rng.beta(2 * eta, 2 * (1 - eta)) if bounded else (rng.random(size) < eta).astype(float)
        threshold = min(choose(torch.from_numpy(u), torch.from_numpy(losses)), 1.0)
        accepted += max(threshold, 0.0) / TRIALS
        broken += threshold > 0 and np.interp(threshold, GRID, risk) > RISK
    return broken / TRIALS, accepted


def ours(scores: Tensor, losses: Tensor) -> float:
    return choose_threshold(scores, losses, RISK, CONFIDENCE).threshold


def naive(scores: Tensor, losses: Tensor) -> float:
    """The largest threshold whose observed risk is as wanted."""
    ordered, order = scores.sort()
    observed = losses[order].cumsum(0) / torch.arange(1, len(scores) + 1)
    good = (observed <= RISK).nonzero()
    return float(ordered[good[-1]]) if len(good) else -inf


def most(rate: float) -> float:
    """How often a promise that fails at this rate is seen to fail, but for one study of a thousand."""
    return float(stats.binom.ppf(0.999, TRIALS, rate)) / TRIALS


@pytest.mark.parametrize("bounded", [False, True], ids=["0-1", "bounded"])
@pytest.mark.parametrize("name", CURVES)
def test_the_promise_is_broken_at_most_as_often_as_was_said(name: str, bounded: bool) -> None:
    broken, accepted = trials(CURVES[name], ours, bounded)
    assert broken <= most(1 - CONFIDENCE)
    if name == "rising":  # not vacuous: from 300 examples, of the 0.87 that could be accepted if η were known
        assert accepted > 0.87 * (1 / 2 if bounded else 2 / 3)
    if name == "flat" and not bounded:  # nor wasteful: the bound is nearly used up
        assert broken > (1 - CONFIDENCE) / 4


def test_it_is_tight_where_examples_are_many() -> None:
    assert trials(CURVES["flat"], ours, size=1000)[0] <= most(1 - CONFIDENCE)
    u = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    losses = (torch.rand(50_000, generator=torch.Generator().manual_seed(1)) < 0.4 * u**2).double()
    assert 0.83 < ours(u, losses) < 0.87


@pytest.mark.parametrize("name", CURVES)
def test_mutation_a_naive_threshold_breaks_it(name: str) -> None:
    assert trials(CURVES[name], naive)[0] > 2 * most(1 - CONFIDENCE)


def test_mutation_several_sequences_at_the_level_of_one_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = abstain_module._starts
    monkeypatch.setattr(abstain_module, "_starts", lambda n, risk, delta: (starts(n, risk, delta)[0], delta))
    assert trials(CURVES["flat"], ours, size=1000)[0] > most(1 - CONFIDENCE)


def test_mutation_the_last_success_of_all_tests_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstain_module, "_last", lambda passed, first: int(max(np.flatnonzero(passed), default=-1)))
    assert trials(CURVES["flat"], ours, size=1000)[0] > most(1 - CONFIDENCE)


def test_bounds_are_clopper_and_pearsons() -> None:
    scores = torch.arange(500.0)
    losses = torch.zeros(500)
    losses[[40, 300, 420, 499]] = 1
    found = choose_threshold(scores, losses, risk=0.05, confidence=0.95)
    assert (found.threshold, found.coverage) == (inf, 1)
    starts = 3  # 50 examples cannot show it: the sequences start at 125, 250 and 375
    upper = stats.binomtest(4, 500, alternative="less").proportion_ci(1 - 0.05 / starts).high
    assert found.bound == pytest.approx(upper, rel=1e-9)


def test_a_sequence_goes_on_to_its_first_failure() -> None:
    scores, losses = torch.arange(1000.0), torch.zeros(1000)
    losses[700:] = 1
    found = choose_threshold(scores, losses, risk=0.05, confidence=0.95)
    assert found.coverage == float(found.threshold) / 1000  # accepted are those strictly below
    level = 0.05 / 3
    count = round(found.threshold)
    assert stats.binom.cdf(count - 700, count, 0.05) <= level < stats.binom.cdf(count + 1 - 700, count + 1, 0.05)
    assert choose_threshold(scores, torch.ones(1000), 0.05).threshold == -inf
    assert choose_threshold(scores, torch.ones(1000), 0.05).coverage == 0


def test_ties_are_accepted_together_or_not_at_all() -> None:
    scores = torch.tensor([0.0] * 300 + [1.0] * 300)
    losses = torch.tensor([0.0] * 300 + [0.2, 0.8] * 150)
    found = choose_threshold(scores, losses, risk=0.05)
    assert (found.threshold, found.coverage) == (1.0, 0.5)


def test_p_values_of_bounded_losses_are_valid_and_as_defined() -> None:
    for total, n, risk in product((0.0, 0.3, 2.0, 7.5), (20, 100), (0.05, 0.2)):
        mean = total / n
        h = 0.0
        if mean < risk:
            h = mean * np.log(mean / risk) if mean else 0.0
            h += (1 - mean) * np.log((1 - mean) / (1 - risk))
        expected = min(np.exp(-n * h), np.e * stats.binom.cdf(np.ceil(total), n, risk))
        found = hoeffding_bentkus_p_value(np.array([total]), np.array([float(n)]), risk)[0]
        assert found == pytest.approx(expected, rel=1e-10)
    losses = np.array(list(product((0.0, 0.5, 1.0), repeat=8))).sum(1)  # 8 losses, all outcomes, mean loss 0.3
    weights = np.array(list(product((0.55, 0.3, 0.15), repeat=8))).prod(1)
    p = hoeffding_bentkus_p_value(losses, np.full(len(losses), 8.0), 0.3)
    for level in (0.01, 0.05, 0.1, 0.3):
        assert weights[p <= level].sum() <= level
    assert binomial_p_value(np.array([2.0]), np.array([9.0]), 0.3)[0] == pytest.approx(stats.binom.cdf(2, 9, 0.3))


def predictions(n: int) -> tuple[Classification, Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, 4, generator=rng)
    labels = logits.softmax(-1).multinomial(1, generator=rng).squeeze(1)
    return Classification((logits + torch.randn(5, n, 4, generator=rng)).softmax(-1)), labels


@pytest.mark.parametrize("measure", ["max_probability", "entropy", "mutual_information", "epistemic"])
def test_of_classes_the_loss_is_an_error(measure: str) -> None:
    predictive, labels = predictions(2000)
    found = abstain(predictive, labels, 0.05, 0.95, measure)
    accepted = found.accepts(predictive)
    assert accepted.double().mean().item() == pytest.approx(found.expected_coverage)
    errors = (predictive.labels != labels)[accepted].double().mean().item()
    assert errors < found.bound <= 0.05
    adapter = TypeAdapter(Abstention)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_of_values_a_loss_is_given() -> None:
    rng = torch.Generator().manual_seed(0)
    std = 0.1 + 2 * torch.rand(1000, generator=rng)
    predictive = Regression(torch.zeros(1, 1000), std[None] ** 2)
    targets = std * torch.randn(1000, generator=rng)
    found = abstain(predictive, targets, 0.1, losses=(targets.abs() > 1).double())
    accepted = found.accepts(predictive)
    assert 0.1 < accepted.double().mean() < 0.9
    assert (targets[accepted].abs() > 1).double().mean() <= 0.1
    with pytest.raises(InvalidInput, match="give losses"):
        abstain(predictive, targets)


def test_acceptance_of_all_and_of_none_comes_back_from_json() -> None:
    adapter = TypeAdapter(Abstention)
    predictive, _ = predictions(200)
    for labels, share in ((predictive.labels, 1.0), ((predictive.labels + 1) % 4, 0.0)):
        found = abstain(predictive, labels, 0.05)
        again = adapter.validate_json(adapter.dump_json(found))
        assert again == found
        assert again.accepts(predictive).double().mean() == share


def test_mistakes_say_what_it_takes() -> None:
    predictive, labels = predictions(148)
    assert needed(0.02, 0.95) == 149
    assert (1 - 0.02) ** 149 <= 0.05 < (1 - 0.02) ** 148
    with pytest.raises(InvalidInput, match="148 validation examples .* it takes 149"):
        abstain(predictive, labels, 0.02)
    with pytest.raises(InvalidInput, match="risk is a number strictly between 0 and 1; got 2"):
        abstain(predictive, labels, 2.0)
    with pytest.raises(InvalidInput, match="Did you mean 'entropy'"):
        abstain(predictive, labels, 0.05, measure="entropie")
    with pytest.raises(InvalidInput, match="between 0 and 1; divide"):
        abstain(predictive, labels, 0.05, losses=torch.full((148,), 3.0))
    with pytest.raises(InvalidInput, match="one shape"):
        abstain(predictive, labels, 0.05, losses=torch.zeros(3))
