"""The four problems whose posteriors are known by long runs of NUTS: small enough for it, and each hard in its own way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import make_moons
from torch import Tensor

from posterity.data import load
from posterity.errors import unknown
from posterity.model.likelihoods import Categorical, Gaussian
from posterity.model.location_scale import Normal
from posterity.model.problem import Problem
from posterity.train.batches import TensorData
from posterity.train.random import derived_seed
from posterity.types import Likelihood, Prior
from posterity.zoo.mlp import MLP

CUBIC_NOISE, CUBIC_UNIT = 3.0, 27.0  # the unit is about the std of x³ on [−4, 4]
DIGITS = 200  # training images
PROBES = 100  # test images
PRIOR = Normal(0, 1, fan_in=True)


@dataclass(frozen=True)
class Task:
    """One problem: a network, a prior, a likelihood, training data, and the inputs at which functions are compared.

    Args:
        title: for people.
        widths, activation: of the `MLP`.
        likelihood: of the targets.
        data: makes training inputs, training targets and probes, all of them standardised by the training data.
        prior: over the network's parameters.
    """

    title: str
    widths: tuple[int, ...]
    activation: str
    likelihood: Likelihood
    data: Callable[[], tuple[Tensor, Tensor, Tensor]]
    prior: Prior = PRIOR

    def network(self, seed: int = 0) -> MLP:
        """Make the network with initial weights that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "network"))
            return MLP(self.widths, self.activation)

    def training(self, batch_size: int = 128) -> TensorData:
        """Return the training data; nothing is held out, as a posterior is of all of them."""
        inputs, targets, _ = self.data()
        return TensorData(inputs, targets, batch_size)

    def problem(self, seed: int = 0) -> Problem:
        return Problem(self.network(seed), self.prior, self.likelihood, self.training().num_data)


def task(name: str) -> Task:
    """Return a task by name.

    Raises:
        InvalidInput: for a name that is none of `TASKS`.

    >>> task("cubic").problem().layout.size
    301
    """
    if name not in TASKS:
        raise unknown("reference", name, TASKS)
    return TASKS[name]


def _cubic() -> tuple[Tensor, Tensor, Tensor]:
    """20 points of y = x³ + N(0, 3²), x uniform on [−4, 4]; probes on [−6, 6] (Hernández-Lobato & Adams 2015, §5.1)."""
    generator = torch.Generator().manual_seed(0)
    x = 8 * torch.rand(20, 1, generator=generator) - 4
    y = x[:, 0] ** 3 + CUBIC_NOISE * torch.randn(20, generator=generator)
    return x / x.std(), y / CUBIC_UNIT, torch.linspace(-6, 6, 101)[:, None] / x.std()


def _moons() -> tuple[Tensor, Tensor, Tensor]:
    """100 points of two interleaved half circles, noise 0.2; probes on a grid that reaches far beyond them."""
    inputs, labels = make_moons(100, noise=0.2, random_state=0)
    x = torch.tensor(inputs, dtype=torch.float32)
    axis = torch.linspace(-4, 4, 15)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    return (x - x.mean(0)) / x.std(0), torch.tensor(labels), grid


def _boston() -> tuple[Tensor, Tensor, Tensor]:
    """The first standard split: 455 rows to train on; probes are its 51 test inputs."""
    data = load("uci/boston", split=0)
    return data.train_inputs, data.train_targets, data.test_inputs


def _digits() -> tuple[Tensor, Tensor, Tensor]:
    """The first 200 training images of 8 × 8 pixels; probes are the first 100 test images."""
    data = load("digits").standardised()
    return data.train_inputs[:DIGITS].flatten(1), data.train_targets[:DIGITS], data.test_inputs[:PROBES].flatten(1)


TASKS = {
    "cubic": Task("a cubic, known noise", (1, 100, 1), "relu", Gaussian(std=CUBIC_NOISE / CUBIC_UNIT), _cubic),
    "moons": Task("two moons", (2, 20, 20, 2), "tanh", Categorical(), _moons),
    "boston": Task("Boston housing, learnt noise", (13, 50, 1), "relu", Gaussian(), _boston),
    "digits": Task("200 digits", (64, 20, 10), "tanh", Categorical(), _digits),
}
