"""Selective prediction and the detection of strangers, against brute force, closed forms and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from posterity.errors import InvalidInput
from posterity.metrics import ood, selective


def drawn(seed: int, size: int = 200, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Uncertainties and 0-1 losses that go together; with `levels`, many uncertainties are equal."""
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.rand(size, generator=generator, dtype=torch.float64)
    loss = (torch.rand(size, generator=generator, dtype=torch.float64) < 0.1 + 0.5 * uncertainty).double()
    return (uncertainty if levels is None else (uncertainty * levels).floor()), loss


def test_risk_coverage_by_hand():
    uncertainty, loss = drawn(0)
    curve = selective.risk_coverage(uncertainty, loss)
    for k in (1, 2, 57, 200):
        kept = uncertainty <= uncertainty.sort().values[k - 1]
        assert curve.coverage[k - 1].item() == kept.double().mean().item()
        assert curve.risk[k - 1].item() == pytest.approx(loss[kept].mean().item(), abs=1e-14)
    assert selective.aurc(uncertainty, loss) == pytest.approx(curve.risk.sum().item() / 200, abs=1e-14)


def test_equal_uncertainties_are_averaged_over_all_their_orders():
    uncertainty = torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0])
    loss = torch.tensor([1.0, 0.0, 0.0, 1.0, 4.0])
    orders = [p for p in permutations(range(5)) if bool((uncertainty[list(p)].diff() >= 0).all())]
    assert len(orders) == 6
    risks = torch.stack([loss[list(p)].cumsum(0) / torch.arange(1, 6) for p in orders]).double().mean(0)
    torch.testing.assert_close(selective.risk_coverage(uncertainty, loss).risk, risks, rtol=0, atol=1e-7)
    shuffled = torch.tensor([4, 0, 3, 2, 1])
    assert selective.aurc(uncertainty[shuffled], loss[shuffled]) == selective.aurc(uncertainty, loss)


@pytest.mark.parametrize("levels", [None, 10, 1])
def test_augrc_is_its_closed_form(levels):
    uncertainty, loss = drawn(1, levels=levels)
    accuracy = 1 - loss.mean().item()
    auroc = selective.error_auroc(uncertainty, loss == 0)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert selective.augrc(uncertainty, loss) == pytest.approx(expected, abs=1e-12)


def test_augrc_of_any_loss_is_a_probability_of_random_coverage():
    # E over a threshold drawn among the examples of the loss below it, that example itself counted half
    uncertainty, loss = drawn(2)
    loss = loss * torch.rand(200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    below = (uncertainty[:, None] < uncertainty).double() + 0.5 * torch.eye(200)
    assert selective.augrc(uncertainty, loss) == pytest.approx((loss @ below).mean().item() / 200, abs=1e-14)


def test_excess_aurc_of_the_best_order_and_its_limit():
    uncertainty, loss = drawn(4, size=20_000)
    assert selective.excess_aurc(loss + 0.1 * uncertainty, loss) == 0
    r = loss.mean().item()
    excess = selective.aurc(uncertainty, loss) - selective.excess_aurc(uncertainty, loss)
    # (1/B)Σ_k max(0, k − (1 − r)B)/k → r + (1 − r) log(1 − r); the sum is off by at most one of its terms, r/B
    assert excess == pytest.approx(r + (1 - r) * np.log(1 - r), abs=r / 20_000)


def test_coverage_at_risk_is_that_of_the_best_single_threshold():
    for levels in (None, 7):
        uncertainty, loss = drawn(5, levels=levels)
        for risk in (0.0, 0.15, 0.2, 0.25, 1.0):
            best = 0.0
            for threshold in uncertainty.unique():
                kept = uncertainty <= threshold
                if loss[kept].mean() <= risk:
                    best = max(best, kept.double().mean().item())
            assert selective.coverage_at_risk(uncertainty, loss, risk) == best


def test_a_risk_that_is_met_exactly_is_met():
    assert selective.coverage_at_risk(torch.zeros(30), (torch.arange(30) % 10 == 0), 0.1) == 1
    assert selective.coverage_at_risk(torch.zeros(30), (torch.arange(30) % 10 == 0), 0.0999) == 0


def test_useless_uncertainty_costs_the_mean_loss():
    _, loss = drawn(6)
    assert selective.aurc(torch.zeros(200), loss) == pytest.approx(loss.mean().item(), abs=1e-14)
    assert selective.augrc(torch.zeros(200), loss) == pytest.approx(loss.mean().item() / 2, abs=1e-14)


@pytest.mark.parametrize(
    ("uncertainty", "loss"),
    [
        (torch.zeros(3), torch.zeros(2)),
        (torch.zeros(0), torch.zeros(0)),
        (torch.zeros(2, 1), torch.zeros(2, 1)),
        (torch.tensor([0.0, torch.nan]), torch.zeros(2)),
        (torch.zeros(2), torch.tensor([0.0, -1.0])),
    ],
)
def test_what_does_not_fit_is_refused(uncertainty, loss):
    with pytest.raises(InvalidInput, match=r"[Uu]ncertainties"):
        selective.aurc(uncertainty, loss)


def sides(levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(150, generator=generator), 2 * torch.randn(80, generator=generator) + 2
    return (inside, outside) if levels is None else ((inside * levels).round(), (outside * levels).round())


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("positive", ["outside", "inside"])
def test_ood_scores_are_sklearns_and_torchmetrics(positive, levels):
    inside, outside = sides(levels)
    scores = torch.cat([inside, outside]) * (1 if positive == "outside" else -1)
    truth = (torch.arange(230) >= 150) == (positive == "outside")
    assert ood.ood_aupr(inside, outside, positive) == pytest.approx(
        sklearn_metrics.average_precision_score(truth.numpy(), scores.numpy()), abs=1e-12
    )
    # torchmetrics takes scores in [0, 1] and works in float32
    squeezed = (scores - scores.min()) / (scores.max() - scores.min())
    assert ood.ood_aupr(inside, outside, positive) == pytest.approx(
        binary_average_precision(squeezed, truth.long()).item(), abs=1e-5
    )
    assert ood.ood_auroc(inside, outside) == pytest.approx(binary_auroc(squeezed, truth.long()).item(), abs=1e-5)
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth.numpy(), scores.numpy(), drop_intermediate=False)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        assert ood.ood_fpr(inside, outside, wanted, positive) == fpr[tpr >= wanted - 1e-12].min()
    curve = ood.ood_roc(inside, outside, positive)
    assert torch.trapezoid(curve.tpr, curve.fpr).item() == pytest.approx(ood.ood_auroc(inside, outside), abs=1e-12)


def test_the_two_sides_of_ood_differ_and_are_each_others_mirror():
    inside, outside = sides()
    scores = ood.ood_scores(inside, outside)
    assert scores["aupr_out"] == ood.ood_aupr(-outside, -inside, "inside") != scores["aupr_in"]
    assert scores["fpr95"] == ood.ood_fpr(-outside, -inside, 0.95, "inside")
    assert scores["fpr95"] == ood.ood_fpr(inside, outside) != ood.ood_fpr(inside, outside, positive="inside")


def test_fpr95_counts_positives_in_whole_numbers():
    # 19 of 20 strangers are 95 %: the least uncertain one may stay, although 0.95 · 20 is no float's 19
    outside = torch.cat([torch.tensor([-5.0]), torch.linspace(1, 2, 19)])
    assert ood.ood_fpr(torch.linspace(0, 0.9, 50), outside) == 0


@pytest.mark.parametrize("score", [ood.ood_auroc, ood.ood_aupr, ood.ood_fpr, ood.ood_roc, ood.ood_scores])
def test_ood_refuses_what_is_not_finite_or_empty(score):
    for wrong in (torch.tensor([torch.nan]), torch.zeros(0), torch.zeros(2, 2)):
        with pytest.raises(InvalidInput, match="inside"):
            score(wrong, torch.zeros(3))
        with pytest.raises(InvalidInput, match="outside"):
            score(torch.zeros(3), wrong)


def test_ood_refuses_unknown_sides_and_rates():
    with pytest.raises(InvalidInput, match="Did you mean 'outside'"):
        ood._sides(torch.zeros(2), torch.ones(2), "outsider")
    with pytest.raises(InvalidInput, match="true positive rate"):
        ood.ood_fpr(torch.zeros(2), torch.ones(2), 95.0)
