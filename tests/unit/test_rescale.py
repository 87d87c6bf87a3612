"""Predictions of standardised targets in original units: every part of the variance is in units of the target squared."""

from math import log

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import MAP, Engine, Gaussian, Laplace, Normal, Optimizer, TensorData
from posterity.predict.predictive import Regression

NOISE, CENTRE, SCALE = 0.5, -30.0, 7.0
X = torch.linspace(-2, 3, 12, dtype=torch.float64)[:, None]
Y = 0.6 * X[:, 0] - 0.2 + NOISE * torch.sin(9 * X[:, 0])
PROBES = torch.tensor([[-4.0], [0.3], [10.0]], dtype=torch.float64)


def closed_form() -> Regression:
    """Functions that are integrated over, of exact variance x ᵀ Σ x: no draw of theirs shows it."""
    torch.manual_seed(0)
    descent = Optimizer("SGD", lr=0.3, schedule="constant")
    posterior = posterity.fit(
        nn.Linear(1, 1).double(),
        TensorData(X, Y, 12),
        likelihood=Gaussian(std=NOISE),
        prior=Normal(0, 1),
        method=Laplace(MAP(epochs=120, optimizer=descent), "full"),
        engine=Engine(progress=False, device="cpu"),
    )
    return posterior.predict(PROBES)


def exact_epistemic() -> Tensor:
    design, probes = (torch.cat([v, torch.ones_like(v)], 1) for v in (X, PROBES))
    precision = design.T @ design / NOISE**2 + torch.eye(2, dtype=torch.float64)
    return ((probes @ precision.inverse()) * probes).sum(1)


@pytest.mark.parametrize("scale", [1.0, SCALE, 1e-3])
def test_each_part_of_a_closed_forms_variance_is_rescaled(scale: float) -> None:
    own = closed_form()
    found = own.rescale(CENTRE, scale)
    torch.testing.assert_close(found.mean, CENTRE + scale * own.mean)
    torch.testing.assert_close(found.aleatoric, torch.full((3,), (scale * NOISE) ** 2, dtype=torch.float64))
    torch.testing.assert_close(found.epistemic, scale**2 * exact_epistemic(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.variance, scale**2 * (NOISE**2 + exact_epistemic()), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.aleatoric + found.epistemic, found.variance)


def drawn() -> Regression:
    means = torch.tensor([[0.0, 1.0, 2.0], [1.0, -1.0, 2.5]], dtype=torch.float64)
    return Regression(means, torch.tensor([[0.5, 1.0, 2.0], [0.7, 1.5, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("make", [closed_form, drawn])
def test_densities_change_by_the_scale_alone(make: object) -> None:
    """p(a + b·y) = p(y)/b: the scores in original units are those of the standardised targets plus log b."""
    own, targets = make(), torch.tensor([0.4, -1.0, 3.0], dtype=torch.float64)
    moved, original = own.rescale(CENTRE, SCALE), CENTRE + SCALE * targets
    torch.testing.assert_close(moved.log_prob(original), own.log_prob(targets) - log(SCALE))
    before, after = own.scores(targets), moved.scores(original)
    assert after["nll"] == pytest.approx(before["nll"] + log(SCALE))
    assert after["expected_nll"] == pytest.approx(before["expected_nll"] + log(SCALE))
    assert after["rmse"] == pytest.approx(before["rmse"] * SCALE)
    torch.testing.assert_close(moved.cdf(original), own.cdf(targets))
    for ours, theirs in zip(moved.interval(0.8), own.interval(0.8), strict=True):
        torch.testing.assert_close(ours, CENTRE + SCALE * theirs)


def test_targets_of_their_own_scales_are_rescaled_one_by_one() -> None:
    means = torch.tensor([[[0.0, 1.0]], [[1.0, -1.0]]], dtype=torch.float64)
    own, scales = Regression(means, torch.full_like(means, 0.5)), torch.tensor([10.0, 0.1], dtype=torch.float64)
    found = own.rescale(torch.tensor([1.0, 2.0], dtype=torch.float64), scales)
    torch.testing.assert_close(found.epistemic, own.epistemic * scales**2)
    torch.testing.assert_close(found.aleatoric, own.aleatoric * scales**2)


def test_rescaling_twice_and_back_is_no_change() -> None:
    own = closed_form()
    back = own.rescale(CENTRE, SCALE).rescale(-CENTRE / SCALE, 1 / SCALE)
    torch.testing.assert_close(back.epistemic, own.epistemic, rtol=1e-9, atol=0)
    torch.testing.assert_close(back.variance, own.variance, rtol=1e-9, atol=0)
