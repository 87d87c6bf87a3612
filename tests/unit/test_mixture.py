"""Mixtures of posteriors of different networks, priors and likelihoods; and what every posterior says of itself."""

import pytest
import torch
from torch import nn

import posterity
from posterity import Bernoulli, Categorical, Gaussian, Informative, InvalidInput, Mismatch, Mixture, Normal, Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.chains import Chains
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples

X = torch.linspace(-1, 1, 12).reshape(4, 3)

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here


def network(hidden: int = 5, activation: type[nn.Module] = nn.Tanh, outputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(3, hidden), activation(), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs))


def gaussian(module: nn.Module, likelihood=None, prior=None, std: float = 0.1) -> DiagonalGaussian:
    problem = Problem(module, prior or Normal(0, 1), likelihood or Categorical(), 7).snapshot()
    theta = problem.theta()
    return DiagonalGaussian(problem, theta, torch.full_like(theta, std))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pairs():
    wide, narrow = gaussian(network(9)), gaussian(nn.Linear(3, 2))
    draws = Samples(narrow.problem, torch.randn(5, 8, generator=seeded()))
    relu, tanh = gaussian(network(activation=nn.ReLU)), gaussian(network())
    return {"width": (wide, narrow), "family": (wide, draws), "activation": (relu, tanh)}


@pytest.mark.parametrize("kind", ["width", "family", "activation"])
def test_different_networks_are_mixed_function_by_function(kind):
    parts = pairs()[kind]
    mixture, generator = Mixture.of(parts), seeded()
    expected = [part.predict(X, 4, generator=generator).probs for part in parts]
    found = mixture.predict(X, 8, generator=seeded()).probs
    torch.testing.assert_close(found.mean(0), torch.stack([e.mean(0) for e in expected]).mean(0))
    assert mixture.draw(X, 8, generator=seeded()).shape == (8, 4, 2)
    averaged = posterity.average(mixture, X, 8, generator=seeded())
    torch.testing.assert_close(averaged.mean, found.mean(0))


@pytest.mark.parametrize("kind", ["width", "family", "activation"])
def test_what_needs_one_network_is_refused_for_different_ones(kind):
    mixture = Mixture.of(pairs()[kind])
    for asked in (mixture.sample, lambda: mixture.mean, mixture.network):
        with pytest.raises(InvalidInput, match="different networks"):
            asked()
    assert not mixture.alike
    assert mixture.size == sum(part.size for part in mixture.components)


@pytest.mark.parametrize("kind", ["width", "family", "activation"])
def test_different_networks_are_saved_and_loaded(kind, tmp_path):
    parts = pairs()[kind]
    mixture, file = Mixture.of(parts), tmp_path / "mixture.safetensors"
    mixture.save(file)
    fresh = {"width": (network(9), nn.Linear(3, 2)), "family": (network(9), nn.Linear(3, 2))}
    networks = fresh.get(kind, (network(activation=nn.ReLU), network()))
    loaded = posterity.load(file, networks)
    assert torch.equal(loaded.predict(X, 6, generator=seeded()).probs, mixture.predict(X, 6, generator=seeded()).probs)
    with pytest.raises(Mismatch):
        posterity.load(file, networks[::-1])
    with pytest.raises(Mismatch, match="3 networks were given"):
        posterity.load(file, (*networks, nn.Linear(3, 2)))


def test_a_mixture_of_different_networks_is_diagnosed_component_by_component():
    mixture = Mixture.of(pairs()["family"])
    assert [part.family for part in mixture.diagnose(X).parts] == ["diagonal_gaussian", "samples"]
    draws = Mixture.of([Samples(p.problem, p.mean.expand(6, -1)) for p in pairs()["activation"]])
    assert len(draws.diagnose(X).parts) == 2  # equally many coordinates, and yet no two chains of one posterior


def test_each_component_predicts_by_its_own_noise(tmp_path):
    parts = [gaussian(nn.Linear(3, 1), Gaussian(std=std)) for std in (0.1, 3.0)]
    mixture = Mixture.of(parts)
    expected = torch.full((4,), (0.1**2 + 3.0**2) / 2)
    torch.testing.assert_close(mixture.predict(X, 2).aleatoric, expected)
    torch.testing.assert_close(posterity.average(mixture, X, 2).aleatoric, expected)
    mixture.save(tmp_path / "noise.safetensors")
    loaded = posterity.load(tmp_path / "noise.safetensors", nn.Linear(3, 1))
    torch.testing.assert_close(loaded.predict(X, 2).aleatoric, expected)
    assert loaded.alike


def test_priors_of_components_are_kept_apart_in_a_file(tmp_path):
    stds = (0.1, 2.0)
    informative = [gaussian(nn.Linear(3, 2), prior=Informative.at(nn.Linear(3, 2), std)) for std in stds]
    normal = [gaussian(nn.Linear(3, 2), prior=Normal(0, std)) for std in stds]
    for parts in (informative, normal):
        Mixture.of(parts).save(tmp_path / "priors.safetensors")
        loaded = posterity.load(tmp_path / "priors.safetensors", nn.Linear(3, 2))
        found = [part.problem.prior.std for part in loaded.components]
        assert [round(float(torch.as_tensor(std).max()), 4) for std in found] == list(stds)


def test_what_cannot_be_mixed_is_refused_by_name():
    with pytest.raises(InvalidInput, match="none"):
        Mixture.of(())
    with pytest.raises(InvalidInput, match="Linear"):
        Mixture.of(part for part in (gaussian(nn.Linear(3, 2)), nn.Linear(3, 2)))  # whose types nothing looks at before
    with pytest.raises(InvalidInput, match="Categorical and Gaussian"):
        Mixture.of((gaussian(nn.Linear(3, 2)), gaussian(nn.Linear(3, 1), Gaussian(std=1.0))))
    uneven = Mixture.of((gaussian(nn.Linear(3, 2)), gaussian(nn.Linear(3, 4))))
    for asked in (uneven.predict, uneven.draw):
        with pytest.raises(InvalidInput, match="4"):
            asked(X, 4)
    two = Mixture.of((gaussian(nn.Linear(3, 2)), gaussian(nn.Linear(3, 1), Bernoulli())))
    assert two.predict(X, 4).probs.shape == (4, 4, 2)  # one logit or two, the same two classes


def families() -> dict[str, FunctionPosterior]:
    problem = Problem(network(300, outputs=10), Normal(0, 1), Categorical(), 7).snapshot()
    theta = problem.theta()
    thetas, statistics = theta.expand(6, -1), torch.zeros(2, 3)
    small = gaussian(nn.Linear(3, 2))
    return {
        "point": Point(problem, theta),
        "diagonal": DiagonalGaussian(problem, theta, theta.abs()),
        "low rank": LowRankGaussian(problem, theta, theta.abs(), theta[:, None].expand(-1, 4)),
        "full rank": FullRankGaussian(small.problem, small.mean, torch.eye(8)),
        "samples": Samples(problem, thetas),
        "chains": Chains(problem, thetas, statistics, statistics),
        "dropout": Dropout(problem, theta, {"1": 0.5}),
        "mixture": Mixture.of([Point(problem, theta)] * 20),
    }


def test_everything_says_itself_on_one_line():
    for posterior in families().values():
        shown = [posterior]
        if posterior.problem.layout.size > 8:
            shown += [posterior.predict(X, 3), posterity.average(posterior, X, 3)]
        for one in shown:
            assert "\n" not in repr(one)
            assert len(repr(one)) < 200
    values = gaussian(nn.Linear(3, 2), Gaussian(std=0.5))
    assert repr(posterity.average(values, X, 3)).startswith("RegressionMoments(3 functions, 4 inputs × 2 targets; mean")
    assert repr(values.predict(X, 3)).startswith("Regression(3 functions, 4 inputs × 2 targets; mean variance")


def test_numbers_that_are_kept_of_theta():
    counts = {name: p.size / p.problem.layout.size for name, p in families().items()}
    expected = {"point": 1, "diagonal": 2, "low rank": 6, "full rank": 9, "samples": 6, "chains": 6, "dropout": 1}
    assert counts == {**expected, "mixture": 20}
