"""Densities of penultimate features: against scikit-learn's discriminant analysis and SciPy's multivariate normal."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from posterity import Categorical, InvalidInput, Normal, Problem
from posterity.posteriors.features import RIDGE, FeatureDensity, features, mean_networks
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.zoo import LeNet


@pytest.fixture(scope="module")
def known() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
    mixing = rng.normal(size=(4, 4))
    rows = rng.normal(size=(400, 4)) @ mixing + 2 * rng.normal(size=(3, 4))[labels]
    return torch.from_numpy(rows), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def density(known) -> FeatureDensity:
    return FeatureDensity.fit(*known)


def covariances(density: FeatureDensity) -> tuple[np.ndarray, np.ndarray]:
    return tuple((factor @ factor.t()).numpy() for factor in (density.factor, density.whole))


def test_it_is_linear_discriminant_analysis(known, density):
    rows, labels = (part.numpy() for part in known)
    lda = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(rows, labels)
    ridge = RIDGE * np.trace(lda.covariance_) / 4 * np.eye(4)
    np.testing.assert_allclose(covariances(density)[0], lda.covariance_ + ridge, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(density.means, lda.means_, rtol=1e-12)
    np.testing.assert_allclose(density.shares, lda.priors_, rtol=1e-12)
    exact = FeatureDensity(
        density.means,
        density.shares,
        torch.linalg.cholesky(torch.from_numpy(lda.covariance_)),
        density.mean,
        density.whole,
    )
    told = (exact.shares.log() - 0.5 * exact._squares(known[0])).softmax(1)  # p(class | z)
    np.testing.assert_allclose(told, lda.predict_proba(rows), rtol=1e-8, atol=1e-12)


def test_log_density_is_that_of_the_mixture_of_normals(known, density):
    covariance, _ = covariances(density)
    parts = [
        np.log(share) + multivariate_normal(mean.numpy(), covariance).logpdf(known[0].numpy())
        for share, mean in zip(density.shares.numpy(), density.means, strict=True)
    ]
    np.testing.assert_allclose(density.log_density(known[0]), logsumexp(parts, 0), rtol=1e-10)


def test_distances_are_mahalanobis(known, density):
    own, whole = (np.linalg.inv(c) for c in covariances(density))
    for row in known[0][:20]:
        nearest = min(mahalanobis(row, mean, own) ** 2 for mean in density.means.numpy())
        assert density.distance(row[None]).item() == pytest.approx(nearest, rel=1e-9)
        background = mahalanobis(row, known[0].numpy().mean(0), whole) ** 2
        assert density.relative_distance(row[None]).item() == pytest.approx(nearest - background, rel=1e-9, abs=1e-9)


def test_without_classes_there_is_one_gaussian(known):
    one = FeatureDensity.fit(known[0])
    expected = multivariate_normal(one.mean.numpy(), covariances(one)[1]).logpdf(known[0].numpy())
    np.testing.assert_allclose(one.log_density(known[0]), expected, rtol=1e-10)
    torch.testing.assert_close(
        one.relative_distance(known[0]), torch.zeros(400, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_a_dead_unit_leaves_everything_finite(known):
    dead = torch.cat([known[0], torch.zeros(400, 1)], 1)
    found = FeatureDensity.fit(dead, known[1])
    assert found.log_density(dead).isfinite().all()
    awake = dead[:1].clone()
    awake[0, 4] = 1.0
    assert found.distance(awake).item() > 1e3 * found.distance(dead).max().item()


def test_features_are_what_the_last_layer_is_given():
    torch.manual_seed(0)
    network = LeNet(activation="softplus").train()
    images = torch.randn(1030, 1, 32, 32)[:, :, :, :]
    found = features(network, images)
    assert found.shape == (1030, 84)
    torch.testing.assert_close(network.fc3(found[1000:].float()), network(images[1000:]), rtol=1e-4, atol=1e-5)
    assert network.training
    assert not network.fc3._forward_pre_hooks
    linear = nn.Linear(3, 2)
    torch.testing.assert_close(features(linear, torch.ones(4, 3)), torch.ones(4, 3, dtype=torch.float64))


def test_dropout_is_off_and_normalisation_is_no_last_layer():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2), nn.LayerNorm(2)).train()
    rows = torch.randn(6, 3)
    torch.testing.assert_close(features(network, rows).float(), network[1](rows))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(rows))


def test_what_has_no_features_is_refused(known):
    with pytest.raises(InvalidInput, match="calls its last layer 2 times"):
        features(Twice(), torch.ones(2, 3))
    with pytest.raises(InvalidInput, match="at least 2 rows"):
        FeatureDensity.fit(torch.ones(1, 3))
    with pytest.raises(InvalidInput, match="at least 2 rows of finite"):
        FeatureDensity.fit(torch.full((3, 3), float("nan")))
    with pytest.raises(InvalidInput, match="one class for each of 400 rows"):
        FeatureDensity.fit(known[0], known[1][:5])
    with pytest.raises(InvalidInput, match="constant within their classes"):
        FeatureDensity.fit(torch.ones(4, 2))


def test_networks_that_stand_for_a_posterior():
    problem = Problem(nn.Linear(2, 2), Normal(0, 1), Categorical(), 5)
    thetas = torch.arange(18.0).reshape(3, 6)
    points = tuple(Point(problem, theta) for theta in thetas)
    weights = [network.weight.flatten().tolist() for network in mean_networks(Mixture.of(points))]
    assert weights == [theta[:4].tolist() for theta in thetas]
    (last,) = mean_networks(Samples(problem, thetas))
    assert last.bias.tolist() == thetas[2, 4:].tolist()
