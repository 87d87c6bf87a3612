"""Parts of somebody's own, each with no more than its contract asks for; the command line names them by this module."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import Normal, Poisson, StudentT

from posterity import MAP, MeanField, Method, Posterior
from posterity.posteriors.point import Point


class Plain:
    """A method with `infer` and nothing else."""

    def infer(self, problem, data, engine):
        return MAP(epochs=1).infer(problem, data, engine)


@dataclass(frozen=True)
class Options:
    """A method whose options are those of a dataclass."""

    epochs: int = 2
    temperature: float = 0.5

    def infer(self, problem, data, engine):
        return MeanField(epochs=self.epochs, temperature=self.temperature).infer(problem, data, engine)


class Descent:
    """An inference that owns its state: gradient descent on the mean nll."""

    def __init__(self, problem, lr: float) -> None:
        self.problem, self.lr, self.theta = problem, lr, problem.theta()

    @property
    def state(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    def step(self, batch) -> dict[str, Tensor]:
        with self.problem.bound(self.theta), torch.enable_grad():
            nll, _ = self.problem.nll(batch)
            grads = torch.autograd.grad(nll, list(self.problem.params.values()))
        self.theta = self.theta - self.lr * torch.cat([g.flatten() for g in grads])  # a new tensor at each step
        return {"nll": nll.detach()}

    def posterior(self) -> Point:
        return Point(self.problem.snapshot(), self.theta.clone())


@dataclass(frozen=True)
class Stepwise(Method):
    """A method that derives from the base and only starts."""

    lr: float = 0.1
    epochs: int = 2
    kind = "stepwise_of_a_stranger"

    def start(self, problem, budget, run):
        return Descent(problem, self.lr)


class Heavy:
    """A likelihood that is only called."""

    def __init__(self, df: float = 4.0) -> None:
        self.df = df

    def __call__(self, outputs, latents):
        return StudentT(self.df, outputs.squeeze(-1), 0.5)


def counts(outputs, latents):
    """A likelihood that is a function."""
    return Poisson(outputs.squeeze(-1).exp())


class Wide:
    """A prior with the two required methods."""

    def log_prob(self, params):
        return torch.stack([Normal(0.0, 1.0).log_prob(p).sum() for p in params.values()]).sum()

    def sample(self, shapes, generator=None):
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


class Rows:
    """Data of three batches, in an order of the epoch's own."""

    num_data, steps_per_epoch = 30, 3

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def batches(self, epoch: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.x), generator=generator).split(10):
            yield self.x[rows], self.y[rows]

    def validation(self):
        return iter([(self.x[:5], self.y[:5])])


class Counting:
    """An engine around another, which counts what is run."""

    def __init__(self, inner, runs: list[str] | None = None) -> None:
        self.inner, self.runs = inner, [] if runs is None else runs

    def run(self, inference, data, budget):
        self.runs.append(type(inference).__name__)
        return self.inner.run(inference, data, budget)

    def fork(self, name):
        return Counting(self.inner.fork(name), self.runs)

    def streams(self):
        return self.inner.streams()

    def mapped(self, name, like, rows):
        return self.inner.mapped(name, like, rows)


class Two(Posterior):
    """A family of one's own, no dataclass: two networks, equally likely."""

    kind = "two_of_a_stranger"

    def __init__(self, problem, first: Tensor, second: Tensor) -> None:
        super().__init__(problem)
        self.first, self.second = first, second

    @property
    def mean(self) -> Tensor:
        return (self.first + self.second) / 2

    def sample(self, generator=None) -> Tensor:
        heads = torch.rand((), generator=generator) < 0.5
        return self.first if heads else self.second

    def tensors(self) -> dict[str, Tensor]:
        return {"first": self.first, "second": self.second}

    @classmethod
    def from_tensors(cls, problem, tensors):
        return cls(problem, tensors["first"], tensors["second"])


class Twice:
    """A method whose posterior is of that family."""

    def infer(self, problem, data, engine):
        first = MAP(epochs=1).infer(problem, data, engine)
        return Two(first.problem, first.theta, first.theta + 0.1)


class Bare:
    """A posterior that draws and predicts, and nothing else."""

    def draw(self, inputs, n, *, generator=None):
        return torch.zeros(n, len(inputs), 1)

    def predict(self, inputs, n=32, *, generator=None):
        return self.draw(inputs, n)


class MakesBare:
    def infer(self, problem, data, engine):
        return Bare()
