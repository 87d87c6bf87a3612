"""Tables: the estimators as they come, beside what people reach for instead, each on the same rows, by one protocol.

Rivals of other packages are rows where these are installed; what has no density is ranked by nothing that needs one.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from posterity.bench import published
from posterity.bench.machine import provenance
from posterity.bench.study import Column, Job, Record, Study
from posterity.core.optimizer import Optimizer
from posterity.data import load
from posterity.data.locate import located
from posterity.fitting import fit
from posterity.methods import MLE, Ensemble, MeanField
from posterity.metrics.scores import evaluate
from posterity.model.likelihoods import Categorical, HeteroscedasticGaussian
from posterity.predict.predictive import AnyPredictive, Classification, Regression
from posterity.sklearn import BayesianClassifier, BayesianRegressor, ColumnEncoder
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.types import Scores
from posterity.zoo import MLP

LEVEL, STEPS, BATCH, DRAWS, MEMBERS = 0.9, 3000, 128, 400, 5
WIDTHS = {False: (16, 16, 16, 16), True: (50,)}  # of networks for numbers, and for classes: those of the estimators
Array: TypeAlias = NDArray[Any]
CLASSES: Mapping[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine (cultivars)": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
NUMBERS = ("diabetes", "boston", "concrete", "wine", "power", "airfoil")


@dataclass(frozen=True)
class Rows:
    """Inputs and targets to learn from, and to be scored on."""

    inputs: Array
    targets: Array
    new: Array
    truth: Array
    classes: bool

    def held_out(self, share: float, seed: int) -> "Rows":
        """Return the rows to learn from, so many of them in the place of the new ones."""
        labels = self.targets if self.classes else None
        inputs, new, targets, truth = train_test_split(
            self.inputs, self.targets, test_size=share, random_state=seed, stratify=labels
        )
        return Rows(inputs, targets, new, truth, self.classes)


Fitted: TypeAlias = Callable[[Rows, int], AnyPredictive | Scores]  # of the new rows, in the units of the targets


@lru_cache(maxsize=1)
def rows(name: str, split: int) -> Rows:
    """Return a split of a table: UCI's as published, airfoil's the published one and no other, else a tenth by chance."""
    if name in CLASSES:
        inputs, targets = CLASSES[name](return_X_y=True)
        return Rows(inputs, targets, inputs, targets, True).held_out(0.2, split)
    if name == "diabetes":
        inputs, targets = datasets.load_diabetes(return_X_y=True, scaled=False)
        return Rows(inputs, targets, inputs, targets, False).held_out(0.1, split)
    if name == "airfoil":
        table = np.genfromtxt(located("airfoil/airfoil.csv"), delimiter=",", skip_header=1)
        found = Rows(table[:, :-1], table[:, -1], table, table, False).held_out(0.2, 0)
        middle, width = found.targets.mean(), found.targets.std()
        return Rows(found.inputs, (found.targets - middle) / width, found.new, (found.truth - middle) / width, False)
    data = load(f"uci/{name}", split=split).unscaled()
    parts = (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets)
    inputs, targets, new, truth = (part.double().numpy() for part in parts)
    return Rows(inputs, targets, new, truth, False)


def _estimator(method: Callable[[Rows], Any], **options: Any) -> Fitted:
    def fitted(data: Rows, seed: int) -> AnyPredictive:
        kind: Any = BayesianClassifier if data.classes else BayesianRegressor
        model = kind(method(data), n_draws=DRAWS, random_state=seed, device="cpu", **options)
        model.fit(data.inputs, data.targets)
        found: AnyPredictive = model.predictive(data.new)
        return found

    return fitted


def _mean_field(data: Rows) -> MeanField:
    steps_per_epoch = -(-len(data.inputs) // min(256, len(data.inputs)))
    return MeanField("local_reparam", epochs=-(-STEPS // steps_per_epoch), optimizer=Optimizer(lr=0.01))


def _networks(count: int) -> Fitted:
    """Train networks by maximum likelihood on encoded columns, stopped where a tenth of the rows says."""

    def fitted(data: Rows, seed: int) -> AnyPredictive:
        encoder, part = ColumnEncoder().fit(data.inputs), data.held_out(0.1, seed)
        middle, width = (0.0, 1.0) if data.classes else (part.targets.mean(), part.targets.std())
        kind = torch.int64 if data.classes else torch.float32

        def tensors(inputs: Array, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.from_numpy(encoder.transform(inputs)), torch.tensor((targets - middle) / width, dtype=kind)

        x, y = tensors(part.inputs, part.targets)
        train = TensorData(x, y, BATCH, held_out=tensors(part.new, part.truth))
        torch.manual_seed(seed)
        method = MLE(-(-STEPS // train.steps_per_epoch), Optimizer(lr=0.01, schedule="cosine"))
        outputs = int(data.targets.max()) + 1 if data.classes else 2
        posterior = fit(
            MLP((x.shape[1], *WIDTHS[data.classes], outputs)),
            train,
            likelihood=Categorical() if data.classes else HeteroscedasticGaussian(),
            method=method if count == 1 else Ensemble(method, count),
            engine=Engine(seed=seed, progress=False, device="cpu"),
        )
        found = posterior.predict(tensors(data.new, data.truth)[0], count)
        return found.rescale(middle, width) if isinstance(found, Regression) else found

    return fitted


def _boosting(data: Rows, seed: int) -> AnyPredictive | Scores:
    """Boosted trees; of numbers with split conformal intervals, by a quarter of the rows that the trees have not seen."""
    if data.classes:
        return _probabilities(HistGradientBoostingClassifier(random_state=seed), data)
    part = data.held_out(0.25, seed)
    trees = HistGradientBoostingRegressor(random_state=seed).fit(part.inputs, part.targets)
    errors = np.sort(np.abs(part.truth - trees.predict(part.new)))
    reach = errors[min(len(errors) - 1, int(np.ceil((len(errors) + 1) * LEVEL)) - 1)]
    missed = np.abs(data.truth - trees.predict(data.new))
    return {"rmse": float(np.sqrt(np.mean(missed**2))), "coverage_90": float(np.mean(missed <= reach))}


def _logistic(data: Rows, seed: int) -> AnyPredictive:
    return _probabilities(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), data)


def _forest(data: Rows, seed: int) -> AnyPredictive:
    return _probabilities(RandomForestClassifier(random_state=seed), data)


def _probabilities(model: Any, data: Rows) -> Classification:
    found = model.fit(data.inputs, data.targets).predict_proba(data.new)
    return Classification(torch.from_numpy(found)[None])


def _ngboost(data: Rows, seed: int) -> AnyPredictive:
    model = import_module("ngboost").NGBRegressor(verbose=False, random_state=seed)
    found = model.fit(data.inputs, data.targets).pred_dist(data.new)
    return _normal(found.loc, found.scale**2)


def _catboost(data: Rows, seed: int) -> AnyPredictive:
    part = data.held_out(0.1, seed)
    model = import_module("catboost").CatBoostRegressor(
        loss_function="RMSEWithUncertainty", random_seed=seed, verbose=False, thread_count=1, allow_writing_files=False
    )
    found = model.fit(part.inputs, part.targets, eval_set=(part.new, part.truth)).predict(data.new)
    return _normal(found[:, 0], found[:, 1])


def _normal(mean: Array, variance: Array) -> Regression:
    return Regression(torch.from_numpy(mean.copy())[None], torch.from_numpy(variance.copy())[None])


@dataclass(frozen=True)
class Row:
    """One row of the table; `package` is what it needs beside ours, `of` what it is for: numbers, classes or both."""

    title: str
    fitted: Fitted
    of: tuple[bool, ...] = (False, True)
    package: str | None = None


ROWS = {
    "auto": Row("the estimator's default", _estimator(lambda data: "auto")),
    "ten_minutes": Row("the estimator with minutes=10", _estimator(lambda data: "auto", minutes=10), (False,)),
    "mean_field": Row("mean field, local reparameterisation", _estimator(_mean_field)),
    "network": Row("one network, maximum likelihood", _networks(1)),
    "ensemble": Row(f"deep ensemble of {MEMBERS}", _networks(MEMBERS)),
    "logistic": Row("logistic regression", _logistic, (True,)),
    "forest": Row("random forest", _forest, (True,)),
    "boosting": Row("boosted trees (numbers: conformal)", _boosting),
    "ngboost": Row("NGBoost", _ngboost, (False,), "ngboost"),
    "catboost": Row("CatBoost, RMSEWithUncertainty", _catboost, (False,), "catboost"),
}
INSTALLED = {name: row for name, row in ROWS.items() if row.package is None or find_spec(row.package) is not None}


def run(job: Job, folder: Path) -> Record:
    """Fit one row to one split, and score it on the rows that it has not seen."""
    data, started = rows(job.data, job.repeat), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that have not arrived: the scores say what they are worth
        found = INSTALLED[job.method].fitted(data, job.repeat)
    seconds = time.process_time() - started
    kind = torch.int64 if data.classes else torch.float64
    scores = found if isinstance(found, dict) else evaluate(found, torch.tensor(data.truth, dtype=kind))
    return {"scores": scores, "seconds": round(seconds, 2), **provenance()}


_REAL = [
    Column("rmse", "RMSE", digits=3),
    Column("nll", "NLL", digits=3),
    Column("crps", "CRPS", digits=3),
    Column("coverage_90", "90 % coverage", 100.0, 1),
]
_LABELS = [Column("accuracy", "accuracy", 100.0, 1), Column("nll", "NLL", digits=3), Column("ece", "ECE", 100.0, 1)]
TABLES = Study(
    name="tables",
    title="Tables",
    about=(
        "The estimators of `posterity.sklearn` as they come, beside rivals. Networks have the estimators' widths, columns and "
        f"targets standardised, each row's noise its own, {STEPS:,} steps, stopped where a tenth of the training rows says. "
        "Boosted trees of numbers have conformal intervals (a quarter of the rows apart) and no density. UCI's tables have "
        "their published splits; airfoil its one published split, of which splits are seeds, in units of the targets' "
        "standard deviation; the others a tenth of the rows by chance, of classes a fifth, stratified. Scores in units of "
        "the targets, NLL and CRPS per row; ranks are of the mean NLL. Rows of other packages are run where they are installed."
    ),
    sets=(*NUMBERS, *CLASSES),
    methods={name: row.title for name, row in INSTALLED.items()},
    repeats=20,
    usual=5,
    repeat="split",
    error="standard error",
    columns={**dict.fromkeys(NUMBERS, _REAL), **dict.fromkeys(CLASSES, _LABELS)},
    published={**dict.fromkeys((*NUMBERS, *CLASSES), ()), "airfoil": published.AIRFOIL},
    sources=published.AIRFOIL_SOURCES,
    run=run,
    left_out=frozenset(
        (name, key)
        for key, row in INSTALLED.items()
        for kind, names in ((False, NUMBERS), (True, CLASSES))
        for name in names
        if kind not in row.of
    ),
    ranked="nll",
    by_name=frozenset({"ten_minutes"}),
)
