"""UCI regression on the standard splits: a network of one hidden layer of 50 units, as Hernández-Lobato & Adams have it (2015).

The model (prior and noise) is chosen by validation inside each training split, once for each family of methods, by the
method that heads it; every method of the family is then fitted to the whole training split. The test rows are touched once.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posterity
from posterity.bench import published
from posterity.bench.bound import Bounds
from posterity.bench.machine import provenance
from posterity.bench.study import NELBO, Column, Job, Record, Study, read, write
from posterity.core.optimizer import Optimizer
from posterity.data import Dataset, load
from posterity.errors import Diverged
from posterity.methods import (
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
)
from posterity.metrics.scores import evaluate
from posterity.model.likelihoods import Gaussian, HeteroscedasticGaussian
from posterity.model.priors import Normal
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Regression
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.train.random import derived_seed
from posterity.zoo import MLP

HIDDEN, DRAWS, MEMBERS, VALIDATION = 50, 100, 5, 0.15
LONGER = {"": 2.5, "concrete": 20 / 3}  # of its steps: on validation rows only concrete asked for more
OPTIMIZERS = {  # of points
    "Adam": Optimizer("Adam", lr=1e-2, schedule="cosine"),
    "SGD": Optimizer("SGD", lr=0.02, schedule="cosine"),
}
SETS = ("boston", "concrete", "wine", "power")
BATCHES = {False: {"": 64, "power": 512}, True: {"": 256, "power": 1024}}  # of optimisers; of chains


@dataclass(frozen=True)
class Model:
    """What validation chooses among: the prior's std before fan-in, noise, steps; of points the optimiser and dropout."""

    prior_std: float
    heteroscedastic: bool
    steps: int
    optimizer: str = ""
    rate: float = 0.0

    @property
    def name(self) -> str:
        noise = "noise by input" if self.heteroscedastic else "one noise"
        by = f", {self.optimizer}" if self.optimizer else ""
        dropped = f", dropout {self.rate:g}" if self.rate else ""
        return f"std {self.prior_std:g}, {noise}, {self.steps} steps{by}{dropped}"


@dataclass(frozen=True)
class Family:
    """The models that are tried, and the method that tries them."""

    head: str
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Row:
    """One method of the table: how it is made for so many epochs, and whose choice of a model it takes."""

    title: str
    method: Callable[[int, Model], Any]
    family: str
    chain: bool = False  # it takes larger batches, and in the end LONGER times the steps that models are chosen by


def _adam(lr: float) -> Optimizer:
    return Optimizer(lr=lr, schedule="cosine")


def _mean_field(estimator: Any) -> Callable[[int, Model], MeanField]:
    return lambda epochs, model: MeanField(estimator, epochs=epochs, optimizer=_adam(2e-2), std_lr=0.1)


def _map(epochs: int, model: Model) -> MAP:
    return MAP(epochs=epochs, optimizer=OPTIMIZERS[model.optimizer])


FAMILIES = {
    "likelihood": Family("mle", (Model(1.0, False, 300, "SGD"), Model(1.0, False, 1500, "Adam"))),
    "points": Family(
        "map", (Model(0.5, False, 1500, "SGD"), Model(1.0, False, 1500, "SGD"), Model(1.0, False, 1500, "Adam"))
    ),
    "variational": Family("mean_field_local_reparam", (Model(1.0, True, 2000), Model(2.0, True, 2000))),
    "dropout": Family("mc_dropout", tuple(Model(2.0, False, 3000, "Adam", rate) for rate in (0.01, 0.05))),
    "chains": Family("sghmc", (Model(1.0, True, 3000), Model(2.0, True, 3000))),
}
ROWS = {
    "mle": Row(
        "maximum likelihood",
        lambda epochs, model: MLE(epochs=epochs, optimizer=OPTIMIZERS[model.optimizer]),
        "likelihood",
    ),
    "map": Row("MAP", _map, "points"),
    "swag": Row(
        "SWAG",
        lambda epochs, model: SWAG(epochs=epochs, optimizer=Optimizer("SGD", lr=0.02, schedule="constant")),
        "points",
    ),
    "laplace": Row("Laplace, full, linearised", lambda epochs, model: Laplace(_map(epochs, model), "full"), "points"),
    "mc_dropout": Row(
        "MC dropout",
        lambda epochs, model: MCDropout(rate=model.rate, epochs=epochs, optimizer=OPTIMIZERS[model.optimizer]),
        "dropout",
    ),
    "ensemble_map": Row("ensemble of 5, MAP", lambda epochs, model: Ensemble(_map(epochs, model), MEMBERS), "points"),
    "mean_field_local_reparam": Row(
        "mean field, local reparameterisation", _mean_field("local_reparam"), "variational"
    ),
    "mean_field_weight": Row("mean field, weight draws", _mean_field("weight"), "variational"),
    "mean_field_flipout": Row("mean field, Flipout", _mean_field("flipout"), "variational"),
    "low_rank": Row("low rank, K = 10", lambda epochs, model: LowRank(epochs=epochs), "variational"),
    "full_rank": Row("full rank", lambda epochs, model: FullRank(epochs=epochs), "variational"),
    "ivon": Row("IVON", lambda epochs, model: IVON(epochs=epochs, lr=0.1, initial_hessian=1.0), "variational"),
    "ensemble_mean_field": Row(
        "ensemble of 5, mean field by weight draws",
        lambda epochs, model: Ensemble(_mean_field("weight")(epochs, model), MEMBERS),
        "variational",
    ),
    "sghmc": Row("SGHMC", lambda epochs, model: SGHMC(epochs=epochs, lr=5e-3, draws=DRAWS), "chains", chain=True),
    "sgld": Row(
        "SGLD, preconditioned",
        lambda epochs, model: SGLD(epochs=epochs, lr=3e-3, draws=DRAWS, preconditioner="rmsprop"),
        "chains",
        chain=True,
    ),
    "cyclical": Row(
        "cyclical SGHMC, 4 cycles",
        lambda epochs, model: Cyclical(SGHMC(epochs=epochs, lr=0.01, draws=DRAWS), cycles=4, exploration=0.5),
        "chains",
        chain=True,
    ),
    "nuts": Row("NUTS", lambda epochs, model: NUTS(chains=2, warmup=100, draws=100, max_depth=7), "chains"),
}


def run(job: Job, folder: Path) -> Record:
    """Fit one row to one whole training split, with the model that its family has chosen; score it on the test rows."""
    row, data = ROWS[job.method], _dataset(job.data, job.repeat)
    choice = chosen(job.data, row.family, job.repeat, folder)
    model = Model(**choice["model"])
    start = time.perf_counter()
    longer = replace(model, steps=round(model.steps * (LONGER.get(job.data, LONGER[""]) if row.chain else 1)))
    bounds = Bounds()
    posterior = _fit(job, longer, (data.train_inputs, data.train_targets), bounds)
    seconds = time.perf_counter() - start
    predictive = _predict(posterior, data, data.test_inputs, job.repeat)
    assert data.scaling is not None
    return {
        "scores": {**evaluate(predictive, data.scaling.restore_targets(data.test_targets)), **bounds.scores()},
        "seconds": round(seconds, 2),
        "choice": choice,
        "fit": posterior.provenance,
        **provenance(),
    }


def chosen(name: str, family: str, split: int, folder: Path) -> Record:
    """Return the family's model for a split: the one in the folder, or the best of its models by validation NLL.

    The head of the family is fitted to 85 % of the training rows with each model, and scored on the other 15 %.
    """
    path = folder / name / f"choice-{family}-{split}.json"
    if path.exists():
        return read(path)
    data = _dataset(name, split)
    parts = TensorData(data.train_inputs, data.train_targets).split(VALIDATION, seed=split)
    assert parts.held_out is not None
    inputs, targets = parts.held_out[:2]
    tried: dict[str, float] = {}
    start = time.perf_counter()
    job = Job(name, FAMILIES[family].head, split)
    for model in FAMILIES[family].models:
        try:
            posterior = _fit(job, model, (parts.inputs, parts.targets))
            tried[model.name] = posterior.predict(inputs, DRAWS, generator=_generator(split)).scores(targets)["nll"]
        except Diverged:
            tried[model.name] = math.inf
    best = min(FAMILIES[family].models, key=lambda model: tried[model.name])
    record = {"model": vars(best), "validation_nll": tried, "seconds": round(time.perf_counter() - start, 2)}
    write(path, record)
    return record


def _fit(job: Job, model: Model, data: tuple[Tensor, Tensor], bounds: Bounds | None = None) -> FunctionPosterior:
    row, inputs = ROWS[job.method], data[0]
    wanted = BATCHES[row.chain].get(job.data, BATCHES[row.chain][""])
    size = min(wanted, len(inputs))
    train = TensorData(*data, batch_size=size)
    torch.manual_seed(job.repeat)
    network = MLP((inputs.shape[1], HIDDEN, 2 if model.heteroscedastic else 1))
    likelihood = HeteroscedasticGaussian() if model.heteroscedastic else Gaussian()
    method = row.method(max(1, round(model.steps / train.steps_per_epoch)), model)
    prior = Normal(0, model.prior_std, fan_in=True)
    engine = Engine(seed=job.repeat, device="cpu", progress=False, on_epoch=bounds)
    return posterity.fit(network, train, likelihood=likelihood, prior=prior, method=method, engine=engine)


def _predict(posterior: FunctionPosterior, data: Dataset, inputs: Tensor, split: int) -> Regression:
    """Predict in the units of the raw targets."""
    predictive = posterior.predict(inputs, DRAWS, generator=_generator(split))
    assert isinstance(predictive, Regression)
    assert data.scaling is not None
    return predictive.rescale(data.scaling.target_mean, data.scaling.target_std)


def _generator(split: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(split, "prediction"))


@lru_cache(maxsize=1)
def _dataset(name: str, split: int) -> Dataset:
    return load(f"uci/{name}", split=split)


_COLUMNS = [
    Column("rmse", "RMSE"),
    Column("nll", "log likelihood", -1.0),
    Column("crps", "CRPS", digits=3),
    Column("coverage_90", "90 % coverage", 100.0, 1),
    NELBO,
]
UCI = Study(
    name="uci",
    title="UCI regression",
    about=(
        f"A network of one hidden layer of {HIDDEN} units (ReLU), Normal(0, std/√fan-in) prior, inputs and targets "
        f"standardised by the training rows, {DRAWS} draws of whole weights, temperature 1, scores in the units of the raw "
        "targets, log likelihood in nats, −ELBO of the standardised training rows in nats per row. The prior's std, for points "
        "the optimiser and its number of steps, and dropout's "
        "rate, are chosen by validation inside each training split, on 15 % of its rows, by the method that heads a family: "
        "MAP for Laplace, SWAG and ensembles of MAP; local reparameterisation for all variational methods; SGHMC for all "
        "samplers; then every method is fitted to the whole training split. What is the same for all splits was set on "
        "validation rows of the first six: learning rates, the steps of chains, and the noise, which is one learnt number for "
        "points and what is built on them (Laplace, SWAG, dropout), and said by the network for each input for all others. A "
        "fit has 300 to 7,500 steps, of chains on concrete 20,000: some seconds of one core. NUTS starts at the weights of an "
        "untrained network and has two chains of 100 draws, after 100 of warm-up, with at most 127 gradients each: about a "
        "minute. It is not run on power, whose batch is ten times larger."
    ),
    sets=SETS,
    methods={name: row.title for name, row in ROWS.items()},
    repeats=20,
    usual=20,
    repeat="split",
    error="standard error",
    columns=dict.fromkeys(SETS, _COLUMNS),
    published=published.UCI,
    sources=published.UCI_SOURCES,
    run=run,
    left_out=frozenset({("power", "nuts")}),
    variational=frozenset(name for name, row in ROWS.items() if row.family == "variational"),
)
