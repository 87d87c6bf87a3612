"""From a table of numbers to a data set: fixed seeded splits, constant columns left out, training statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.data.dataset import Dataset, Scaling
from posterity.errors import InvalidInput

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers with a target each, in the original units."""

    name: str
    inputs: Floats  # (N, D)
    targets: NDArray[Any]  # (N,) float64, or int64 class indices where there are `classes`
    features: tuple[str, ...]
    classes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)


def split_rows(labels: NDArray[Any], num_test: int, seed: int) -> tuple[Rows, Rows]:
    """Divide rows 0..N−1 at random into training and test rows, each class in proportion to its size.

    Rows are shuffled, ordered by label, and every (N/num_test)-th is taken: exactly `num_test` rows, and each class
    gets its share to within one row. The same seed gives the same rows on every machine and with every version
    (NumPy freezes the legacy generator's stream). Both results are sorted.

    >>> train, test = split_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), num_test=2, seed=0)
    >>> len(train), (test < 4).sum().item(), (test >= 4).sum().item()
    (6, 1, 1)
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    taken = ((np.arange(num_test) + 0.5) * len(labels) / num_test).astype(np.int64)
    return np.sort(np.delete(order, taken)).astype(np.int64), np.sort(order[taken]).astype(np.int64)


def standardised(table: Table, train: Rows, test: Rows) -> Dataset:
    """Make a data set of a table: columns that are constant over the training rows left out, the others scaled.

    Statistics are of the training rows, in float64, with std dividing by N. Raises `InvalidInput` where no column
    varies, or where a regression target does not.
    """
    varies = table.inputs[train].min(0) != table.inputs[train].max(0)
    if not varies.any():
        raise InvalidInput(f"'{table.name}': no input column varies over the {len(train)} training rows.")
    inputs = table.inputs[:, varies]
    mean, std = inputs[train].mean(0), inputs[train].std(0)
    target_mean, target_std = 0.0, 1.0
    if not table.classes:
        target_mean, target_std = float(table.targets[train].mean()), float(table.targets[train].std())
        if table.targets[train].min() == table.targets[train].max():
            raise InvalidInput(f"'{table.name}': the target is {target_mean:g} in all {len(train)} training rows.")
    inputs = (inputs - mean) / std
    targets = table.targets if table.classes else (table.targets - target_mean) / target_std
    return Dataset(
        name=table.name,
        task="classification" if table.classes else "regression",
        train_inputs=_tensor(inputs[train]),
        train_targets=_tensor(targets[train]),
        test_inputs=_tensor(inputs[test]),
        test_targets=_tensor(targets[test]),
        classes=table.classes,
        features=tuple(name for name, kept in zip(table.features, varies, strict=True) if kept),
        scaling=Scaling(_tensor(mean), _tensor(std), target_mean, target_std),
        source=table.source,
        notes=_notes(table, train, varies),
    )


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _notes(table: Table, train: Rows, varies: NDArray[np.bool_]) -> tuple[str, ...]:
    notes = []
    if dropped := [name for name, kept in zip(table.features, varies, strict=True) if not kept]:
        notes.append(f"Constant columns left out: {', '.join(dropped)}.")
    if table.classes and (unseen := set(range(len(table.classes))) - set(table.targets[train].tolist())):
        notes.append(f"Classes with no training row: {', '.join(table.classes[index] for index in sorted(unseen))}.")
    return tuple(notes)
