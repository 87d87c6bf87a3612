"""Batches from anyone's `DataLoader`, or any other thing that gives batches whenever it is iterated."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput, PosterityWarning
from posterity.options import Count, convert
from posterity.train.census import Census, begin, census, generators_of, lent_seed, seeded
from posterity.train.digest import of_loaders
from posterity.train.reading import pair, shown, weights_of
from posterity.types import Batch, Likelihood
from posterity.weighing import on, size, told_apart

Check = Callable[[Batch], None]


@dataclass(frozen=True, eq=False)
class LoaderData:
    """Batches (inputs, targets) from loaders, where more is to be said of them than `fit(network, loader)` does.

    N is the number of different data that an epoch delivers, as samplers and batches tell; see `posterity.train.census`.

    Args:
        loader: of the training data; a `DataLoader`, or a list or an object of a class of yours that gives batches whenever
            it is iterated.
        validation_loader: of data that take no part in the training.
        num_data: N, where you know it better: of a stream, say, or of a sampler that shows a part of the data at a time.
        epoch_steps: batches that make an epoch of a loader without an end; needs `num_data`.
        weighted: whether batches are triples (inputs, targets, weights), see `TensorData`; their mean is then read in an epoch
            before the training. Nothing tells such triples from others, so that it has to be said.

    Raises:
        InvalidInput: where N or `epoch_steps` is less than 1, or N is missing beside it; from `counted`, where the data cannot
            be counted.
    """

    loader: Iterable[Any]
    validation_loader: Iterable[Any] | None = None
    num_data: int | None = None
    epoch_steps: int | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        for name in ("loader", "validation_loader"):
            _refuse_once(name, getattr(self, name), optional=name != "loader")
        convert(self, num_data=Count | None, epoch_steps=Count | None, weighted=bool)
        if self.epoch_steps is not None and self.num_data is None:
            raise InvalidInput(
                "epoch_steps cuts a stream into epochs, and does not say how many data there are: give num_data, too."
            )

    def counted(self) -> "CountedLoader":
        """Count the data of an epoch."""
        if self.validation_loader is not None:
            _first(self.validation_loader, "validation loader")
        first = len(self.read(_first(self.loader))[1])
        if self.epoch_steps is not None and self.num_data is not None:
            count = Census(self.num_data, first * self.epoch_steps, self.epoch_steps, first)
        else:
            count = census(self.loader, first, self.num_data)
            _first(self.loader)  # what can be read once only has just been used up
        return CountedLoader(self, count, self._mean_weight() if self.weighted else 1.0)

    def read(self, batch: Any) -> Batch:
        """Read a batch as it comes, with its weights where there are any."""
        if not self.weighted:
            return pair(batch)
        if not isinstance(batch, list | tuple) or len(batch) != 3:
            raise InvalidInput(
                f"weighted=True, and the loader gave {shown(batch)}; a batch must be (inputs, targets, weights)."
            )
        inputs, targets = pair(batch[:2])[:2]
        return inputs, targets, weights_of(batch[2], targets, anything=False)

    def _mean_weight(self) -> float:
        """Return the mean weight of the data of an epoch."""
        total, count = 0.0, 0
        with lent_seed(self.loader):
            for batch in islice(iter(self.loader), self.epoch_steps):
                own = self.read(batch)
                total, count = total + float(size(own)), count + len(own[1])
        if not total:
            raise InvalidInput("All weights are 0: there is nothing to learn from.")
        return total / count


@dataclass(frozen=True, eq=False)
class CountedLoader:
    """A loader whose data are counted; each batch is checked when it is first seen."""

    source: LoaderData
    count: Census
    mean_weight: float = 1.0
    likelihood: Likelihood | None = field(default=None, repr=False)
    check: Check | None = field(default=None, repr=False)
    device: torch.device | None = field(default=None, repr=False)

    @property
    def num_data(self) -> int | float:
        own = self.count.num_data * self.mean_weight
        return int(own) if own == int(own) else own

    @property
    def steps_per_epoch(self) -> int:
        return self.count.steps

    @property
    def mean_batch_size(self) -> float:
        return self.count.delivered * self.mean_weight / self.count.steps

    @property
    def smallest_batch(self) -> int:
        return self.count.smallest

    @property
    def repeated(self) -> int:
        return self.count.repeated

    def content(self) -> dict[str, Any]:
        """Return what can be known of the data before an epoch."""
        count = {"number": self.num_data, "steps": self.steps_per_epoch, "batch size": round(self.mean_batch_size, 6)}
        loaders = self.source.loader, self.source.validation_loader
        return {**count, **of_loaders(*loaders, lambda: next(self.batches(0, Generator().manual_seed(0))))}

    def counted(self) -> "CountedLoader":
        return self

    def known_to(self, likelihood: Likelihood) -> "CountedLoader":
        """Give numbers that are missing no weight, batch by batch; N still counts all data that the loader delivers."""
        return replace(self, likelihood=likelihood)

    def seen_by(self, likelihood: Likelihood) -> "CountedLoader":
        return self

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        # A DataLoader shuffles by global random numbers, which its sampler reads when the first batch is taken: lend it a
        # seed until then. (What a data set draws for itself, augmentations say, stays its own affair.) A generator that
        # was given to it is seeded, too, or a run that is resumed would not see the batches that are left.
        loader, seed = self.source.loader, int(torch.randint(2**62, (), generator=generator))
        begin(loader, epoch)
        for own in generators_of(loader):
            own.manual_seed(seed)
        with seeded(seed):
            iterator = islice(iter(loader), self.source.epoch_steps)
            first = list(islice(iterator, 1))
        delivered = unknown = 0
        for batch in chain(first, iterator):
            ready, none = self._ready(batch, check=epoch == 0)
            delivered, unknown = delivered + len(ready[1]), unknown + none
            yield ready
        self._compare(delivered, epoch)
        if unknown and epoch == 0 and self.device is not None:
            warnings.warn(missing(unknown, delivered, "add nothing to the sum"), PosterityWarning, stacklevel=2)

    def validation(self) -> Iterator[Batch] | None:
        loader = self.source.validation_loader
        return None if loader is None else (self._ready(batch, check=False)[0] for batch in loader)

    def checked(self, check: Check, device: torch.device) -> "CountedLoader":
        """Try the first batch now, the others as they come in the first epoch."""
        ready = replace(self, check=check, device=device)
        ready._ready(_first(self.source.loader), check=True)
        return ready

    def _compare(self, delivered: int, epoch: int) -> None:
        """Say where an epoch delivers other data than were counted: the weight of each batch rests on the count."""
        if not delivered:
            raise InvalidInput(f"The DataLoader gave no batches in epoch {epoch + 1}: it can be read once only.")
        if epoch == 0 and delivered != self.count.delivered:
            warnings.warn(
                f"The first epoch of the DataLoader delivered {delivered:,} data, and {self.count.delivered:,} were counted "
                f"before the training, which the weight of each batch rests on. N is taken for {self.num_data:,}: if it is "
                "another, give LoaderData(loader, num_data=…).",
                PosterityWarning,
                stacklevel=2,
            )

    def _ready(self, batch: Any, check: bool) -> tuple[Batch, int]:
        """Read a batch, and say of how many of its data nothing is known."""
        own, none = self.source.read(batch), 0
        if self.likelihood is not None:
            own, none = told_apart(own, self.likelihood.known(own[1]))
        if check and self.check is not None and none < len(own[1]):
            self.check(own)
        return on(own, self.device), none


def _refuse_once(name: str, loader: Any, optional: bool) -> None:
    """Refuse what cannot be read epoch after epoch."""
    if loader is None and optional:
        return
    if isinstance(loader, Iterator):
        raise InvalidInput(
            f"{name} is a {type(loader).__name__}, which can be read once only. Give what starts anew whenever it is iterated: "
            "the DataLoader, LoaderData(list(batches)), or an object of a class whose __iter__ begins a new epoch."
        )
    if isinstance(loader, tuple) and all(isinstance(part, Tensor) for part in loader):
        raise InvalidInput(
            f"{name} is {shown(loader)}: a data set, not batches of it. Give "
            "DataLoader(TensorDataset(inputs, targets), 128), or TensorData(inputs, targets, held_out=…) in place of loaders."
        )
    if not isinstance(loader, Iterable) or isinstance(loader, Tensor | str | Mapping):
        raise InvalidInput(
            f"{name} is {shown(loader)}; it must be a DataLoader, or give batches (inputs, targets) in turn."
        )


def missing(count: int, total: int, what: str) -> str:
    """Say how many targets are not there.

    >>> missing(1, 3, "were left out")
    '1 of 3 targets are missing (NaN) and were left out.'
    """
    return f"{count:,} of {total:,} targets are missing (NaN) and {what}."


def _first(loader: Iterable[Any], what: str = "DataLoader") -> Any:
    with lent_seed(loader):
        for first in loader:
            return first
    raise InvalidInput(
        f"The {what} gives no batches (any more): it is empty, or can be read once only. Give one that starts anew "
        "whenever it is iterated."
    )
