"""Every method of Posterity as a subject: what it is run with, and which laws say nothing about it."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Generator, Tensor, nn

import posterity
import posterity.nn
from posterity.conformance.chains import cycled, sample, stationary
from posterity.conformance.subject import Decomposition, Inferred, Subject, Task, full, independent, point
from posterity.core import gaussian
from posterity.core.covariance import LowRankCovariance
from posterity.core.optimizer import Optimizer
from posterity.errors import Interrupted
from posterity.methods import (
    HMC,
    IVON,
    MAP,
    MLE,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Ensemble,
    FullRank,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Refine,
)
from posterity.model.correlated import CorrelatedDivergence
from posterity.model.divergence import Divergence
from posterity.model.likelihoods import Categorical, Gaussian
from posterity.model.priors import Normal
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.linearised import Linearised
from posterity.predict.predictive import Classification
from posterity.train.batches import TensorData
from posterity.train.engine import Engine

FAST = Optimizer(lr=0.05, schedule="cosine")
DESCENT = Optimizer("SGD", lr=0.2, schedule="constant")  # of a quadratic: its error shrinks by a factor at each step
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
    engine = replace(engine, seed=task.seed, precision="bfloat16" if task.autocast else "float32")
    likelihood = Categorical() if task.noise_std is None else Gaussian(std=task.noise_std)
    fitted = posterity.fit(
        task.network,
        TensorData(task.x, task.y, max(1, len(task.x))),
        likelihood=likelihood,
        prior=Normal(0, task.prior_std),
        method=quick if task.brief else method,
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


NO_KL, NO_LAYER, NO_SAMPLER = "no KL in its objective", "no layers of its own", "not a sampler"
SILENT = {2: NO_KL, 4: NO_LAYER, 10: NO_LAYER, 13: NO_SAMPLER}


def subject(name: str, method: Any, quick: Any, **fields: Any) -> Subject:
    """Make a subject of a method, and of its quick version for laws that any posterior will do for."""
    infer = partial(inferred, method=method, quick=quick)
    silent = {
        law: why for law, why in SILENT.items() if {2: "kl", 4: "layer", 10: "module", 13: "sample"}[law] not in fields
    }
    return Subject(
        name,
        infer,
        resumed=partial(resumed, infer=lambda task, engine: infer(task, engine=engine)),
        log_joint=log_joint,
        refuses=infer,
        not_applicable={**silent, **fields.pop("not_applicable", {})},
        **fields,
    )


STEPS, DESCENTS = 450, 250


def _without_width(why: str) -> dict[str, Any]:
    return {"not_applicable": {1: why, 5: why}}


def _mean_field(estimator: Any, **settings: Any) -> Subject:
    return subject(
        f"mean_field-{estimator}",
        MeanField(estimator, epochs=STEPS, initial_std=0.3, optimizer=FAST, **settings),
        MeanField(estimator, epochs=3),
        covariance=independent,
        kl=diagonal_kl,
        layer=partial(layer, estimator),
        module=partial(random_module, estimator),
    )


def _correlated(name: str, method: Any) -> Subject:
    long = replace(method, epochs=STEPS, initial_std=0.3, optimizer=FAST, draws=2, antithetic=True)
    return subject(name, long, replace(method, epochs=3), covariance=full, kl=correlated_kl)


def _laplace(structure: Any, **settings: Any) -> Subject:
    long, short = (Laplace(m, structure, **settings) for m in (MAP(epochs=DESCENTS, optimizer=DESCENT), MAP(epochs=3)))
    covariance = independent if structure == "diag" else full
    return subject(f"laplace-{structure}", long, short, covariance=covariance, replicates=2)


def _chain(name: str, method: Any, quick: Any, on_densities: Any) -> Subject:
    return subject(
        name,
        method,
        quick,
        covariance=partial(stationary, method),
        sample=partial(sample, on_densities),
        stationary=partial(stationary, on_densities, num_data=50),
        draws=method.draws,
    )


def _hamiltonian(name: str, method: Any, on_densities: Any, **short: int) -> Subject:
    quick = replace(method, warmup=30, draws=30, **short)
    return subject(
        name, method, quick, covariance=full, sample=partial(sample, on_densities), draws=method.draws, replicates=4
    )


CYCLES = Cyclical(SGHMC(lr=0.02, epochs=1200, draws=200), cycles=3, exploration=0.5)
SUBJECTS = {
    s.name: s
    for s in (
        subject("map", MAP(epochs=DESCENTS, optimizer=DESCENT), MAP(epochs=3), covariance=point, replicates=2, draws=4),
        subject(
            "mle", MLE(epochs=3), MLE(epochs=3), covariance=point, **_without_width("maximum likelihood has no prior")
        ),
        _mean_field("weight", draws=2, antithetic=True),
        _mean_field("local_reparam"),
        _mean_field("flipout"),
        _correlated("low_rank", LowRank(2)),
        _correlated("full_rank", FullRank()),
        subject(
            "ivon",
            IVON(epochs=600, hessian_momentum=0.99, initial_hessian=1.0, draws=4),
            IVON(epochs=3),
            covariance=independent,
            kl=diagonal_kl,
        ),
        *(_laplace(structure) for structure in ("full", "kron", "low_rank")),
        _laplace("diag", prediction="sampled"),
        subject("swag", SWAG(epochs=4), SWAG(epochs=4), **_without_width("its width is that of SGD's iterates")),
        subject(
            "mc_dropout",
            MCDropout(0.2, epochs=3),
            MCDropout(0.2, epochs=3),
            **_without_width("its width is set by the rates, not by the data"),
        ),
        _chain(
            "sgld",
            SGLD(lr=0.03, epochs=1600, draws=300, burn_in=0.25),
            SGLD(epochs=32, draws=12),
            SGLD(lr=0.008 * 50, epochs=25, draws=50, burn_in=0.2),
        ),
        _chain(
            "sghmc",
            SGHMC(lr=0.02, epochs=1200, draws=240, burn_in=0.2, friction=0.2),
            SGHMC(epochs=32, draws=12),
            SGHMC(lr=0.002 * 50, epochs=20, draws=50, burn_in=0.2, friction=0.1),
        ),
        subject(
            "cyclical",
            CYCLES,
            Cyclical(SGHMC(epochs=32, draws=12), cycles=2, exploration=0.5),
            covariance=partial(cycled, CYCLES),
            sample=partial(
                sample, Cyclical(SGHMC(lr=0.3 * 50, epochs=40, draws=40, friction=0.3), cycles=20, exploration=0.25)
            ),
            densities=("modes",),
            draws=200,
            replicates=16,  # few draws of each are worth much
        ),
        _hamiltonian(
            "hmc",
            HMC(chains=1, warmup=80, draws=200, steps=8),
            HMC(chains=2, warmup=100, draws=300, steps=8, jitter=0.5),
        ),
        _hamiltonian(
            "nuts", NUTS(chains=1, warmup=80, draws=150), NUTS(chains=2, warmup=100, draws=200, jitter=0.5), max_depth=4
        ),
        subject(
            "ensemble",
            Ensemble(MAP(epochs=DESCENTS, optimizer=DESCENT), 2),
            Ensemble(MLE(epochs=3), 2),
            covariance=point,
            replicates=2,
            draws=4,
        ),
        subject(
            "refine",
            Refine(MeanField(epochs=STEPS, optimizer=FAST), after=MAP(epochs=40, optimizer=DESCENT)),
            Refine(MeanField(epochs=2), after=MAP(epochs=2)),
            covariance=independent,
            kl=diagonal_kl,
        ),
    )
}
