"""Smaller networks: the outputs that they must keep, the units that must stay, and posteriors that go with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity import Categorical, Informative, InvalidInput, Normal, Problem
from posterity.compress.prune import prune, sparsity
from posterity.compress.refit import refit
from posterity.compress.structured import smaller
from posterity.compress.unit_pruning import prune_units
from posterity.compress.units import units_of
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point
from posterity.zoo import AlexNet, AlexNetHalf, LeNet
from posterity.zoo.resnet import ResNet20


class Model(nn.Module):
    """Named parts, and a forward given as a function."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def residual(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.out((x + m.c(functional.relu(m.b(x)))).mean((2, 3)))


def gated(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(torch.tanh(m.a(x)) * torch.sigmoid(m.b(x)))


def in_place(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    functional.relu(x, inplace=True)
    return m.out(x)


def padded(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def cnn() -> nn.Module:
    first = (nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2))
    second = (nn.Conv2d(6, 8, 3), nn.Softplus(), nn.Dropout(0.5), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*first, *second, nn.Linear(32, 10), nn.GELU(), nn.Linear(10, 3))


IMAGES, ROWS = (2, 14, 14), (5,)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (cnn, IMAGES),
    "lenet": (LeNet, (1, 32, 32)),
    "residual": (
        lambda: Model(residual, a=padded(2, 6), b=padded(6, 4), c=padded(4, 6), out=nn.Linear(6, 3)),
        IMAGES,
    ),
    "gated": (lambda: Model(gated, a=nn.Linear(5, 6), b=nn.Linear(5, 6), out=nn.Linear(6, 2)), ROWS),
    "tokens": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)), (4, 5)),
    "in place": (lambda: Model(in_place, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), ROWS),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return normalised(make()), torch.randn(6, *shape)


def normalised(network: nn.Module) -> nn.Module:
    """Give batch normalisation numbers that are not 0 and 1."""
    for part in network.eval().modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean):
                tensor.normal_()
            part.running_var.uniform_(0.5, 2)
    return network


def gaussian(network: nn.Module, std: float = 0.05) -> DiagonalGaussian:
    problem = Problem(network, Normal(0, 1), Categorical(), 10).snapshot()
    random = problem.layout.size - problem.coordinates.start
    return DiagonalGaussian(problem, problem.theta(), torch.full((random,), std))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_units_go_and_the_outputs_stay(name: str) -> None:
    network, x = made(name)
    before = {n: p.clone() for n, p in network.state_dict().items()}
    pruned = prune_units(network, x, 0.5, by="magnitude")
    small = smaller(pruned, x)
    torch.testing.assert_close(small(x), pruned(x), atol=1e-5, rtol=1e-5)
    assert count(small) < 0.75 * count(network)
    assert (pruned(x) - network(x)).abs().max() > 1e-2  # else nothing was removed
    assert all(torch.equal(p, before[n]) for n, p in network.state_dict().items())
    free = [u for u in units_of(network, x) if not u.fixed]
    assert [u.size for u in units_of(small, x) if not u.fixed] == [u.size - u.size // 2 for u in free]


def test_resnet_loses_the_filters_inside_its_blocks() -> None:
    """Those that a shortcut shares are sliced and padded on the way, and stay."""
    network, x = normalised(ResNet20(num_classes=4)), torch.randn(2, 3, 8, 8)
    pruned = prune_units(network, x, 0.5, by="magnitude")
    small = smaller(pruned, x)
    torch.testing.assert_close(small(x), pruned(x), atol=1e-4, rtol=1e-4)
    assert [len(b.first.conv.weight) for b in small.blocks] == [8, 8, 8, 16, 16, 16, 32, 32, 32]
    assert small.blocks[0].first.norm.num_features == 8


@pytest.mark.parametrize("name", NETWORKS)
def test_units_without_weights_become_numbers_in_biases(name: str) -> None:
    """Rows are 0 and biases are not: what is left of a unit is a constant, which a reader that does not pad can take."""
    network, x = made(name)
    with torch.no_grad():
        for units in units_of(network, x):
            for source in units.sources if not units.fixed else ():
                network.get_parameter(source)[: units.size // 3] = 0
            for bias in units.biases:
                network.get_parameter(bias).abs_()
    small = smaller(network, x)
    torch.testing.assert_close(small(x), network(x), atol=1e-5, rtol=1e-5)
    if name == "residual":  # pads with zeros
        assert count(small) == count(network)
    else:
        assert count(small) < count(network)


def test_alexnet_with_half_of_its_filters() -> None:
    network, x = AlexNet(), torch.randn(3, 3, 32, 32)
    small = smaller(prune_units(network, x, 0.5, by="magnitude"), x)
    assert count(small) == count(AlexNetHalf()) == 550_378
    AlexNetHalf().load_state_dict(small.state_dict())
    assert (small.conv2.in_channels, small.conv2.out_channels) == (32, 96)


def test_the_least_important_units_go() -> None:
    network = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1))
    q, x = gaussian(network), torch.zeros(1, 2)
    views, stds = q.problem.layout.views(q.loc), q.problem.layout.views(q.std)
    weights = torch.tensor([[3.0, 0.0], [2.0, 2.0], [0.3, 0.3], [4.0, 0.0]])
    views["0.weight"].copy_(weights)
    stds["0.weight"].copy_(torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.1, 0.1], [2.0, 2.0]]))
    log10, log2 = torch.tensor(10.0).log().item(), torch.tensor(2.0).log().item()
    matters = {
        "signal_to_noise": [3.0, 8**0.5, 18**0.5, 2.0],  # √Σ (μ/σ)²
        "kl": [9 / 2, 8 / 2, 18 / 2 - 2 * log10, 4 / 2 + 2 * log2],  # Σ μ²/2σ² − log(1/σ)
        "magnitude": [3.0, 8**0.5, 0.18**0.5, 4.0],
    }
    for by, values in matters.items():
        small = smaller(prune_units(q, x, 0.5, by), x)
        kept = sorted(sorted(range(4), key=values.__getitem__)[2:])
        assert torch.equal(small.problem.layout.views(small.loc)["0.weight"], weights[kept])


def test_a_posterior_goes_with_its_network(tmp_path: Path) -> None:
    network, x = made("lenet")
    q = gaussian(network)
    q.std.uniform_(0.01, 0.05)
    pruned = prune_units(q, x, {"conv*": 0.5, "fc2": 0.25})
    small = smaller(pruned, x)
    assert sparsity(pruned) == pytest.approx(1 - len(small.std) / len(q.std))
    assert sparsity(small) == 0
    torch.testing.assert_close(small.network()(x), pruned.network()(x), atol=1e-5, rtol=1e-5)
    views, old = small.problem.layout.views(small.std), q.problem.layout.views(q.std)
    assert set(views["fc2.weight"].flatten().tolist()) <= set(old["fc2.weight"].flatten().tolist())
    small.save(tmp_path / "small.safetensors")
    back = posterity.load(tmp_path / "small.safetensors", small.problem.network)
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(*(p.draw(x, 2, generator=g) for p, g in zip((small, back), generators, strict=True)))
    on = refit(small, (x, torch.arange(6)), posterity.MeanField(epochs=1), posterity.Engine(progress=False))
    assert on.mean.shape == small.mean.shape


def test_draws_keep_their_law_where_constants_go_into_random_biases() -> None:
    """softplus(0) = log 2 times random weights is a random number: the bias takes its mean and its variance."""
    torch.manual_seed(1)
    q, x = gaussian(nn.Sequential(nn.Linear(2, 6), nn.Softplus(), nn.Linear(6, 2)), 0.3), torch.randn(3, 2)
    for vector in (q.loc, q.std):
        views = q.problem.layout.views(vector)
        views["0.weight"][:4], views["0.bias"][:4] = 0, 0
    small = smaller(q, x)
    assert small.problem.network[0].out_features == 2
    views, stds = (q.problem.layout.views(v) for v in (q.loc, q.std))
    c = torch.tensor(2.0).log()
    own, own_std = (small.problem.layout.views(v)["2.bias"] for v in (small.loc, small.std))
    torch.testing.assert_close(own, views["2.bias"] + c * views["2.weight"][:, :4].sum(1))
    variance = stds["2.bias"].square() + c**2 * stds["2.weight"][:, :4].square().sum(1)
    torch.testing.assert_close(own_std.square(), variance)
    drawn = [p.draw(x, 4000, generator=torch.Generator().manual_seed(s)) for s, p in enumerate((q, small))]
    error = 4 * (2 / 4000) ** 0.5 * drawn[0].std(0).max().item()
    torch.testing.assert_close(drawn[0].mean(0), drawn[1].mean(0), atol=error, rtol=0)
    torch.testing.assert_close(drawn[0].std(0), drawn[1].std(0), atol=error, rtol=0)


def test_a_constant_goes_into_the_bias_of_a_convolution() -> None:
    torch.manual_seed(0)
    q = gaussian(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Conv2d(4, 2, 2), nn.Flatten()), 0.3)
    for vector in (q.loc, q.std):
        views = q.problem.layout.views(vector)
        views["0.weight"][:3], views["0.bias"][:3] = 0, 0
    small = smaller(q, torch.randn(3, 1, 4, 4))
    views, stds = (q.problem.layout.views(v) for v in (q.loc, q.std))
    c = torch.tensor(2.0).log()
    own, own_std = (small.problem.layout.views(v)["2.bias"] for v in (small.loc, small.std))
    torch.testing.assert_close(own, views["2.bias"] + c * views["2.weight"][:, :3].sum((1, 2, 3)))
    torch.testing.assert_close(
        own_std.square(), stds["2.bias"].square() + c**2 * stds["2.weight"][:, :3].square().sum((1, 2, 3))
    )


def test_a_constant_that_a_divisor_changes_stays() -> None:
    torch.manual_seed(0)
    pool = nn.AvgPool2d(2, divisor_override=3)
    network, x = (
        nn.Sequential(nn.Conv2d(2, 6, 3), nn.Sigmoid(), pool, nn.Flatten(), nn.Linear(24, 3)),
        torch.randn(4, 2, 6, 6),
    )
    network[0].weight.data[:2], network[0].bias.data[:2] = 0, 0
    torch.testing.assert_close(smaller(network, x)(x), network(x))


@pytest.mark.parametrize("share", [0.29, 0.57, 0.58])
def test_a_share_of_units_is_counted_in_tens(share: float) -> None:
    network, x = nn.Sequential(nn.Linear(5, 100), nn.ReLU(), nn.Linear(100, 2)), torch.randn(4, 5)
    small = smaller(prune_units(network, x, share, by="magnitude"), x)
    assert small[0].out_features == 100 - round(100 * share)


def test_a_random_bias_is_no_constant() -> None:
    network, x = made("lenet")
    q = gaussian(network)
    for vector in (q.loc, q.std):
        q.problem.layout.views(vector)["fc1.weight"][:7] = 0
    assert smaller(q, x).problem.network.fc1.out_features == 120
    for vector in (q.loc, q.std):
        q.problem.layout.views(vector)["fc1.bias"][:7] = 0
    assert smaller(q, x).problem.network.fc1.out_features == 113


def test_what_nothing_reads_goes_layer_by_layer() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    with torch.no_grad():
        network[4].weight[:, 2:] = 0  # three units of the second layer are not read …
        network[2].weight[:2, 1:] = 0  # … and then three of the first are not
    x = torch.randn(4, 3)
    small = smaller(network, x)
    assert [small[i].out_features for i in (0, 2, 4)] == [1, 2, 2]
    torch.testing.assert_close(small(x), network(x))


def test_a_layer_keeps_one_unit() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network[0].weight.data.zero_()
    x = torch.randn(4, 3)
    small = smaller(network, x)
    assert small[0].out_features == 1
    torch.testing.assert_close(small(x), network(x))


def around(run: Callable[[nn.Module, Tensor], Tensor], width: int = 4) -> nn.Module:
    return Model(run, a=nn.Linear(5, 4), out=nn.Linear(width, 2))


MIXED: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "group norm": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(576, 2)),
        IMAGES,
        "group_norm",
    ),
    "softmax": (around(lambda m, x: m.out(m.a(x).softmax(1))), ROWS, "softmax"),
    "layer norm": (around(lambda m, x: m.out(functional.layer_norm(m.a(x), (4,)))), ROWS, "layer_norm"),
    "depthwise": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(400, 2)),
        IMAGES,
        "grouped convolution",
    ),
    "transposed": (around(lambda m, x: m.out(m.a(x).transpose(1, 2))), (4, 5), "transpose"),
    "dropout that stays on": (around(lambda m, x: m.out(functional.dropout(m.a(x), 0.5))), ROWS, "dropout"),
    "concatenated": (around(lambda m, x: m.out(torch.cat([m.a(x), x], 1)), 9), ROWS, "cat"),
    "mean over units": (
        Model(lambda m, x: m.out(m.a(x).mean(1)), a=nn.Conv1d(4, 5, 1), out=nn.Linear(5, 2)),
        (4, 5),
        "mean",
    ),
    "weight computed": (around(lambda m, x: m.out(functional.linear(x, 2 * m.a.weight))), ROWS, ""),
    "shared": (Model(lambda m, x: m.out(m.a(m.a(x))), a=nn.Linear(5, 5), out=nn.Linear(5, 2)), ROWS, ""),
}


@pytest.mark.parametrize("name", MIXED)
def test_units_that_are_mixed_stay_and_the_reason_is_named(name: str) -> None:
    network, shape, reason = MIXED[name]
    network, x = network.eval(), torch.randn(3, *shape)
    first = next(n for n, _ in network.named_parameters()).rpartition(".")[0]
    with torch.no_grad():
        network.get_parameter(f"{first}.weight")[:2] = 0
        network.get_parameter(f"{first}.bias")[:2] = 0
    small = smaller(network, x)
    assert {n: p.shape for n, p in small.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}
    with pytest.raises(InvalidInput, match=f"units of '{first}' have to stay: .*{reason}" if reason else "no layer"):
        prune_units(network, x, {first: 0.5}, by="magnitude")


def test_a_network_whose_layer_is_registered_twice_is_not_changed() -> None:
    layer = nn.Linear(3, 3)
    network = Model(lambda m, x: m.out(m.again(m.layer(x).relu())), layer=layer, again=layer, out=nn.Linear(3, 2))
    weight = layer.weight
    units_of(network, torch.zeros(2, 3))
    assert layer.weight is weight
    assert network.get_parameter("again.weight") is weight


def test_refusals() -> None:
    network, x = made("lenet")
    sized = Model(lambda m, x: m.out(m.a(x).view(-1, 24)), a=nn.Conv1d(2, 6, 2), out=nn.Linear(24, 2))
    z = torch.randn(3, 2, 5)
    with pytest.raises(InvalidInput, match="its code contains the size of a layer"):
        smaller(prune_units(sized, z, 0.5, by="magnitude"), z)
    with pytest.raises(InvalidInput, match=r"'cnv\*' matches no layer. Did you mean 'conv"):
        prune_units(network, x, {"cnv*": 0.5}, by="magnitude")
    with pytest.raises(InvalidInput, match="units of 'fc3' have to stay: they are outputs of the network"):
        prune_units(network, x, {"fc3": 0.5}, by="magnitude")
    with pytest.raises(InvalidInput, match="expected a share of a layer's units"):
        prune_units(network, x, 1.0, by="magnitude")
    with pytest.raises(InvalidInput, match="use by='magnitude'"):
        prune_units(network, x, 0.5)
    with pytest.raises(InvalidInput, match="LeNet takes images of shape"):
        smaller(network, torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match="Sequential cannot be recorded on these inputs"):
        smaller(nn.Sequential(nn.Linear(2, 3)), torch.zeros(2, 5))


def test_refusals_of_posteriors() -> None:
    network, x = made("lenet")
    part = Problem(network, Normal(0, 1), Categorical(), 10, where="fc3").snapshot()
    with pytest.raises(InvalidInput, match=r"'conv1.weight' is no random weight"):
        prune_units(DiagonalGaussian(part, part.theta(), torch.full((850,), 0.1)), x, 0.5)
    own = Problem(network, Informative.at(network, 0.1), Categorical(), 10).snapshot()
    q = DiagonalGaussian(own, own.theta(), torch.full((61706,), 0.1))
    with pytest.raises(InvalidInput, match="a number of its own for each weight"):
        smaller(prune_units(q, x, 0.5), x)
    rows = Problem(network, posterity.Hierarchical(per="row"), Categorical(), 10).snapshot()
    q = DiagonalGaussian(rows, rows.theta(), torch.full((rows.layout.size,), 0.1))
    with pytest.raises(InvalidInput, match="a number for each row"):
        smaller(prune_units(q, x, 0.5), x)


def test_a_point_and_a_hierarchical_prior() -> None:
    network, x = made("lenet")
    problem = Problem(network, posterity.Hierarchical(per="layer"), Categorical(), 10).snapshot()
    point = Point(problem, problem.theta())
    small = smaller(prune_units(point, x, 0.5, by="magnitude"), x)
    assert torch.equal(small.theta[-5:], point.theta[-5:])  # the scales of five layers
    assert count(small.problem.network) == 15_738
    assert prune(small, 0.5, "magnitude").problem is small.problem
