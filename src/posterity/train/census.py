"""How many data an epoch of a DataLoader delivers, and how many of them are different: the N of the posterior.

`len(loader.dataset)` is not it: samplers choose, batch samplers cut, data sets hand out whole batches or do not know their
length. Where samplers and the first batch tell, indices are counted; else the data are, in one epoch before the training.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from posterity.errors import InvalidInput

MOST = 2**24  # an epoch of more data is taken for one without an end, unless its sampler knows its length


@dataclass(frozen=True)
class Census:
    """What one epoch delivers.

    Args:
        num_data: N, how many different data there are to be seen.
        delivered: how many an epoch delivers; those that come twice count twice.
        steps: its batches.
        smallest: data in the smallest batch.
    """

    num_data: int
    delivered: int
    steps: int
    smallest: int


def census(loader: "DataLoader[Any]", first: int, num_data: int | None = None) -> Census:
    """Count the data of an epoch.

    N is the number of different data that an epoch delivers. Three samplers mean more than one epoch shows: `RandomSampler`
    with `num_samples` and `DistributedSampler` (all ranks together) reach the whole data set, `WeightedRandomSampler` every
    datum whose weight is not 0.

    Args:
        loader: read for an epoch where its indices do not tell; nobody's random numbers are used up.
        first: how many data the first batch holds.
        num_data: N, for whoever knows it.

    Raises:
        InvalidInput: where an epoch has no end or no data, or the different ones cannot be counted.
    """
    batches = None if isinstance(loader.dataset, IterableDataset) else _cut(loader)
    if batches is None or loader.collate_fn is not default_collate or not batches or len(batches[0]) != first:
        return _read(loader, batches, num_data)
    sizes = [len(batch) for batch in batches]
    delivered = sum(sizes)
    return Census(num_data or _different(loader, batches), delivered, len(sizes), min(sizes))


def rows(batch: Any) -> int:
    """Return how many data a batch holds: the length of its targets, which come last."""
    while isinstance(batch, list | tuple | dict) and len(batch):
        batch = list(batch.values())[-1] if isinstance(batch, dict) else batch[-1]
    return len(batch) if isinstance(batch, Sized) else 0


@contextmanager
def lent_seed(loader: "DataLoader[Any]", seed: int = 0) -> Iterator[None]:
    """Shuffle by a seed of ours inside the block, and leave everyone's generators as they were."""
    theirs = {id(g): g for g in (getattr(s, "generator", None) for s in (loader, *_samplers(loader))) if g is not None}
    states = {key: generator.get_state() for key, generator in theirs.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        for key, generator in theirs.items():
            generator.set_state(states[key])


def _samplers(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield what chooses a loader's data and what that wraps, from the outside in."""
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "sampler", None)


def _cut(loader: "DataLoader[Any]") -> list[Sequence[Any]] | None:
    """Return the indices of an epoch, batch by batch; None where they cannot be told apart."""
    with lent_seed(loader):
        batches = [_flat(batch) for batch in _bounded(next(_samplers(loader)))]
    try:
        for batch in batches:
            hash(tuple(batch))
    except TypeError:
        return None
    return batches


def _flat(indices: Any) -> Sequence[Any]:
    """Return the indices that a sampler gives at once, one or nested lists of them."""
    if isinstance(indices, Tensor):
        indices = indices.tolist()
    if isinstance(indices, range):
        return indices
    return [one for index in indices for one in _flat(index)] if isinstance(indices, list) else (indices,)


def _bounded(batches: Iterable[Any]) -> Iterator[Any]:
    endless = not _has_length(batches)
    count = 0
    for batch in batches:
        yield batch
        count += max(1, rows(batch) if not isinstance(batch, Tensor) else batch.numel())
        if count > MOST and endless:
            raise InvalidInput(
                f"An epoch of the DataLoader has more than {MOST:,} data, or no end. Say how many there are and how many "
                "batches make an epoch: LoaderData(loader, num_data=…, epoch_steps=…)."
            )


def _has_length(batches: Any) -> bool:
    try:
        len(batches)  # a batch sampler, and a loader, pass the question on
    except (TypeError, NotImplementedError):
        return False
    return True


def _different(loader: "DataLoader[Any]", batches: list[Sequence[Any]]) -> int:
    """Return N, by what the loader's sampler means where that is known."""
    for sampler in _samplers(loader):
        match sampler:
            case WeightedRandomSampler():
                return int((sampler.weights > 0).sum())
            case DistributedSampler():
                return len(loader.dataset)  # type: ignore[arg-type]  # it has a length: the sampler took it
            case RandomSampler() if sampler.replacement or sampler.num_samples != len(sampler.data_source):
                return len(sampler.data_source)
    return len({index for batch in batches for index in batch})


def _read(loader: "DataLoader[Any]", batches: list[Sequence[Any]] | None, num_data: int | None) -> Census:
    """Count the data of an epoch by reading them all."""
    with lent_seed(loader):
        sizes = [rows(batch) for batch in _bounded(loader)]
    delivered = sum(sizes)
    if not delivered:
        raise InvalidInput("The DataLoader gives no data: there is nothing to train on.")
    indices = [index for batch in batches or [] for index in batch]
    again = len(indices) - len(set(indices))
    if again and num_data is None:
        raise InvalidInput(
            f"The DataLoader's sampler gives {again} of its {len(indices)} indices again, and its data are cut otherwise than "
            "its indices, so that the different ones cannot be counted. Say how many there are: LoaderData(loader, num_data=…)."
        )
    return Census(num_data or delivered, delivered, len(sizes), min(sizes))
