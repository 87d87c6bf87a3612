"""The zoo's networks for images: exact sizes, exact functions, and a posterior for each."""

import copy
import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from posterity import MLE, Engine, MeanField, Optimizer, TensorData, fit
from posterity.errors import InvalidInput
from posterity.zoo import IMAGE_NETWORKS, AlexNet, AlexNetHalf, NetworkSpec, ResNet20, ThreeConvThreeFC, build, rebuild
from tests.processes import python

COLOUR, GREY = (3, 32, 32), (1, 28, 28)
CASES = {
    "lenet": ("lenet", COLOUR, {}, 62_006),
    "alexnet": ("alexnet", COLOUR, {}, 2_175_946),
    "alexnet, frequentist": ("alexnet", COLOUR, {"filters": [64, 192, 384, 256, 256], "dropout": 0.5}, 2_472_266),
    "alexnet_half": ("alexnet_half", COLOUR, {}, 550_378),
    "3conv3fc": ("3conv3fc", COLOUR, {"activation": "softplus"}, 1_782_634),
    "small_cnn": ("small_cnn", GREY, {}, 160_362),
    "resnet20": ("resnet20", COLOUR, {}, 269_722),
    "resnet20, frn": ("resnet20", COLOUR, {"norm": "frn"}, 274_042),
}
every_case = pytest.mark.parametrize(("name", "shape", "options", "size"), CASES.values(), ids=CASES)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_table_of_cases_leaves_no_network_out():
    assert {name for name, *_ in CASES.values()} == set(IMAGE_NETWORKS)


@every_case
def test_size_shape_and_a_gradient_for_every_parameter(name, shape, options, size):
    network = build(name, shape, 10, **options)
    assert count(network) == size
    outputs = network(images(4, *shape))
    assert outputs.shape == (4, 10)
    functional.cross_entropy(outputs, torch.arange(4)).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert build(name, (2, *shape[1:]), 7, **options)(images(2, 2, *shape[1:])).shape == (2, 7)


@every_case
def test_copies_and_rebuilt_networks_are_the_same_function(name, shape, options, size):
    spec = NetworkSpec(name, shape, 10, options)
    network, x = spec.build(), images(3, *shape)
    network(images(5, *shape, seed=1))  # moves the running statistics, where there are any
    rebuilt = rebuild(json.loads(json.dumps(spec.to_dict())))
    rebuilt.load_state_dict(network.state_dict())
    expected = network.eval()(x)
    for twin in (copy.deepcopy(network), rebuilt.eval()):
        assert torch.equal(twin(x), expected)


@every_case
@pytest.mark.parametrize("method", [MLE, MeanField])
def test_one_epoch_moves_every_parameter_and_gives_a_posterior(name, shape, options, size, method):
    torch.manual_seed(0)
    network = build(name, shape, 10, **options)
    data = TensorData(images(4, *shape), torch.arange(4), batch_size=2)
    chosen = method(epochs=1, optimizer=Optimizer(lr=1e-3))
    posterior = fit(network, data, method=chosen, engine=Engine(progress=False, device="cpu"))
    assert posterior.mean.shape == (size,)
    parts = posterior.mean.split([p.numel() for p in network.parameters()])
    for (parameter_name, start), part in zip(network.named_parameters(), parts, strict=True):
        assert not torch.equal(part, start.detach().flatten()), parameter_name
    first, second = posterior.draw(images(2, *shape, seed=1), n=2)
    assert first.shape == (2, 10)
    assert first.isfinite().all()
    assert torch.equal(first, second) == (method is MLE)


@every_case
def test_other_shapes_are_refused(name, shape, options, size):
    network, (channels, side, _) = build(name, shape, 10, **options), shape
    wrong = [(channels, side), (channels + 1, side, side), (channels, 4, 4), (channels, 1, side)]
    if name != "resnet20":
        wrong += [(channels, side + 1, side + 1), (channels, side, side + 1)]
    for other in wrong:
        with pytest.raises(
            InvalidInput, match=rf"takes images of shape \(B, {channels}, .*got \(2, {other[0]}, .*image_size="
        ):
            network(torch.zeros(2, *other))
        if other[0] == channels:
            with pytest.raises(
                InvalidInput, match=rf"'{name}' takes inputs of shape \(C, .*got \({channels}, .*image_size="
            ):
                build(name, other, 10, **options)
    with pytest.raises(InvalidInput, match=rf"got \({side}, {side}\)"):
        network(torch.zeros(side, side))


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_wrong_options_name_the_nearest(name):
    network = IMAGE_NETWORKS[name]
    with pytest.raises(InvalidInput, match="Did you mean 'softplus'"):
        network(activation="softpls")
    for wrong in ({"num_classes": 0}, {"in_channels": 0}):
        with pytest.raises(InvalidInput, match=rf"{network.__name__}: .*both must be 1 or more"):
            network(**wrong)
    with pytest.raises(InvalidInput, match=f"option of '{name}' 'activaton'. Did you mean 'activation'"):
        build(name, (1, network.side, network.side), 10, activaton="relu")


def test_options_of_a_wrong_type_are_the_users_mistake_and_no_bug():
    """In a process without run-time type checks, as users have it."""
    code = """
from posterity import InvalidInput
from posterity.zoo import build
for name, options in ("alexnet", {"dropout": "half"}), ("alexnet", {"filters": 3}), ("lenet", {"activation": 3}):
    try:
        build(name, (3, 32, 32), 10, **options)
    except InvalidInput as error:
        print(error)
"""
    done = python(code).done()
    lines = done.stdout.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        *["Network 'alexnet': an option is of the wrong type"] * 2,
        "Unknown activation '3'. Choices: gelu, relu, silu, softplus, tanh.",
    ]


# AlexNet, 3Conv3FC, SmallCNN: written once more as a plain sequence that takes the same numbers in the same order.


def alexnet(first: int, second: int, third: int, fourth: int, fifth: int, act: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, first, kernel_size=11, stride=4, padding=5), act(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(first, second, kernel_size=5, padding=2), act(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(second, third, kernel_size=3, padding=1), act()),
        *(nn.Conv2d(third, fourth, kernel_size=3, padding=1), act()),
        *(nn.Conv2d(fourth, fifth, kernel_size=3, padding=1), act(), nn.MaxPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(fifth, 10)),
    )


def three_conv_three_fc(act: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, kernel_size=5, padding=2), act(), nn.MaxPool2d(kernel_size=3, stride=2)),
        *(nn.Conv2d(32, 64, kernel_size=5, padding=2), act(), nn.MaxPool2d(kernel_size=3, stride=2)),
        *(nn.Conv2d(64, 128, kernel_size=5, padding=1), act(), nn.MaxPool2d(kernel_size=3, stride=2)),
        *(nn.Flatten(), nn.Linear(512, 1000), act(), nn.Linear(1000, 1000), act(), nn.Linear(1000, 10)),
    )


def small_cnn(act: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, kernel_size=5), act(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, kernel_size=5), act(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 256), act(), nn.Linear(256, 10)),
    )


@pytest.mark.parametrize(("activation", "act"), [("relu", nn.ReLU), ("softplus", nn.Softplus), ("tanh", nn.Tanh)])
@pytest.mark.parametrize(
    ("name", "shape", "twin"),
    [
        ("alexnet", COLOUR, partial(alexnet, 64, 192, 384, 256, 128)),
        ("alexnet_half", COLOUR, partial(alexnet, 32, 96, 192, 128, 64)),
        ("3conv3fc", COLOUR, three_conv_three_fc),
        ("small_cnn", GREY, small_cnn),
    ],
)
def test_plain_networks_are_the_composition_that_they_say(name, shape, twin, activation, act):
    network, expected = build(name, shape, 10, activation=activation), twin(act=act)
    expected.load_state_dict(dict(zip(expected.state_dict(), network.state_dict().values(), strict=True)))
    x = images(2, *shape)
    assert torch.equal(network(x), expected(x))


def test_what_activates_unless_one_says_otherwise():
    for network, activation in (
        (AlexNet(), functional.relu),
        (AlexNetHalf(), functional.relu),
        (ThreeConvThreeFC(), functional.relu),
        (build("small_cnn", GREY, 10), torch.tanh),
        (ResNet20(), functional.relu),
        (ResNet20(norm="frn"), functional.silu),
        (ResNet20(norm="frn", activation="relu"), functional.relu),
    ):
        assert network.activation is activation


@pytest.mark.parametrize(("make", "filters"), [(AlexNet, (64, 384, 128)), (AlexNetHalf, (32, 192, 64))])
def test_alexnet_drops_values_in_training_alone_after_the_odd_convolutions(make, filters):
    x = images(8, 3, 32, 32)
    whole, dropped = make(dropout=0.0), make(dropout=0.5)
    dropped.load_state_dict(whole.state_dict())
    assert torch.equal(whole.train()(x), whole.eval()(x))
    assert torch.equal(dropped.eval()(x), whole(x))
    shares = []
    dropped.dropout.register_forward_hook(lambda _, given, got: shares.append((got == 0).float().mean()))
    with torch.no_grad():
        for layer in (dropped.conv1, dropped.conv3, dropped.conv5):
            layer.weight.zero_()
            layer.bias.fill_(1.0)  # every value is 1 before it is dropped
    torch.manual_seed(0)
    dropped.train()(x)
    sizes = [len(x) * n * area for n, area in zip(filters, (64, 4, 4), strict=True)]
    for share, size in zip(shares, sizes, strict=True):
        assert abs(share - 0.5) < 4 * 0.5 / size**0.5


@pytest.mark.parametrize(
    "wrong", [{"filters": (64, 192)}, {"filters": (1, 1, 1, 1, 0)}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_alexnet_refuses_filters_and_dropout_out_of_range(wrong):
    with pytest.raises(InvalidInput, match=f"AlexNet: {next(iter(wrong))}=.*expected"):
        AlexNet(**wrong)


def test_the_mlp_of_the_hierarchical_study_is_there():
    network = build("mlp:800-800", GREY, 10, activation="tanh")
    assert count(network) == 784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10
    assert network.activation is torch.tanh
