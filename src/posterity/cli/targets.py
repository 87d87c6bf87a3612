"""Targets of a table as a likelihood needs them: standardised, or in their own units."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from posterity.cli.config import RunConfig
from posterity.data import Dataset
from posterity.data.own import TABLES
from posterity.errors import InvalidInput
from posterity.likelihoods import Censored, MultivariateGaussian, suited

OF_CLASSES = ("categorical", "bernoulli")  # kinds of likelihoods
ROUNDING = 4 * torch.finfo(torch.float32).eps


def in_own_units(dataset: Dataset) -> Dataset:
    """Bring targets back to the units of the file; the inputs stay as they are."""
    scaling = dataset.scaling
    if scaling is None or dataset.classes:
        return dataset
    train, test = (_restored(dataset, part) for part in (dataset.train_targets, dataset.test_targets))
    own = replace(scaling, target_mean=0.0, target_std=1.0)
    return replace(dataset, train_targets=train, test_targets=test, scaling=own)


def advice(dataset: Dataset) -> tuple[str, ...]:
    """Say in a sentence which likelihood suits a table's numbers, where it is another than the usual one."""
    if dataset.classes or not len(dataset.train_targets):
        return ()
    text = suited(_restored(dataset, dataset.train_targets))
    return () if text.startswith("Numbers of either sign") else (f"{text} Choose with --likelihood.",)


def tasked(config: RunConfig) -> RunConfig:
    """Read a table's target as what the likelihood is of: whole numbers could else be taken for classes.

    Raises:
        InvalidInput: for a likelihood of more than one column, which a table's one target has not.
    """
    likelihood, data = config.likelihood, config.data
    if isinstance(likelihood, Censored | MultivariateGaussian):
        raise InvalidInput(
            f"--likelihood {likelihood.kind} is of several columns of targets, and a run has one. Use it from Python: "
            f"posterity.fit(network, (inputs, targets), likelihood={type(likelihood).__name__}(…)), see docs/likelihoods.md."
        )
    if likelihood is None or data.task is not None or Path(data.name).suffix.lower() not in TABLES:
        return config
    task: Literal["classification", "regression"] = "classification" if likelihood.kind in OF_CLASSES else "regression"
    return config.model_copy(update={"data": data.model_copy(update={"task": task})})


def _restored(dataset: Dataset, targets: Tensor) -> Tensor:
    """Return targets in the units of the file; whole numbers are whole again, which float32 has rounded."""
    scaling = dataset.scaling
    if scaling is None:
        return targets
    values = scaling.restore_targets(targets.double())
    error = ROUNDING * (abs(scaling.target_mean) + float(values.abs().max() if len(values) else 0.0))
    whole = error < 0.25 and bool(((values - values.round()).abs() <= error).all())
    return (values.round() if whole else values).to(targets.dtype)
