"""How many data an epoch of a DataLoader delivers, and how many of them are different: the N of the posterior.

`len(loader.dataset)` is not it: samplers choose, batch samplers cut, data sets hand out whole batches or do not know their
length. Where samplers tell, indices are counted; else the data are, in one epoch before the training.
"""

import random
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any

import numpy
import torch
from torch import Generator, Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from posterity.errors import InvalidInput

MOST = 2**22  # an epoch of more data is taken for one without an end, unless its sampler knows its length
OTHERS = 0.25  # of an epoch's data may be others in the next: buckets leave over what fills no batch


@dataclass(frozen=True)
class Census:
    """What one epoch delivers.

    Args:
        num_data: N, how many different data there are to be seen.
        delivered: how many an epoch delivers; those that come twice count twice.
        steps: its batches.
        smallest: data in the smallest batch.
        repeated: how many of those delivered had come before in the same epoch, as far as indices tell.
    """

    num_data: int
    delivered: int
    steps: int
    smallest: int
    repeated: int = 0


def census(loader: Iterable[Any], first: int, num_data: int | None = None) -> Census:
    """Count the data of an epoch.

    N is the number of different data that an epoch delivers. Three samplers mean more than one epoch shows: `RandomSampler`
    with `num_samples` and `DistributedSampler` (all ranks together) reach the whole data set, `WeightedRandomSampler` every
    datum whose weight is not 0. Workers that each deliver all of a stream deliver no other data than one of them.

    Args:
        loader: read for an epoch where its indices do not tell; nobody's random numbers are used up.
        first: how many data the first batch holds.
        num_data: N, for whoever knows it.

    Raises:
        InvalidInput: where an epoch has no end or no data, or the different ones cannot be counted.
    """
    inner = _inside(loader)
    if inner == [loader]:
        return _of_loader(inner[0], first, num_data)
    sizes = _read(loader)
    if not inner or num_data is not None:
        return Census(num_data or sum(sizes), sum(sizes), len(sizes), min(sizes))
    return _of_wrapper(sizes, inner)


def _of_loader(loader: "DataLoader[Any]", first: int, num_data: int | None = None) -> Census:
    batches = None if isinstance(loader.dataset, IterableDataset) else _cut(loader)
    by_index = [len(batch) for batch in batches or []]
    sizes = by_index if loader.collate_fn is default_collate and by_index[:1] == [first] else _read(loader)
    delivered, meant = sum(sizes), _alone(loader, sum(sizes))
    repeated = delivered - meant
    if batches:
        # A collation that pads hands on the batches that were cut, as their sizes show.
        seen = {index for batch in batches for index in batch}
        repeated, meant = sum(by_index) - len(seen), len(seen) if num_data else _different(loader, batches)
        if sorted(sizes) != sorted(by_index):
            if num_data is None and (repeated or meant != len(seen)):
                raise _uncounted(repeated, sum(by_index), meant - len(seen))
            meant = delivered
    return Census(num_data or meant, delivered, len(sizes), min(sizes), repeated)


def _of_wrapper(sizes: list[int], inner: "Sequence[DataLoader[Any]]") -> Census:
    """Count what hands on the batches of DataLoaders, cut again or not: all of their data, or some of them."""
    parts = [_of_loader(loader, _first(loader)) for loader in inner]
    delivered, given = sum(sizes), sum(part.delivered for part in parts)
    meant, repeated = sum(part.num_data for part in parts), sum(part.repeated for part in parts)
    if delivered > given or len({id(loader.dataset) for loader in inner}) < len(inner):
        raise InvalidInput(
            f"The loader delivers {delivered:,} data in an epoch and wraps {len(inner)} DataLoader{'s' * (len(inner) > 1)} of "
            f"{given:,}: some come twice, or from elsewhere, and the different ones cannot be counted. Say how many there are: "
            "LoaderData(loader, num_data=…)."
        )
    if delivered < given:
        if repeated or meant != given:
            raise _uncounted(repeated, given, meant - given)
        for loader in inner:
            kept, following = ((_cut(loader, epoch) or [])[: len(sizes)] for epoch in range(2))
            if sum(map(len, kept)) == delivered:  # it ends before its DataLoader does
                _alike(kept, following, type(loader.sampler).__name__)
        meant = delivered
    return Census(meant, delivered, len(sizes), min(sizes), repeated)


def rows(batch: Any) -> int:
    """Return how many data a batch holds: the length of its targets, which come last."""
    while isinstance(batch, list | tuple | dict) and len(batch):
        batch = list(batch.values())[-1] if isinstance(batch, dict) else batch[-1]
    return len(batch) if isinstance(batch, Sized) and not (isinstance(batch, Tensor) and batch.dim() == 0) else 0


@contextmanager
def lent_seed(loader: Iterable[Any], seed: int = 0) -> Iterator[None]:
    """Shuffle by a seed of ours inside the block, and leave everyone's generators as they were."""
    generators = generators_of(loader)
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        with seeded(seed):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lend a seed to the global random numbers that samplers shuffle by: torch's, Python's and NumPy's."""
    of_python, of_numpy = random.getstate(), numpy.random.get_state()  # noqa: NPY002  # it is theirs
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's, which shuffles; others would stay seeded
            random.seed(seed)
            numpy.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)  # noqa: NPY002


def generators_of(loader: Iterable[Any]) -> list[Generator]:
    """Return the generators that a loader and its samplers shuffle by instead of the global ones, each once."""
    parts = [part for inner in _inside(loader) for part in (inner, *samplers(inner))]
    return list({id(g): g for g in (getattr(part, "generator", None) for part in parts) if g is not None}.values())


def begin(loader: Iterable[Any], epoch: int) -> None:
    """Tell samplers and data sets that shuffle by the number of the epoch, as `DistributedSampler`, which one comes."""
    inner = _inside(loader)
    parts: list[Any] = [part for one in inner for part in (*samplers(one), one.dataset)] if inner else [loader]
    for part in parts:
        if callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)


def samplers(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield what chooses a loader's data and what that wraps, from the outside in."""
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "sampler", None)


def _inside(loader: Any, depth: int = 3) -> "list[DataLoader[Any]]":
    """Return the DataLoaders that this is or wraps, in so many layers, each once."""
    if isinstance(loader, DataLoader):
        return [loader]
    parts = loader if isinstance(loader, list | tuple) else list(getattr(loader, "__dict__", {}).values())
    found = [inner for part in parts if depth and isinstance(part, Iterable) for inner in _inside(part, depth - 1)]
    return list({id(inner): inner for inner in found}.values())


def _cut(loader: "DataLoader[Any]", epoch: int = 0) -> list[Sequence[Any]] | None:
    """Return the indices of an epoch, batch by batch; None where they cannot be told apart."""
    begin(loader, epoch)
    with lent_seed(loader, epoch):
        batches = [_flat(batch) for batch in _bounded(next(samplers(loader)))]
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
    steps = _length(batches)
    most = inf if steps is None else 10 * steps + 1000  # lengths are often estimates
    count = 0
    for step, batch in enumerate(batches, 1):
        yield batch
        count += max(1, rows(batch) if not isinstance(batch, Tensor) else batch.numel())
        if step > most or (steps is None and count > MOST):
            raise InvalidInput(
                f"An epoch of the DataLoader has more than {count - 1:,} data, or no end. Say how many there are and how many "
                "batches make an epoch: LoaderData(loader, num_data=…, epoch_steps=…)."
            )


def _length(batches: Any) -> int | None:
    try:
        return len(batches)  # a batch sampler, and a loader, pass the question on
    except (TypeError, NotImplementedError):
        return None


def _different(loader: "DataLoader[Any]", batches: list[Sequence[Any]]) -> int:
    """Return N, by what the loader's sampler means where that is known; else those seen, if the next epoch shows them, too."""
    for sampler in samplers(loader):
        match sampler:
            case WeightedRandomSampler():
                return int((sampler.weights > 0).sum())
            case DistributedSampler():
                return len(loader.dataset)  # type: ignore[arg-type]  # it has a length: the sampler took it
            case RandomSampler() if sampler.replacement or sampler.num_samples != len(sampler.data_source):
                return len(sampler.data_source)
            case RandomSampler() | SequentialSampler() | SubsetRandomSampler():
                return len(set(chain(*batches)))
    return _alike(batches, _cut(loader, 1), type([*samplers(loader)][-1]).__name__)


def _alike(batches: list[Sequence[Any]], following: list[Sequence[Any]] | None, sampler: str) -> int:
    """Return how many indices an epoch shows, if the next one shows them, too."""
    seen, others = set(chain(*batches)), set(chain(*(following or [])))
    left_over = 0 if sum(map(len, batches)) > len(seen) else OTHERS * len(seen)
    others -= seen
    if len(others) > left_over:
        raise InvalidInput(
            f"One epoch of the DataLoader shows {len(seen):,} data and the next {len(others):,} others, as its sampler "
            f"({sampler}) chooses: an epoch does not tell how many different data there are. Say it: "
            "LoaderData(loader, num_data=…)."
        )
    return len(seen)


def _first(loader: Iterable[Any]) -> int:
    """Return how many data the first batch holds."""
    with lent_seed(loader):
        return next((rows(batch) for batch in loader), 0)


def _read(loader: Iterable[Any]) -> list[int]:
    """Return the sizes of an epoch's batches by reading them all."""
    with lent_seed(loader):
        sizes = [rows(batch) for batch in _bounded(loader)]
    if not sum(sizes):
        raise InvalidInput("The DataLoader gives no data: there is nothing to train on.")
    if not min(sizes):
        raise InvalidInput(
            f"Batch {sizes.index(0)} of the DataLoader holds no data: a collate_fn or a data set has left all of them out. "
            "Leave them out of the data set, Subset(dataset, indices), or cut batches of what is left."
        )
    return sizes


def _alone(loader: "DataLoader[Any] | None", delivered: int) -> int:
    """Return how many data a stream delivers without workers, where these each deliver all of it."""
    if loader is None or loader.num_workers < 2 or not isinstance(loader.dataset, IterableDataset):
        return delivered
    single = DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, drop_last=loader.drop_last)
    try:
        with lent_seed(single):
            return min(delivered, sum(rows(batch) for batch in _bounded(single)))
    except (AttributeError, TypeError):  # a stream that knows only how to be one worker's shares its data out
        return delivered


def _uncounted(repeated: int, indices: int, unseen: int) -> InvalidInput:
    why = (
        f"gives {repeated} of its {indices} indices again"
        if repeated
        else f"leaves {unseen} of the indices to other epochs or ranks"
    )
    return InvalidInput(
        f"The DataLoader's sampler {why}, and its data are cut otherwise than its indices, so that the different ones cannot "
        "be counted. Say how many there are: LoaderData(loader, num_data=…)."
    )
