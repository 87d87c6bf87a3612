"""The zoo: exact sizes, exact functions, and networks by name."""

import copy
import json
import pickle
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from posterity.errors import InvalidInput
from posterity.zoo import ACTIVATIONS, MLP, LeNet, NetworkSpec, build, rebuild


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet_has_61706_parameters_in_five_named_layers():
    network = LeNet()
    assert count(network) == 61_706
    assert [name for name, _ in network.named_children()] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [count(layer) for layer in network.children()] == [156, 2416, 48_120, 10_164, 850]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lenet_is_the_composition_that_it_says(activation):
    network, act = LeNet(7, 3, activation), ACTIVATIONS[activation]
    pool, flatten = nn.MaxPool2d(2), nn.Flatten()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = pool(act(network.conv2(pool(act(network.conv1(x))))))
    expected = network.fc3(act(network.fc2(act(network.fc1(flatten(features))))))
    assert torch.equal(network(x), expected)
    assert expected.shape == (4, 7)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (1, 32, 32), (32, 32), (2, 1024)])
def test_lenet_refuses_other_shapes(shape):
    with pytest.raises(InvalidInput, match=r"takes images of shape \(B, 1, 32, 32\)"):
        LeNet()(torch.zeros(shape))


def test_mlp_is_the_composition_that_it_says():
    network = MLP((12, 5, 4, 3), "tanh")
    x = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    first, second, third = network.layers
    expected = third(torch.tanh(second(torch.tanh(first(x.reshape(6, 12))))))
    assert torch.equal(network(x), expected)
    assert count(network) == 12 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3
    assert count(MLP()) == 1_276_810
    linear = MLP((12, 3))
    assert torch.equal(linear(x), functional.linear(x.flatten(1), linear.layers[0].weight, linear.layers[0].bias))


@pytest.mark.parametrize("shape", [(6, 11), (12,), (6, 3, 3), ()])
def test_mlp_refuses_other_shapes(shape):
    with pytest.raises(InvalidInput, match="12 values each"):
        MLP((12, 3))(torch.zeros(shape))


@pytest.mark.parametrize("make", [LeNet, lambda **options: MLP((4, 3, 2), **options)])
def test_unknown_activations_name_the_nearest(make):
    with pytest.raises(InvalidInput, match="Did you mean 'softplus'"):
        make(activation="softpls")


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 1), (3, -1)])
def test_mlp_refuses_widths_that_are_none(widths):
    with pytest.raises(InvalidInput, match="widths"):
        MLP(widths)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_networks_can_be_copied_and_pickled(activation):
    network, x = LeNet(activation=activation), torch.randn(2, 1, 32, 32)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(x), network(x))


def test_build_by_name():
    assert count(build("lenet", (1, 32, 32), 10)) == 61_706
    assert build("lenet", (3, 32, 32), 4)(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert build("mlp", (1, 28, 28), 10).widths == (784, 800, 800, 10)
    assert build("mlp:50", (13,), 1).widths == (13, 50, 1)
    assert build("mlp:800-20", (2, 3), 2, activation="tanh").widths == (6, 800, 20, 2)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("lent", (1, 32, 32), {}, "Did you mean 'lenet'"),
        ("lenet", (1, 28, 28), {}, "image_size=32"),
        ("lenet", (13,), {}, r"got \(13,\)"),
        ("lenet", (1, 32, 32), {"activaton": "relu"}, "Did you mean 'activation'"),
        ("mlp:50", (13,), {"activation": "sigmoid"}, "Choices: gelu, relu, silu, softplus, tanh"),
        ("mlp:", (13,), {}, "as mlp:50 or mlp:800-800"),
        ("mlp:50-", (13,), {}, "as mlp:50"),
        ("mlp:0", (13,), {}, "above 0"),
        ("mlp:5.5", (13,), {}, "as mlp:50"),
        ("mlp:50--5", (13,), {}, "as mlp:50"),
    ],
)
def test_build_refuses_what_it_cannot_build(name, shape, options, message):
    with pytest.raises(InvalidInput, match=message):
        build(name, shape, 10, **options)


MODULE = """
import sys
from torch import nn
def make(width=4):
    return nn.Linear(width, 2)
def fail():
    raise RuntimeError("two\\nlines")
def needs(width):
    return nn.Linear(width, 2)
def leave():
    sys.exit(3)
text = lambda: "text"
number = 3
ready = nn.Linear(5, 2)
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_of_mine.py").write_text(MODULE)
    (tmp_path / "zoo_broken.py").write_text("1 +\n")
    (tmp_path / "zoo_raises.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "zoo_imports.py").write_text("import nothing_like_this\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("zoo_")]:
        del sys.modules[name]


def test_a_network_of_ones_own_is_imported_from_the_current_directory(workspace):
    before = list(sys.path)
    assert build("zoo_of_mine:make", (4,), 2).in_features == 4
    assert build("zoo_of_mine:make", (9,), 2, width=9).in_features == 9
    ready = build("zoo_of_mine:ready", (5,), 2)
    assert ready.in_features == 5
    assert ready is not sys.modules["zoo_of_mine"].ready
    assert sys.path == before
    assert isinstance(build("torch.nn:Identity", (5,), 5), nn.Identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zoo_nowhere:make", "there is no module 'zoo_nowhere'"),
        ("zoo_nowhere.deep:make", "there is no module 'zoo_nowhere'"),
        ("zoo_imports:make", "importing it failed: ModuleNotFoundError.*nothing_like_this"),
        ("zoo_broken:make", "importing it failed: SyntaxError"),
        ("zoo_raises:make", "importing it failed: SystemExit"),
        ("zoo_of_mine:mak", "Did you mean 'make'"),
        ("zoo_of_mine:fail", "calling it failed: RuntimeError: two$"),
        ("zoo_of_mine:needs", "calling it failed: TypeError.*width"),
        ("zoo_of_mine:leave", "calling it failed: SystemExit"),
        ("zoo_of_mine:text", "returned a str"),
        ("zoo_of_mine:number", "is a int, neither"),
        ("zoo_of_mine:", "expected module:callable"),
        (":make", "expected module:callable"),
        ("zoo_of_mine.py:make", "there is no module|expected"),
        ("../zoo:make", "expected module:callable"),
    ],
)
def test_a_network_of_ones_own_fails_with_one_line(workspace, name, message):
    before = list(sys.path)
    with pytest.raises(InvalidInput, match=message) as caught:
        build(name, (4,), 2)
    assert "\n" not in str(caught.value)
    assert sys.path == before


def test_a_specification_goes_through_json_and_rebuilds():
    spec = NetworkSpec("mlp:50-20", (13,), 2, {"activation": "tanh"})
    again = json.loads(json.dumps(spec.to_dict()))
    assert NetworkSpec.from_dict(again) == spec
    network, twin = spec.build(), rebuild(again)
    twin.load_state_dict(network.state_dict())
    x = torch.randn(3, 13)
    assert torch.equal(twin(x), network(x))


def test_a_saved_specification_runs_foreign_code_only_when_trusted(workspace):
    spec = NetworkSpec("zoo_of_mine:make", (4,), 2).to_dict()
    with pytest.raises(InvalidInput, match="trust=True"):
        rebuild(spec)
    assert "zoo_of_mine" not in sys.modules
    assert rebuild(spec, trust=True).in_features == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "wrong type"),
        ({"num_outputs": "10"}, "wrong type"),
        ({"num_outputs": 0}, "wrong type"),
        ({"options": [1]}, "wrong type"),
        ({"input_shape": "13"}, "whole numbers above 0"),
        ({"input_shape": [13, -1]}, "whole numbers above 0"),
        ({"extra": 1}, "Unknown entry.*'extra'"),
        ({"name": None}, "wrong type"),
    ],
)
def test_a_broken_specification_is_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        rebuild({"name": "mlp:5", "input_shape": [13], "num_outputs": 1, **change})
    with pytest.raises(InvalidInput, match="lacks input_shape, num_outputs"):
        rebuild({"name": "mlp:5"})


def test_a_shortcut_adds_what_is_linear_in_the_inputs():
    network, x = build("mlp:5-4", (3,), 2, shortcut=True), torch.randn(6, 3)
    plain = build("mlp:5-4", (3,), 2)
    plain.load_state_dict({n: w for n, w in network.state_dict().items() if n != "shortcut.weight"})
    torch.testing.assert_close(network(x), plain(x) + x @ network.shortcut.weight.T)
    with pytest.raises(InvalidInput, match="shortcut='yes'"):
        build("mlp:5", (3,), 2, shortcut="yes")
