"""Bootstrap intervals of out-of-distribution scores: against resampling one by one, and against DeLong's variance."""

import pytest
import torch

from posterity.metrics.bootstrap import bootstrap_independent
from posterity.metrics.ood import ood_aupr, ood_auroc, ood_fpr
from posterity.metrics.ood_intervals import ood_estimates, scores_of_counts


@pytest.fixture
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(120, generator=generator), 1 + torch.randn(90, generator=generator)
    return (5 * inside).round() / 5, (5 * outside).round() / 5  # with ties


def test_scores_of_counts_are_the_scores(sides):
    generator = torch.Generator().manual_seed(1)
    values = torch.cat(sides).double().unique()
    for _ in range(20):
        inside, outside = (side[torch.randint(len(side), (len(side),), generator=generator)] for side in sides)
        counts = [(side.double() == values[:, None]).sum(1)[None].double() for side in (inside, outside)]
        found = scores_of_counts(*counts)
        assert found["auroc"].item() == pytest.approx(ood_auroc(inside, outside), abs=1e-12)
        assert found["aupr"].item() == pytest.approx(ood_aupr(inside, outside), abs=1e-12)
        assert found["fpr95"].item() == pytest.approx(ood_fpr(inside, outside), abs=1e-12)


def test_the_interval_of_the_auroc_has_delongs_width(sides):
    inside, outside = (side.double() for side in sides)
    wins = (outside[:, None] > inside).double() + 0.5 * (outside[:, None] == inside).double()
    variance = wins.mean(1).var() / len(outside) + wins.mean(0).var() / len(inside)  # DeLong et al. 1988
    found = ood_estimates(*sides, resamples=4000)["auroc"]
    assert found.value == pytest.approx(wins.mean().item(), abs=1e-12)
    width = 2 * 1.959964 * variance.sqrt().item()
    assert found.upper - found.lower == pytest.approx(width, rel=0.06)  # quantiles of 4,000: 2 %; normal approximation


def test_intervals_are_those_of_the_plain_bootstrap(sides):
    found = ood_estimates(*sides, resamples=1000)
    for name, score in (("auroc", ood_auroc), ("aupr", ood_aupr), ("fpr95", ood_fpr)):
        plain = bootstrap_independent(score, *sides, resamples=400, generator=torch.Generator().manual_seed(5))
        width = plain.upper - plain.lower  # the Monte-Carlo error of either end is about 4 % of it
        assert found[name].lower == pytest.approx(plain.lower, abs=0.2 * width), name
        assert found[name].upper == pytest.approx(plain.upper, abs=0.2 * width), name


def test_intervals_hold_their_value_and_follow_the_seed(sides):
    first, again, other = (ood_estimates(*sides, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for estimate in first.values():
        assert estimate.lower <= estimate.value <= estimate.upper
        assert estimate.lower < estimate.upper


def test_many_inputs_are_resampled_in_parts(sides, monkeypatch):
    whole = ood_estimates(*sides, resamples=400)
    monkeypatch.setattr("posterity.metrics.ood_intervals.AT_ONCE", 2_000)
    parts = ood_estimates(*sides, resamples=400)
    for name, estimate in whole.items():
        assert parts[name].value == estimate.value
        assert parts[name].upper == pytest.approx(estimate.upper, abs=0.05)
