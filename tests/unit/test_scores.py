"""Smooth calibration, recalibration, pinball loss and bootstrap intervals, against brute force, SciPy and scikit-learn."""

import math
import re
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from posterity import metrics
from posterity.errors import InvalidInput
from posterity.metrics import (
    accuracy,
    bootstrap,
    bootstrap_independent,
    calibration_slope,
    ece,
    evaluate,
    nll,
    ood_auroc,
    pinball_loss,
    recalibration,
    smooth_ece,
)
from posterity.metrics.bootstrap import _bootstrapped, _corrected, _influences
from posterity.metrics.selective import augrc, aurc
from posterity.predict.predictive import Classification, Regression


def predictions(size: int = 300, seed: int = 0, temper: float = 2.0) -> tuple[Tensor, Tensor]:
    """Probabilities that are `temper` times too sharp, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
    return (temper * logits).softmax(-1), labels


def brute_force_smooth_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """By the definition: a sum of reflected kernels, an adaptive quadrature, a root."""

    def error(std: float) -> float:
        t = np.linspace(0, 1, 10_001)
        places = (sign * confidence + 2 * k for k in range(-2, 3) for sign in (1, -1))
        smoothed = sum((stats.norm.pdf(t[:, None], row, std) * (right - confidence)).sum(1) for row in places)
        return integrate.trapezoid(np.abs(smoothed), t) / len(confidence)

    return optimize.brentq(lambda std: error(std) - std, 2e-3, 1, xtol=1e-7)


@pytest.mark.parametrize(("size", "temper"), [(30, 3.0), (30, 0.5), (9, 1.0)])
def test_smooth_ece_is_its_definition(size, temper):
    probs, labels = predictions(size, temper=temper)
    confidence, predicted = probs.max(-1)
    expected = brute_force_smooth_ece(confidence.numpy(), (predicted == labels).double().numpy())
    assert smooth_ece(probs, labels) == pytest.approx(expected, rel=1e-4)


def test_smooth_ece_of_one_confidence_is_its_gap():
    # all mass in one place, all residuals of one sign: smoothing loses nothing
    probs = torch.tensor([[0.85, 0.15]] * 20).double()
    assert smooth_ece(probs, torch.tensor([0] * 10 + [1] * 10)) == pytest.approx(0.35, abs=1e-6)


def test_smooth_ece_is_continuous_where_bins_are_not():
    on_an_edge = torch.tensor([[0.6, 0.4]] * 100).double()
    labels = torch.tensor([0] * 60 + [1] * 40)
    beside = on_an_edge + torch.tensor([1e-6, -1e-6]) * torch.where(labels == 0, 1, -1)[:, None]
    assert abs(ece(beside, labels) - ece(on_an_edge, labels)) > 0.4
    assert smooth_ece(beside, labels) == pytest.approx(smooth_ece(on_an_edge, labels), abs=2e-3)


def test_a_calibrated_forecast_has_no_smooth_error():
    probs = torch.tensor([[0.75, 0.25]] * 40).double()
    assert smooth_ece(probs, torch.tensor([0] * 30 + [1] * 10)) == pytest.approx(0, abs=1e-9)
    certain = torch.tensor([[1.0, 0.0]] * 5)
    assert smooth_ece(certain, torch.zeros(5)) == 0
    assert smooth_ece(certain, torch.ones(5)) == pytest.approx(1, abs=1e-6)


def likelihood(z: np.ndarray, y: np.ndarray):
    return lambda w: np.logaddexp(0, w[0] + w[1] * z).sum() - (y * (w[0] + w[1] * z)).sum()


@pytest.mark.parametrize("seed", range(4))
def test_recalibration_is_the_maximum_of_the_likelihood(seed):
    probs, labels = predictions(400, seed)
    p, y = probs[:, 0], labels == 0
    found = recalibration(p, y)
    z, truth = np.log(p.numpy() / (1 - p.numpy())), y.double().numpy()
    best = optimize.minimize(likelihood(z, truth), [0.0, 1.0], method="BFGS", options={"gtol": 1e-8})
    assert [found.intercept, found.slope] == pytest.approx(best.x.tolist(), abs=1e-5)
    residual = truth - 1 / (1 + np.exp(-found.intercept - found.slope * z))
    assert abs(residual.sum()) < 1e-9  # the score equations, to the last digits
    assert abs((residual * z).sum()) < 1e-9


def test_recalibration_finds_what_was_done_to_the_log_odds():
    # y ~ sigmoid(0.4 + 0.5 z): three standard errors of 20,000 draws
    z = torch.linspace(-4, 4, 20_000, dtype=torch.float64)
    truth = (0.4 + 0.5 * z).sigmoid()
    y = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < truth
    found = recalibration(z.sigmoid(), y)
    rows = torch.stack([torch.ones_like(z), z], -1)
    errors = torch.linalg.inv(rows.T @ (rows * (truth * (1 - truth))[:, None])).diagonal().sqrt()
    assert abs(found.intercept - 0.4) < 3 * errors[0]
    assert abs(found.slope - 0.5) < 3 * errors[1]


def test_calibration_slope_is_that_of_the_top_class():
    probs, labels = predictions(500)
    confidence, predicted = probs.max(-1)
    assert calibration_slope(probs, labels) == recalibration(confidence, predicted == labels).slope < 1
    tamed, _ = predictions(500, temper=0.5)
    assert calibration_slope(tamed, labels) > 1
    assert calibration_slope(probs.float(), labels) == pytest.approx(calibration_slope(probs, labels), rel=1e-4)


def test_recalibration_without_an_optimum_is_nan():
    for p, y in (([0.2, 0.9], [1, 1]), ([0.2, 0.9], [0, 1]), ([0.2, 0.9], [1, 0]), ([0.5, 0.5], [0, 1])):
        assert math.isnan(recalibration(torch.tensor(p), torch.tensor(y)).slope)
    assert math.isfinite(recalibration(torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 1, 1, 0])).slope)
    with pytest.raises(InvalidInput, match="0 or 1"):
        recalibration(torch.tensor([0.2]), torch.tensor([2]))


def test_pinball_loss_is_sklearns():
    generator = torch.Generator().manual_seed(0)
    y, q = torch.randn(50, generator=generator), torch.randn(50, generator=generator)
    for level in (0.05, 0.5, 0.9):
        expected = sklearn_metrics.mean_pinball_loss(y.numpy(), q.numpy(), alpha=level)
        assert pinball_loss(q, y, level) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InvalidInput, match="strictly between"):
        pinball_loss(q, y, 90.0)
    with pytest.raises(InvalidInput, match="shape"):
        pinball_loss(q, y[:, None], 0.9)


def test_pinball_loss_averaged_over_levels_is_half_the_crps():
    # CRPS = 2 ∫ pinball dl; the midpoint rule of 400 levels is good to a few 1e-4 of it
    means = torch.randn(5, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    predictive, y = Regression(means, torch.full_like(means, 0.5)), torch.linspace(-2, 2, 30, dtype=torch.float64)
    levels = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    quantiles = predictive.quantile(levels)
    mean = sum(pinball_loss(q, y, level.item()) for q, level in zip(quantiles, levels, strict=True)) / 400
    assert 2 * mean == pytest.approx(evaluate(predictive, y)["crps"], rel=1e-3)


def test_evaluate_has_the_new_scores():
    probs, labels = predictions(200)
    found = evaluate(Classification(probs[None]), labels)
    assert found["smooth_ece"] == smooth_ece(probs, labels)
    uncertainty, wrong = 1 - probs.amax(-1), probs.argmax(-1) != labels
    assert found["aurc"] == pytest.approx(aurc(uncertainty, wrong), abs=1e-12)
    assert found["augrc"] == pytest.approx(augrc(uncertainty, wrong), abs=1e-12)
    assert "nll_per_site" not in found


def skew(values: Tensor) -> float:
    return values.exp().mean().item()


def test_bca_and_percentile_are_scipys_of_the_same_draws():
    x = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = {
        way: stats.bootstrap((x.numpy(),), lambda v, axis: np.exp(v).mean(axis), method=way, rng=1, n_resamples=999)
        for way in ("percentile", "BCa")
    }
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    for way, found in theirs.items():
        drawn = torch.from_numpy(found.bootstrap_distribution.copy())
        influences = list(_influences(lambda rows: skew(x[rows[0]]), [40]))
        levels = tails if way == "percentile" else _corrected(tails, drawn, skew(x), influences)
        lower, upper = torch.quantile(drawn, levels).tolist()
        expected = found.confidence_interval
        assert [lower, upper] == pytest.approx([expected.low, expected.high], rel=1e-9)


def test_bca_of_two_samples_is_scipys():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, generator=generator).double(), torch.randn(20, generator=generator).double() + 1

    def gap(a: Tensor, b: Tensor) -> float:
        return (a.exp().mean() - b.mean()).item()

    theirs = stats.bootstrap(
        (x.numpy(), y.numpy()),
        lambda a, b, axis: np.exp(a).mean(axis) - b.mean(axis),
        method="BCa",
        rng=1,
        n_resamples=999,
    )
    influences = list(_influences(lambda rows: gap(x[rows[0]], y[rows[1]]), [30, 20]))
    drawn = torch.from_numpy(theirs.bootstrap_distribution.copy())
    levels = _corrected(torch.tensor([0.025, 0.975]).double(), drawn, gap(x, y), influences)
    expected = theirs.confidence_interval
    assert torch.quantile(drawn, levels).tolist() == pytest.approx([expected.low, expected.high], rel=1e-6)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_a_mean_is_the_normal_one(method):
    # of 2000 resamples the 2.5 % quantile itself has a standard error of √(0.025·0.975/2000)/φ(1.96) = 0.06 s
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bootstrap(
        lambda v: v.mean().item(), x, resamples=2000, method=method, generator=torch.Generator().manual_seed(1)
    )
    std = x.std(correction=0).item() / 20
    assert found.value == x.mean().item()
    assert found.lower == pytest.approx(found.value - 1.96 * std, abs=0.2 * std)
    assert found.upper == pytest.approx(found.value + 1.96 * std, abs=0.2 * std)


def test_examples_are_drawn_together_and_samples_apart():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    same = bootstrap(lambda a, b: (a - b).abs().max().item(), x, x, resamples=50)
    assert (same.value, same.lower, same.upper) == (0, 0, 0)
    apart = bootstrap_independent(lambda a, b: (a - b).abs().max().item(), x, x, resamples=50)
    assert apart.lower > 0
    found = bootstrap_independent(ood_auroc, x, x[:30] + 1, resamples=100, generator=torch.Generator().manual_seed(0))
    assert found.lower < found.value < found.upper
    again = bootstrap_independent(ood_auroc, x, x[:30] + 1, resamples=100, generator=torch.Generator().manual_seed(0))
    assert again == found


def test_scores_that_are_not_there_are_left_out():
    drawn = iter([0.5, *([float("nan")] * 5), *([1.0] * 5)])
    found = _bootstrapped(lambda rows: next(drawn), [3], 10, 0.9, "percentile", None)
    assert (found.value, found.lower, found.upper) == (0.5, 1.0, 1.0)


def test_bootstrap_refuses_what_makes_no_sense():
    x = torch.zeros(3)
    with pytest.raises(InvalidInput, match="bootstrap_independent"):
        bootstrap(nll, x, torch.zeros(4))
    for wrong in ({"level": 95.0}, {"resamples": 1}):
        with pytest.raises(InvalidInput, match="resamples at level"):
            bootstrap(accuracy, x, **wrong)
    with pytest.raises(InvalidInput, match="no examples"):
        bootstrap(accuracy)
    with pytest.raises(InvalidInput, match="Did you mean 'bca'"):
        _bootstrapped(lambda rows: 0.0, [3], 10, 0.9, "bcaa", None)


def test_the_page_on_scores_runs_and_names_every_score():
    page = (Path(__file__).parents[2] / "docs" / "scores.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(example, "scores.md", "exec"), {})
    own = {name for name, value in vars(metrics).items() if isinstance(value, FunctionType) and name[0] != "_"}
    told = own - {"evaluate", "crps_mixture", "reliability", "risk_coverage", "ood_scores", "accuracy_of_the_surest"}
    assert not {name for name in told if f"`{name}" not in page and f"`{name}(" not in page}
    classes = evaluate(Classification(predictions(50)[0][None]), predictions(50)[1])
    values = evaluate(Regression(torch.zeros(1, 4), torch.ones(1, 4)), torch.ones(4))
    marked = set(re.findall(r"`(\w+)` •", page))
    described = {"entropy", "mutual_information", "aleatoric", "epistemic", "aleatoric_std", "epistemic_std"}
    names = {"coverage_90": "coverage", "interval_width_90": "sharpness"}
    assert marked == {names.get(key, key) for key in (classes | values) if key not in described}
