"""Metrics against torchmetrics, scikit-learn, scoringrules, scipy and numerical integration."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scoringrules
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from posterity.errors import InvalidInput
from posterity.metrics import calibration, scores, selective
from posterity.predict.predictive import Classification, Regression


@pytest.fixture
def probs() -> torch.Tensor:
    return (torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 1.5).softmax(-1)


@pytest.fixture
def labels(probs) -> torch.Tensor:
    drawn = torch.multinomial(probs, 1, generator=torch.Generator().manual_seed(1)).squeeze(-1)
    return torch.where(torch.arange(500) % 4 == 0, torch.zeros_like(drawn), drawn)  # a quarter mislabelled


def gaussians(n: int, batch: int, *, seed: int = 2) -> Regression:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(n, batch, generator=generator, dtype=torch.float64)
    return Regression(means, torch.rand(n, batch, generator=generator, dtype=torch.float64) + 0.1)


def test_ece_is_torchmetrics(probs, labels):
    for bins in (5, 10, 15, 30):
        expected = multiclass_calibration_error(probs, labels, num_classes=5, n_bins=bins, norm="l1")
        assert calibration.ece(probs, labels, bins) == pytest.approx(expected.item(), abs=1e-6)


def test_certain_predictions_belong_to_the_last_bin():
    # 1.0 and 0.95 share the bin (0.9, 1]: accuracy 1/2 against confidence 0.975
    certain = torch.tensor([[1.0, 0.0], [0.95, 0.05]])
    assert calibration.ece(certain, torch.tensor([0, 1]), bins=10) == pytest.approx(0.475, abs=1e-6)


def test_a_bin_holds_its_upper_edge():
    probs = torch.tensor([[0.75, 0.25], [0.7, 0.3], [0.8, 0.2]])
    assert calibration.reliability(probs, torch.zeros(3), bins=4).count.tolist() == [0, 0, 2, 1]


def test_reliability_by_hand(probs, labels):
    diagram = calibration.reliability(probs, labels, bins=10)
    confidence, predicted = probs.max(-1)
    for index, (low, high) in enumerate(pairwise(np.linspace(0, 1, 11))):
        inside = (confidence > low) & (confidence <= high)
        assert diagram.count[index] == inside.sum()
        if inside.any():
            assert diagram.accuracy[index].item() == pytest.approx((predicted == labels)[inside].double().mean().item())
            assert diagram.confidence[index].item() == pytest.approx(confidence[inside].mean().item(), rel=1e-6)
        else:
            assert diagram.accuracy[index].isnan()
    gap = confidence.mean().item() - scores.accuracy(probs, labels)
    assert diagram.overconfidence == pytest.approx(gap, abs=1e-6)


def test_adaptive_ece_by_hand(probs, labels):
    confidence, predicted = probs.numpy().max(-1), probs.numpy().argmax(-1)
    order = np.argsort(confidence)
    right = (predicted == labels.numpy())[order]
    gaps = [
        len(c) / 500 * abs(r.mean() - c.mean())
        for c, r in zip(np.array_split(confidence[order], 10), np.array_split(right, 10), strict=True)
    ]
    assert calibration.adaptive_ece(probs, labels, bins=10) == pytest.approx(sum(gaps), abs=1e-6)


def test_adaptive_ece_of_ties_does_not_depend_on_the_order():
    probs, labels = torch.tensor([[0.8, 0.2]]).expand(100, 2), (torch.arange(100) >= 80).long()
    assert calibration.adaptive_ece(probs, labels) == pytest.approx(0, abs=1e-7)
    two = torch.tensor([[0.9, 0.1]] * 30 + [[0.6, 0.4]] * 70)
    found = {
        round(calibration.adaptive_ece(two[order], labels[order]), 9)
        for order in (torch.randperm(100, generator=torch.Generator().manual_seed(s)) for s in range(5))
    }
    assert len(found) == 1


def test_classwise_ece_by_hand(probs, labels):
    total = 0.0
    for c in range(5):
        p, y = probs[:, c].double().numpy(), (labels == c).numpy()
        for low, high in pairwise(np.linspace(0, 1, 16)):
            inside = (p > low) & (p <= high)
            total += abs(p[inside].sum() - y[inside].sum()) / 500
    assert calibration.classwise_ece(probs, labels) == pytest.approx(total / 5, abs=1e-9)


def test_calibrated_predictions_have_small_error(probs):
    drawn = torch.multinomial(probs, 200, replacement=True, generator=torch.Generator().manual_seed(4))
    many = probs.repeat_interleave(200, 0)
    assert calibration.ece(many, drawn.flatten()) < 0.01
    assert calibration.adaptive_ece(many, drawn.flatten()) < 0.01
    assert calibration.classwise_ece(many, drawn.flatten()) < 0.005
    sharper = (many.log() * 2).softmax(-1)
    assert calibration.reliability(sharper, drawn.flatten()).overconfidence > 0.1


def test_accuracy_nll_and_brier_are_sklearns(probs, labels):
    assert scores.accuracy(probs, labels) == sklearn_metrics.accuracy_score(labels, probs.argmax(-1))
    exact = probs.double().numpy()
    expected = sklearn_metrics.log_loss(labels, exact / exact.sum(-1, keepdims=True), labels=range(5))
    assert scores.nll(probs, labels) == pytest.approx(expected, rel=1e-6)
    binary = torch.stack([1 - probs[:, 0], probs[:, 0]], -1)
    truth = (labels == 0).long()
    half = sklearn_metrics.brier_score_loss(truth, probs[:, 0].double().numpy())
    assert scores.brier(binary, truth) == pytest.approx(2 * half, rel=1e-6)
    assert scores.brier(torch.eye(3), torch.tensor([1, 2, 0])) == 2


def test_rmse_is_sklearns():
    mean, y = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.5, 2.0, 1.0])
    assert scores.rmse(mean, y) == pytest.approx(sklearn_metrics.root_mean_squared_error(y, mean), rel=1e-6)


def test_crps_is_scoringrules():
    draws, y = gaussians(6, 20), torch.linspace(-4, 4, 20, dtype=torch.float64)
    expected = scoringrules.crps_mixnorm(y.numpy(), draws.means.numpy(), draws.variances.sqrt().numpy(), m_axis=0)
    np.testing.assert_allclose(scores.crps_mixture(draws.means, draws.variances, y), expected, rtol=1e-10)
    single = scoringrules.crps_normal(0.7, 0.2, 1.5)
    one = scores.crps_mixture(torch.tensor([[0.2]]).double(), torch.tensor([[2.25]]), torch.tensor([0.7]).double())
    assert one.item() == pytest.approx(single, rel=1e-6)


def test_crps_of_a_point_is_its_distance():
    means, y = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]).double(), torch.tensor([0.0, 1.0, 3.0]).double()
    np.testing.assert_allclose(scores.crps_mixture(means, torch.zeros(2, 3), y), [0.0, 1.0, 0.5], atol=1e-12)


def test_crps_is_its_integral():
    draws, y = gaussians(4, 1), torch.tensor([0.8], dtype=torch.float64)
    grid = torch.linspace(-15, 15, 300_001, dtype=torch.float64)
    cdf = torch.special.ndtr((grid - draws.means) / draws.variances.sqrt()).mean(0)
    expected = torch.trapezoid((cdf - (grid >= y).double()).square(), grid).item()
    assert scores.crps(draws, y) == pytest.approx(expected, abs=2e-4)


def test_coverage_of_own_samples_is_the_level():
    draws = gaussians(5, 4000)
    generator = torch.Generator().manual_seed(9)
    chosen = torch.randint(5, (1, 4000), generator=generator)
    noise = torch.randn(4000, generator=generator, dtype=torch.float64)
    y = draws.means.gather(0, chosen)[0] + draws.variances.gather(0, chosen)[0].sqrt() * noise
    for level in (0.5, 0.9):
        assert scores.coverage(draws, y, level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 4000))
    curve = calibration.coverage_curve(draws, y)
    assert curve.error < 0.02
    assert curve.coverage[17].item() == scores.coverage(draws, y, 0.9)  # two ways of counting
    narrow = Regression(draws.means, draws.variances / 100)
    assert calibration.coverage_curve(narrow, y).overconfidence > 0.1


def test_interval_score_and_sharpness_are_scoringrules():
    draws, y = gaussians(5, 30), torch.linspace(-4, 4, 30, dtype=torch.float64)
    lower, upper = draws.interval(0.8)
    expected = scoringrules.interval_score(y.numpy(), lower.numpy(), upper.numpy(), 0.2).mean()
    assert scores.interval_score(draws, y, 0.8) == pytest.approx(expected, rel=1e-9)
    assert scores.sharpness(draws, 0.8) == pytest.approx((upper - lower).mean().item(), rel=1e-12)


def test_error_auroc_counts_pairs():
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.randint(6, (60,), generator=generator).double()  # with ties
    right = torch.rand(60, generator=generator) < 0.7
    wrong, hit = uncertainty[~right].unsqueeze(1), uncertainty[right].unsqueeze(0)
    expected = ((wrong > hit).double() + 0.5 * (wrong == hit).double()).mean().item()
    assert selective.error_auroc(uncertainty, right) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(selective.error_auroc(uncertainty, torch.ones(60, dtype=torch.bool)))
    with pytest.raises(InvalidInput):
        selective.error_auroc(uncertainty, right.long())


def test_accuracy_of_the_surest_by_hand():
    uncertainty, right = torch.tensor([0.3, 0.1, 0.9, 0.2]), torch.tensor([False, True, True, True])
    expected = torch.tensor([1, 1, 2 / 3, 3 / 4], dtype=torch.float64)
    torch.testing.assert_close(selective.accuracy_of_the_surest(uncertainty, right), expected)
    with pytest.raises(InvalidInput):
        selective.accuracy_of_the_surest(uncertainty, right[:3])


def test_evaluate_classification(probs, labels):
    draws = torch.stack([probs, probs.roll(1, -1), probs.square() / probs.square().sum(-1, keepdim=True)])
    predictive = Classification(draws)
    result = scores.evaluate(predictive, labels)
    mean = draws.mean(0)
    assert result["accuracy"] == scores.accuracy(mean, labels)
    assert result["nll"] == pytest.approx(scores.nll(mean, labels), rel=1e-6)
    assert result["ece"] == pytest.approx(calibration.ece(mean, labels), rel=1e-6)
    assert result["brier"] == pytest.approx(scores.brier(mean, labels), rel=1e-6)
    gini = (1 - mean.square().sum(-1)).mean().item()
    assert result["aleatoric"] + result["epistemic"] == pytest.approx(gini, rel=1e-5)
    assert result["mutual_information"] < result["entropy"]


def test_evaluate_regression():
    draws, y = gaussians(5, 30), torch.linspace(-2, 2, 30, dtype=torch.float64)
    result = scores.evaluate(draws, y)
    assert result["rmse"] == pytest.approx(scores.rmse(draws.mean, y), rel=1e-12)
    assert result["nll"] == pytest.approx(-draws.log_prob(y).mean().item(), rel=1e-12)
    assert result["crps"] == scores.crps(draws, y)
    assert result["coverage_90"] == scores.coverage(draws, y)
    assert result["interval_width_90"] == scores.sharpness(draws)
    assert result["aleatoric_std"] == pytest.approx(draws.variances.mean(0).sqrt().mean().item(), rel=1e-12)
    assert result["epistemic_std"] == pytest.approx(draws.means.std(0, correction=0).mean().item(), rel=1e-12)


def test_vectors_of_targets_are_scored_element_by_element():
    generator = torch.Generator().manual_seed(0)
    draws = Regression(torch.randn(4, 6, 2, generator=generator), torch.rand(4, 6, 2, generator=generator) + 0.1)
    y = torch.randn(6, 2, generator=generator)
    flat = Regression(draws.means.flatten(1), draws.variances.flatten(1))
    for key in ("rmse", "crps", "coverage_90", "interval_width_90"):
        assert scores.evaluate(draws, y)[key] == pytest.approx(scores.evaluate(flat, y.flatten())[key], rel=1e-6)


def test_what_does_not_fit_is_refused(probs, labels):
    for metric in (scores.accuracy, scores.nll, scores.brier, calibration.ece, calibration.adaptive_ece):
        with pytest.raises(InvalidInput):
            metric(probs, labels.unsqueeze(1))
        with pytest.raises(InvalidInput, match="0 to 4"):
            metric(probs, labels + 1)
        with pytest.raises(InvalidInput, match="logits"):
            metric(probs.log(), labels)
        with pytest.raises(InvalidInput, match="whole"):
            metric(probs, labels + 0.5)
    with pytest.raises(InvalidInput):
        calibration.ece(probs, labels, bins=0)
    draws = gaussians(5, 30)
    for metric in (scores.crps, scores.coverage, scores.interval_score, scores.evaluate, calibration.coverage_curve):
        with pytest.raises(InvalidInput):
            metric(draws, torch.zeros(30, 1))
        with pytest.raises(InvalidInput):
            metric(draws, torch.full((30,), math.nan))


def test_a_predictive_of_another_kind_is_refused(labels):
    class Counts:
        mean = torch.zeros(500)

        def log_prob(self, targets):
            return targets

        def scores(self, targets):
            return {}

    with pytest.raises(InvalidInput, match="Counts"):
        scores.evaluate(Counts(), labels)
