"""Conformal sets and intervals: scores by their definitions, thresholds by counting, coverage by its exact law.

For a fixed pool of N distinct scores, the coverage of a random split into n for calibration and m = N − n for the test depends
on the ranks of the drawn examples alone. It is BetaBinomial(m, k, n + 1 − k) / m whatever the pool is, and splits that are
drawn independently have independent coverages although they share the pool: the band of their mean is that of a mean of
independent variables.
"""

from collections.abc import Callable
from math import ceil, sqrt

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats
from torch import Generator, Tensor, nn

import posterity.decide.conformal as conformal
from posterity import Categorical, InvalidInput, Normal, Problem
from posterity.decide import (
    APS,
    RAPS,
    THR,
    AbsoluteResidual,
    ConformalIntervals,
    ConformalSets,
    QuantileResidual,
    ScaledResidual,
    calibrate,
)
from posterity.decide.binomial import beta_binomial_interval, beta_binomial_pmf, beta_interval
from posterity.decide.conformal import needed
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.predict.predictive import Classification, Regression

SPLITS, LEVEL, NUM_CALIBRATION, NUM_TEST = 200, 0.9, 100, 150


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def classes(n: int, seed: int = 0, draws: int = 3, count: int = 5) -> tuple[Classification, Tensor]:
    """Predictions that are too sure, and labels of the truth."""
    rng = generator(seed)
    logits = 1.5 * torch.randn(n, count, generator=rng, dtype=torch.float64)
    labels = logits.softmax(-1).multinomial(1, generator=rng).squeeze(1)
    noisy = 2 * logits + torch.randn(draws, n, count, generator=rng, dtype=torch.float64)
    return Classification(noisy.softmax(-1)), labels


def values(n: int, seed: int = 0, draws: int = 1) -> tuple[Regression, Tensor]:
    """Predictions that are too sure and off by something that depends on x, and targets."""
    rng = generator(seed)
    centre, spread = torch.randn(n, generator=rng), 0.2 + torch.rand(n, generator=rng)
    targets = centre + spread * torch.randn(n, generator=rng)
    means = centre + 0.1 * torch.randn(draws, n, generator=rng)
    return Regression(means.double(), (0.5 * spread.double() ** 2).expand(draws, n)), targets.double()


def part(predictive: Classification | Regression, rows: Tensor) -> Classification | Regression:
    if isinstance(predictive, Classification):
        return Classification(predictive.probs[:, rows])
    return Regression(predictive.means[:, rows], predictive.variances[:, rows])


def covered(predictive: Classification | Regression, targets: Tensor, score: object, rng: Generator) -> float:
    """Split the pool at random, calibrate on one part, and return the coverage on the other."""
    order = torch.randperm(len(targets), generator=rng)
    mine, other = order[:NUM_CALIBRATION], order[NUM_CALIBRATION:]
    found = calibrate(part(predictive, mine), targets[mine], LEVEL, score, generator=rng)
    if isinstance(found, ConformalSets):
        return held(found.sets(part(predictive, other), rng), targets[other])
    lower, upper = found.intervals(part(predictive, other))
    return ((lower <= targets[other]) & (targets[other] <= upper)).double().mean().item()


def held(sets: Tensor, labels: Tensor) -> float:
    return sets.gather(1, labels[:, None]).double().mean().item()


def band_of_mean(confidence: float = 0.99) -> tuple[float, float]:
    """The exact interval of the mean coverage of independent splits: the law of a sum is the product of transforms."""
    k = ceil((NUM_CALIBRATION + 1) * LEVEL)
    pmf = stats.betabinom(NUM_TEST, k, NUM_CALIBRATION + 1 - k).pmf(np.arange(NUM_TEST + 1))
    size = SPLITS * NUM_TEST + 1
    cdf = np.fft.irfft(np.fft.rfft(pmf, size) ** SPLITS, size).cumsum()
    low, high = np.searchsorted(cdf, [(1 - confidence) / 2, (1 + confidence) / 2])
    return low / (size - 1), high / (size - 1)


def coverages(pool: Callable[[int], tuple], score: object, seed: int = 1) -> np.ndarray:
    predictive, targets = pool(NUM_CALIBRATION + NUM_TEST)
    rng = generator(seed)
    return np.array([covered(predictive, targets, score, rng) for _ in range(SPLITS)])


EXACT = [
    (classes, THR()),
    (classes, APS(randomised=True)),
    (classes, RAPS(randomised=True)),
    (values, AbsoluteResidual()),
    (values, ScaledResidual()),
    (values, QuantileResidual()),
]


@pytest.mark.parametrize(("pool", "score"), EXACT, ids=lambda part: getattr(part, "kind", ""))
def test_coverage_over_200_splits_follows_its_exact_law(pool: Callable, score: object) -> None:
    seen = coverages(pool, score)
    low, high = band_of_mean()
    assert low <= seen.mean() <= high
    k = ceil((NUM_CALIBRATION + 1) * LEVEL)
    law = stats.betabinom(NUM_TEST, k, NUM_CALIBRATION + 1 - k)
    inside = (seen >= law.ppf(0.005) / NUM_TEST) & (seen <= law.ppf(0.995) / NUM_TEST)
    chance = law.cdf(law.ppf(0.995)) - law.cdf(law.ppf(0.005) - 1)
    assert inside.sum() >= stats.binom.ppf(0.001, SPLITS, chance)
    edges = law.ppf(np.arange(1, 8) / 8)
    expected = SPLITS * np.diff(law.cdf([-1, *edges, NUM_TEST]))
    counted = np.histogram(seen * NUM_TEST, [-0.5, *(edges + 0.5), NUM_TEST + 0.5])[0]
    assert stats.chisquare(counted, expected).pvalue > 1e-3


@pytest.mark.parametrize("score", [APS(), RAPS(), QuantileResidual(asymmetric=True)], ids=lambda s: s.kind)
def test_scores_with_ties_and_two_ends_keep_at_least_their_promise(score: object) -> None:
    seen = coverages(values if isinstance(score, QuantileResidual) else classes, score)
    assert seen.mean() >= band_of_mean()[0]
    assert seen.mean() <= 0.97


def test_mutation_the_quantile_of_n_instead_of_n_plus_1_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformal, "_rank", lambda n, level: ceil(n * level))
    low, _ = band_of_mean()
    assert all(coverages(pool, score).mean() < low for pool, score in EXACT[::2])


def test_each_class_has_its_coverage_where_that_is_asked() -> None:
    predictive, labels = classes(6000)
    calibration, test = torch.arange(3000), torch.arange(3000, 6000)
    whole = calibrate(part(predictive, calibration), labels[calibration], LEVEL, "thr")
    found = calibrate(part(predictive, calibration), labels[calibration], LEVEL, "thr", by_class=True)
    assert (len(whole.thresholds), len(found.thresholds)) == (1, 5)
    sets = found.sets(part(predictive, test))
    for c in range(5):
        of_class = labels[test] == c
        low, high = found.coverage_interval(0.999, int(of_class.sum()), of=c)
        assert low <= held(sets[of_class], labels[test][of_class]) <= high


def test_thresholds_are_order_statistics_and_sets_what_is_below_them() -> None:
    predictive, labels = classes(50)
    scores = sorted((1 - predictive.mean)[torch.arange(50), labels].tolist())
    for level, k in ((0.9, 46), (0.5, 26), (0.1, 6)):
        found = calibrate(predictive, labels, level, "thr")
        assert found.thresholds == (scores[k - 1],)
        assert found.expected_coverage == pytest.approx(k / 51)
        assert torch.equal(found.sets(predictive), 1 - predictive.mean <= scores[k - 1])


def test_a_level_is_the_decimal_number_that_was_written() -> None:
    assert ceil(0.55 * 100) == 56  # what floats would make of it
    predictive, labels = classes(99)
    assert calibrate(predictive, labels, 0.55).expected_coverage == 0.55


@pytest.mark.parametrize(("penalty", "free"), [(0.0, 0), (0.1, 1), (0.03, 2)])
def test_cumulative_scores_are_sums_over_more_probable_classes(penalty: float, free: int) -> None:
    predictive, _ = classes(40)
    u = torch.rand(40, 1, generator=generator(7), dtype=torch.float64)
    for randomised in (False, True):
        score = RAPS(randomised, penalty, free) if penalty else APS(randomised)
        scores = score.scores(predictive, generator(7))
        for b, p in enumerate(predictive.mean.tolist()):
            for y in range(5):
                rank = 1 + sum(q > p[y] for q in p)
                expected = sum(q for q in p if q > p[y]) + randomised * u[b].item() * p[y]
                assert scores[b, y].item() == pytest.approx(expected + penalty * max(0, rank - free), abs=1e-12)


def test_sets_that_are_not_randomised_are_the_smallest_top_sets_of_enough_probability() -> None:
    """Romano et al. 2020, eq. 3: the first classes whose probabilities have a sum of at least τ."""
    predictive, labels = classes(300)
    found = calibrate(predictive, labels, LEVEL, "aps")
    sets, tau = found.sets(predictive), found.thresholds[0]
    for own, p in zip(sets.tolist(), predictive.mean.tolist(), strict=True):
        order = sorted(range(5), key=lambda c: -p[c])
        size = next(s for s in range(1, 6) if s == 5 or sum(p[c] for c in order[:s]) > tau)
        assert own == [c in order[:size] for c in range(5)]
    assert sets.any(1).all()


@pytest.mark.parametrize("score", [AbsoluteResidual(), ScaledResidual(), QuantileResidual(), QuantileResidual(True)])
def test_an_interval_holds_what_scores_at_most_the_threshold(score: object) -> None:
    predictive, targets = values(400, draws=3)
    found = calibrate(predictive, targets, 0.8, score)
    lower, upper = found.intervals(predictive)
    thresholds = torch.tensor(found.thresholds, dtype=torch.float64)[:, None]
    y = targets + torch.randn(400, generator=generator(3), dtype=torch.float64)
    inside = (lower <= y) & (y <= upper)
    assert torch.equal(inside, (score.scores(predictive, y, 0.8) <= thresholds).all(0))
    assert 0 < inside.double().mean() < 1


def test_quantile_intervals_that_cross_are_their_middle() -> None:
    narrow = Regression(torch.tensor([[0.0, 1.0]]), torch.tensor([[1e-6, 4.0]]))
    found = ConformalIntervals(0.9, (-0.5,), (20,), QuantileResidual())
    lower, upper = found.intervals(narrow)
    assert lower[0] == upper[0] == pytest.approx(0, abs=1e-9)
    assert upper[1] - lower[1] == pytest.approx(2 * 2 * 1.6448536 - 1, abs=1e-5)


def test_intervals_are_scaled_with_the_data() -> None:
    predictive, targets = values(100)
    for score in ("absolute", "scaled", "quantile"):
        lower, upper = calibrate(predictive, targets, 0.8, score).intervals(predictive)
        other = calibrate(predictive.rescale(5.0, 7.0), 5 + 7 * targets, 0.8, score)
        low, high = other.intervals(predictive.rescale(5.0, 7.0))
        assert torch.allclose(low, 5 + 7 * lower, atol=1e-9)
        assert torch.allclose(high, 5 + 7 * upper, atol=1e-9)


def test_the_laws_of_coverage_are_scipys() -> None:
    for a, b, m in ((90, 10, 100), (9, 1, 37), (4500, 501, 5000)):
        law = stats.betabinom(m, a, b)
        assert np.allclose(beta_binomial_pmf(m, a, b), law.pmf(np.arange(m + 1)), rtol=1e-8, atol=1e-14)
        assert beta_binomial_interval(m, a, b, 0.99) == (law.ppf(0.005), law.ppf(0.995))
        assert beta_interval(a, b, 0.9) == pytest.approx(stats.beta(a, b).ppf([0.05, 0.95]).tolist())
    found = ConformalSets(0.9, (0.5,), (999,), THR())
    assert found.coverage_interval(0.99) == pytest.approx(stats.beta(900, 100).ppf([0.005, 0.995]).tolist())
    spread = sqrt(0.9 * 0.1 / 1000)
    low, high = found.coverage_interval(0.99, num_test=10**6)
    assert high - low == pytest.approx(2 * 2.576 * spread, rel=0.02)


def test_too_few_examples_are_refused_with_the_number_that_it_takes() -> None:
    for level, least in ((0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)):
        assert needed(level) == least
        predictive, labels = classes(least)
        assert calibrate(predictive, labels, level).num_data == (least,)
        if least > 1:
            with pytest.raises(InvalidInput, match=f"{least - 1} calibration examples .* at least {least} "):
                calibrate(part(predictive, torch.arange(least - 1)), labels[:-1], level)
    predictive, targets = values(18)
    with pytest.raises(InvalidInput, match="at least 19"):  # each end may miss 5 %
        calibrate(predictive, targets, 0.9, QuantileResidual(asymmetric=True))
    predictive, labels = classes(60)
    labels[labels == 2] = 3
    with pytest.raises(InvalidInput, match="0 calibration examples of class 2"):
        calibrate(predictive, labels, by_class=True)


def test_what_does_not_fit_is_refused() -> None:
    (predictive, labels), (reals, targets) = classes(30), values(30)
    with pytest.raises(InvalidInput, match="Did you mean 'raps'"):
        calibrate(predictive, labels, score="rap")
    with pytest.raises(InvalidInput, match="Choices: absolute, quantile, scaled"):
        calibrate(reals, targets, score="aps")
    with pytest.raises(InvalidInput, match="Choices: thr, aps, raps"):
        calibrate(predictive, labels, score=ScaledResidual())
    with pytest.raises(InvalidInput, match="strictly between 0 and 1"):
        calibrate(predictive, labels, level=90.0)
    with pytest.raises(InvalidInput, match="by_class"):
        calibrate(reals, targets, by_class=True)
    with pytest.raises(InvalidInput, match="one by one"):
        calibrate(Regression(torch.zeros(1, 30, 2), torch.ones(1, 30, 2)), torch.zeros(30, 2))
    with pytest.raises(InvalidInput, match="not exchangeable"):
        calibrate(Classification(torch.full((1, 30, 4, 2), 0.5)), torch.zeros(30, 4))
    with pytest.raises(InvalidInput, match="has intervals"):
        calibrate(predictive, labels).sets(reals)
    with pytest.raises(InvalidInput, match="for 5 classes, got 4"):
        ConformalSets(0.9, (0.5,) * 5, (30,) * 5, THR()).sets(classes(3, count=4)[0])


def test_it_stands_on_any_posterior_and_comes_back_from_json() -> None:
    problem = Problem(nn.Linear(2, 3), Normal(0, 1), Categorical(), 100)
    posterior = DiagonalGaussian(problem, problem.theta(), torch.full((9,), -1.0))
    x = torch.randn(40, 2, generator=generator())
    predictive = posterior.predict(x, 8, generator=generator(1))
    found = calibrate(predictive, predictive.labels, 0.9, "raps")
    adapter = TypeAdapter(ConformalSets | ConformalIntervals)
    again = adapter.validate_json(adapter.dump_json(found))
    assert again == found
    assert torch.equal(again.sets(posterior.predict(x, 8, generator=generator(1))), found.sets(predictive))
