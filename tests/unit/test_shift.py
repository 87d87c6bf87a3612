"""Scores under shift: those of `evaluate` on inputs that were corrupted by hand; and how they are drawn and kept."""

import json
from math import log

import pytest
import torch

from posterity import Categorical, Gaussian, InvalidInput, Normal, Problem
from posterity.data import load
from posterity.data.shift import corruptions
from posterity.metrics.scores import evaluate
from posterity.posteriors.average import Averaging
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point
from posterity.posteriors.shift import Shift, shift_from, under_shift
from posterity.report.shift import plot_shift, section, table
from posterity.zoo import MLP

SHARP = Averaging(draws=4, seed=3)


@pytest.fixture(scope="module")
def digits():
    return load("digits").standardised()


@pytest.fixture(scope="module")
def classifier() -> DiagonalGaussian:
    torch.manual_seed(0)
    problem = Problem(MLP((64, 10)), Normal(0, 1), Categorical(), 1437)
    theta = problem.theta()
    return DiagonalGaussian(problem, theta, torch.full_like(theta, 0.1))


@pytest.fixture(scope="module")
def found(classifier, digits) -> Shift:
    return under_shift(
        classifier, digits.test_inputs, digits.test_targets, corruptions(digits, ["noise", "blur"]), SHARP
    )


def test_scores_are_those_of_the_corrupted_inputs(found, classifier, digits):
    for kind, apply in corruptions(digits, ["noise", "blur"]).items():
        for severity in (0, 2, 5):
            inputs = digits.test_inputs if severity == 0 else apply(digits.test_inputs, severity)
            expected = evaluate(SHARP.predict(classifier, inputs), digits.test_targets)
            for name, values in found.scores[kind].items():
                assert values[severity] == expected[name], (kind, severity, name)
    assert (found.count, found.draws) == (360, 4)
    assert found.scores["noise"]["accuracy"][5] != found.scores["blur"]["accuracy"][5]
    assert found.mean["nll"][5] == pytest.approx((found.scores["noise"]["nll"][5] + found.scores["blur"]["nll"][5]) / 2)


def test_the_same_functions_meet_all_inputs(classifier, digits):
    first, again = (SHARP.predict(classifier, digits.test_inputs[part]).probs for part in (slice(0, 9), slice(3, 5)))
    torch.testing.assert_close(first[:, 3:5], again)


def test_a_regression_in_original_units(digits):
    problem = Problem(MLP((3, 1)), Normal(0, 1), Gaussian(std=0.5), 50)
    theta = problem.theta()
    posterior = DiagonalGaussian(problem, theta, torch.full_like(theta, 0.3))
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(1)
    stretch = {"stretch": lambda inputs, severity: (1 + severity) * inputs}
    scaled = under_shift(posterior, x, y, stretch, SHARP)
    original = evaluate(SHARP.predict(posterior, 3 * x).rescale(7.0, 20.0), 7 + 20 * y)
    for name, values in scaled.rescale(20.0).scores["stretch"].items():
        assert values[2] == pytest.approx(original[name], rel=1e-5), name
    assert scaled.rescale(20.0).scores["stretch"]["nll"][0] == pytest.approx(
        scaled.scores["stretch"]["nll"][0] + log(20)
    )
    assert plot_shift({"mean field": scaled}).axes[0].get_ylabel() == "RMSE"


def test_a_point_has_one_function(classifier, digits):
    point = Point(classifier.problem, classifier.mean)
    found = under_shift(point, digits.test_inputs[:30], digits.test_targets[:30], corruptions(digits, ["blur"]))
    assert found.draws == 1
    assert max(found.scores["blur"]["mutual_information"]) < 1e-6


def test_it_is_kept_as_json(found):
    assert shift_from(json.loads(json.dumps(found.to_dict()))) == found
    broken = found.to_dict()
    broken["scores"]["noise"]["nll"] = [None] * 6  # as an infinity is written
    assert torch.tensor(shift_from(broken).scores["noise"]["nll"]).isnan().all()


def test_figure_and_table_show_every_model(found, classifier, digits):
    twin = under_shift(
        Point(classifier.problem, classifier.mean),
        digits.test_inputs,
        digits.test_targets,
        corruptions(digits, ["noise", "blur"]),
    )
    figure = plot_shift({"model": found, "twin": twin}, ["accuracy", "ece"])
    lines = [line for ax in figure.axes for line in ax.lines]
    assert len(lines) == 2 * 2 * 2
    assert list(lines[0].get_ydata()) == [100 * v for v in found.scores["noise"]["accuracy"]]
    grid = table({"model": found, "twin": twin})
    assert grid.rows[2][0] == "NLL: model"
    best = {row for row, column in grid.best if column == 5}
    assert (2 in best) == (found.mean["nll"][5] < twin.mean["nll"][5])
    assert (3 in best) != (2 in best)
    values = {"models": {"model": found.to_dict(), "twin": twin.to_dict()}}
    shown = section(values)
    assert "accuracy falls from" in shown.verdict
    assert len(shown.verdict.splitlines()) == 2


def test_without_corruptions_there_is_nothing_to_score(classifier, digits):
    with pytest.raises(InvalidInput, match="There are no corruptions"):
        under_shift(classifier, digits.test_inputs, digits.test_targets, {})
