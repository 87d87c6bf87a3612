"""The posterior of modules trained in any loop: whole weights, the right moments, one function per draw."""

from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
import posterity.nn as pnn
from posterity import Categorical, Gaussian, Hierarchical, InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here

N = 4000


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_draws_have_the_moments_of_the_weights_and_are_functions(estimator: str) -> None:
    torch.manual_seed(0)
    layer = pnn.Linear(
        3, 1, std={"weight": torch.tensor([[0.5, 0.1, 0.3]]), "bias": torch.tensor([0.2])}, estimator=estimator
    )
    x = torch.tensor([[1.0, -2.0, 0.5], [1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    draws = posterity.posterior(layer, Gaussian(std=1.0)).draw(x, N, generator=torch.Generator().manual_seed(1))[..., 0]
    assert torch.equal(draws[:, 0], draws[:, 1])  # activation noise would tell two equal inputs apart
    mean = posterity.deterministic(layer)(x)[:, 0]
    std = (x.square() @ layer.std["weight"].square().T + layer.std["bias"].square()).sqrt()[:, 0]
    assert ((draws.mean(0) - mean).abs() < 4 * std / N**0.5).all()
    assert ((draws.std(0) - std).abs() < 4 * std / (2 * N) ** 0.5).all()


def test_a_layer_that_is_called_twice_has_the_same_weights_both_times() -> None:
    layer = pnn.Linear(1, 1, bias=False, std=1.0)
    with torch.no_grad():
        layer.network.weight.zero_()
    twice = nn.Sequential(layer, layer)
    outputs = posterity.posterior(twice, Gaussian(std=1.0)).draw(torch.ones(1, 1), 200)
    assert (outputs >= 0).all()  # w², never w·w′
    assert outputs.mean() > 0.5
    assert (torch.stack([twice(torch.ones(1, 1)) for _ in range(50)]) < 0).any()  # as each call alone draws anew


def test_it_is_a_snapshot_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(pnn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), pnn.Linear(4, 2)).train()
    posterior = posterity.posterior(network, num_data=100)
    x, seed = torch.randn(6, 3), torch.Generator()
    before = posterior.draw(x, 3, generator=seed.manual_seed(1))
    network(x).sum().backward()  # moves running statistics
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert torch.equal(posterior.draw(x, 3, generator=seed.manual_seed(1)), before)
    assert network.training
    assert posterior.problem.num_data == 100


def test_what_is_not_bayesian_is_not_random() -> None:
    network = nn.ModuleDict({"body": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "head": pnn.Linear(4, 2)})
    posterior = posterity.posterior(network)
    assert posterior.problem.coordinates.random_names == ("head.weight", "head.bias")
    assert len(posterior.std) == 10
    part = posterity.bayesianize(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "last_layer")
    assert posterity.posterior(part).problem.coordinates.random_names == ("1.weight", "1.bias")


def test_a_file_restores_its_predictions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(pnn.Conv1d(2, 4, 3, std=0.3), nn.Flatten(), pnn.Linear(16, 3, std=0.2))
    posterior, x, seed = posterity.posterior(network, Categorical()), torch.randn(5, 2, 6), torch.Generator()
    posterior.save(tmp_path / "posterior.safetensors")
    restored = posterity.load(tmp_path / "posterior.safetensors", posterity.deterministic(network))
    expected = posterior.predict(x, 20, generator=seed.manual_seed(3)).mean
    assert torch.equal(restored.predict(x, 20, generator=seed.manual_seed(3)).mean, expected)


def test_under_a_centred_hierarchical_prior_the_weights_are_all_that_it_draws() -> None:
    layer = pnn.Linear(3, 2, prior=Hierarchical(), std=0.1)
    posterior = posterity.posterior(layer)
    assert len(posterior.loc) == len(posterior.std) == 8
    torch.testing.assert_close(posterior.std, torch.full((8,), 0.1))


@pytest.mark.parametrize(
    ("network", "likelihood", "words"),
    [
        (nn.Linear(2, 1), None, "holds no Bayesian module"),
        (pnn.Linear(2, 1, prior=Hierarchical(centered=False)), None, "centered=True"),
        (pnn.Linear(2, 1), Gaussian(), r"'std'.*Gaussian\(std=0.1\)"),
    ],
)
def test_what_has_no_such_posterior_is_refused(network: nn.Module, likelihood: Gaussian | None, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        posterity.posterior(network, likelihood)
