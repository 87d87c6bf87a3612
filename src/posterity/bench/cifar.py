"""CIFAR-10 and CIFAR-100: mean field, whole and cold, and the maximum-likelihood twin of the same network, trained as long."""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

import posterity
from posterity.bench import published
from posterity.bench.bound import Bounds
from posterity.bench.images import functions
from posterity.bench.machine import provenance
from posterity.bench.study import NELBO, Column, Job, Record, Study
from posterity.core.optimizer import Optimizer
from posterity.data import Dataset, load
from posterity.data.augment import flipped
from posterity.methods import MLE, MeanField
from posterity.metrics.scores import evaluate
from posterity.model.priors import Normal
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Classification
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.train.random import derived_seed
from posterity.types import Scores
from posterity.zoo import AlexNet, LeNet, ThreeConvThreeFC

BATCH, VALIDATION = 128, 5_000
PRIOR = Normal(0, 1.4, fan_in=True)  # √2 / √fan-in keeps the activations' scale; where mean field's prior scales start
SETS = ("cifar-10", "cifar-100")
Network: TypeAlias = type[LeNet] | type[ThreeConvThreeFC] | type[AlexNet]
Kind: TypeAlias = Literal["mle", "mean_field", "cold"]
KINDS: tuple[Kind, ...] = ("mle", "mean_field", "cold")  # the twin first


@dataclass(frozen=True)
class Model:
    """A network, for how long it and its twin are trained, and the temperature of its cold posterior."""

    title: str
    network: Network
    epochs: int
    temperature: float


@dataclass(frozen=True)
class Row:
    """One line of the table: a network inferred in one way."""

    model: str
    kind: Kind

    @property
    def title(self) -> str:
        """What the table calls it."""
        model = MODELS[self.model]
        cold = f"mean field, temperature {model.temperature}"
        titles = {"mle": "maximum likelihood", "mean_field": "mean field", "cold": cold}
        return f"{model.title}, {titles[self.kind]}"

    @property
    def method(self) -> MLE | MeanField:
        """The method with the network's number of epochs."""
        model = MODELS[self.model]
        if self.kind == "mle":
            return MLE(epochs=model.epochs, optimizer=Optimizer(lr=2e-3, schedule="one_cycle"))
        return MeanField(
            epochs=model.epochs,
            optimizer=Optimizer(lr=4e-3, schedule="one_cycle"),
            initial_std=0.01,
            learn_prior="layer",
            temperature=model.temperature if self.kind == "cold" else 1,
        )


MODELS = {
    "lenet": Model("LeNet", LeNet, 30, 0.2),
    "3conv3fc": Model("3Conv3FC", ThreeConvThreeFC, 15, 0.1),
    "alexnet": Model("AlexNet", AlexNet, 50, 0.1),
}
ROWS = {f"{model}_{kind}": Row(model, kind) for model in MODELS for kind in KINDS}


def run(job: Job, folder: Path) -> Record:
    """Train one row with one seed; score it on the test set, and beside it on images held out of the training set."""
    data, row = _dataset(job.data), ROWS[job.method]
    train = TensorData(data.train_inputs, data.train_targets, BATCH, augment=views)
    train = train.split(VALIDATION / train.num_data, seed=123)  # the same for all seeds
    assert train.held_out is not None
    held_out, train = train.held_out, replace(train, held_out=None)  # nothing is chosen by them: the last epoch counts
    torch.manual_seed(job.repeat)
    network = MODELS[row.model].network(num_classes=data.num_classes, in_channels=3)
    bounds = Bounds()
    engine = Engine(seed=job.repeat, precision="bfloat16", progress=False, on_epoch=bounds)
    start = time.perf_counter()
    posterior = posterity.fit(network, train, prior=PRIOR, method=row.method, engine=engine)
    seconds = time.perf_counter() - start
    validation = _scores(posterior, held_out[0], held_out[1], job.repeat)
    return {
        "scores": {
            **_scores(posterior, data.test_inputs, data.test_targets, job.repeat),
            "validation_accuracy": validation["accuracy"],
            **bounds.scores(),
        },
        "validation": validation,
        "seconds": round(seconds, 1),
        "seconds_per_epoch": round(seconds / row.method.epochs, 2),
        "prior": repr(PRIOR),
        "fit": posterior.provenance,
        **provenance(),
    }


def views(images: Tensor, generator: Generator) -> Tensor:
    """Flip each image with probability ½; channels last in memory, which convolutions on a processor are faster with."""
    return flipped(images, generator).contiguous(memory_format=torch.channels_last)


def _scores(posterior: FunctionPosterior, images: Tensor, targets: Tensor, seed: int) -> Scores:
    """Score predictions, and average over images what is epistemic of the variance, Σ_c (1/n)Σ_s (p_sc − p̄_c)²."""
    generator = Generator(posterior.device).manual_seed(derived_seed(seed, "prediction"))
    predictive = posterior.predict(images, functions(posterior), generator=generator)
    assert isinstance(predictive, Classification)
    epistemic = predictive.epistemic.sum(1).mean().item()
    return {**evaluate(predictive, targets.to(posterior.device)), "epistemic": epistemic}


@lru_cache(maxsize=1)
def _dataset(name: str) -> Dataset:
    return load(name).standardised()


_COLUMNS = (
    Column("accuracy", "accuracy", 100.0),
    Column("nll", "NLL", 1.0, 4),
    Column("ece", "ECE", 100.0),
    Column("epistemic", "epistemic", 100.0),
    Column("validation_accuracy", "validation accuracy", 100.0),
    NELBO,
)
CIFAR = Study(
    name="cifar",
    title="CIFAR-10 and CIFAR-100",
    about=(
        "The same network by maximum likelihood, as everybody trains it, and as a mean-field posterior. All have ReLU, the "
        "same number of epochs ("
        + ", ".join(f"{model.title} {model.epochs}" for model in MODELS.values())
        + f"), batch {BATCH}, Adam by a one-cycle schedule, bfloat16 autocast, and the same views of {50_000 - VALIDATION:,} "
        "training images, flipped at random; each colour is standardised by the training pixels. Mean field: weight draws, "
        "a normal prior for each layer whose std starts at 1.4/√fan-in and is fitted by empirical Bayes; 16 draws of whole "
        f"weights predict. The other {VALIDATION:,} training images chose among what was tried, with seed 100, the "
        "temperatures above all: below 1 it is a cold posterior, whose KL counts so much less; without one, the posterior "
        "itself. Of the rows below they choose nothing, the last epoch counts; their accuracy stands beside the test set's. "
        "Accuracy, ECE (15 bins) and the epistemic variance of class probabilities, summed over classes, in per cent; NLL in "
        "nats; −ELBO of the training data, in nats per datum, at temperature 1. AlexNet, the posterior itself of 3Conv3FC, and "
        "CIFAR-100 with any network are run by name alone (`--methods "
        "alexnet_mle alexnet_cold`, `--sets cifar-100`), better on a GPU; until then their rows say so."
    ),
    sets=SETS,
    methods={name: row.title for name, row in ROWS.items()},
    repeats=10,
    usual=3,
    repeat="seed",
    error="standard deviation",
    columns=dict.fromkeys(SETS, _COLUMNS),
    published=published.CIFAR,
    sources=published.CIFAR_SOURCES,
    run=run,
    by_name=frozenset({"cifar-100", "3conv3fc_mean_field", *(f"alexnet_{kind}" for kind in KINDS)}),
    variational=frozenset(name for name, row in ROWS.items() if row.kind != "mle"),
)
