"""MNIST and Fashion-MNIST by LeNet: every method with the same number of epochs."""

import time
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
from posterity.bench.study import NELBO, Column, Job, Record, Study
from posterity.core.optimizer import Optimizer
from posterity.data import Dataset, load
from posterity.methods import (
    IVON,
    MAP,
    MLE,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Ensemble,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
)
from posterity.metrics.ood import ood_auroc
from posterity.metrics.scores import evaluate
from posterity.model.priors import Normal
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Classification
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.train.random import derived_seed
from posterity.types import Scores
from posterity.zoo import LeNet

EPOCHS, MEMBERS, DRAWS, BATCH = 4, 5, 16, 128
COLD = 0.3  # of members that are not too cautious together; chosen on validation images of MNIST, seed 100
VALIDATION, OUTSIDE = 5_000, 5_000  # images held out of the training set; images of each other set
PRIOR = Normal(0, 0.3)
SETS = ("mnist", "fashion-mnist")
OTHERS = {"mnist": ("fashion-mnist", "notmnist"), "fashion-mnist": ("mnist", "notmnist")}
SHORT = {"mnist": "MNIST", "fashion-mnist": "Fashion", "notmnist": "notMNIST"}


@dataclass(frozen=True)
class Row:
    """One method of the table."""

    title: str
    method: Any


def _mean_field(estimator: Any) -> MeanField:
    return MeanField(estimator, epochs=EPOCHS, optimizer=Optimizer(lr=8e-3, schedule="one_cycle"))


_MLE = MLE(epochs=EPOCHS, optimizer=Optimizer(lr=2e-3))
_MAP = MAP(epochs=EPOCHS, optimizer=Optimizer(lr=2e-3))
_IVON = IVON(epochs=EPOCHS, lr=0.3)
ROWS = {
    "mle": Row("maximum likelihood", _MLE),
    "map": Row("MAP", _MAP),
    "laplace": Row("Laplace, Kronecker, linearised", Laplace(_MAP, "kron")),
    "mc_dropout": Row("MC dropout, rate 0.1", MCDropout(rate=0.1, epochs=EPOCHS, optimizer=Optimizer(lr=2e-3))),
    "mean_field_weight": Row("mean field, weight draws", _mean_field("weight")),
    "mean_field_local_reparam": Row("mean field, local reparameterisation", _mean_field("local_reparam")),
    "mean_field_flipout": Row("mean field, Flipout", _mean_field("flipout")),
    "low_rank": Row("low rank, K = 10", LowRank(epochs=EPOCHS, std_lr=0.1)),
    "ivon": Row("IVON", _IVON),
    "swag": Row("SWAG", SWAG(epochs=EPOCHS, optimizer=Optimizer("SGD", lr=0.05, schedule="constant"))),
    "sgld": Row("SGLD", SGLD(epochs=EPOCHS, lr=0.3, draws=DRAWS)),
    "sghmc": Row("SGHMC", SGHMC(epochs=EPOCHS, lr=0.03, draws=DRAWS)),
    "cyclical": Row(
        "cyclical SGHMC, 2 cycles", Cyclical(SGHMC(epochs=EPOCHS, lr=0.1, draws=DRAWS), cycles=2, exploration=0.5)
    ),
    "ensemble_mle": Row("ensemble of 5, maximum likelihood", Ensemble(_MLE, MEMBERS)),
    "ensemble_mean_field": Row("ensemble of 5, mean field, weight draws", Ensemble(_mean_field("weight"), MEMBERS)),
    "ensemble_cold": Row(
        f"ensemble of 5, mean field, temperature {COLD}",
        Ensemble(replace(_mean_field("weight"), temperature=COLD), MEMBERS),
    ),
    "ensemble_ivon": Row("ensemble of 5, IVON", Ensemble(_IVON, MEMBERS)),
}


def run(job: Job, folder: Path) -> Record:
    """Train one row with one seed; score it on the test set, and tell other sets from it."""
    data = _dataset(job.data)
    train = TensorData(data.train_inputs, data.train_targets, batch_size=BATCH)
    train = train.split(VALIDATION / train.num_data, seed=123)  # the same for all seeds
    torch.manual_seed(job.repeat)
    network, method = LeNet(), ROWS[job.method].method
    bounds = Bounds()
    engine = Engine(seed=job.repeat, device="cpu", progress=False, on_epoch=bounds)
    start = time.perf_counter()
    posterior = posterity.fit(network, train, prior=PRIOR, method=method, engine=engine)
    seconds = time.perf_counter() - start
    assert train.held_out is not None
    validation = evaluate(_predict(posterior, train.held_out[0], job.repeat), train.held_out[1])
    inside = _predict(posterior, data.test_inputs, job.repeat)
    return {
        "scores": {**evaluate(inside, data.test_targets), **_detection(job, posterior, inside), **bounds.scores()},
        "validation": validation,
        "seconds": round(seconds, 1),
        "prior": repr(PRIOR),
        "fit": posterior.provenance,
        **provenance(),
    }


def _detection(job: Job, posterior: FunctionPosterior, inside: Classification) -> Scores:
    """Score how well each measure of uncertainty tells the images of other sets from the test set's."""
    scores = {}
    measures = ["entropy", "confidence"]
    if not posterior.single:  # whose draws are one: what is left of its mutual information is rounding
        measures.append("mutual_information")
    for other in OTHERS[job.data]:
        outside = _predict(posterior, _outside(job.data, other), job.repeat)
        for measure in measures:
            sign = -1 if measure == "confidence" else 1
            values = [sign * getattr(predictive, measure) for predictive in (inside, outside)]
            scores[f"auroc_{measure}_{other}"] = ood_auroc(*values)
    return scores


def _predict(posterior: FunctionPosterior, images: Tensor, seed: int) -> Classification:
    generator = torch.Generator().manual_seed(derived_seed(seed, "prediction"))
    predictive = posterior.predict(images, functions(posterior), generator=generator)
    assert isinstance(predictive, Classification)
    return predictive


def functions(posterior: FunctionPosterior) -> int:
    """Return how many functions are averaged: 16 draws, of an ensemble of each member; a point has one."""
    return sum(1 if part.single else DRAWS for part in posterior.leaves)


@lru_cache(maxsize=2)
def _dataset(name: str) -> Dataset:
    return load(name, image_size=32).standardised()


@lru_cache(maxsize=4)
def _outside(name: str, other: str) -> Tensor:
    """Return some test images of another set, scaled as those of the training set are."""
    images = load(other, image_size=32).test_inputs
    some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:OUTSIDE]
    scaling = _dataset(name).scaling
    assert scaling is not None
    return scaling.scale_inputs(images[some])


def _columns(name: str) -> list[Column]:
    columns = [Column("accuracy", "accuracy", 100.0), Column("nll", "NLL", 1.0, 4), Column("ece", "ECE", 100.0)]
    return [*columns, NELBO] + [
        Column(f"auroc_{measure}_{other}", f"{SHORT[other]} by {short}", 100.0, 1)
        for other in OTHERS[name]
        for measure, short in (("entropy", "entropy"), ("mutual_information", "mutual information"))
    ]


IMAGES = Study(
    name="images",
    title="MNIST and Fashion-MNIST",
    about=(
        f"LeNet on 32×32 images, padded and standardised by the training pixels; {EPOCHS} epochs for every fit, and for each "
        f"of an ensemble's {MEMBERS} members; batch {BATCH}; {DRAWS} draws of whole weights, in an ensemble of each member; "
        f"temperature 1 but where {COLD} is named; Normal(0, 0.3). 55,000 images train, {VALIDATION:,} choose the best epoch "
        "where a method has one; on those of Fashion-MNIST rates were set, on those of MNIST, with seed 100, that "
        "temperature; the test set is touched once, at the end. Accuracy, ECE (15 bins) "
        "and AUROC in per cent, NLL in nats. −ELBO: of the training data, in nats per datum, in the epoch that was kept; of an "
        "ensemble the members' mean. AUROC: how well the entropy of the prediction, or its mutual information, tells "
        f"the 10,000 test images from {OUTSIDE:,} test images of another set, drawn once; a point has no mutual information."
    ),
    sets=SETS,
    methods={name: row.title for name, row in ROWS.items()},
    repeats=10,
    usual=3,
    repeat="seed",
    error="standard deviation",
    columns={name: _columns(name) for name in SETS},
    published=published.IMAGES,
    sources=published.IMAGES_SOURCES,
    run=run,
    variational=frozenset(
        name
        for name in ROWS
        if name.startswith(("mean_field", "low_rank", "ivon", "ensemble")) and name != "ensemble_mle"
    ),
)
