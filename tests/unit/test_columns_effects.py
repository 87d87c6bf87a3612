"""Importance and dependence of columns: exact where a posterior is linear, nothing where a column is not read."""

import math

import pytest
import torch
from torch import nn

from posterity import Categorical, Gaussian, Normal, Problem
from posterity.errors import InvalidInput
from posterity.likelihoods import Poisson, Quantile
from posterity.posteriors.average import Averaging
from posterity.posteriors.columns import partial_dependence, permutation_importance
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples

STD = 0.5
ALL = Averaging(draws=3)


def linear(weights: list[list[float]], likelihood=None, outputs: int = 1) -> Samples:
    """Draws of f(x) = w · x, exactly these."""
    own = torch.tensor(weights, dtype=torch.float64)
    network = nn.Linear(own.shape[1] // outputs, outputs, bias=False).double()
    return Samples(Problem(network, Normal(0, 1), likelihood or Gaussian(std=STD), num_data=9), own)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2


def exchanged(weight: torch.Tensor, column: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The mean over all pairs of rows of [(r_i + w (x_i − x_k))² − r_i²]/(2σ²), k ≠ i."""
    away = weight * (column.unsqueeze(1) - column)
    losses = (residual.unsqueeze(1) + away).square() - residual.square().unsqueeze(1)
    return losses.sum() / (len(column) * (len(column) - 1)) / (2 * STD**2)


def test_every_function_of_a_linear_posterior_loses_what_all_pairs_of_rows_say(x):
    weights = torch.tensor([[1.0, -2.0, 0.0], [0.5, -1.0, 0.0], [3.0, 0.2, 0.0]])
    y = x @ torch.tensor([1.0, -1.0, 0.3], dtype=torch.float64)
    groups = {"a": [0], "b": [1], "unread": [2]}
    found = permutation_importance(linear(weights.tolist()), x, y, groups, ALL, shuffles=29)
    for one, column in zip(found, (0, 1, 2), strict=True):
        exact = [exchanged(w[column].double(), x[:, column], y - x @ w.double()) for w in weights]
        assert torch.allclose(one.losses, torch.stack(exact)), one.name
    assert found[2].losses.tolist() == [0, 0, 0]
    assert found[2].error == 0


def test_of_the_true_function_it_is_the_variance_that_the_column_explains(x):
    y = x @ torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    posterior = linear([[1.0, -2.0, 0.0]] * 3)
    first, second = permutation_importance(posterior, x, y, {"a": [0], "b": [1]}, ALL, shuffles=29)
    assert first.loss == pytest.approx((x[:, 0].var() / STD**2).item())
    assert second.loss == pytest.approx((4 * x[:, 1].var() / STD**2).item())
    assert first.interval() == pytest.approx((first.loss, first.loss))  # the functions agree


def test_columns_of_a_group_are_exchanged_together(x):
    """Two halves of one number: apart each loses something, together they lose what the number does."""
    halves = torch.stack([x[:, 0], x[:, 0], x[:, 1]], 1)
    y = 2 * x[:, 0] + x[:, 1]
    (whole,) = permutation_importance(linear([[1.0, 1.0, 1.0]]), halves, y, {"both": [0, 1]}, ALL, shuffles=29)
    (one,) = permutation_importance(linear([[1.0, 1.0, 1.0]]), halves, y, {"one": [0]}, ALL, shuffles=29)
    assert whole.loss == pytest.approx((4 * x[:, 0].var() / STD**2).item())
    assert one.loss == pytest.approx(whole.loss / 4)


def test_a_few_exchanges_are_near_all_of_them_and_the_same_each_time(x):
    y = x @ torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    posterior, groups = linear([[1.0, -2.0, 0.0]]), {"a": [0]}
    few, again, every = (permutation_importance(posterior, x, y, groups, ALL, r)[0] for r in (8, 8, 29))
    assert few.loss == again.loss
    assert few.loss == pytest.approx(every.loss, rel=0.3)
    assert few.error == pytest.approx(
        x[:, 0].var().mul(2).sqrt().item(), rel=0.3
    )  # of exact predictions the RMSE was 0


def test_of_classes_it_is_the_accuracy_that_is_lost(x):
    y = (x[:, 0] > 2).long()
    posterior = linear([[-50.0, 0, 0, 50.0, 0, 0]], Categorical(), outputs=2)
    centred = x - torch.tensor([2.0, 0, 0])
    first, second = permutation_importance(posterior, centred, y, {"a": [0], "b": [1]}, ALL, shuffles=29)
    shares = y.double().mean().item()
    assert first.error == pytest.approx(2 * shares * (1 - shares) * 30 / 29)  # of pairs of rows that are unlike
    assert (second.loss, second.error) == pytest.approx((0, 0), abs=1e-12)


def test_rows_without_a_target_say_nothing(x):
    y = x @ torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    gone = torch.cat([y, torch.full((5,), torch.nan, dtype=torch.float64)])
    posterior, more = linear([[0.0, -2.0, 0.0]]), torch.cat([x, x[:5]])
    (found,) = permutation_importance(posterior, more, gone, {"a": [0]}, ALL)
    assert (found.loss, found.error) == pytest.approx((0, 0), abs=1e-12)


def test_what_is_expected_along_a_line_is_the_line(x):
    weights = torch.tensor([[1.0, -2.0, 0.5], [0.5, -1.0, 0.0], [3.0, 0.2, 1.0]], dtype=torch.float64)
    grid = torch.tensor([[-1.0], [0.0], [4.0]], dtype=torch.float64)
    found = partial_dependence(linear(weights.tolist()), x, [1], grid, ALL)
    others = weights[:, [0, 2]] @ x[:, [0, 2]].mean(0)
    assert torch.allclose(found.expected, weights[:, 1:2] * grid.T + others.unsqueeze(1))
    assert torch.allclose(found.rescale(100.0, 10.0).mean, 100 + 10 * found.expected.mean(0))
    lower, upper = found.interval(0.9)
    assert torch.allclose(lower, found.expected.quantile(0.05, 0))
    assert (lower < found.mean).all()
    assert (found.mean < upper).all()


def test_of_counts_it_is_their_mean_and_of_classes_their_probabilities(x):
    counts = partial_dependence(linear([[0.1, 0.0, 0.0]], Poisson()), x, [0], torch.tensor([[0.0], [10.0]]), ALL)
    assert counts.mean.tolist() == pytest.approx([1.0, math.e])
    classes = partial_dependence(linear([[0, 0, 0, 1.0, 0, 0]], Categorical(), 2), x, [0], torch.zeros(1, 1), ALL)
    assert classes.mean.tolist() == [[0.5, 0.5]]


def test_functions_are_drawn_of_a_posterior_whose_predictions_have_a_closed_form(x):
    problem = Problem(nn.Linear(3, 1, bias=False).double(), Normal(0, 1), Gaussian(std=STD), num_data=9)
    weights = FullRankGaussian(problem, torch.tensor([1.0, 0, 0]).double(), 0.3 * torch.eye(3).double())
    y = x[:, 0]
    (found,) = permutation_importance(Linearised(problem, weights), x, y, {"a": [0]}, Averaging(40))
    lower, upper = found.interval()
    assert lower < found.loss < upper
    assert len(found.losses) == 40
    (point,) = permutation_importance(Point(problem, torch.ones(3).double()), x, y, {"a": [0]}, Averaging(40))
    assert len(point.losses) == 1


def test_what_cannot_be_asked_is_refused(x):
    posterior, y = linear([[1.0, 0.0, 0.0]]), x[:, 0]
    for words, ask in (
        ("numbered 0 to 2", lambda: permutation_importance(posterior, x, y, {"a": [3]})),
        ("has no columns", lambda: permutation_importance(posterior, x, y, {"a": []})),
        ("at least 2 rows", lambda: permutation_importance(posterior, x[:1], y[:1], {"a": [0]})),
        ("29 targets", lambda: permutation_importance(posterior, x, y[:29], {"a": [0]})),
        ("a table", lambda: permutation_importance(posterior, x[:, :, None], y, {"a": [0]})),
        ("shape (G, 1)", lambda: partial_dependence(posterior, x, [0], torch.zeros(2, 2))),
        ("no density", lambda: permutation_importance(quantiles(), x, y, {"a": [0]})),
    ):
        with pytest.raises(InvalidInput) as refused:
            ask()
        assert words in str(refused.value)


def quantiles() -> Samples:
    likelihood = Quantile((0.05, 0.5, 0.95), scale=1.0)
    return linear([[1.0] * 9], likelihood, outputs=3)
