"""What `fit` says of scales before it trains: where it must speak, where it must be silent, and that it leaves no trace."""

import re
import warnings
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as dist
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from posterity import MLE, Bernoulli, Categorical, Engine, Gaussian, HeteroscedasticGaussian, Normal, Optimizer, fit
from posterity.errors import ScaleWarning
from posterity.model.problem import Problem
from posterity.model.scales import remarks
from posterity.types import Likelihood

N = 300


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = randn(N, 4)
VALUES = X[:, 0] + 0.3 * randn(N, seed=1)
LABELS = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def said(network: nn.Module, inputs: Tensor, targets: Tensor, likelihood: Likelihood) -> list[str]:
    likelihood.check(torch.zeros(1, 1), targets) if False else None
    return remarks(Problem(network, Normal(0, 0.3), likelihood.started(inputs, targets), len(inputs)), inputs, targets)


def mlp(width: int = 4, outputs: int = 1, *last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, outputs), *last)


def conv() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


class Function(nn.Module):
    """A network that ends in a function, not a module."""

    def __init__(self, network: nn.Module, function, before=lambda x: x) -> None:
        super().__init__()
        self.network, self.function, self.before = network, function, before

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.network(self.before(x)))


def scaled(network: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(factor)
    return network


def columns(*factors: float) -> Tensor:
    return X * torch.tensor(factors)


PRICES = 200_000 + 50_000 * VALUES
PIXELS = (255 * torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))).round()
DIGITS = torch.arange(60) % 10

TOLD = {
    "prices": (mlp(), X, PRICES, Gaussian(), r"mean 1\.\d+e\+05, std 4"),
    "micrometres": (mlp(), X, 1e-6 * VALUES, Gaussian(), "std 9.3e-07"),
    "kelvin": (mlp(), X, 300 + 0.1 * VALUES, Gaussian(), "mean 299.99, std 0.093"),
    "kelvin, noise given": (mlp(), X, 300 + 0.1 * VALUES, Gaussian(std=0.03), "mean 299.99"),
    "wide, centred": (mlp(), X, 5e4 * (VALUES - VALUES.mean()), Gaussian(), "Targets are far"),
    "one target of three": (
        mlp(4, 3),
        X,
        torch.stack([VALUES, 1e4 * VALUES, VALUES], 1),
        Gaussian(),
        r"made: column 1: mean .* start at column 1: mean [^;]*;? ?",
    ),
    "of a heteroscedastic one": (mlp(4, 2), X, PRICES, HeteroscedasticGaussian(), "Targets are far"),
    "targets all equal": (mlp(), X, torch.full((N,), 2.0), Gaussian(), "All targets are equal: 2"),
    "noise far below": (mlp(), X, VALUES, Gaussian(std=1e-3), "Gaussian.std=.*0.001 for targets of std"),
    "noise far above": (mlp(), X, VALUES, Gaussian(std=1e3), "Gaussian.std=.*1e\\+03 for targets of std"),
    "noise of one target": (mlp(4, 2), X, X[:, :2], Gaussian(std=(1.0, 1e-3)), "is column 1: 0.001"),
    "start of the noise": (mlp(), X, VALUES, Gaussian(initial_std=1e3), "Gaussian.initial_std="),
    "one large column": (mlp(), columns(1, 1, 1e5, 1), VALUES, Gaussian(), r"made: column 2 \(mean"),
    "one small column": (mlp(), columns(1, 1e-5, 1, 1), VALUES, Gaussian(), r"made: column 1 \(mean"),
    "a large offset": (mlp(), X + torch.tensor([0, 0, 0, 2000.0]), VALUES, Gaussian(), r"column 3 \(mean 2e\+03"),
    "six columns": (mlp(6), 1e3 * randn(N, 6), VALUES, Gaussian(), "column 3 .* and 2 more"),
    "pixels": (conv(), PIXELS, DIGITS, Categorical(), "from 0 to 255"),
    "flat pixels": (mlp(300, 10), 255 * torch.rand(N, 300), LABELS, Categorical(), "Inputs are far"),
    "bytes made floats": (
        Function(mlp(4, 3), lambda f: f, Tensor.float),
        (X.abs() * 50).byte(),
        LABELS,
        Categorical(),
        "Inputs",
    ),
    "exploding logits": (scaled(mlp(4, 3), 60), X, LABELS, Categorical(), "logits of ±"),
    "exploding logits of two": (scaled(mlp(), 60), X, LABELS.clamp(max=1), Bernoulli(), "logits of ±"),
    "exploding values": (scaled(mlp(), 60), X, VALUES, Gaussian(), "outputs before training have"),
    "softmax": (mlp(4, 3, nn.Softmax(-1)), X, LABELS, Categorical(), "after a softmax"),
    "softmax, a function": (Function(mlp(4, 3), lambda f: f.softmax(1)), X, LABELS, Categorical(), "after a softmax"),
    "softmax of label maps": (
        Function(mlp(4, 6), lambda f: f.view(-1, 3, 2).softmax(1)),
        X,
        torch.stack([LABELS, LABELS], 1),
        Categorical("BCT"),
        "after a softmax",
    ),
    "softmax, double precision": (
        mlp(4, 3, nn.Softmax(-1)).double(),
        X.double(),
        LABELS,
        Categorical(),
        "after a softmax",
    ),
    "sigmoid of classes": (mlp(4, 3, nn.Sigmoid()), X, LABELS, Categorical(), "after a sigmoid"),
    "tanh of classes": (mlp(4, 3, nn.Tanh()), X, LABELS, Categorical(), "after a tanh"),
    "sigmoid": (Function(mlp(), torch.sigmoid), X, LABELS.clamp(max=1), Bernoulli(), "after a sigmoid"),
    "tanh": (mlp(4, 1, nn.Tanh()), X, LABELS.clamp(max=1), Bernoulli(), r"after a tanh.*leave \[0.27, 0.73\]"),
    "least noise": (
        mlp(4, 2),
        X,
        VALUES,
        HeteroscedasticGaussian(min_std=2.0),
        "min_std=2. is above the targets' std, 0.9",
    ),
    "log sigmoid": (Function(mlp(), functional.logsigmoid), X, LABELS.clamp(max=1), Bernoulli(), "of one sign"),
    "softplus of the noise": (
        Function(mlp(4, 2), lambda f: torch.cat([f[:, :1], functional.softplus(f[:, 1:])], 1)),
        X,
        VALUES,
        HeteroscedasticGaussian(),
        "never negative where they stand for the noise",
    ),
    "exp of the noise": (
        Function(mlp(4, 2), lambda f: torch.cat([f[:, :1], f[:, 1:].exp()], 1)),
        X,
        VALUES,
        HeteroscedasticGaussian(),
        "never negative where they stand for the noise",
    ),
    "sigmoid of values": (mlp(4, 1, nn.Sigmoid()), X, VALUES, Gaussian(), "in .0, 1. whatever"),
    "relu of values": (mlp(4, 1, nn.ReLU()), X, VALUES, Gaussian(), "at or above 0"),
}


@pytest.mark.parametrize("name", TOLD)
def test_it_says_what_is_far(name: str) -> None:
    network, inputs, targets, likelihood, expected = TOLD[name]
    found = said(network, inputs, targets, likelihood)
    assert len(found) == 1, found
    assert re.search(expected, found[0]), found[0]


class Residual(nn.Module):
    """A network that scales its outputs itself, to the targets that it was made for."""

    def __init__(self, network: nn.Module, targets: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", targets.mean())
        self.register_buffer("std", targets.std())

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.std * self.network(x)


MNIST = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)).square()
COUNTS = torch.poisson(torch.full((N, 4), 0.2), generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    """A trained classifier, sure of most of its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        nn.init.normal_(self.layer.weight, std=8.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class OwnFamily(Likelihood):
    def __init__(self, make) -> None:
        self.make = make

    def __call__(self, outputs: Tensor, latents) -> dist.Distribution:
        return self.make(outputs)


HEAVY = OwnFamily(lambda f: dist.StudentT(4.0, f[..., 0], functional.softplus(f[..., 1]) + 1e-3))
VECTORS = OwnFamily(lambda f: dist.MultivariateNormal(f, torch.eye(2)))
RATES = OwnFamily(lambda f: dist.Poisson(f[..., 0].exp()))
NO_MEAN = OwnFamily(lambda f: dist.Cauchy(f[..., 0], functional.softplus(f[..., 1]) + 1e-3))
NORMALISED = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("likelihood", "targets"),
    [(HEAVY, 1e5 * VALUES), (HEAVY, 290 + VALUES), (VECTORS, torch.stack([VALUES, 1e4 * VALUES], 1))],
)
def test_real_targets_of_a_likelihood_of_ones_own_are_compared_with_its_means(likelihood, targets) -> None:
    (found,) = said(mlp(4, 2), X, targets, likelihood)
    assert re.search(r"Targets are far.*then mean \+ std \* prediction.mean is in your units", found)


def test_what_the_network_makes_of_its_inputs_is_told_from_the_inputs() -> None:
    (found,) = said(Function(mlp(64), lambda f: f, lambda x: x.flatten(1) / 255), MNIST, randn(60), Gaussian())
    assert re.search("before its first layer with weights.*scaled twice", found)


SILENT = {
    "prices that are normalised first": (NORMALISED, 1e5 + 1e4 * X, VALUES, Gaussian()),
    "prices that are normalised after a layer": (
        nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
        1e5 + 1e4 * X,
        VALUES,
        Gaussian(),
    ),
    "real targets of a family of one's own": (mlp(4, 2), X, VALUES, HEAVY),
    "counts of a family of one's own": (mlp(), X, torch.poisson(X[:, 0].exp() * 100), RATES),
    "a family without a mean": (mlp(4, 2), X, 1e5 * VALUES, NO_MEAN),
    "a standardised table": (mlp(), X, VALUES, Gaussian()),
    "a linear model": (nn.Linear(4, 1), X, VALUES, Gaussian()),
    "noise given": (mlp(), X, VALUES, Gaussian(std=0.02)),
    "targets of std 0.3": (mlp(), X, 0.3 * (VALUES - VALUES.mean()) / VALUES.std(), Gaussian()),
    "targets of std 3": (mlp(), X, 3 * VALUES / VALUES.std(), Gaussian()),
    "targets beside 0": (mlp(), X, 3 + VALUES, Gaussian()),
    "several targets": (mlp(4, 3), X, torch.stack([VALUES, 2 * VALUES, 0.5 * VALUES], 1), Gaussian()),
    "heteroscedastic": (mlp(4, 2), X, VALUES, HeteroscedasticGaussian()),
    "outputs scaled inside": (Residual(mlp(), PRICES), X, PRICES, Gaussian()),
    "a last layer of zeros": (nn.Sequential(mlp(), scaled(nn.Linear(1, 1), 0.0)), X, VALUES, Gaussian()),
    "classes, a last layer of zeros": (nn.Sequential(mlp(), scaled(nn.Linear(1, 3), 0.0)), X, LABELS, Categorical()),
    "classes, a small last layer": (nn.Sequential(mlp(), scaled(nn.Linear(1, 3), 1e-4)), X, LABELS, Categorical()),
    "log-softmax": (mlp(4, 3, nn.LogSoftmax(-1)), X, LABELS, Categorical()),
    "a trained classifier": (Logits(), X, LABELS, Categorical()),
    "two classes": (mlp(), X, LABELS.clamp(max=1), Bernoulli()),
    "two classes, no bias": (nn.Linear(4, 1, bias=False), X, LABELS.clamp(max=1), Bernoulli()),
    "images in [0, 1]": (conv(), MNIST, DIGITS, Categorical()),
    "images in [-1, 1]": (conv(), 2 * MNIST - 1, DIGITS, Categorical()),
    "images standardised": (conv(), (MNIST - 0.1307) / 0.3081, DIGITS, Categorical()),
    "flat images": (mlp(64, 10), MNIST.flatten(1), DIGITS, Categorical()),
    "pixels that the network scales": (Function(conv(), lambda f: f, lambda x: x / 255), PIXELS, DIGITS, Categorical()),
    "pixels that are normalised first": (nn.Sequential(nn.BatchNorm2d(1), conv()), PIXELS, DIGITS, Categorical()),
    "tokens": (
        nn.Sequential(nn.Embedding(99, 8), nn.Flatten(), nn.Linear(24, 3)),
        torch.randint(99, (N, 3)),
        LABELS,
        Categorical(),
    ),
    "one-hot": (mlp(50, 3), functional.one_hot(torch.arange(N) % 50).float(), LABELS, Categorical()),
    "binary features": (mlp(4, 3), (X > 0).float(), LABELS, Categorical()),
    "rare binary features": (mlp(4, 3), (X > 2.5).float(), LABELS, Categorical()),
    "small counts": (mlp(4, 3), COUNTS, LABELS, Categorical()),
    "a constant column": (mlp(), torch.cat([X[:, :3], torch.ones(N, 1)], 1), VALUES, Gaussian()),
    "sigmoid of values in [0, 1]": (mlp(4, 1, nn.Sigmoid()), X, VALUES.sigmoid() * 0.98, Gaussian()),
    "softplus of positive values": (mlp(4, 1, nn.Softplus()), X, VALUES.exp(), Gaussian()),
    "ReLU of classes": (mlp(4, 3, nn.ReLU()), X, LABELS, Categorical()),
    "a table in double precision": (mlp().double(), X.double(), VALUES.double(), Gaussian()),
}


@pytest.mark.parametrize("name", SILENT)
def test_it_is_silent_about_what_is_near(name: str) -> None:
    assert said(*SILENT[name]) == []


STILL = MLE(epochs=1, optimizer=Optimizer(lr=1e-6))
QUIET = Engine(progress=False, device="cpu")


@pytest.mark.parametrize("form", ["tensors", "loader"])
def test_fit_warns_before_it_trains_and_points_to_its_caller(form: str) -> None:
    data = (X, PRICES) if form == "tensors" else DataLoader(TensorDataset(X, PRICES), batch_size=100)
    with pytest.warns(ScaleWarning, match="rescale") as record:
        fit(mlp(), data, likelihood=Gaussian(), method=STILL, engine=QUIET)
    assert sum(issubclass(warning.category, ScaleWarning) for warning in record) == 1


def test_the_remedy_mends_it() -> None:
    targets = PRICES
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScaleWarning)
        mean, std = targets.mean(0), targets.std(0)
        fit(mlp(), (X, (targets - mean) / std), likelihood=Gaussian(), method=STILL, engine=QUIET)
        inputs = columns(1, 1e5, 1e-5, 1) + 1000
        mean, std = inputs.mean(0), inputs.std(0).clamp_min(1e-8)
        fit(mlp(), ((inputs - mean) / std, VALUES), likelihood=Gaussian(), method=STILL, engine=QUIET)


class Counting(nn.Module):
    """Writes to a buffer and draws random numbers whenever it runs, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(self.layer(x)) + 0 * torch.rand(1)


def test_looking_leaves_no_trace() -> None:
    network = Counting()
    problem = Problem(network, Normal(0, 1), Categorical(), N)
    before = deepcopy(network.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert remarks(problem, X, LABELS) == []
    assert torch.equal(torch.rand(3), expected)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert network.training
    assert network.layer.training
    assert not network.norm.training
    assert not any(m._forward_pre_hooks for m in network.modules())
    assert all(p.grad is None for p in network.parameters())
