"""The study of rotated moons: its data are what the page says, its grouped network is plain networks, its prior is right."""

from importlib import import_module
from math import log
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import make_moons
from torch import nn

from posterity import Bernoulli, Problem
from posterity.model.priors import as_prior
from posterity.posteriors.gaussian import DiagonalGaussian


@pytest.fixture(scope="module")
def study() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
        return import_module("rotated_moons")


def plain(weights: torch.Tensor) -> nn.Module:
    """Return the same network as ordinary layers: 40 weights, each layer's as (in, out)."""
    layers = [nn.Linear(i, o, bias=False) for i, o in ((2, 5), (5, 5), (5, 1))]
    for layer, flat in zip(layers, weights.split([10, 25, 5]), strict=True):
        layer.weight.data = flat.view(layer.in_features, layer.out_features).T
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def test_each_task_is_half_training_half_test_points_of_both_classes(study: ModuleType) -> None:
    data = study.moons(3)
    for inputs, targets in (data.train, data.test):
        assert inputs.shape == (900, 3)
        assert torch.equal(inputs[:, 2].long().bincount(), torch.full((18,), 50))
        assert set(targets.tolist()) == {0.0, 1.0}
    assert not (data.train[0][:, None] == data.test[0][None]).all(-1).any()


def test_tasks_are_standardised_moons_turned_by_their_angles(study: ModuleType) -> None:
    data = study.moons(3)
    random = np.random.RandomState(3)
    for task in range(18):
        points, classes = make_moons(100, noise=0.3, random_state=random)
        angle = 90 * random.randn()
        standard = (points - points.mean(0)) / points.std(0)
        both = [
            torch.cat([part[i][part[0][:, 2] == task] for part in (data.train, data.test)]).double().numpy()
            for i in (0, 1)
        ]
        assert angle == data.angles[task]
        turned = (standard[:, 0] + 1j * standard[:, 1]) * np.exp(
            -1j * np.radians(angle)
        )  # a row vector times a rotation
        assert np.allclose(both[0][:, 0] + 1j * both[0][:, 1], turned, atol=1e-6)
        assert np.array_equal(both[1], classes)


def test_angles_have_the_std_of_ninety_degrees(study: ModuleType) -> None:
    angles = np.concatenate([study.moons(seed).angles for seed in range(10)])
    assert abs(angles.std() - 90) < 4 * 90 / np.sqrt(2 * len(angles))
    assert abs(angles.mean()) < 4 * 90 / np.sqrt(len(angles))


def test_who_knows_the_densities_is_right_as_often_as_a_large_sample_says(study: ModuleType) -> None:
    """A nearest-neighbour vote among 20,000 points of the same source nearly attains the best accuracy."""
    from sklearn.neighbors import KNeighborsClassifier

    points, classes = make_moons(20_000, noise=0.3, random_state=0)
    data = study.moons(0)
    voted = KNeighborsClassifier(101).fit(points, classes).score(data.upright, data.test[1].numpy())
    assert study.best_possible(data) == pytest.approx(voted, abs=0.01)


@pytest.mark.parametrize("name", ["Networks", "Group"])
def test_grouped_network_computes_what_plain_networks_do(study: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    network = getattr(study, name)().double()
    inputs = study.moons(0).train[0].double()[torch.randperm(900)]
    weights = network.weights()
    if name == "Group":
        sigma = [s for s, size in zip(network.log_sigma.exp(), (10, 25, 5), strict=True) for _ in range(size)]
        expected = [network.mu[j] + sigma[j] * network.raw[:, j] for j in range(40)]
        assert torch.allclose(weights, torch.stack(expected, 1))
    outputs = network(inputs)
    for task in range(18):
        own = inputs[:, 2] == task
        assert torch.allclose(outputs[own], plain(weights[task])(inputs[own, :2]), atol=1e-12)


def test_prior_of_the_log_scale_is_that_of_a_half_normal_scale(study: ModuleType) -> None:
    u = torch.tensor([-1.2, 0.3], dtype=torch.float64)
    expected = stats.halfnorm.logpdf(u.exp().numpy()) + u.numpy()  # p(u) = p(s) s
    assert float(study.LogScale().log_prob({"log_sigma": u})) == pytest.approx(expected.sum(), abs=1e-9)


def test_its_expectation_is_that_of_a_quadrature(study: ModuleType) -> None:
    mean, std = torch.tensor([-1.2, 0.3], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = sum(
        w / np.sqrt(2 * np.pi) * (stats.halfnorm.logpdf(np.exp(m + s * z)) + m + s * z)
        for m, s in zip(mean.tolist(), std.tolist(), strict=True)
        for z, w in zip(nodes, weights, strict=True)
    )
    found = study.LogScale().expected_log_prob({"log_sigma": mean}, {"log_sigma": std})
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_informative_prior_has_the_moments_of_a_new_task(study: ModuleType) -> None:
    """Under q, w = μ + σ·ε has the mean E[μ] and the variance Var[μ] + E[σ²] = s² + e^(2m + 2v²)."""
    torch.manual_seed(0)
    problem = Problem(study.Group(), as_prior(study.GROUP), Bernoulli(), 900)
    std = torch.full((problem.layout.size,), 0.2)
    group = DiagonalGaussian(problem, problem.theta(), std)
    prior = study.prior_of(group, 2, 0)
    count = 20 * study.DRAWS
    own = problem.layout.views(problem.theta())
    variance = 0.2**2 + torch.exp(2 * study.each_weight(own["log_sigma"]) + 2 * 0.2**2)
    assert prior.factor is not None
    covariance = torch.diag(prior.std.square()) + prior.factor @ prior.factor.T
    error = (prior.mean[:40] - own["mu"]).abs() / (variance / count).sqrt()
    assert float(error.max()) < 4.5
    # σ·ε, log σ ~ N(m, v²), has the kurtosis 3 e^(4v²) = 3.52; a sample variance's relative error is √((3.52 − 1)/count)
    assert torch.allclose(covariance[:40, :40].diagonal(), variance, rtol=4.5 * (2.52 / count) ** 0.5)
    assert float(covariance[:40, 40:].abs().max()) == 0
    assert torch.equal(covariance[:40, :40], covariance[40:, 40:])
    outer = variance.sqrt()[:, None] * variance.sqrt()
    off = (covariance[:40, :40] / outer).fill_diagonal_(0)
    assert float(off.abs().max()) < 5 * count**-0.5


def test_group_starts_at_its_sigmas(study: ModuleType) -> None:
    assert torch.allclose(study.Group().log_sigma, torch.tensor([log(s) for s in study.SIGMA]))
