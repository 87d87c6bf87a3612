"""Batches from tensors in memory (the fast path: no workers, no collation) or from anyone's `DataLoader`.

Both shuffle by a generator that depends on seed and epoch alone, so that a resumed run sees the same batches.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from posterity.errors import InvalidInput, PosterityWarning
from posterity.options import Count, convert
from posterity.train.census import Census, begin, census, generators_of, lent_seed, seeded
from posterity.train.digest import digest, of_augmentation, of_loaders
from posterity.train.own import OwnData, is_own
from posterity.train.reading import pair, shown, tensor, whole
from posterity.types import Batch

Check = Callable[[Batch], None]
Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class TensorData:
    """A training set in memory, and a validation set split from it or given.

    Args:
        inputs: (N, ...); targets: (N,) or (N, D).
        batch_size: examples per step; the last batch of an epoch is smaller where it must be, and weighs by its size. A single
            example that is left over joins the batch before it: alone, it has no variance to normalise by.
        held_out: validation (inputs, targets); see `split` for a seeded share of the training data.
        augment: gives another view of each batch of inputs whenever it is drawn, by the generator that shuffles, so that a
            resumed run sees the same views; see `posterity.data.augment`, also for what it means for the posterior.

    Raises:
        InvalidInput: where lengths differ, or there is nothing to train on.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int = 128
    held_out: Batch | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        vars(self).update(inputs=tensor(self.inputs, "inputs"), targets=tensor(self.targets, "targets"))
        vars(self).update(held_out=None if self.held_out is None else whole(self.held_out))
        convert(self, batch_size=int, augment=Callable[..., Any] | None)
        if len(self.inputs) != len(self.targets):
            raise InvalidInput(
                f"There are {len(self.inputs)} inputs but {len(self.targets)} targets; give one target per input."
            )
        if len(self.inputs) == 0:
            raise InvalidInput("The training set is empty.")
        if self.batch_size < 1:
            raise InvalidInput(f"The batch size is {self.batch_size}; it must be at least 1.")

    @property
    def num_data(self) -> int:
        return len(self.inputs)

    @property
    def sizes(self) -> list[int]:
        """How many data the batches of an epoch hold."""
        whole, rest = divmod(len(self.inputs), self.batch_size)
        if rest == 1 and whole:
            return [self.batch_size] * (whole - 1) + [self.batch_size + 1]
        return [self.batch_size] * whole + [rest] * bool(rest)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.sizes)

    @property
    def mean_batch_size(self) -> float:
        return len(self.inputs) / self.steps_per_epoch

    @property
    def smallest_batch(self) -> int:
        return min(self.sizes)

    def content(self) -> dict[str, Any]:
        """Return what the data are, in values that tell them from others; see `posterity.train.digest`."""
        out = {} if self.held_out is None else dict(zip(("inputs", "targets"), map(digest, self.held_out), strict=True))
        own = {"inputs": digest(self.inputs), "targets": digest(self.targets), "batch size": self.batch_size}
        return {**own, **of_augmentation(self.augment, self.inputs), "validation": out}

    def counted(self) -> "TensorData":  # tensors know how many they are
        return self

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        order = torch.randperm(len(self.inputs), generator=generator).to(self.inputs.device)
        for index in order.split(self.sizes):
            inputs = self.inputs[index]
            yield inputs if self.augment is None else self.augment(inputs, generator), self.targets[index]

    def validation(self) -> Iterator[Batch] | None:
        return iter([self.held_out]) if self.held_out is not None else None

    def split(self, share: float, seed: int = 0) -> "TensorData":
        """Hold a random share of the training data out for validation; 0 holds nothing out.

        >>> data = TensorData(torch.zeros(10, 1), torch.zeros(10)).split(0.2)
        >>> data.num_data, len(data.held_out[0])
        (8, 2)
        """
        if not 0 <= share < 1:
            raise InvalidInput(f"The validation share is {share}; it must be at least 0 and less than 1.")
        count = round(share * len(self.inputs))
        if count == 0:
            return self
        order = torch.randperm(len(self.inputs), generator=Generator().manual_seed(seed))
        out, kept = order[:count], order[count:]
        return replace(
            self, inputs=self.inputs[kept], targets=self.targets[kept], held_out=(self.inputs[out], self.targets[out])
        )

    def checked(self, check: Check, device: torch.device) -> "TensorData":
        """Try all of it, then move it to the device once."""
        check((self.inputs, self.targets))
        if self.held_out is not None:
            check(self.held_out)
        held_out = None if self.held_out is None else (self.held_out[0].to(device), self.held_out[1].to(device))
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device), held_out=held_out)


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

    Raises:
        InvalidInput: where N or `epoch_steps` is less than 1, or N is missing beside it; from `counted`, where the data cannot
            be counted.
    """

    loader: Iterable[Any]
    validation_loader: Iterable[Any] | None = None
    num_data: int | None = None
    epoch_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("loader", "validation_loader"):
            _refuse_once(name, getattr(self, name), optional=name != "loader")
        convert(self, num_data=Count | None, epoch_steps=Count | None)
        if self.epoch_steps is not None and self.num_data is None:
            raise InvalidInput(
                "epoch_steps cuts a stream into epochs, and does not say how many data there are: give num_data, too."
            )

    def counted(self) -> "CountedLoader":
        """Count the data of an epoch."""
        if self.validation_loader is not None:
            _first(self.validation_loader, "validation loader")
        first = len(pair(_first(self.loader))[1])
        if self.epoch_steps is not None and self.num_data is not None:
            count = Census(self.num_data, first * self.epoch_steps, self.epoch_steps, first)
        else:
            count = census(self.loader, first, self.num_data)
            _first(self.loader)  # what can be read once only has just been used up
        return CountedLoader(self, count)


@dataclass(frozen=True, eq=False)
class CountedLoader:
    """A loader whose data are counted; each batch is checked when it is first seen."""

    source: LoaderData
    count: Census
    check: Check | None = field(default=None, repr=False)
    device: torch.device | None = field(default=None, repr=False)

    @property
    def num_data(self) -> int:
        return self.count.num_data

    @property
    def steps_per_epoch(self) -> int:
        return self.count.steps

    @property
    def mean_batch_size(self) -> float:
        return self.count.delivered / self.count.steps

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
        delivered = 0
        for batch in chain(first, iterator):
            ready = self._ready(batch, check=epoch == 0)
            delivered += len(ready[1])
            yield ready
        self._compare(delivered, epoch)

    def validation(self) -> Iterator[Batch] | None:
        loader = self.source.validation_loader
        return None if loader is None else (self._ready(batch, check=False) for batch in loader)

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

    def _ready(self, batch: Any, check: bool) -> Batch:
        inputs, targets = pair(batch)
        if check and self.check is not None:
            self.check((inputs, targets))
        return inputs.to(self.device), targets.to(self.device)


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


def _first(loader: Iterable[Any], what: str = "DataLoader") -> Any:
    with lent_seed(loader):
        for first in loader:
            return first
    raise InvalidInput(
        f"The {what} gives no batches (any more): it is empty, or can be read once only. Give one that starts anew "
        "whenever it is iterated."
    )


def as_data(data: Any) -> TensorData | CountedLoader | OwnData:
    """Accept a loader, a pair of tensors (or arrays), data of a class of one's own, or ours; count them."""
    if isinstance(data, TensorData | LoaderData | CountedLoader | OwnData):
        return data.counted()
    if is_own(data):
        return OwnData.of(data)
    if isinstance(data, DataLoader) or (isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        return LoaderData(data).counted()  # what can be iterated and not indexed is a loader of somebody's own
    return TensorData(*whole(data))
