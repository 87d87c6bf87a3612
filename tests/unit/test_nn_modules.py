"""Explicit layers inside other modules: files, copies, conversion back, what they show, and training by hand."""

import pickle
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posterity
import posterity.nn as pnn
from posterity import Hierarchical, InvalidInput, Normal
from posterity.data import load

HIERARCHICAL = (Hierarchical(), Hierarchical(centered=False))
every_hierarchy = pytest.mark.parametrize("prior", HIERARCHICAL, ids=["centred", "non-centred"])


class Net(nn.Module):
    """Bayesian and ordinary layers, nested, and a sub-module called as the one inside a Bayesian module is."""

    def __init__(self, library: object, **ours: object) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 6), library.Linear(6, 6, **ours), nn.Tanh())
        self.rest = nn.ModuleDict({"memory": library.LSTM(6, 3, batch_first=True, **ours), "head": nn.Linear(3, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.rest["head"](self.rest["memory"](self.network(x))[0][:, -1])


PRIOR = Normal(0, {"*bias*": 1.0, "*weight*": 0.3})
X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))


def mixed() -> Net:
    torch.manual_seed(0)
    return Net(pnn, prior=PRIOR, std=0.1)


def seeded(module: nn.Module, x: Tensor = X) -> Tensor:
    torch.manual_seed(5)
    return module(x)


def test_a_plain_state_dict_loads_as_the_means() -> None:
    torch.manual_seed(1)
    plain, model = Net(nn), mixed()
    given = dict(plain.state_dict())
    model.load_state_dict(given)
    assert given.keys() == plain.state_dict().keys()  # the caller's dict is as it was
    assert torch.equal(posterity.deterministic(model)(X), plain(X))
    torch.testing.assert_close(model.network[1].std["bias"], torch.full((6,), 0.1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.update({"network.1.wieght": w.pop("network.1.weight")}), "network.1.wieght"),
        (lambda w: w.pop("network.1.bias"), "Missing key.*network.1.network.bias"),
        (lambda w: w.update({"network.1.scale": torch.ones(6)}), "Unexpected key.*network.1.scale"),
        (lambda w: w.update({"network.1.weight": torch.ones(6, 5)}), "size mismatch for network.1.network.weight"),
        (lambda w: w.update({"rest.memory.weight_hh_l0": torch.ones(3)}), "size mismatch for rest.memory.network"),
    ],
)
def test_a_plain_state_dict_that_does_not_fit_is_refused(change: Callable[[dict], object], words: str) -> None:
    weights = Net(nn).state_dict()
    change(weights)
    with pytest.raises(RuntimeError, match=words):
        mixed().load_state_dict(weights)


@pytest.mark.parametrize("assign", [False, True])
def test_its_own_state_dict_restores_every_draw(assign: bool) -> None:
    source, target = mixed(), Net(pnn, prior=PRIOR, std=0.3)
    target.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(seeded(target), seeded(source))
    assert torch.equal(posterity.kl(target), posterity.kl(source))


@every_hierarchy
def test_under_a_hierarchical_prior_a_plain_state_dict_gives_the_weights_that_the_layer_computes_with(
    prior: Hierarchical,
) -> None:
    layer, plain = pnn.Linear(4, 3, prior=prior), nn.Linear(4, 3)
    with torch.no_grad():
        layer.latents[0].add_(1.0)  # learnt in the meantime
    layer.load_state_dict(plain.state_dict())
    torch.testing.assert_close(posterity.deterministic(layer).weight, plain.weight)


def test_bayesianize_takes_the_file_of_a_network_with_a_part_called_network() -> None:
    bnn, plain = posterity.bayesianize(Net(nn)), Net(nn)
    bnn.load_state_dict(plain.state_dict())
    assert torch.equal(posterity.deterministic(bnn)(X), plain(X))


@pytest.mark.parametrize("copy", [deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_draws_the_same_and_is_its_own(copy: Callable[[Net], Net]) -> None:
    model = mixed()
    model(X).sum().backward()  # gradients and graphs must not be in the way
    copied = copy(model)
    before = seeded(model)
    assert torch.equal(seeded(copied), before)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.5)
    assert torch.equal(seeded(model), before)
    assert not torch.equal(seeded(copied), before)


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_it_can_be_converted_to_double_precision(estimator: str) -> None:
    torch.manual_seed(0)
    model = Net(pnn, prior=PRIOR, std=0.1, estimator=estimator)
    single = posterity.kl(model)
    model.to(torch.float64)
    assert model(X.double()).dtype == posterity.kl(model).dtype == torch.float64
    torch.testing.assert_close(posterity.kl(model), single.double(), rtol=1e-5, atol=0)
    model(X.double()).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in model.parameters())


def test_the_priors_numbers_follow_to_another_device() -> None:
    model = mixed().to("meta")  # a device that every machine has: no values, but the same refusal to mix
    assert posterity.kl(model).device.type == "meta"


def test_training_and_evaluation_mode_reach_torchs_layer_and_both_draw() -> None:
    layer = pnn.LSTM(4, 3, num_layers=2, dropout=0.5)
    assert layer.eval().network.training is False
    assert layer.train().network.training is True
    model = mixed().eval()
    assert not torch.equal(model(X), model(X))


def test_kl_sums_over_the_tree() -> None:
    model = mixed()
    parts = [model.network[1].kl(), model.rest["memory"].kl()]
    torch.testing.assert_close(posterity.kl(model), parts[0] + parts[1])
    with pytest.raises(InvalidInput, match="no Bayesian module"):
        posterity.kl(Net(nn))


def test_deterministic_gives_plain_layers_everywhere_and_leaves_the_model_alone() -> None:
    model = mixed()
    plain = posterity.deterministic(model)
    assert [type(m) for m in plain.modules()] == [type(m) for m in Net(nn).modules()]
    assert isinstance(model.network[1], pnn.Linear)
    assert torch.equal(plain(X), plain(X))


def test_deterministic_keeps_a_shared_layer_shared() -> None:
    shared = pnn.Linear(3, 3)
    plain = posterity.deterministic(nn.Sequential(shared, nn.ReLU(), shared))
    assert plain[0] is plain[2]
    assert isinstance(plain[2], nn.Linear)


def test_a_layer_shows_what_a_reader_wants() -> None:
    prior = "prior=Normal(mean=0.0, std=0.3, fan_in=False)"
    assert (
        repr(pnn.Linear(3, 2, estimator="flipout"))
        == f"Linear(in_features=3, out_features=2, bias=True, random=8, {prior}, estimator='flipout')"
    )
    assert repr(pnn.MultiheadAttention(64, 2)) == f"MultiheadAttention(random=16,640, {prior}, estimator='weight')"
    assert "(1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), random=156" in repr(
        nn.Sequential(nn.Identity(), pnn.Conv2d(1, 6, 5))
    )


def test_hyperparameters_are_in_sight_and_weights_are_not() -> None:
    layer = pnn.Conv2d(1, 6, 5, bias=False)
    assert (layer.in_channels, layer.kernel_size, layer.padding_mode, layer.bias) == (1, (5, 5), "zeros", None)
    assert pnn.LSTM(3, 4, batch_first=True).batch_first is True
    assert not hasattr(layer, "weight")
    with pytest.raises(AttributeError, match=r"random and has no one value: its mean is \.network\.weight"):
        _ = layer.weight
    with pytest.raises(AttributeError, match="'Conv2d' object has no attribute 'in_chanels'"):
        _ = layer.in_chanels


def test_torchs_fused_encoder_does_not_take_the_mean_for_a_draw() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    encoder.self_attn = pnn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad(), pytest.raises(AttributeError, match="in_proj_bias"):
        encoder(torch.ones(1, 3, 8))


def test_bayesianize_and_fit_do_not_take_what_is_bayesian_already() -> None:
    with pytest.raises(InvalidInput, match="deterministic"):
        posterity.bayesianize(mixed())
    with pytest.raises(InvalidInput, match="deterministic"):
        posterity.fit(mixed(), (X, torch.zeros(3, dtype=torch.int64)))


def test_a_network_composed_by_hand_learns_in_a_plain_loop() -> None:
    digits = load("digits").standardised()
    inputs, targets, num_data = digits.train_inputs, digits.train_targets, len(digits.train_targets)
    torch.manual_seed(0)
    network = nn.Sequential(
        pnn.Conv2d(1, 8, 3, estimator="flipout"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        pnn.Linear(288, 32, estimator="local_reparam", prior=Normal(0, 1, fan_in=True)),
        nn.ReLU(),
        pnn.Linear(32, 10),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    start = posterity.kl(network).item()
    for _ in range(15):
        for batch in torch.randperm(num_data).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(inputs[batch]), targets[batch]) + posterity.kl(network) / num_data
            loss.backward()
            optimizer.step()
    posterior = posterity.with_statistics(posterity.posterior(network), (inputs, targets))
    scores = posterior.predict(digits.test_inputs, n=32).scores(digits.test_targets)
    assert scores["accuracy"] > 0.93
    assert posterity.kl(network).item() < start  # the divergence was descended too
