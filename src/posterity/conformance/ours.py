"""How a method of Posterity answers the laws: its posteriors, its objectives, its layers, and a run that is resumed."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import posterity
import posterity.nn
from posterity.conformance.subject import Decomposition, Inferred, Task
from posterity.core import gaussian
from posterity.core.covariance import LowRankCovariance
from posterity.errors import Interrupted
from posterity.model.correlated import CorrelatedDivergence
from posterity.model.divergence import Divergence
from posterity.model.likelihoods import Categorical, Gaussian
from posterity.model.priors import Normal
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.linearised import Linearised
from posterity.predict.predictive import Classification
from posterity.train.batches import LoaderData, TensorData
from posterity.train.engine import Engine

QUIET = Engine(progress=False, device="cpu")


def seeded(seed: int) -> Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Ours(Inferred):
    """A posterior of this library."""

    posterior: FunctionPosterior

    def draw(self, inputs: Tensor, n: int, seed: int) -> Tensor:
        return self.posterior.draw(inputs, n, generator=seeded(seed))

    def log_evidence(self) -> float | None:
        exact = "log_evidence" in self.posterior.provenance and isinstance(self.posterior, Linearised)
        return self.posterior.log_evidence if exact else None

    def decompositions(self, inputs: Tensor, n: int, seed: int) -> Mapping[str, Decomposition]:
        predicted = self.posterior.predict(inputs, n, generator=seeded(seed))
        if isinstance(predicted, Classification):
            return {
                "entropy": (predicted.expected_entropy, predicted.mutual_information),
                "softmax": predicted.classwise("softmax"),
                "normalized": predicted.classwise("normalized"),
            }
        if isinstance(self.posterior, Linearised):
            return {}  # its variance is in closed form, without the noise that a total over draws has
        return {"variance": (predicted.aleatoric, predicted.epistemic)}

    def restored(self, folder: Path) -> Inferred:
        self.posterior.save(folder / "posterior.safetensors")
        return Ours(posterity.load(folder / "posterior.safetensors", self.posterior.problem.network))


def inferred(task: Task, method: Any, quick: Any, engine: Engine = QUIET) -> Ours:
    """Fit a method, or its quick version for brief tasks."""
    data = TensorData(task.x, task.y, max(1, len(task.x)))
    return _fitted(task, data, quick if task.brief else method, engine)


def in_batches(task: Task, size: int, method: Any) -> Ours:
    """Fit a method to a loader's batches, in their order."""
    loader = DataLoader(TensorDataset(task.x, task.y), batch_size=size)
    return _fitted(task, LoaderData(loader), method, QUIET)


def _fitted(task: Task, data: TensorData | LoaderData, method: Any, engine: Engine) -> Ours:
    engine = replace(engine, seed=task.seed, precision="bfloat16" if task.autocast else "float32")
    likelihood = Categorical() if task.noise_std is None else Gaussian(std=task.noise_std)
    fitted = posterity.fit(
        task.network,
        data,
        likelihood=likelihood,
        prior=Normal(0, task.prior_std),
        method=method,
        engine=engine,
    )
    return Ours(fitted)


def resumed(task: Task, infer: Callable[[Task, Engine], Ours]) -> tuple[Tensor, Tensor]:
    """Run a task at once, and again with Ctrl-C after the first epoch; draw from both. For the main thread alone."""

    def stop(name: str, row: Mapping[str, Any]) -> None:
        if not stopped:
            stopped.append(name)
            signal.raise_signal(signal.SIGINT)  # noted by the engine, which finishes the step at hand

    stopped: list[str] = []
    whole = infer(task, QUIET)
    with TemporaryDirectory() as folder:
        engine = replace(QUIET, directory=Path(folder))
        try:
            infer(task, replace(engine, on_epoch=stop))
        except Interrupted:
            again = infer(task, replace(engine, resume=True))
            return whole.draw(task.x, 4, 0), again.draw(task.x, 4, 0)
    raise RuntimeError("the run was over before it was interrupted")


def log_joint(task: Task, theta: Tensor) -> float:
    """Return log p(y, θ) in nats, as every method sees it."""
    likelihood = Gaussian(std=task.noise_std) if task.noise_std else Categorical()
    problem = Problem(task.network, Normal(0, task.prior_std), likelihood, len(task.x))
    return float(problem.log_joint(theta, (task.x, task.y)))


def _problem(like: Tensor, prior_std: float) -> Problem:
    network = nn.Linear(len(like), 1, bias=False).to(like.dtype)
    return Problem(network, Normal(0, prior_std), Gaussian(std=1.0), 1)


def diagonal_kl(mean: Tensor, std: Tensor, prior_std: float) -> float:
    """Return the KL of mean field and IVON."""
    return float(Divergence.of(_problem(mean, prior_std).coordinates).value(mean, std))


def correlated_kl(mean: Tensor, std: Tensor, prior_std: float) -> float:
    """Return the KL of Gaussians with correlations, for one that has none."""
    rho, none = gaussian.inverse_softplus(std), std.new_zeros(len(std), 0)
    q = LowRankCovariance(rho, none)
    return float(CorrelatedDivergence.of(_problem(mean, prior_std).coordinates).value(mean, q, mean))


def layer(estimator: Any, q: tuple[Tensor, Tensor], x: Tensor, n: int, seed: int) -> Tensor:
    """Return n outputs of a Bayesian linear layer."""
    mean, std = q
    module = posterity.nn.Linear(
        len(mean), 1, bias=False, estimator=estimator, std={"weight": std[None]}, dtype=x.dtype
    )
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.network.get_parameter("weight").copy_(mean[None])
        torch.manual_seed(seed)
        return torch.stack([module(x) for _ in range(n)])


def random_module(estimator: Any, network: nn.Module) -> nn.Module:
    """Return a network with random weights."""
    return posterity.bayesianize(network, "*", estimator=estimator, init=0.1)
