"""Law 4: every estimator has the same mean gradient; LRT and Flipout have the exact output mean and variance."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity.core.activation import Flipout, LocalReparam
from posterity.core.estimators import Estimator, WeightDraw
from posterity.core.layout import Layout, trainable

# torch's, of its own convolution, in whichever test comes first
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
ESTIMATORS = {"weight": WeightDraw, "local_reparam": LocalReparam, "flipout": Flipout}
every_estimator = pytest.mark.parametrize("kind", ESTIMATORS)

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
    "linear-no-bias": (lambda: nn.Linear(5, 3, bias=False), (4, 5)),
    "linear-tokens": (lambda: nn.Linear(5, 3), (4, 7, 5)),
    "conv1d-dilated": (lambda: nn.Conv1d(2, 4, 3, dilation=2, padding=1), (4, 2, 9)),
    "conv2d-groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1), (4, 4, 6, 6)),
    "conv2d-circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (4, 2, 5, 5)),
    "conv2d-reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (4, 2, 5, 5)),
    "conv2d-same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (4, 2, 5, 5)),
    "conv2d-tuple": (lambda: nn.Conv2d(2, 3, (1, 3), stride=(2, 1), padding=(0, 1)), (4, 2, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (4, 1, 3, 3, 3)),
    "transposed1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), (4, 2, 4)),
    "transposed2d-groups": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, groups=2, padding=1), (4, 4, 3, 3)),
    "transposed3d": (lambda: nn.ConvTranspose3d(1, 2, 2), (4, 1, 2, 2, 2)),
    "embedding": (lambda: nn.Embedding(6, 3, padding_idx=0), (4, 5)),
}


def made(layer: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A layer in float64, inputs, and the mean and std of q over its parameters."""
    torch.manual_seed(0)
    build, shape = LAYERS[layer]
    network = build().double()
    x = torch.randint(6, shape) if layer == "embedding" else torch.randn(shape, dtype=torch.float64)
    params = trainable(network)
    mean = Layout.of(params).flatten({n: p.detach() for n, p in params.items()})
    return network, x, mean, 0.1 + 0.2 * torch.rand(len(mean), dtype=torch.float64)


def moments(layer: str) -> tuple[Tensor, Tensor]:
    """The exact mean and variance of each output: the layer at μ, and at σ² on squared inputs."""
    network, x, mean, std = made(layer)
    params = trainable(network)
    layout = Layout.of(params)

    def run(vector: Tensor, inputs: Tensor) -> Tensor:
        return torch.func.functional_call(network, layout.views(vector), (inputs,)).detach()

    return run(mean, x), run(std.square(), x if layer == "embedding" else x.square())


def outputs(estimator: Estimator, network: nn.Module, x: Tensor, q: tuple[Tensor, Tensor], n: int) -> Tensor:
    seen: list[Tensor] = []

    def loss() -> Tensor:
        seen.append(network(x))
        return seen[-1].sum()

    generator = torch.Generator().manual_seed(1)
    for _ in range(n):
        estimator(loss, *q, generator)
    return torch.stack([s.detach() for s in seen])


N = 250  # steps of each estimator on each layer
FEW = ("linear", "conv2d-groups", "embedding")  # whole weights are drawn without a look at the layer
every_pair = pytest.mark.parametrize(
    ("kind", "layer"),
    [
        pytest.param(kind, layer, marks=pytest.mark.slow if kind == "weight" and layer not in FEW else ())
        for kind in ESTIMATORS
        for layer in LAYERS
    ],
)


@cache
def stepped(kind: str, layer: str) -> tuple[Tensor, Tensor]:
    """Outputs, (N, ...), and gradients of their mean square, (N, 2P), of the same steps: two tests look at them."""
    network, x, mean, std = made(layer)
    estimator, generator = ESTIMATORS[kind](trainable(network)), torch.Generator().manual_seed(2)
    seen: list[Tensor] = []
    rows: list[Tensor] = []

    def loss() -> Tensor:
        seen.append(network(x))
        return seen[-1].square().mean()

    for _ in range(N):
        estimate = estimator(loss, mean, std, generator)
        rows.append(torch.cat([estimate.mean, estimate.std]))
        seen[-1] = seen[-1].detach()
    return torch.stack(seen), torch.stack(rows)


@every_pair
def test_output_moments_are_exact(kind: str, layer: str) -> None:
    drawn, n = stepped(kind, layer)[0], N
    exact_mean, exact_variance = moments(layer)
    # Bounds for the largest of a few hundred outputs: 5 standard errors of a normal's mean and variance.
    assert ((drawn.mean(0) - exact_mean).abs() <= 5 * (exact_variance / n).sqrt() + 1e-9).all()
    assert ((drawn.var(0) - exact_variance).abs() <= 5.5 * exact_variance * (2 / n) ** 0.5 + 1e-9).all()


@pytest.mark.parametrize("kind", ["local_reparam", "flipout"])
@pytest.mark.parametrize("layer", ["linear", "conv2d-groups", "transposed2d-groups"])
def test_examples_are_independent_within_a_batch(kind: str, layer: str) -> None:
    """What lowers the variance: two equal examples in a batch have nearly uncorrelated outputs; weight draws do not."""
    network, x, mean, std = made(layer)
    twins = torch.cat([x[:1], x[:1]])
    deviation = {}
    for name in ("weight", kind):
        drawn = outputs(ESTIMATORS[name](trainable(network)), network, twins, (mean, std), 250).flatten(2)
        deviation[name] = (drawn - drawn.mean(0)).transpose(0, 1).reshape(2, -1)
    correlation = {name: float(torch.corrcoef(d)[0, 1]) for name, d in deviation.items()}
    assert correlation["weight"] == pytest.approx(1)
    assert abs(correlation[kind]) < 0.25


def gradient_moments(
    kind: str, network: nn.Module, x: Tensor, q: tuple[Tensor, Tensor], n: int
) -> tuple[Tensor, Tensor]:
    estimator = ESTIMATORS[kind](trainable(network))
    generator = torch.Generator().manual_seed(2)
    rows = []
    for _ in range(n):
        estimate = estimator(lambda: network(x).square().mean(), *q, generator)
        rows.append(torch.cat([estimate.mean, estimate.std]).clone())
    stacked = torch.stack(rows)
    return stacked.mean(0), stacked.std(0) / n**0.5


@every_pair
def test_mean_gradient_is_exact(kind: str, layer: str) -> None:
    """E_q[mean y²] = mean(m² + v) for any linear layer, whose gradient autograd knows."""
    network, x, mean, std = made(layer)
    layout = Layout.of(trainable(network))
    leaves = mean.clone().requires_grad_(), std.clone().requires_grad_()

    def run(vector: Tensor, inputs: Tensor) -> Tensor:
        return torch.func.functional_call(network, layout.views(vector), (inputs,))

    squared = x if layer == "embedding" else x.square()
    exact = torch.autograd.grad((run(leaves[0], x).square() + run(leaves[1].square(), squared)).mean(), leaves)
    rows = stepped(kind, layer)[1]
    assert ((rows.mean(0) - torch.cat(exact)).abs() <= 5 * rows.std(0) / N**0.5 + 1e-9).all()


def test_variance_is_least_with_local_reparameterisation() -> None:
    torch.manual_seed(0)
    network, x = nn.Linear(20, 5).double(), torch.randn(64, 20).double()
    mean = Layout.of(trainable(network)).flatten(dict(network.named_parameters())).detach()
    q = mean, torch.full_like(mean, 0.3)
    error = {kind: gradient_moments(kind, network, x, q, 300)[1].square().mean() for kind in ESTIMATORS}
    assert error["local_reparam"] < error["flipout"] < error["weight"]


@pytest.mark.parametrize(("kind", "ratio"), [("weight", 1.0), ("flipout", 1.0), ("local_reparam", 0.1)])
def test_pooled_convolution(kind: str, ratio: float) -> None:
    """Pooling 10 × 10 places averages local reparameterisation's fresh noise away: it is no way to predict."""
    network = nn.Conv2d(1, 1, 1, bias=False).double()
    q = torch.zeros(1).double(), torch.ones(1).double()
    drawn = outputs(ESTIMATORS[kind](trainable(network)), network, torch.ones(8, 1, 10, 10).double(), q, 400)
    pooled = functional.avg_pool2d(drawn.flatten(0, 1), 10).flatten()
    assert float(pooled.std()) == pytest.approx(ratio, rel=0.15)
    if kind == "flipout":  # signs per example, never per pixel: each example is one weight's output
        assert float(drawn.var(dim=(-1, -2)).max()) < 1e-20


class Tied(nn.Module):
    """One weight used twice, and one used by an operation without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((1, 1), 0.7, dtype=torch.float64))
        self.v = nn.Parameter(torch.full((1, 1), 0.2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.w), self.w) + x @ self.v.T


@every_estimator
def test_shared_weights_and_unknown_operations_get_one_drawn_weight(kind: str) -> None:
    """E[(w² + v)²] for one w used twice: with noise of its own at each use it would be another number."""
    network, n = Tied(), 1200
    q = torch.tensor([0.7, 0.2]).double(), torch.tensor([0.4, 0.3]).double()
    drawn = outputs(ESTIMATORS[kind](trainable(network)), network, torch.ones(1, 1).double(), q, n).flatten()
    m, s2, v, t2 = 0.7, 0.16, 0.2, 0.09
    expected = (m**4 + 6 * m**2 * s2 + 3 * s2**2) + 2 * (m**2 + s2) * v + v**2 + t2
    assert abs(float(drawn.square().mean()) - expected) < 4 * float(drawn.square().std()) / n**0.5
    apart = (m**2 + s2) ** 2 + 2 * m**2 * v + v**2 + t2  # noise of its own at each use
    assert abs(float(drawn.square().mean()) - apart) > 4 * float(drawn.square().std()) / n**0.5


def test_the_network_is_left_as_it_was_even_after_an_error() -> None:
    network = nn.Linear(2, 1)
    before = {n: (p, p.data_ptr(), p.detach().clone()) for n, p in network.named_parameters()}

    def broken() -> Tensor:
        network(torch.ones(1, 2))
        raise RuntimeError("in the middle of a step")

    for kind in ESTIMATORS.values():
        with pytest.raises(RuntimeError, match="middle"):
            kind(trainable(network))(broken, torch.zeros(3), torch.ones(3), None)
    for name, parameter in network.named_parameters():
        same, pointer, value = before[name]
        assert parameter is same
        assert parameter.data_ptr() == pointer
        torch.testing.assert_close(parameter.detach(), value)


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_draws_anew_for_each_of_its_rows(estimator: Any) -> None:
    """y = w·x + b by 20,000 draws in one call: mean, variance and gradients are the analytic ones."""
    torch.manual_seed(0)
    bnn = posterity.bayesianize(nn.Linear(3, 1).double(), estimator=estimator, init=0.2)
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    y = torch.vmap(bnn, randomness="different")(x.expand(20_000, 1, 3)).flatten()
    mean, std = bnn.mean["weight"].detach().flatten(), bnn.std["weight"].detach().flatten()
    variance = float((std * x[0]).square().sum() + bnn.std["bias"].detach().square())
    expected = float(mean @ x[0] + bnn.mean["bias"].detach())
    assert y.mean().item() == pytest.approx(expected, abs=4 * (variance / len(y)) ** 0.5)
    assert y.var().item() == pytest.approx(variance, abs=4 * variance * (2 / len(y)) ** 0.5)
    (gradient,) = torch.autograd.grad(y.mean(), [bnn.mean["weight"]])
    torch.testing.assert_close(gradient, x)
