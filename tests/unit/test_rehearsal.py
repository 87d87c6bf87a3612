"""All that a fit will call is tried before it: refused before the first step with reason and cure, or never."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as dist
from torch.utils.data import DataLoader, TensorDataset

from posterity import (
    MLE,
    Bernoulli,
    Categorical,
    Engine,
    Gaussian,
    InvalidInput,
    Likelihood,
    LoaderData,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    TensorData,
    fit,
)
from posterity.core.gaussian import softplus
from posterity.errors import Diverged
from posterity.fitting import _check_made
from posterity.rehearsal import rehearse
from posterity.types import Latent

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
SEVERAL = MeanField(epochs=2)


@pytest.fixture(autouse=True)
def _torch_checks_parameters() -> None:
    """Its compiler turns that off for the whole process, once it was used."""
    dist.Distribution.set_default_validate_args(True)


def refused(network: nn.Module, message: str, data=(X, Y), **options) -> None:
    """Fit must raise before the first step, and leave network, data and torch's random numbers as they were."""
    rows: list = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda *row: rows.append(row))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    inputs = X.clone()
    with pytest.raises(InvalidInput, match=message):
        fit(network, data, method=SEVERAL, engine=engine, **options)
    assert rows == []
    assert modes == [m.training for m in network.modules()]
    assert torch.equal(X, inputs)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


class Net(nn.Module):
    """A layer, and a forward of each test's own."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(2, 2), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.calls(self, x)


def keeping(self: Net, x: Tensor) -> Tensor:
    self.features = self.layer(x)
    return self.features


def keeping_in_a_list(self: Net, x: Tensor) -> Tensor:
    self.seen = [self.layer(x)]
    return self.seen[0]


def in_place(self: Net, x: Tensor) -> Tensor:
    x *= 2
    return self.layer(x)


def weight_in_place(self: Net, x: Tensor) -> Tensor:
    self.layer.weight.mul_(0.9)
    return self.layer(x)


def only_in_training(self: Net, x: Tensor) -> Tensor:
    if self.training:
        raise KeyError("mask")
    return self.layer(x)


def of_this_batch(self: Net, x: Tensor) -> Tensor:
    return torch.eye(40) @ self.layer(x)


def slope(self: Net, x: Tensor) -> Tensor:
    """Differentiate in the inputs, as networks of physics do."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.layer(x).tanh().sum(), x, create_graph=True)[0]


OTHER, LSTM = nn.Linear(2, 2), nn.LSTM(2, 2).requires_grad_(False)
NETWORKS = {
    "an activation is kept": (keeping, "'features' holds a tensor with a gradient history.*detach"),
    "an activation is kept in a list": (keeping_in_a_list, "'seen' holds a tensor with a gradient history"),
    "inputs are changed": (in_place, "changes its inputs in place.*x = x \\* 2"),
    "a weight is changed": (weight_in_place, "In training mode Net fails.*in-place.*Write x = x \\+ 1"),
    "training fails": (only_in_training, "In training mode Net fails on a batch of 2 examples: 'mask'"),
    "anything raised": (lambda self, x: {}["mask"], "Net cannot take inputs of shape.*'mask'"),
    "a graph that torch builds anew": (
        lambda self, x: torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=True),
        "do not depend on any.*use_reentrant",
    ),
    "rows of another number": (lambda self, x: self.layer(x).mean(0, keepdim=True), "1 outputs for 2 examples"),
    "one number": (lambda self, x: self.layer(x).mean(), "a single number for 2 examples"),
    "squeezed": (lambda self, x: self.layer(x).squeeze(), "2 outputs for 1 example;.*squeeze\\(-1\\)"),
    "a batch of one size": (of_this_batch, "takes 40 examples, and not 2 .*Categorical\\('BTC'\\)"),
    "centred by the batch": (lambda self, x: self.layer(x - x.mean(0)), "another output for an example when another"),
    "attention over the batch": (lambda self, x: (x @ x.T).softmax(-1) @ self.layer(x), "depend on how data are cut"),
    "detached": (lambda self, x: self.layer(x).detach(), "do not depend on any of its trainable parameters"),
    "a tuple": (lambda self, x: (self.layer(x), x), r"returned a tuple.*returns self.network\(x\)\[0\]"),
    "a mapping": (lambda self, x: {"out": self.layer(x)}, r"returned a dict.*self.network\(x\)\['out'\]"),
    "time first": (lambda self, x: LSTM(self.layer(x))[0], "another output for an example"),
    "another module": (lambda self, x: OTHER(x), r"tensor of shape \(2,?.*none of its parameters"),
    "another module, too": (lambda self, x: self.layer(OTHER(x)), "none of its parameters.*nn.ModuleList"),
    "no derivative": (lambda self, x: self.layer(x * 0 + 0).sub(self.layer.bias).abs().sqrt(), "gradient of 'layer"),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_that_would_fail_later_are_refused_first(case: str) -> None:
    forward, message = NETWORKS[case]
    refused(Net(forward), message)


def test_a_softmax_over_the_batch_is_named() -> None:
    refused(nn.Sequential(nn.Linear(2, 2), nn.Softmax(0)), r"'1' .Softmax. normalises over axis 0.*dim=-1")


class Sequences(nn.Module):
    """A label of each sequence, (B, T, 2), of what a layer of sequences gives."""

    def __init__(self, layer: nn.Module, pick) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for p in layer.parameters():
            nn.init.normal_(p, generator=generator)
        self.layer, self.last, self.pick = layer, nn.Linear(2, 2), pick

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pick(self.layer, x))


SEQUENCES = torch.randn(40, 3, 2, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("layer", "pick"),
    [
        (nn.GRU(2, 2), lambda layer, x: layer(x)[0][-1]),
        (nn.LSTM(2, 2), lambda layer, x: layer(x)[0][:, -1]),
        (nn.MultiheadAttention(2, 1), lambda layer, x: layer(x, x, x)[0].mean(1)),
    ],
)
def test_time_taken_for_the_batch_is_refused_by_the_layer(layer: nn.Module, pick) -> None:
    refused(Sequences(layer, pick), r"'layer.*takes its second axis for the batch.*batch_first=True", (SEQUENCES, Y))


@pytest.mark.parametrize(
    ("layer", "pick"),
    [
        (nn.GRU(2, 2), lambda layer, x: layer(x.transpose(0, 1))[0][-1]),
        (nn.LSTM(2, 2, batch_first=True), lambda layer, x: layer(x)[0][:, -1]),
        (nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), lambda layer, x: layer(x).mean(1)),
    ],
)
def test_time_in_its_place_trains(layer: nn.Module, pick) -> None:
    posterior = fit(Sequences(layer, pick), (SEQUENCES, Y), method=SEVERAL, engine=Engine(progress=False, device="cpu"))
    assert posterior.predict(SEQUENCES, 2).mean.shape == (40, 2)


def test_the_graph_as_one_example_trains() -> None:
    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("A", torch.eye(40))
            self.layer = nn.Linear(2, 2)

        def forward(self, h: Tensor) -> Tensor:
            return self.A @ self.layer(h)

    refused(GCN(), "graph is one example", TensorData(X, Y, batch_size=40))
    labels = Y.clone()
    labels[::2] = -100
    engine = Engine(progress=False, device="cpu")
    data = TensorData(X[None], labels[None], batch_size=1)
    posterior = fit(GCN(), data, likelihood=Categorical("BTC"), method=SEVERAL, engine=engine)
    assert posterior.predict(X[None], 4).scores(Y[None])["nll"] > 0


def problem(*layers: nn.Module) -> Problem:
    return Problem(nn.Sequential(*layers), Normal(0, 1), Categorical(), len(X))


@pytest.mark.parametrize("batch_norm", [nn.BatchNorm1d, lambda n: nn.Sequential(nn.Tanh(), nn.BatchNorm1d(n))])
def test_a_batch_of_one_example_is_refused_where_it_has_no_variance(batch_norm) -> None:
    trial = problem(nn.Linear(2, 8), batch_norm(8), nn.Linear(8, 2))
    rehearse(trial, (X, Y), (X, Y), 2)
    with pytest.raises(
        InvalidInput, match=r"'1.*BatchNorm1d\) fails on a batch of one example.*drop_last=True.*GroupNorm"
    ):
        rehearse(trial, (X, Y), (X, Y), 1)


def test_frozen_statistics_take_a_batch_of_one_example() -> None:
    rehearse(problem(nn.Linear(2, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, 2)), (X, Y), None, 1)
    rehearse(problem(nn.Linear(2, 8), nn.BatchNorm1d(8).requires_grad_(False), nn.Linear(8, 2)), (X, Y), None, 1)


def test_normalisation_by_the_batch_at_hand_is_refused() -> None:
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2))
    refused(network, "BatchNorm1d '1' has no running statistics.*track_running_stats=True")


def test_nothing_is_moved() -> None:
    trial = problem(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    before, theta = {k: v.clone() for k, v in trial.network.state_dict().items()}, trial.theta()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rehearse(trial, (X, Y), (X, Y), None)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(trial.theta(), theta)
    assert all(torch.equal(v, before[k]) for k, v in trial.network.state_dict().items())
    assert all(p.grad is None for p in trial.network.parameters())
    assert trial.network.training


def of_the_family(make):
    """Make a likelihood of one's own of what maps outputs to a distribution."""

    class Own(Likelihood):
        def __call__(self, outputs: Tensor, latents) -> dist.Distribution:
            return make(outputs)

    return Own()


COUNTS = torch.poisson(X[:, 0].exp(), generator=torch.Generator().manual_seed(0))
LIKELIHOODS = {
    "no squeeze": (lambda f: dist.Poisson(f.exp()), 1, COUNTS, r"shape \(2, 1\) for 2 targets.*outputs.squeeze\(-1\)"),
    "no Independent": (lambda f: dist.Normal(f, 1.0), 2, X, r"batch shape \(2, 2\).*Independent\(distribution, 1\)"),
    "images without Independent": (
        lambda f: dist.Normal(f.unflatten(-1, (2, 2)), 1.0),
        4,
        X.repeat(1, 2).unflatten(-1, (2, 2)),
        r"Independent\(distribution, 2\)",
    ),
    "one distribution for all": (lambda f: dist.Normal(f.mean(), 1.0), 1, COUNTS, "one distribution for each target"),
    "no distribution": (lambda f: f, 1, COUNTS, "returned a Tensor; it returns a torch Distribution"),
    "axes from the front": (lambda f: dist.Poisson(f[:, 0].exp()), 2, COUNTS, r"another way.*outputs\[..., 0\]|draws"),
    "axes from the front, vectors": (
        lambda f: dist.Normal(f[:, 0], softplus(f[:, 1])),
        2,
        COUNTS,
        r"outputs\[..., 0\]",
    ),
    "an error of its own": (
        lambda f: dist.Poisson(f.nothing),
        1,
        COUNTS,
        "does not take outputs of shape.*no attribute",
    ),
    "targets it cannot give": (lambda f: dist.Poisson(f.squeeze(-1).exp()), 1, -COUNTS - 1, "Target 0|no density"),
    "targets of another shape": (lambda f: dist.Poisson(f.squeeze(-1).exp()), 1, COUNTS[:, None], r"\(2, 1\)"),
    "a target on a bound": (
        lambda f: dist.Beta(softplus(f[..., 0]) + 2, softplus(f[..., 1]) + 2),
        2,
        torch.linspace(0, 1, len(X) + 2)[1:-1].index_fill(0, torch.tensor([7]), 0.0),
        "Target 7 is 0.0, to which Beta.*bound",
    ),
    "means where rates are": (
        lambda f: dist.Poisson(f.squeeze(-1) - 9),
        1,
        COUNTS,
        "outputs.*rate|density that is NaN",
    ),
}


@pytest.mark.parametrize("case", LIKELIHOODS)
def test_likelihoods_of_ones_own_are_tried_on_one_and_several_functions(case: str) -> None:
    make, width, targets, message = LIKELIHOODS[case]
    refused(nn.Linear(2, width), message, (X, targets), likelihood=of_the_family(make))


class Levels(Likelihood):
    """A noise level for each draw: broadcast against the batch where it is given no axis."""

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def latents(self):
        return {"std": Latent(torch.zeros(()), lambda rho: -0.5 * rho.square(), softplus)}

    def __call__(self, outputs: Tensor, latents) -> dist.Distribution:
        std = softplus(latents["std"])
        return dist.Normal(outputs.squeeze(-1), std[(...,) + (None,) * self.axes])


def test_a_std_of_either_sign_is_refused_though_the_first_two_are_positive() -> None:
    x = torch.tensor([[1.0], [1.0], [-1.0], [1.0]])
    network = nn.Linear(1, 2)
    with torch.no_grad():
        network.weight.fill_(1.0), network.bias.zero_()
    likelihood = of_the_family(lambda f: dist.Normal(f[..., 0], f[..., 1]))
    refused(network, "scale.*satisfy the constraint.*Map the outputs.*softplus", (x, x[:, 0]), likelihood=likelihood)


@pytest.mark.parametrize("likelihood", ["gaussian", 3.0, dist.Normal])
def test_what_is_no_likelihood_is_refused(likelihood) -> None:
    with pytest.raises(InvalidInput, match="likelihood is .*; it must be made, as Gaussian"):
        _check_made(nn.Linear(2, 1), likelihood, None, None)  # annotations, checked in tests, would refuse it first


def test_what_a_distribution_refuses_in_training_is_one_line() -> None:
    """A support that moves: targets of 3 and more, and a scale that climbs beyond them."""
    method, engine = MLE(epochs=400, optimizer=Optimizer(lr=0.5)), Engine(progress=False, device="cpu")
    likelihood = of_the_family(lambda f: dist.Pareto(softplus(f[..., 0]), torch.ones_like(f[..., 0])))
    with pytest.raises(Diverged, match="cannot be computed at the present parameters.*learning rate"):
        fit(nn.Linear(2, 1), (X, X[:, 0].abs() + 3), likelihood=likelihood, method=method, engine=engine)
    trial = problem(nn.Linear(2, 1))
    trial = replace(trial, likelihood=of_the_family(lambda f: dist.Poisson(f[..., 0] * float("nan"))))
    with pytest.raises(Diverged, match="Expected parameter rate.*NaN"):
        trial.nll((X, COUNTS))


def test_a_latent_that_is_broadcast_over_the_batch_is_refused() -> None:
    refused(nn.Linear(2, 1), r"std\[..., None\]", (X, COUNTS), likelihood=Levels(0))
    fit(nn.Linear(2, 1), (X, COUNTS), likelihood=Levels(1), method=SEVERAL, engine=Engine(progress=False, device="cpu"))


def test_validation_is_tried_too() -> None:
    class Strict(Net):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training and len(x.unique()) < 3:
                raise ValueError("too few")
            return self.layer(x)

    held_out = (torch.zeros(3, 2), Y[:3])
    refused(Strict(None), "too few", TensorData(X, Y, held_out=held_out))
    refused(nn.Linear(2, 2), "Label 7", TensorData(X, Y, held_out=(X[:3], torch.tensor([0, 7, 1]))))


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (X, Y.index_fill(0, torch.tensor([39]), 4), "Label 4"),
        (X.index_fill(0, torch.tensor([37]), float("nan")), Y, "NaN"),
    ],
)
def test_every_batch_of_validation_is_tried(inputs: Tensor, targets: Tensor, message: str) -> None:
    loaders = (DataLoader(TensorDataset(*pair), batch_size=10) for pair in ((X, Y), (inputs, targets)))
    refused(nn.Linear(2, 2), message, LoaderData(*loaders))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_refused(dtype: torch.dtype) -> None:
    refused(nn.Linear(2, 2).to(dtype), r"network.float\(\).*precision='bfloat16'", (X.to(dtype), Y))
    refused(nn.Linear(2, 2).to(dtype), r"network.float\(\)", (X, Y))  # not first to give inputs of that dtype


@pytest.mark.parametrize(
    ("network", "inputs", "targets", "likelihood"),
    [
        (nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(8, 2)), (X > 0).long(), Y, None),
        (nn.Sequential(nn.Linear(2, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)), X, Y, Bernoulli()),
        (nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 1)), X, X[:, 0], Gaussian()),
        (nn.Sequential(nn.Unflatten(1, (1, 2)), nn.GRU(2, 2)), X, Y, "refused"),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).double(), X.double(), Y, None),
        (Net(lambda self, x: torch.vmap(self.layer)(x)), X, Y, None),
        (Net(slope), X, Y, None),
    ],
)
def test_what_trains_is_not_refused(network, inputs, targets, likelihood) -> None:
    if likelihood == "refused":
        refused(network, "returned a tuple", (inputs, targets))
        return
    engine = Engine(progress=False, device="cpu")
    posterior = fit(network, (inputs, targets), likelihood=likelihood, method=SEVERAL, engine=engine)
    assert posterior.predict(inputs, 3).scores(targets)
