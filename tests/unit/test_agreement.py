"""Comparisons of posteriors: what is equal agrees exactly, and what is Gaussian differs as closed forms say."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from posterity import Bernoulli, Categorical, Gaussian, InvalidInput, Normal, Problem, compare_posteriors
from posterity.metrics.agreement import compare_predictives, wasserstein2
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point
from posterity.predict.predictive import Classification, Regression

N = 4000


def linear(mean: tuple, std: tuple, likelihood: object = None, outputs: int = 1) -> DiagonalGaussian:
    network = nn.Linear(2, outputs, bias=False).double()
    problem = Problem(network, Normal(0, 1), likelihood or Gaussian(std=0.5), 3).snapshot()
    return DiagonalGaussian(problem, *(torch.tensor(v, dtype=torch.float64) for v in (mean, std)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.tensor([[1.0, 0.0], [0.5, -2.0], [1.0, 1.0]], dtype=torch.float64)


def test_identical_predictives_of_values_agree_exactly() -> None:
    p = linear((1.0, -1.0), (0.3, 0.4)).predict(X, 50, generator=seeded())
    found = compare_predictives(p, p)
    assert (found.rmse_of_means, found.function_w2, found.symmetric_kl) == (0, 0, 0)
    assert (found.std_ratio, found.epistemic_std_ratio) == (1, 1)
    assert math.isnan(found.weights_w2)


def test_identical_predictives_of_classes_agree_exactly() -> None:
    p = linear((1.0,) * 6, (0.3,) * 6, Categorical(), 3)
    own = p.predict(X, 50, generator=seeded())
    found = compare_predictives(own, own)
    assert (found.top1, found.total_variation, found.symmetric_kl, found.epistemic_std_ratio) == (1, 0, 0, 1)


def test_gaussians_differ_as_closed_forms_say() -> None:
    """f(x) ~ N(x·m, Σ x_i² s_i²): W2² = (m − m′)² + (s − s′)² of each marginal; KL likewise."""
    (ma, sa), (mb, sb) = ((1.0, -1.0), (0.3, 0.4)), ((0.8, -0.5), (0.6, 0.1))
    found = compare_posteriors(linear(ma, sa), linear(mb, sb), X, n=N, generator=seeded())
    means, stds = ([np.array(v) for v in pair] for pair in ((ma, mb), (sa, sb)))
    f = [X.numpy() @ m for m in means]
    v = [X.numpy() ** 2 @ s**2 for s in stds]
    scale = max(np.sqrt(x).max() for x in v)
    error = 4 * scale / N**0.5
    assert found.rmse_of_means == pytest.approx(np.sqrt(np.mean((f[0] - f[1]) ** 2)), abs=error)
    w2 = np.sqrt(np.mean((f[0] - f[1]) ** 2 + (np.sqrt(v[0]) - np.sqrt(v[1])) ** 2))
    assert found.function_w2 == pytest.approx(w2, abs=2 * error)
    ratio = np.sqrt(v[0].mean() / v[1].mean())
    assert found.epistemic_std_ratio == pytest.approx(ratio, rel=4 / N**0.5)  # two stds, each to 1/√(2n)
    t = [x + 0.25 for x in v]
    assert found.std_ratio == pytest.approx(np.sqrt(t[0].mean() / t[1].mean()), rel=4 / N**0.5)
    kl = np.mean(
        [
            0.5 * (a / b + b / a) / 2 - 0.5 + 0.25 * d**2 * (1 / a + 1 / b)
            for a, b, d in zip(t[0], t[1], f[0] - f[1], strict=True)
        ]
    )
    assert found.symmetric_kl == pytest.approx(kl, abs=0.05 * kl + error)
    weights = np.sqrt(np.mean((means[0] - means[1]) ** 2 + (stds[0] - stds[1]) ** 2))
    assert found.weights_w2 == pytest.approx(weights, abs=4 * 0.6 / 200**0.5)


def test_the_divergence_of_gaussians_is_that_of_torch() -> None:
    a = Regression(torch.tensor([[0.3, -1.0]]), torch.tensor([[0.5, 2.0]]))  # one function: a single Gaussian
    b = Regression(torch.tensor([[1.0, -1.5]]), torch.tensor([[1.5, 0.7]]))
    p, q = (torch.distributions.Normal(r.means[0].double(), r.variances[0].double().sqrt()) for r in (a, b))
    kl = torch.distributions.kl_divergence
    expected = float((0.5 * (kl(p, q) + kl(q, p))).mean())
    assert compare_predictives(a, b).symmetric_kl == pytest.approx(expected, rel=1e-6)


def test_classes_by_hand() -> None:
    a = Classification(torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.2, 0.8]]], dtype=torch.float64))
    b = Classification(torch.tensor([[[0.4, 0.6], [0.2, 0.8]], [[0.4, 0.6], [0.4, 0.6]]], dtype=torch.float64))
    found = compare_predictives(a, b)
    p, q = np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.3, 0.7]])
    kl = [stats.entropy(x, y) for x, y in zip(p, q, strict=True)]
    back = [stats.entropy(y, x) for x, y in zip(p, q, strict=True)]
    assert found.top1 == 0.5
    assert found.total_variation == pytest.approx((0.4 + 0.1) / 2)
    assert found.symmetric_kl == pytest.approx(0.5 * np.mean(np.add(kl, back)))
    assert found.epistemic_std_ratio == pytest.approx(1.0)  # both have one input with a variance of 0.1² per class
    sure = Classification(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert math.isfinite(compare_predictives(a, sure).symmetric_kl)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (6, 4), (7, 3), (1, 9)])
def test_the_distance_is_the_optimal_transport_of_two_samples(n: int, m: int) -> None:
    """Against a linear programme over all couplings."""
    from scipy.optimize import linprog

    a, b = (torch.randn(k, 2, generator=seeded(k), dtype=torch.float64) for k in (n, m))
    found = wasserstein2(a, b)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    marginals = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    for column in range(2):
        cost = (a[:, None, column] - b[None, :, column]).square().numpy().ravel()
        best = linprog(cost, A_eq=np.r_[rows, columns], b_eq=marginals)
        assert float(found[column]) ** 2 == pytest.approx(best.fun, abs=1e-9)


def test_a_point_has_no_width_and_two_points_no_ratio() -> None:
    wide = linear((1.0, -1.0), (0.3, 0.4))
    point = Point(wide.problem, wide.loc)
    assert compare_posteriors(point, wide, X, n=50, generator=seeded()).epistemic_std_ratio == 0
    assert compare_posteriors(wide, point, X, n=50, generator=seeded()).epistemic_std_ratio == math.inf
    both = compare_posteriors(point, point, X, n=5)
    assert math.isnan(both.epistemic_std_ratio)
    assert both.weights_w2 == 0
    assert "Epistemic" not in str(both)


def test_other_networks_are_compared_by_functions_alone() -> None:
    a, b = linear((1.0, -1.0), (0.3, 0.4)), linear((1.0,) * 2, (0.3,) * 2)
    other = nn.Sequential(nn.Linear(2, 1, bias=False)).double()
    b = DiagonalGaussian(Problem(other, Normal(0, 1), Gaussian(std=0.5), 3).snapshot(), b.loc, b.std)
    assert math.isnan(compare_posteriors(a, b, X, n=5).weights_w2)


def test_what_cannot_be_compared_is_refused() -> None:
    values, classes = linear((1.0, -1.0), (0.3, 0.4)), linear((1.0, -1.0), (0.3, 0.4), Bernoulli())
    with pytest.raises(InvalidInput, match="a Regression of shape .* and a Classification of shape"):
        compare_posteriors(values, classes, X, n=5)
    with pytest.raises(InvalidInput, match=r"\(3,\) and a Regression of shape \(2,\)"):
        compare_predictives(values.predict(X, 3), values.predict(X[:2], 3))
