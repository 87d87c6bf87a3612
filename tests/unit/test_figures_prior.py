"""A prior's functions in numbers and pictures: each number against a count by hand or a known distribution."""

from math import log

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from posterity import Categorical, Gaussian, Normal, Problem, prior_predictive
from posterity.errors import InvalidInput
from posterity.metrics.prior import commonest_class, prior_scores
from posterity.predict.predictive import Classification, Regression
from posterity.report.figures_prior import SHOWN, plot_prior_predictive


def one_hot(labels: list[list[int]], classes: int, sure: float = 1.0) -> Classification:
    rest = (1 - sure) / (classes - 1)
    probs = torch.full((len(labels), len(labels[0]), classes), rest, dtype=torch.float64)
    return Classification(probs.scatter(-1, torch.tensor(labels).unsqueeze(-1), sure))


def test_saturated_functions() -> None:
    scores = prior_scores(one_hot([[0, 0, 0, 0], [0, 1, 2, 2]], 3))
    assert scores == {"max_probability": 1.0, "entropy": 0.0, "saturated": 1.0, "commonest_class": 0.75}


def test_undecided_functions() -> None:
    scores = prior_scores(Classification(torch.full((5, 6, 4), 0.25)))
    assert scores["max_probability"] == 0.25
    assert scores["entropy"] == pytest.approx(log(4), rel=1e-6)
    assert scores["saturated"] == 0


def test_a_function_is_saturated_where_most_of_its_predictions_are() -> None:
    probs = torch.cat([one_hot([[0, 1, 2]], 3).probs, one_hot([[0, 1, 2]], 3, 0.9).probs])
    mixed = probs[:1].clone()
    mixed[0, 1:] = 1 / 3
    scores = prior_scores(Classification(torch.cat([probs, mixed])))
    assert scores["saturated"] == pytest.approx(1 / 3)
    assert scores["max_probability"] == pytest.approx((1 + 0.9 + (1 + 2 / 3) / 3) / 3)


def test_the_entropy_is_that_of_single_functions() -> None:
    """Two functions that are sure of different classes: their mean is undecided, they are not."""
    both = one_hot([[0, 0], [1, 1]], 2)
    assert both.entropy[0].item() == pytest.approx(log(2))
    assert prior_scores(both)["entropy"] == 0


def test_numbers_of_a_linear_network_under_a_normal_prior() -> None:
    """f = w x + b has, given x, the variance std² (x² + 1); a function's std over inputs is |w| std(x)."""
    x = torch.linspace(-2, 3, 50, dtype=torch.float64)[:, None]
    problem = Problem(nn.Linear(1, 1).double(), Normal(0, 0.5), Gaussian(std=0.2), 50)
    n = 2000
    found = prior_predictive(problem, x, n, generator=torch.Generator().manual_seed(0))
    scores = prior_scores(found, 3 * x.squeeze(1))
    spread = x.std(correction=0).item()
    assert scores["target_std"] == pytest.approx(3 * spread)
    # |w| is half-normal with the median 0.6745·std; a median's standard error is 1 / (2 p(median) √n)
    median = stats.halfnorm.ppf(0.5)
    error = 0.5 * spread / (2 * stats.halfnorm.pdf(median) * n**0.5)
    assert scores["function_std"] == pytest.approx(0.5 * spread * median, abs=4 * error)
    variance = 0.25 * (x.square().mean().item() + 1) + 0.04
    # a function's mean square is at most as dispersed as std² (max x² + 1) χ²₁
    error = 0.25 * 10 * (2 / n) ** 0.5 / (2 * variance**0.5)
    assert scores["predicted_std"] == pytest.approx(variance**0.5, abs=4 * error)
    assert "target_std" not in prior_scores(found)
    with pytest.raises(InvalidInput):
        prior_scores(found, x)


def shares(ax, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return heights and left edges of a filled histogram."""
    bars = ax.containers[index]
    return np.array([b.get_height() for b in bars]), np.array([b.get_x() for b in bars])


def test_the_picture_of_classes_draws_the_shares() -> None:
    found = one_hot([[0, 0, 0, 0], [0, 1, 2, 2], [0, 1, 2, 0]], 3, 0.8)
    sure, classed = plot_prior_predictive(found).axes
    heights, edges = shares(sure)
    assert heights.sum() == pytest.approx(1)
    width = (1 - 1 / 3) / len(edges)
    assert edges[heights.argmax()] <= 0.8 < edges[heights.argmax()] + width
    assert heights.max() == pytest.approx(1)
    assert commonest_class(found).tolist() == [1, 0.5, 0.5]
    heights, _ = shares(classed)
    assert sorted(heights[heights > 0]) == pytest.approx([1 / 3, 2 / 3])
    assert "33 %" in sure.get_xlabel()


def test_the_picture_of_one_input_draws_functions_bands_and_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, generator=generator)
    slopes = torch.linspace(-1, 1, 41)[:, None]
    found = Regression(slopes * x.squeeze(1), torch.ones(41, 30))
    y = torch.full((30,), 5.0)
    (ax,) = plot_prior_predictive(found, x, y).axes
    order = x.squeeze(1).argsort()
    assert len(ax.lines) == SHOWN + 1
    np.testing.assert_allclose(ax.lines[3].get_ydata(), found.means[3][order])
    np.testing.assert_allclose(ax.lines[3].get_xdata(), x.squeeze(1)[order])
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), y)
    band = ax.collections[0].get_paths()[0].vertices  # of 90 %: slopes from −0.9 to 0.9
    last = x.max().item()
    assert band[:, 1].max() == pytest.approx(0.9 * last, rel=1e-5)
    assert band[:, 1].min() == pytest.approx(-0.9 * last, rel=1e-5)
    assert ax.get_ylim()[1] > 5


def test_the_picture_of_many_inputs_compares_with_the_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(200, 40, generator=generator)
    y = 5 * torch.randn(40, generator=generator)
    left, right = plot_prior_predictive(Regression(means, torch.ones_like(means)), torch.randn(40, 3), y).axes
    heights, edges = shares(left)
    assert heights.sum() == pytest.approx(1)  # the targets reach further than the functions
    assert edges[0] == pytest.approx(y.min().item())
    assert right.lines[0].get_xdata()[0] == pytest.approx(y.double().std(correction=0).item())
    assert right.get_xscale() == "linear"
    heights, edges = shares(right)
    assert edges[heights > 0].max() <= means.std(1, correction=0).max()
    wild = Regression(means * torch.logspace(-2, 3, 200)[:, None], torch.ones_like(means))
    assert plot_prior_predictive(wild).axes[1].get_xscale() == "log"


def test_constant_functions_are_drawn_too() -> None:
    flat = Regression(torch.zeros(3, 4), torch.ones(3, 4))
    heights, _ = shares(plot_prior_predictive(flat).axes[1])
    assert heights.sum() == pytest.approx(1)
    assert plot_prior_predictive(flat, torch.rand(4, 1)).axes


def test_what_does_not_fit_is_refused() -> None:
    found = Regression(torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(InvalidInput, match="5 inputs"):
        plot_prior_predictive(found, torch.rand(5, 1))
    with pytest.raises(InvalidInput, match="5 targets"):
        plot_prior_predictive(found, torch.rand(4, 1), torch.rand(5))


def test_a_wide_prior_saturates_and_a_narrow_one_does_not() -> None:
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))

    def scores(std: float) -> dict[str, float]:
        problem = Problem(network, Normal(0, std), Categorical(), 50)
        return prior_scores(prior_predictive(problem, x, 50, generator=torch.Generator().manual_seed(1)))

    wide, narrow = scores(3.0), scores(0.01)
    assert wide["saturated"] > 0.9
    assert wide["max_probability"] > 0.95
    assert narrow["saturated"] == 0
    assert narrow["max_probability"] == pytest.approx(0.2, abs=0.02)
