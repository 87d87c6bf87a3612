"""Where a likelihood starts, of data that count in different ways."""

from dataclasses import fields, is_dataclass, replace
from math import sqrt
from typing import Any

from posterity.types import Batch, Likelihood
from posterity.weighing import complete, known, of_data


def started(likelihood: Likelihood, batch: Batch) -> Likelihood:
    """Return the likelihood that starts where these data say, each as often as it counts.

    Where numbers of the targets are missing, each column is asked for by the data of which it is known.

    >>> import torch
    >>> from posterity import Gaussian
    >>> x = torch.linspace(-1, 1, 100)[:, None]
    >>> weights = torch.ones(100).index_fill_(0, torch.arange(50, 100), 0.0)
    >>> half = Gaussian().started(x[:50], x[:50, 0].cos())
    >>> started(Gaussian(), (x, x[:, 0].cos(), weights)) == half
    True
    """
    there = known(batch)
    if there is None or there.dim() < 2:
        return likelihood.started(*complete(batch)[:2])
    own = of_data(batch)
    assert own is not None  # what has missing numbers has weights
    found = []
    for column in range(there.shape[1]):
        some = there[:, column] if there.dim() == 2 else there[:, column].flatten(1).any(1)
        if bool(some.any()):
            found.append((column, likelihood.started(*complete((batch[0][some], batch[1][some], own[some]))[:2])))
    first = found[0][1]
    if not is_dataclass(first) or isinstance(first, type):
        return first
    changes = {f.name: _merged(f.name, found) for f in fields(first) if f.init}
    merged: Any = replace(first, **changes)
    return merged


def _merged(name: str, found: list[tuple[int, Any]]) -> Any:
    """Take each column's number from its own data; where columns share one, the root of the mean square."""
    values = [(column, getattr(likelihood, name)) for column, likelihood in found]
    first = values[0][1]
    if isinstance(first, tuple) and len(first) > values[-1][0]:
        own = {column: value[column] for column, value in values}
        return tuple(own.get(column, value) for column, value in enumerate(first))
    if isinstance(first, float) and any(value != first for _, value in values):
        return sqrt(sum(value**2 for _, value in values) / len(values))
    return first
