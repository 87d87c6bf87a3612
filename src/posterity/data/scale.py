"""From a table of numbers to a data set: fixed seeded splits, constant columns left out, training statistics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.data.columns import Floats
from posterity.data.dataset import Dataset, Scaling
from posterity.data.form import TableForm
from posterity.data.splits import Blocks
from posterity.errors import InvalidInput

Rows = NDArray[np.int64]
LARGEST_STD = (
    1e15  # of targets, and one by it the smallest: float32 holds squares from 1e-38 to 1e38, of parts of it too
)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers with a target each, in the original units.

    Of a text table with a `form`, `indicators` are inputs of 0 and 1 beside them, which stay as they are.
    """

    name: str
    inputs: Floats  # (N, D)
    targets: NDArray[Any]  # (N,) float64, or int64 class indices where there are `classes`
    features: tuple[str, ...]
    classes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    indicators: NDArray[np.float32] | None = None  # (N, E)
    form: TableForm | None = None
    notes: tuple[str, ...] = ()
    blocks: Blocks | None = None  # of the training rows
    called: Callable[[int], str] = lambda row: f"row {row + 1}"  # what a row is, as people find it in the file


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
    if table.form is None and not varies.any():
        raise InvalidInput(f"'{table.name}': no input column varies over the {len(train)} training rows.")
    kept = varies if table.form is None else np.ones_like(varies)  # a form has left out its constant columns
    numbers, others = table.features[: len(kept)], table.features[len(kept) :]
    names = [name for name, stays in zip(numbers, kept, strict=True) if stays]
    inputs, mean, std = _scaled(table.inputs[:, kept], train, table.name, [f"column '{name}'" for name in names])
    rows, means, stds = _tensor(inputs), _tensor(mean), _tensor(std)
    if table.indicators is not None:
        rows = torch.cat([rows, torch.from_numpy(table.indicators)], 1)
        means = torch.cat([means, torch.zeros(len(others))])
        stds = torch.cat([stds, torch.ones(len(others))])
    targets, target_mean, target_std = _targets(table, train)
    return Dataset(
        name=table.name,
        task="classification" if table.classes else "regression",
        train_inputs=rows[train],
        train_targets=_tensor(targets[train]),
        test_inputs=rows[test],
        test_targets=_tensor(targets[test]),
        classes=table.classes,
        features=(*names, *others),
        scaling=Scaling(means, stds, target_mean, target_std),
        form=table.form,
        blocks=table.blocks,
        source=table.source,
        notes=(*table.notes, *_notes(table, train, kept)),
        test_names=tuple(map(table.called, test.tolist())),
    )


def _targets(table: Table, train: Rows) -> tuple[NDArray[Any], float, float]:
    """Return classes as they are, or quantities with mean 0 and std 1 over the training rows, with this mean and std."""
    targets = table.targets
    if table.classes:
        return targets, 0.0, 1.0
    if targets[train].min() == targets[train].max():
        raise InvalidInput(
            f"'{table.name}': the target is {targets[train][0]:g} in all {len(train)} training rows: there is nothing "
            "to learn. Another: --target NAME."
        )
    scaled, mean, std = _scaled(targets[:, None], train, table.name, ["the target"])
    if not 1 / LARGEST_STD <= std[0] <= LARGEST_STD:
        raise InvalidInput(
            f"'{table.name}': the target has a std of {std[0]:.3g}; float32 does not hold variances below {LARGEST_STD**-2:g} "
            f"or above {LARGEST_STD**2:g} with their parts. Give it in another unit."
        )
    return scaled[:, 0], float(mean[0]), float(std[0])


def _scaled(values: Floats, train: Rows, table: str, names: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Return columns (N, D) with mean 0 and std 1 over the training rows, these means, and these stds.

    Raises `InvalidInput` with the name of a column of which float32 cannot hold the mean, the std, or a scaled value.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        mean, std = values[train].mean(0), values[train].std(0)
        std[values[train].min(0) == values[train].max(0)] = 1.0
        scaled = (values - mean) / std
    single = np.finfo(np.float32)
    fits = (
        (np.abs(mean) <= single.max)
        & (single.tiny <= std)
        & (std <= single.max)
        & (np.abs(scaled) <= single.max).all(0)
    )
    if not fits.all():
        column = int(np.argmin(fits))
        low, high = values[:, column].min(), values[:, column].max()
        raise InvalidInput(
            f"'{table}': {names[column]} has values from {low:g} to {high:g}, which float32 does not hold even when they are "
            "standardised. Give them in another unit, or leave the column out."
        )
    return scaled, mean, std


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _notes(table: Table, train: Rows, varies: NDArray[np.bool_]) -> tuple[str, ...]:
    notes = []
    if dropped := [name for name, kept in zip(table.features, varies, strict=False) if not kept]:
        notes.append(f"Constant columns left out: {', '.join(dropped)}.")
    if table.classes and (unseen := set(range(len(table.classes))) - set(table.targets[train].tolist())):
        notes.append(f"Classes with no training row: {', '.join(table.classes[index] for index in sorted(unseen))}.")
    return tuple(notes)
