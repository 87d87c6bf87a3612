"""Law 11: a wrong shape, dtype, label, NaN, name or file raises before anything is changed, and names what would do."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import posterity
from posterity import (
    Bernoulli,
    Categorical,
    Diverged,
    Engine,
    Flat,
    Gaussian,
    HeteroscedasticGaussian,
    InvalidInput,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    TensorData,
)
from tests.conformance.table import small_classification, small_network


def nan_at(x: Tensor, row: int) -> Tensor:
    x = x.clone()
    x[row].view(-1)[0] = float("nan")
    return x


X, Y = small_classification()
BAD_DATA = {
    "a label beyond the outputs": (
        (X, Y.clone().index_fill_(0, torch.tensor([3]), 2)),
        "Label 2 is out of range.*0 to 1",
    ),
    "a negative label": ((X, Y - 1), "Label -1 is out of range"),
    "a NaN pixel": ((nan_at(X, 7), Y), "Input 7 holds NaN"),
    "an infinite pixel": ((X / 0, Y), "Input 0 holds NaN or infinite"),
    "the wrong number of channels": (
        (X.repeat(1, 3, 1, 1), Y),
        r"Sequential cannot take inputs of shape \(2, 3, 6, 6\)",
    ),
    "the wrong dtype of inputs": ((X.double(), Y), "cannot take inputs of shape .* and dtype torch.float64"),
    "one-hot targets": ((X, nn.functional.one_hot(Y)), "integer class labels of shape"),
    "floating-point labels": ((X, Y.float()), "integer class labels"),
    "fewer targets than inputs": ((X, Y[:-1]), "40 inputs but 39 targets"),
    "no data": ((X[:0], Y[:0]), "empty"),
    "something else": ({"x": X}, "expected a DataLoader"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_refused_before_anything_changes(case: str) -> None:
    data, message = BAD_DATA[case]
    network = small_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    rows: list = []
    with pytest.raises(InvalidInput, match=re.compile(message, re.S)):
        posterity.fit(network, data, engine=Engine(progress=False, on_epoch=lambda *row: rows.append(row)))
    assert rows == []
    assert network.training
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_bad_batch_of_a_loader_is_refused_when_it_comes() -> None:
    loader = DataLoader(TensorDataset(nan_at(X, 35), Y), 20)
    with pytest.raises(InvalidInput, match="Input 15 holds NaN"):
        posterity.fit(small_network(), loader, engine=Engine(progress=False))
    with pytest.raises(InvalidInput, match="pair of tensors"):
        posterity.fit(small_network(), DataLoader(TensorDataset(X), 20), engine=Engine(progress=False))


OUTPUTS = torch.zeros(4, 3)
BAD_TARGETS = [
    (Gaussian(), torch.zeros(4, 2), torch.zeros(4), r"targets of shape \(4, 2\)"),
    (Gaussian(), torch.zeros(4, 1), torch.zeros(4, 1), r"targets of shape \(4,\)"),
    (Gaussian(), torch.zeros(4, 1), torch.tensor([0.0, 1.0, float("nan"), 0.0]), "Target 2 is NaN"),
    (Gaussian(), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), "floating-point targets"),
    (HeteroscedasticGaussian(), torch.zeros(4, 1), torch.zeros(4), r"needs \(B, 2 \* targets\)"),
    (Bernoulli(), torch.zeros(4, 2), torch.zeros(4), r"needs \(B,\) or \(B, 1\)"),
    (Bernoulli(), torch.zeros(4, 1), torch.tensor([0, 1, 2, 0]), "that are 0 or 1"),
    (Categorical(), torch.zeros(4, 5, 3), torch.zeros(4, dtype=torch.int64), r"needs \(B, classes\)"),
    (Categorical(), OUTPUTS[:2], torch.zeros(4, dtype=torch.int64), "2 outputs for 4 targets"),
]


@pytest.mark.parametrize(("likelihood", "outputs", "targets", "message"), BAD_TARGETS)
def test_targets_that_do_not_fit_are_refused(likelihood, outputs: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        likelihood.check(outputs, targets)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x.flatten(1)), x


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.likelihood = nn.Linear(1, 1)


def frozen() -> nn.Module:
    return small_network().requires_grad_(False)


def mixed() -> nn.Module:
    network = small_network()
    network[4].double()
    return network


def broken() -> nn.Module:
    network = small_network()
    network[4].weight.data[0, 0] = float("inf")
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Pair, "returned a tuple; it must return one tensor"),
        (Named, "reserved name"),
        (frozen, "no trainable parameters"),
        (mixed, r"different dtypes \(torch.float32, torch.float64\)"),
        (broken, "'4.weight' holds NaN or infinite"),
        (lambda: nn.LazyLinear(2), "has no shape yet"),
    ],
)
def test_networks_that_cannot_be_inferred_are_refused(network, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        posterity.fit(network(), (X, Y), engine=Engine(progress=False))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Normal(0, {"0.wieght": 1.0, "*": 0.1}), "'0.wieght' matches no parameter. Did you mean '0.weight'"),
        (Normal(0, {"0.*": 1.0}), "No std pattern of the prior matches '4.weight'"),
        (Flat(), "mean field needs a proper prior"),
    ],
)
def test_priors_that_do_not_fit_are_refused(prior, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        posterity.fit(small_network(), (X, Y), prior=prior, engine=Engine(progress=False))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeanField(epochs=0),
        lambda: MeanField(epochs=-1),
        lambda: MeanField("lrt"),
        lambda: MeanField(temperature=-1.0),
        lambda: MeanField(temperature=float("nan")),
        lambda: MeanField(kl_schedule="Blundell"),
        lambda: MeanField(antithetic=True),
        lambda: MeanField("weight", antithetic=True, draws=3),
        lambda: Optimizer("Adm"),
        lambda: Optimizer(lr=0.0),
        lambda: Normal(0, -0.1),
        lambda: Normal(0, float("nan")),
        lambda: Gaussian(std=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidInput):
        make()


def test_predictions_refuse_what_the_network_cannot_take() -> None:
    posterior = posterity.fit(small_network(), (X, Y), method=MeanField(epochs=1), engine=Engine(progress=False))
    with pytest.raises(InvalidInput, match="cannot take inputs of shape"):
        posterior.predict(X.repeat(1, 2, 1, 1))
    with pytest.raises(InvalidInput, match="Input 2 holds NaN"):
        posterior.predict(nan_at(X, 2))


def test_devices_precisions_and_batch_sizes() -> None:
    with pytest.raises(InvalidInput, match=r"Device 'gpu7' cannot be used here.*auto"):
        Engine(device="gpu7")
    with pytest.raises(InvalidInput, match="batch size is 0"):
        TensorData(X, Y, 0)
    with pytest.raises(InvalidInput, match="validation share is 1.5"):
        TensorData(X, Y).split(1.5)
    with pytest.raises(InvalidInput, match="num_data is 0"):
        Problem(small_network(), Normal(0, 1), Categorical(), 0)


def test_a_diverging_fit_says_so_and_keeps_the_last_good_checkpoint(tmp_path) -> None:
    from posterity.train import checkpoint

    rows: list = []
    engine = Engine(progress=False, directory=tmp_path, on_epoch=lambda name, row: rows.append(row))
    x = torch.linspace(-1, 1, 32)[:, None]
    # The rate rises with every epoch of the first third: it is stable to begin with, and no longer so before the end.
    method = MeanField(epochs=300, optimizer=Optimizer("SGD", lr=0.2, schedule="one_cycle"))
    with pytest.raises(Diverged, match="smaller learning rate"):
        posterity.fit(nn.Linear(1, 1), (x, x.squeeze()), likelihood=Gaussian(std=0.1), method=method, engine=engine)
    assert rows
    state = checkpoint.load(tmp_path / "last.safetensors")[0]
    assert state["mean"].isfinite().all()
