"""Three ways to evaluate many functions, which must be the same functions; averages that keep none of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity import Categorical, Gaussian, HeteroscedasticGaussian, Normal, Problem
from posterity.core.layout import Layout, substituted, trainable
from posterity.core.vectorised import ManyWeights, NoRule
from posterity.errors import InvalidInput
from posterity.posteriors import evaluation
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.evaluation import AT_ONCE, WAYS, evaluating_by, plan
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.zoo import MLP, AlexNet, LeNet, ResNet20

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here


class Shapes(nn.Module):
    """What networks do with shapes between their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.grouped = nn.Conv2d(3, 6, 3, groups=3, bias=False)
        self.first, self.second = nn.Linear(6 * 2 * 2, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (2, 8, 8)
        x = functional.avg_pool2d(torch.tanh(self.norm(self.conv(x))), 2)
        assert (x.shape, x.dim(), x.ndim, x.size(1)) == ((len(x), 3, 4, 4), 4, 4, 3)
        x = functional.pad(x[:, :, :3, :], (0, 0, 0, 1)) + 0.5 * x
        x = functional.dropout(self.grouped(x).view(x.size(0), -1), 0.5, self.training)
        return self.second(functional.silu(self.first(x)))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    conv1d = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))
    twice = nn.Linear(6, 6)
    return {
        "lenet": (LeNet(activation="softplus"), torch.randn(5, 1, 32, 32)),
        "alexnet": (AlexNet(filters=(4, 6, 8, 6, 4)), torch.randn(3, 3, 32, 32)),
        "resnet": (ResNet20(), torch.randn(2, 3, 16, 16)),
        "mlp": (MLP((4, 7, 7, 2), activation="tanh"), torch.randn(5, 4)),
        "shapes": (Shapes(), torch.randn(5, 2, 8, 8)),
        "conv1d": (conv1d, torch.randn(5, 2, 9)),
        "shared": (nn.Sequential(twice, nn.ReLU(), twice), torch.randn(5, 6)),
        "inplace": (nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)), torch.randn(5, 3)),
    }


def gaussian(network: nn.Module, **kwargs: Tensor) -> DiagonalGaussian:
    problem = Problem(network.eval(), Normal(0, 1), Categorical(), num_data=10)
    loc = problem.theta()
    return DiagonalGaussian(problem, loc, 0.1 * torch.ones_like(loc))


def runs(chosen: evaluation.Plan) -> bool:
    """Whether the way of a plan can run its network, without the help of the loop."""
    try:
        chosen.at(chosen.problem.theta().expand(chosen.at_once, -1))(chosen.batches[0])
    except (NoRule, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("way", WAYS[1:])
def test_every_way_computes_the_same_functions(name: str, way: evaluation.Way) -> None:
    """Buffers that are not 0 and 1, several passes, several batches: the loop is the reference."""
    network, x = networks()[name]
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    posterior = gaussian(network.double())
    n, x, budget = AT_ONCE + 3, x.double(), 200_000
    with evaluating_by("loop"):
        expected = posterior.draw(x, n, generator=torch.Generator().manual_seed(1))
    with evaluating_by(way):
        chosen = plan(posterior.problem, x, n, budget)
        found = posterior.draw(x, n, generator=torch.Generator().manual_seed(1), max_bytes=budget)
    assert runs(chosen)
    assert expected.std(0).min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_frozen_and_tied_parameters() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    network[4].requires_grad_(False)
    posterior, x = gaussian(network.double()), torch.randn(4, 3, dtype=torch.float64)
    draws = []
    for way in WAYS:
        with evaluating_by(way):
            assert runs(plan(posterior.problem, x, 4))
            draws.append(posterior.draw(x, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(draws[1], draws[0])
    torch.testing.assert_close(draws[2], draws[0])


class Odd(nn.Module):
    """Something no rule and no vmap can do: a decision by value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y.sort(-1).values if y.sum().item() > 0 else y


def test_what_cannot_be_vectorised_is_looped_over() -> None:
    posterior, x = gaussian(Odd()), torch.randn(4, 3)
    assert plan(posterior.problem, x, 100).way == "loop"
    expected = posterior.draw(x, 100, generator=torch.Generator().manual_seed(0))
    for way in WAYS[1:]:
        with evaluating_by(way):
            assert not runs(plan(posterior.problem, x, 100))
            torch.testing.assert_close(posterior.draw(x, 100, generator=torch.Generator().manual_seed(0)), expected)


class Applied(nn.Module):
    """A layer and a function, which nothing that a network says of itself tells from another."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(3, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


@pytest.mark.parametrize("way", WAYS[1:])
def test_the_winner_of_another_networks_race_may_fail(way: evaluation.Way, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 3)
    easy, odd = (gaussian(Applied(f)) for f in (torch.relu, lambda y: y.flip(-1) if y.sum().item() > 0 else y))
    monkeypatch.setattr(evaluation, "_race", lambda candidates: way)
    monkeypatch.setattr(evaluation, "_winners", {})
    assert plan(easy.problem, x, 100).way == plan(odd.problem, x, 100).way == way
    found = odd.draw(x, 100, generator=torch.Generator().manual_seed(0))
    with evaluating_by("loop"):
        torch.testing.assert_close(found, odd.draw(x, 100, generator=torch.Generator().manual_seed(0)))


class Forward(nn.Module):
    """Layers by name, one parameter, and any function of them."""

    def __init__(self, forward: Callable[["Forward", Tensor], Tensor], parameter: Tensor, **layers: nn.Module) -> None:
        super().__init__()
        self.function, self.q = forward, nn.Parameter(parameter)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def changed_by_another_name(net: Any, x: Tensor) -> Tensor:
    h = net.conv(x)
    return net.fc(functional.relu(h.flatten(1), inplace=True)) + net.out(h.mean((2, 3)))


def awkward() -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks that look easy and are not: each was once computed wrongly, or not at all."""
    linear, conv, flat = nn.Linear, nn.Conv2d, nn.Flatten()
    image, row, weights = torch.randn(5, 1, 10, 10), torch.randn(1, 5), torch.randn(1, 6)
    same = [conv(1, 8, 3, padding="same"), nn.ReLU(), conv(8, 8, 3, padding="same"), nn.ReLU()]
    to_places = Forward(lambda m, x: m.fc(m.conv(x).mean(axis=(2, 3))), weights, conv=conv(1, 4, 3), fc=linear(4, 3))
    across = Forward(
        lambda m, x: m.fc(functional.avg_pool2d(m.conv(x), (3, 1), stride=1, padding=(1, 0)).flatten(1)),
        weights,
        conv=nn.Conv1d(2, 4, 3),
        fc=linear(32, 3),
    )
    return {
        "a parameter as input": (
            Forward(
                lambda m, x: m.out(torch.tanh(m.fc(x)) + torch.tanh(m.own(m.q))),
                torch.randn(1, 4),
                fc=linear(5, 6),
                own=linear(4, 6),
                out=linear(6, 3),
            ),
            row,
        ),
        "a reshaped parameter": (
            Forward(lambda m, x: m.out(m.fc(x) * m.q.view(1, -1)), weights, fc=linear(5, 6), out=linear(6, 3)),
            row,
        ),
        "pooling of channels": (across, torch.randn(4, 2, 10)),
        "padding same": (nn.Sequential(*same, flat, linear(800, 3)), image),
        "mean by axis": (to_places, image),
        "groups of the inputs": (
            nn.Sequential(conv(2, 4, 3, groups=2), nn.ReLU(), flat, linear(256, 3)),
            torch.randn(5, 2, 10, 10),
        ),
        "script in the middle": (
            Forward(lambda m, x: m.fc(scripted(m.conv(x)).flatten(1)), weights, conv=conv(1, 4, 3), fc=linear(256, 3)),
            image,
        ),
        "script at the end": (Forward(lambda m, x: scripted(m.fc(x)), weights, fc=linear(5, 3)), torch.randn(8, 5)),
        "another name": (
            Forward(changed_by_another_name, weights, conv=conv(1, 4, 3), fc=linear(256, 3), out=linear(4, 3)),
            image,
        ),
        "an example without a batch": (
            Forward(
                lambda m, x: m.fc(torch.stack([m.conv(one) for one in x]).flatten(1)),
                weights,
                conv=conv(1, 4, 3),
                fc=linear(256, 3),
            ),
            image,
        ),
    }


@pytest.mark.parametrize("name", awkward())
def test_what_a_way_computes_otherwise_it_does_not_compute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = awkward()[name]
    posterior = gaussian(network.double())
    monkeypatch.setattr(evaluation, "_winners", {})

    def drawn() -> Tensor:
        return posterior.draw(x.double(), 32, generator=torch.Generator().manual_seed(0))

    with evaluating_by("loop"):
        expected = drawn()
    torch.testing.assert_close(drawn(), expected)


@pytest.mark.parametrize("way", WAYS[1:])
def test_the_fastest_way_loses_if_it_disagrees(way: evaluation.Way, monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, x = gaussian(MLP((3, 5, 2))), torch.randn(6, 3)

    def instantly(problem: Problem, views: dict[str, Tensor], batch: Tensor) -> Tensor:
        return torch.zeros(len(views["layers.0.weight"]), 6, 2)

    runs = {"batched": "_batched", "vmap": "_vmapped"}
    for other, name in runs.items():
        monkeypatch.setattr(evaluation, name, instantly if other == way else None)
    monkeypatch.setattr(evaluation, "_winners", {})
    assert plan(posterior.problem, x, 100).way != way


def test_a_number_that_is_a_parameter_has_no_rule() -> None:
    """It looks like a plain number, and is n of them."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(3, 2), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale

    posterior, x = gaussian(Scaled()), torch.randn(4, 3)
    with evaluating_by("batched"):
        assert not runs(plan(posterior.problem, x, 9))


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.softmax(0),  # over functions or examples
        lambda x: x.sum(1),
        lambda x: x.flatten(),
        lambda x: x.t(),
        lambda x: torch.cat([x, x], 1),
        lambda x: x[0],
        lambda x: x + torch.ones(3, 1),
        lambda x: functional.prelu(x, torch.ones(1)),
        lambda x: functional.dropout(x, 0.5),
    ],
)
def test_without_a_rule_nothing_is_computed(mix) -> None:  # type: ignore[no-untyped-def]
    layer = nn.Linear(2, 3)
    weights = {n: torch.randn(4, *p.shape) for n, p in layer.named_parameters()}
    with ManyWeights(dict(layer.named_parameters()), weights), pytest.raises(NoRule):
        mix(layer(torch.randn(3, 2)))


def test_a_race_is_run_once_and_not_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_winners", {})
    posterior, x = gaussian(MLP((3, 5, 2))), torch.randn(6, 3)
    assert plan(posterior.problem, x, 2).way == "loop"
    assert not evaluation._winners
    first = plan(posterior.problem, x, 32)
    (winner,) = evaluation._winners.values()
    assert first.way == winner
    monkeypatch.setattr(evaluation, "_race", None)  # a second race would fail
    assert plan(gaussian(MLP((3, 5, 2))).problem, x, 32).way == winner


def test_substituted_puts_back_a_module_that_is_registered_twice() -> None:
    layer = nn.Linear(1, 1, bias=False)
    network, own = nn.Sequential(layer, layer), layer.weight
    with substituted(network, {"0.weight": torch.tensor([[3.0]])}):
        assert network(torch.ones(1, 1)).item() == 9
    with pytest.raises(RuntimeError), substituted(network, {"0.weight": torch.tensor([[3.0]])}):
        network(torch.ones(1, 7))
    assert layer.weight is own
    assert Layout.of(trainable(network)).size == 1


MEMBERS = (
    "mean",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "variance",
    "aleatoric",
    "epistemic",
    "confidence",
)


@pytest.mark.parametrize("kind", ["gaussian", "samples", "mixture", "point", "dropout"])
def test_an_average_equals_what_the_kept_draws_say(kind: str) -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
    base = gaussian(network.double())
    thetas = torch.stack([base.sample() for _ in range(20)])
    posterior = {
        "gaussian": base,
        "samples": Samples(base.problem, thetas),
        "mixture": Mixture.of((base, Point(base.problem, thetas[0]), Samples(base.problem, thetas[:5]))),
        "point": Point(base.problem, base.loc),
        "dropout": Dropout(base.problem, base.loc, {"2": 0.3}),
    }[kind]
    x, y = torch.randn(50, 3, dtype=torch.float64), torch.randint(4, (50,))
    kept = posterior.predict(x, 15, generator=torch.Generator().manual_seed(3))
    found = posterity.average(posterior, x, 15, generator=torch.Generator().manual_seed(3), max_bytes=4_000)
    assert found.count == 15
    for member in MEMBERS:
        torch.testing.assert_close(getattr(found, member), getattr(kept, member), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.log_prob(y), kept.log_prob(y))
    assert found.scores(y) == pytest.approx(kept.scores(y), abs=1e-12)


def test_an_average_of_a_regression() -> None:
    problem = Problem(nn.Linear(3, 2).double(), Normal(0, 1), HeteroscedasticGaussian(), num_data=10)
    posterior = DiagonalGaussian(problem, problem.theta(), torch.full((8,), 0.3, dtype=torch.float64))
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    kept = posterior.predict(x, 40, generator=torch.Generator().manual_seed(0))
    found = posterity.average(posterior, x, 40, generator=torch.Generator().manual_seed(0))
    for member in ("mean", "aleatoric", "epistemic", "variance", "std"):
        torch.testing.assert_close(getattr(found, member), getattr(kept, member))
    assert found.scores(y)["rmse"] == pytest.approx(kept.scores(y)["rmse"])


def test_probabilities_that_underflow_keep_their_logarithm() -> None:
    """Two functions that are sure of the other class, e^-200 each: log p̄ is −200, not −∞."""
    problem = Problem(nn.Linear(1, 2, bias=False), Normal(0, 1), Categorical(), num_data=10)
    posterior = Samples(problem, torch.tensor([[200.0, 0.0], [0.0, -200.0]]))
    found = posterity.average(posterior, torch.ones(1, 1), 2)
    assert found.log_prob(torch.tensor([1])).item() == pytest.approx(-200)


def test_a_tolerance_stops_when_the_mean_is_known() -> None:
    """For a linear function of one weight the error is |x| std/√n: 16 functions do not reach .02, 4,096 would."""
    problem = Problem(nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=1.0), num_data=10)
    posterior = DiagonalGaussian(problem, torch.zeros(1), torch.ones(1))
    found = posterity.average(
        posterior, torch.ones(1, 1), 100_000, tolerance=0.05, generator=torch.Generator().manual_seed(0)
    )
    assert found.count == 512
    assert found.error.item() == pytest.approx(1 / 512**0.5, rel=0.15)
    assert found.error.item() <= 0.05 < found.error.item() * 2**0.5 * 1.15
    many = torch.cat([torch.ones(1, 1), torch.zeros(20, 1)])  # the input that is known least decides
    assert (
        posterity.average(posterior, many, 100_000, tolerance=0.05, generator=torch.Generator().manual_seed(0)).count
        == 512
    )
    few = posterity.average(posterior, torch.ones(1, 1), 100, tolerance=1e-9)
    assert few.count == 100


def test_rounds_of_a_mixture_are_balanced() -> None:
    problem = Problem(nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=1.0), num_data=10)
    posterior = Mixture.of(tuple(Point(problem, torch.tensor([v])) for v in (0.0, 1.0, 5.0)))
    found = posterity.average(posterior, torch.ones(1, 1), 1000, tolerance=0.4)
    assert found.count in range(18, 1000, 3)
    assert found.mean.item() == pytest.approx(2.0)


def test_functions_drawn_once_are_the_same_in_every_call() -> None:
    posterior, x = gaussian(MLP((3, 5, 2))), torch.randn(6, 3)
    kept = posterity.draw_functions(posterior, 10, torch.Generator().manual_seed(0))
    with evaluating_by("loop"):
        whole = kept.predict(x, 10).mean
        parts = torch.cat([kept.predict(part, 10).mean for part in x.split(2)])
        fresh = posterior.predict(x, 10, generator=torch.Generator().manual_seed(0)).mean
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(fresh, whole)
    mixture = posterity.draw_functions(Mixture.of((posterior, posterior)), 6)
    assert isinstance(mixture, Mixture)
    assert [c.tensors()["thetas"].shape for c in mixture.components] == [(3, 32), (3, 32)]


def test_mistakes_are_refused() -> None:
    posterior, x = gaussian(MLP((3, 5, 2))), torch.randn(6, 3)
    with pytest.raises(InvalidInput, match="at least 1"):
        posterity.average(posterior, x, 0)
    with pytest.raises(InvalidInput, match="larger than 0"):
        posterity.average(posterior, x, tolerance=0.0)
    with pytest.raises(InvalidInput, match="Input 0"):
        posterity.average(posterior, x * torch.nan)
    with pytest.raises(InvalidInput, match="at least 1"):
        posterity.draw_functions(posterior, 0)
    with pytest.raises(InvalidInput, match="Dropout"):
        posterity.draw_functions(Dropout(posterior.problem, posterior.loc, {}), 3)
