"""Conversions by layer, in one call and in several; and modules that keep still in anyone's own loop."""

import inspect
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posterity
import posterity.nn as pnn
from posterity import Hierarchical, InvalidInput, LaplacePrior, Normal, bayesianize, deterministic, explain, kl
from posterity.model.bayesian import Bayesian

X = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))


def seeded(module: nn.Module, x: Tensor = X) -> Tensor:
    torch.manual_seed(5)
    return module(x)


BY_LAYER: dict[str, Callable[[nn.Module], Any]] = {
    "one call": lambda net: bayesianize(net, estimator={"0.*": "flipout", "*": "local_reparam"}, init=0.2),
    "two calls": lambda net: bayesianize(
        bayesianize(net, nn.Conv1d, estimator="flipout", init=0.2), nn.Linear, estimator="local_reparam", init=0.2
    ),
    "the rest": lambda net: bayesianize(
        bayesianize(net, "0", estimator="flipout", init=0.2), estimator="local_reparam", init=0.2
    ),
    "three calls": lambda net: bayesianize(
        bayesianize(bayesianize(net, "4", estimator="local_reparam", init=0.2), "0", estimator="flipout", init=0.2),
        "2.*",
        estimator="local_reparam",
        init=0.2,
    ),
}
every_way = pytest.mark.parametrize("way", BY_LAYER)


@every_way
def test_all_ways_make_the_same_module(way: str) -> None:
    bnn, whole = BY_LAYER[way](network()), BY_LAYER["one call"](network())
    assert [(e.name, e.estimator, e.std) for e in explain(bnn, X).entries] == [
        (e.name, e.estimator, e.std) for e in explain(whole, X).entries
    ]
    assert {e.name: e.estimator for e in explain(bnn, X).entries} == {
        "0.weight": "flipout",
        "0.bias": "flipout",
        **{f"{n}.{part}": "local_reparam" for n in (2, 4) for part in ("weight", "bias")},
    }
    assert torch.equal(kl(bnn), kl(whole))
    assert torch.equal(seeded(bnn), seeded(whole))


@every_way
def test_they_go_through_every_door(way: str) -> None:
    net = network()
    bnn = BY_LAYER[way](net)
    assert torch.equal(deterministic(bnn)(X), net(X))
    (seeded(bnn).square().sum() + kl(bnn)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bnn.parameters())
    with torch.no_grad():
        bnn.rho.uniform_(-2, -1)
    for again in (deepcopy(bnn), pickle.loads(pickle.dumps(bnn))):
        assert torch.equal(seeded(again), seeded(bnn))
    other = BY_LAYER[way](network())
    other.load_state_dict(bnn.state_dict())
    assert torch.equal(seeded(other), seeded(bnn))
    posterior = posterity.posterior(bnn)
    assert posterior.predict(X, 3).mean.shape == (5, 2)
    assert torch.equal(torch.cat([s.reshape(-1) for s in bnn.std.values()]), posterior.std)


def test_each_layer_keeps_its_own_prior_and_the_divergences_add_up() -> None:
    net = network()
    parts: list[tuple[str, Any]] = [("0", Normal(0.1, 2.0)), ("2", {"*.bias": Normal(0, 1), "*": Normal(0, 3.0)})]
    bnn: nn.Module = net
    for where, prior in parts:
        bnn = bayesianize(bnn, where, prior=prior)
    expected = sum(kl(bayesianize(net, where, prior=prior)) for where, prior in parts)
    torch.testing.assert_close(kl(bnn), expected)
    torch.manual_seed(0)
    sampled = kl(bayesianize(bnn, "4", prior=LaplacePrior(0, 0.1)))
    assert sampled > expected


@pytest.mark.parametrize("centered", [True, False])
def test_what_is_random_already_is_as_it_was(centered: bool) -> None:
    first = bayesianize(network(), "0", prior=Hierarchical(centered=centered), init=0.1)
    with torch.no_grad():
        first.rho.uniform_(-3, -2)
        first.latents[0].fill_(-0.7)
    both = bayesianize(first, "4", init=0.3)
    assert list(both.std) != list(first.std)
    for name, std in first.std.items():
        torch.testing.assert_close(
            both.std[name], std
        )  # softplus of another place in a vector may differ in its last bit
        assert torch.equal(both.mean[name], first.mean[name])
    torch.testing.assert_close(deterministic(both)(X), deterministic(first)(X))
    assert first.random_names == ("0.weight", "0.bias")  # the first one is left alone


def test_layers_composed_by_hand_and_conversions_go_together() -> None:
    torch.manual_seed(0)
    tree = nn.Sequential(nn.Flatten(), pnn.Linear(4, 3, prior=Normal(0, 1), std=0.1), nn.ReLU(), nn.Linear(3, 2))
    bnn = bayesianize(tree, "3", estimator="local_reparam", init=0.2)
    assert bnn.random_names == ("3.weight", "3.bias")
    torch.testing.assert_close(kl(bnn), kl(tree) + kl(bayesianize(tree[3], init=0.2)))
    assert not torch.equal(bnn(X), bnn(X))
    plain = deterministic(bnn)
    assert not any(hasattr(m, "rho") for m in plain.modules())
    assert torch.equal(plain(X), deterministic(tree)(X))
    posterior = posterity.posterior(bnn)
    assert posterior.problem.coordinates.random_names == ("1.weight", "1.bias", "3.weight", "3.bias")
    assert posterior.std.unique().tolist() == pytest.approx([0.1, 0.2])
    assert [e.name for e in explain(bnn, X).entries] == ["1.weight", "1.bias", "3.weight", "3.bias"]
    bnn.load_state_dict(bnn.state_dict())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": {"cov*": "flipout", "*": "weight"}}, "estimator pattern 'cov\\*' matches no parameter"),
        ({"estimator": {"0.*": "flipout"}}, "No estimator pattern of the conversion matches '2.weight'"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        bayesianize(network(), **options)


def test_an_unknown_estimator_is_refused_without_a_type_checker() -> None:
    unchecked = inspect.unwrap(Bayesian.__init__)  # these tests run under one, users do not
    with pytest.raises(InvalidInput, match="Unknown estimator 'flip'.*flipout"):
        unchecked(Bayesian.__new__(Bayesian), network(), "*", None, {"0.*": "flip", "*": "weight"}, 0.02)


def test_nothing_left_to_convert_is_refused() -> None:
    whole = bayesianize(network())
    for where in (None, "0", nn.Linear):
        with pytest.raises(InvalidInput, match="random already"):
            bayesianize(whole, where)
    tree = nn.Sequential(pnn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(InvalidInput, match="random already"):
        bayesianize(tree, "0")
    with pytest.raises(InvalidInput, match="deterministic"):
        bayesianize(tree)


def test_a_bias_under_another_rule_than_its_weight_has_the_variance_of_both() -> None:
    layer = nn.Linear(3, 1)
    bnn = bayesianize(
        layer,
        estimator={"weight": "local_reparam", "bias": "weight"},
        init={"weight": torch.full((1, 3), 0.3), "bias": torch.full((1,), 0.4)},
    )
    torch.manual_seed(0)
    outputs = torch.cat([bnn(torch.ones(2, 3)) for _ in range(1000)], 1)
    covariance = torch.cov(outputs)
    error = 4 * (2 / 1000) ** 0.5  # of a variance, four standard errors
    assert float(covariance[0, 0]) == pytest.approx(3 * 0.09 + 0.16, rel=error)
    assert float(covariance[0, 1]) == pytest.approx(0.16, rel=2 * error)  # one bias for the batch, weights for each


class Backbone(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv1d(1, 3, 1), nn.BatchNorm1d(3, **options), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)))


def still_after_training(net: nn.Sequential, convert: Callable[[nn.Module], nn.Module]) -> bool:
    bnn = convert(net)
    backbone = next(m for m in bnn.modules() if isinstance(m, Backbone))
    before = backbone.norm.running_mean.clone()
    for _ in range(2):
        bnn.eval()
        bnn.train()
        bnn(X + 3)
    return torch.equal(before, backbone.norm.running_mean)


CONVERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "whole": lambda net: bayesianize(net, "2"),
    "flipout": lambda net: bayesianize(net, "2", estimator="flipout"),
    "copied": lambda net: deepcopy(bayesianize(net, "2")),
    "pickled": lambda net: pickle.loads(pickle.dumps(bayesianize(net, "2"))),
    "inside another": lambda net: nn.Sequential(bayesianize(net, "2"), nn.Dropout()),
    "twice": lambda net: bayesianize(bayesianize(net, "2.weight").train(), "2.bias"),
    "of one in eval mode": lambda net: bayesianize(bayesianize(net, "2.weight").eval(), "2.bias"),
}
FROZEN: dict[str, Callable[[nn.Sequential], object]] = {
    "eval mode": lambda net: net[0].norm.eval(),
    "part in eval mode": lambda net: net[0].eval(),
    "frozen layer": lambda net: net[0].norm.requires_grad_(False),
    "frozen part": lambda net: net[0].requires_grad_(False),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("how", FROZEN)
def test_statistics_that_keep_still_do_so_in_a_loop_of_ones_own(conversion: str, how: str) -> None:
    for affine in (True, False) if how not in ("frozen layer",) else (True,):
        net = nn.Sequential(Backbone(affine=affine), nn.Flatten(), nn.Linear(12, 2))
        assert not still_after_training(net, CONVERSIONS[conversion])
        net = nn.Sequential(Backbone(affine=affine), nn.Flatten(), nn.Linear(12, 2))
        FROZEN[how](net)
        assert still_after_training(net, CONVERSIONS[conversion])


def test_a_layer_that_is_frozen_after_the_conversion_keeps_still_and_moves_again_when_freed() -> None:
    bnn = bayesianize(nn.Sequential(Backbone(), nn.Flatten(), nn.Linear(12, 2)), "2")
    norm = bnn.network[0].norm
    norm.requires_grad_(False)
    assert not bnn.train().network[0].norm.training
    norm.requires_grad_(True)
    assert bnn.train().network[0].norm.training
    assert not bnn.eval().network[0].norm.training
