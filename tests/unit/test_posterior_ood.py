"""What a posterior makes of inputs from outside: every number against its own formula, and how it is kept and drawn."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity import Categorical, Gaussian, InvalidInput, Normal, Problem
from posterity.data import load
from posterity.data.shift import corrupt, shuffled
from posterity.metrics.ood import ood_aupr, ood_auroc, ood_fpr
from posterity.metrics.scores import evaluate
from posterity.posteriors.average import Averaging
from posterity.posteriors.features import FeatureDensity, features
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.ood import (
    BINS,
    INSIDE,
    OutOfDistribution,
    label_of,
    mean_variances,
    ood_from,
    out_of_distribution,
    uncertainties,
)
from posterity.posteriors.point import Point
from posterity.predict.predictive import Classification, Regression
from posterity.report.ood import plot_pair, plot_roc, plot_scores, section, table
from posterity.train.random import derived_seed
from posterity.zoo import MLP

AVERAGING = Averaging(draws=5, seed=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits").standardised()


@pytest.fixture(scope="module")
def point(digits) -> Point:
    """A linear classifier that is right more often than not: class means as weights."""
    problem = Problem(MLP((64, 10)), Normal(0, 1), Categorical(), 1437)
    rows = digits.train_inputs.flatten(1)
    means = torch.stack([rows[digits.train_targets == c].mean(0) for c in range(10)])
    theta = torch.cat([(means / 4).flatten(), -(means.square().sum(1) / 8)])
    return Point(problem, theta)


@pytest.fixture(scope="module")
def posterior(point) -> DiagonalGaussian:
    return DiagonalGaussian(point.problem, point.theta, torch.full_like(point.theta, 0.05))


@pytest.fixture(scope="module")
def sets(digits) -> dict[str, torch.Tensor]:
    inside = digits.test_inputs
    return {"shuffled": shuffled(inside), "occluded": corrupt(inside, "occlusion", 5)[:150]}


@pytest.fixture(scope="module")
def found(posterior, point, digits, sets) -> OutOfDistribution:
    training = digits.train_inputs, digits.train_targets
    return out_of_distribution(posterior, digits.test_inputs, sets, training, point, AVERAGING)


def test_uncertainties_are_their_formulas():
    probs = torch.rand(7, 30, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    values = uncertainties(Classification(probs))
    p = probs.double().numpy()
    mean = p.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    np.testing.assert_allclose(values["entropy"], entropy, rtol=1e-6)
    np.testing.assert_allclose(values["mutual_information"], entropy + (p * np.log(p)).sum(-1).mean(0), atol=1e-6)
    np.testing.assert_allclose(values["max_probability"], 1 - mean.max(-1), rtol=1e-5)
    np.testing.assert_allclose(values["epistemic_variance"], p.var(0).sum(-1), rtol=1e-4)


def test_label_counts_are_even_where_all_is_unsure():
    certain, unsure, torn = torch.tensor([0.0, 1.0, 0.0]), torch.full((3,), 1 / 3), torch.tensor([0.5, 0.5, 0.0])
    probs = torch.stack([certain, unsure, torn]).expand(3000, 3, 3)
    values = -uncertainties(Classification(probs), torch.Generator().manual_seed(0))["chi_square"]
    assert values[0] == 6000  # n(C − 1)
    assert values[1] < 14  # 99.9 % of a χ² with 2 degrees of freedom
    assert values[2] == pytest.approx(1500, rel=0.01)  # counts (n/2, n/2, 0), within a few of them


def test_sites_of_an_example_are_averaged():
    probs = torch.rand(4, 6, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    whole = uncertainties(Classification(probs))
    flat = uncertainties(Classification(probs.flatten(1, 2)))
    for name in ("entropy", "max_probability", "mutual_information", "epistemic_variance"):
        np.testing.assert_allclose(whole[name], flat[name].reshape(6, 5).mean(1), rtol=1e-6)


def test_sure_predictions_are_not_rounded_to_the_same_value():
    probs = torch.tensor([[[1.0, 1e-12, 0.0], [1.0, 1e-14, 0.0]]])
    values = uncertainties(Classification(probs))["max_probability"]
    assert values[0] > values[1] > 0


def test_a_regression_has_stds():
    predictive = Regression(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 4.0], [3.0, 4.0]]))
    values = uncertainties(predictive)
    assert values["std"].tolist() == pytest.approx([3**0.5, 2.0])
    assert values["epistemic_std"].tolist() == pytest.approx([1.0, 0.0])
    assert mean_variances(predictive) == pytest.approx({"aleatoric_std": (2**0.5 + 2) / 2, "epistemic_std": 0.5})
    assert set(uncertainties(Regression(torch.zeros(1, 2), torch.ones(1, 2)))) == {"std"}


def test_scores_are_those_of_the_uncertainties(found, posterior, point, digits, sets):
    density = FeatureDensity.fit(features(posterior.network(), digits.train_inputs), digits.train_targets)

    def by_hand(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        z = features(posterior.network(), inputs)
        twin = uncertainties(point.predict(inputs, 1))
        return {
            **uncertainties(
                AVERAGING.predict(posterior, inputs), torch.Generator().manual_seed(derived_seed(2, "labels"))
            ),
            "feature_log_density": -density.log_density(z),
            "relative_mahalanobis": density.relative_distance(z),
            "twin_entropy": twin["entropy"],
            "twin_max_probability": twin["max_probability"],
        }

    inside = by_hand(digits.test_inputs)
    for name, inputs in sets.items():
        outside = by_hand(inputs)
        assert set(found.scores[name]) == set(inside)
        for u, own in found.scores[name].items():
            for measure, function in (("auroc", ood_auroc), ("aupr", ood_aupr), ("fpr95", ood_fpr)):
                assert own[measure].value == pytest.approx(function(inside[u], outside[u]), abs=1e-9), (
                    name,
                    u,
                    measure,
                )
                assert own[measure].lower <= own[measure].value <= own[measure].upper
    assert found.auroc("shuffled", "entropy") > 0.6  # the fixture tells something
    assert (found.count, found.draws, dict(found.counts)) == (360, 5, {"shuffled": 360, "occluded": 150})


def test_curves_are_thinned_and_keep_their_area(found):
    for own in found.curves.values():
        for curve in own.values():
            assert len(curve.fpr) <= 200
            assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
            assert (np.diff(curve.fpr) >= 0).all()
            assert (np.diff(curve.tpr) >= 0).all()
    for name in found.counts:
        for u, curve in found.curves[name].items():
            area = np.trapezoid(curve.tpr, curve.fpr)
            assert area == pytest.approx(found.auroc(name, u), abs=0.005)  # a step of 2/200 errs by half of it at most


def test_histograms_hold_everything(found):
    for own in found.histograms.values():
        for drawn in own.values():
            assert len(drawn.edges) == BINS + 1
            assert sum(drawn.inside) == pytest.approx(1, abs=1e-5)
            assert sum(drawn.outside) == pytest.approx(1, abs=1e-5)


def test_means_are_per_class_and_the_example_is_the_median(found, posterior, digits):
    predictive = AVERAGING.predict(posterior, digits.test_inputs)
    scores = evaluate(predictive, digits.test_targets)
    assert 10 * found.means[INSIDE]["aleatoric_softmax"] == pytest.approx(scores["aleatoric"], rel=1e-5)
    assert 10 * found.means[INSIDE]["epistemic_softmax"] == pytest.approx(scores["epistemic"], rel=1e-5)
    aleatoric, epistemic = predictive.classwise("normalized")
    assert found.means[INSIDE]["aleatoric_normalized"] == pytest.approx(aleatoric.mean().item(), rel=1e-5)
    example = found.examples[INSIDE]
    information = predictive.mutual_information
    assert (information < information[example.row]).sum() <= 180
    assert (information > information[example.row]).sum() <= 180
    assert example.label == predictive.labels[example.row]
    assert example.epistemic["normalized"] == pytest.approx(epistemic[example.row].tolist())
    total = np.add(example.aleatoric["softmax"], example.epistemic["softmax"])
    np.testing.assert_allclose(total, predictive.variance[example.row], atol=1e-6)


def test_it_is_kept_as_json(found):
    assert ood_from(json.loads(json.dumps({**found.to_dict(), "data": "digits"}))) == found


def test_an_ensembles_features_are_those_of_its_members(point, digits, sets):
    other = Point(point.problem.snapshot(), point.theta.roll(1))
    training = digits.train_inputs, digits.train_targets
    both = out_of_distribution(Mixture.of((point, other)), digits.test_inputs, sets, training)
    assert "mutual_information" in both.scores["shuffled"]
    densities = [FeatureDensity.fit(features(p.network(), digits.train_inputs), training[1]) for p in (point, other)]
    inside, outside = (
        -sum(d.log_density(features(p.network(), x)) for d, p in zip(densities, (point, other), strict=True))
        for x in (digits.test_inputs, sets["shuffled"])
    )
    assert both.auroc("shuffled", "feature_log_density") == pytest.approx(ood_auroc(inside, outside), abs=1e-9)


def test_a_regression_is_told_by_its_stds(digits):
    problem = Problem(MLP((3, 8, 1)), Normal(0, 1), Gaussian(std=0.5), 50)
    theta = problem.theta()
    posterior = DiagonalGaussian(problem, theta, torch.full_like(theta, 0.3))
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    found = out_of_distribution(posterior, x, {"far": 20 * x}, (x, x.sum(1)), Point(problem, theta), AVERAGING)
    # What is the same for all inputs tells nothing: the twin's one noise, a distance relative to itself.
    assert set(found.scores["far"]) == {"std", "epistemic_std", "feature_log_density"}
    assert found.auroc("far", "epistemic_std") > 0.9
    with pytest.raises(InvalidInput, match="the same for all"):
        out_of_distribution(Point(problem, theta), x, {"far": 20 * x}, averaging=AVERAGING)
    assert not found.examples
    shown = section({**found.to_dict(), "data": "line", "classes": []})
    assert "far: epistemic std tells it from line" in shown.verdict
    with pytest.raises(InvalidInput, match="no example of 'far'"):
        plot_pair(found, "far", [])


def test_figures_draw_what_was_found(found, digits):
    figure = plot_roc(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["against shuffled", "against occluded"]
    assert len(figure.axes[0].lines) == len(found.curves["shuffled"]) + 1
    bars = plot_scores(found, "occluded").axes
    assert [ax.get_title(loc="left") for ax in bars][:2] == ["entropy", "mutual information"]
    images = {INSIDE: torch.rand(1, 8, 8), "shuffled": torch.rand(3, 8, 8)}
    pair = plot_pair(found, "shuffled", digits.classes, images, "digits")
    heights = [bar.get_height() for bar in pair.axes[4].patches]
    example = found.examples["shuffled"]
    assert heights == pytest.approx([*example.aleatoric["softmax"], *example.epistemic["softmax"]])
    assert pair.axes[1].get_ylim() == pair.axes[4].get_ylim()
    assert len(plot_pair(found, "shuffled", digits.classes).axes) == 4


def test_the_best_of_every_column_is_bold(found):
    grid = table(found)
    names = list(found.scores["shuffled"])
    assert [row[0] for row in grid.rows] == [label_of(u) for u in names]
    assert len(grid.rows[0]) == 1 + 2 * 3
    values = [found.scores["occluded"][u]["fpr95"].value for u in names]
    assert (int(np.argmin(values)), 5) in grid.best


def test_what_cannot_be_compared_is_refused(posterior, digits):
    inside = digits.test_inputs[:5]
    with pytest.raises(InvalidInput, match="at least one set"):
        out_of_distribution(posterior, inside, {})
    with pytest.raises(InvalidInput, match="at least one set"):
        out_of_distribution(posterior, inside, {"none": inside[:0]})
    with pytest.raises(InvalidInput, match="cannot be called 'inside'"):
        out_of_distribution(posterior, inside, {"inside": inside})


def test_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "ood.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "ood.md", "exec"), names)
    assert names["found"].auroc("noise", "mutual_information") > 0.8
    assert names["shifts"]["twin"].draws == 1
    assert {"roc.svg", "scores.svg", "pair.svg", "shift.svg"} <= {path.name for path in tmp_path.iterdir()}
