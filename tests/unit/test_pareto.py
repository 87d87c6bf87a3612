"""Pareto smoothing: against arviz-stats, laws whose shape is known, and expectations with closed forms."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy import stats
from torch import Tensor

from posterity import InvalidInput
from posterity.core import pareto


def ratios(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(2000, generator=generator, dtype=torch.float64)
    exponential = torch.empty(2000, dtype=torch.float64).exponential_(generator=generator)
    return {
        "bounded": -0.1 * normal.square(),
        "normal": normal,
        "wide": 4 * normal,
        "pareto 0.3": 0.3 * exponential,  # e^(k E) has the tail x^(−1/k)
        "pareto 1.2": 1.2 * exponential,
        "few": normal[:60],
        "fewest": normal[: pareto.ENOUGH],
        "far away": 3 * normal - 5e4,
    }[name]


@pytest.mark.parametrize("name", ["bounded", "normal", "wide", "pareto 0.3", "pareto 1.2", "few", "fewest", "far away"])
def test_weights_and_shape_agree_with_arviz(name: str) -> None:
    given = ratios(name)
    weights, khat = array_stats.psislw(-given.numpy())  # theirs takes log-likelihoods, whose ratios are reciprocal
    ours = pareto.smooth(given)
    assert ours.khat == pytest.approx(float(khat), rel=1e-9)
    np.testing.assert_allclose(ours.log_weights.numpy(), weights, rtol=1e-9, atol=1e-9)
    assert float(ours.log_weights.exp().sum()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.3])
def test_the_fit_finds_the_law_that_excesses_come_from(shape: float) -> None:
    rng = np.random.default_rng(0)
    found = np.array(
        [
            pareto.fit(torch.tensor(np.sort(stats.genpareto.rvs(shape, scale=2.0, size=500, random_state=rng))))
            for _ in range(40)
        ]
    )
    # The prior draws k̂ towards ½ by its share, 10 of 510.
    expected = (500 * shape + 10 * 0.5) / 510
    error = found[:, 0].std() / 40**0.5
    assert abs(found[:, 0].mean() - expected) < 4 * error + 0.01  # Zhang and Stephens' own bias at 500 is below 0.01
    assert abs(found[:, 1].mean() - 2.0) < 4 * found[:, 1].std() / 40**0.5 + 0.02


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.9])
def test_quantiles_are_those_of_scipy(shape: float) -> None:
    levels = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    expected = stats.genpareto.ppf(levels.numpy(), shape, scale=1.7)
    np.testing.assert_allclose(pareto.quantiles(shape, 1.7, levels).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("std", [1.3, 1.6, 3.0])
def test_the_shape_of_normals_that_are_too_narrow(std: float) -> None:
    """p = N(0, std²) against q = N(0, 1): r = exp(½ (1 − 1/std²) θ²), whose tail has k = 1 − 1/std² but for a logarithm."""
    draws = torch.randn(20, 40000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.tensor([pareto.smooth(0.5 * (1 - 1 / std**2) * row.square()).khat for row in draws])
    # At M = 600 of 40,000 draws the local slope of log r is that of a normal's tail at z = 2.5: k (1 + 1/z²)^-1 … k.
    k = 1 - 1 / std**2
    assert 0.8 * k < float(found.mean()) < 1.05 * k


def test_smoothed_weights_give_the_expectation_that_they_should() -> None:
    """E_p[θ²] = 1.2² through draws of q = N(0, 1), within the error of the repetitions."""
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(200, 1000, generator=generator, dtype=torch.float64)
    weights = torch.stack([pareto.smooth(0.5 * (1 - 1 / 1.44) * row.square()).log_weights for row in draws]).exp()
    means = (weights * draws.square()).sum(1)
    assert abs(float(means.mean()) - 1.44) < 4 * float(means.std()) / 200**0.5 + 0.01  # self-normalised: a bias of 1/S


def test_equal_ratios_have_no_tail() -> None:
    found = pareto.smooth(torch.full((100,), -3.0))
    assert found.khat == -torch.inf
    torch.testing.assert_close(found.log_weights.exp(), torch.full((100,), 0.01, dtype=torch.float64))


def test_what_cannot_be_smoothed_is_refused() -> None:
    for bad in (torch.zeros(24), torch.zeros(30, 2)):
        with pytest.raises(InvalidInput, match="at least 25"):
            pareto.smooth(bad)
    for value in (float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="not finite"):
            pareto.smooth(torch.cat([torch.zeros(30), torch.tensor([value])]))


def test_ratios_of_zero_are_weights_of_zero() -> None:
    given = torch.cat([torch.randn(100, generator=torch.Generator().manual_seed(0)), torch.full((10,), -torch.inf)])
    found = pareto.smooth(given)
    assert (found.log_weights[-10:] == -torch.inf).all()
    assert np.isfinite(found.khat)
