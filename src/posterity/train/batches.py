"""Batches from tensors in memory (the fast path: no workers, no collation) or from anyone's `DataLoader`.

Both shuffle by a generator that depends on seed and epoch alone, so that a resumed run sees the same batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from posterity.errors import InvalidInput
from posterity.types import Batch

Check = Callable[[Batch], None]
Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class TensorData:
    """A training set in memory, and a validation set split from it or given.

    Args:
        inputs: (N, ...); targets: (N,) or (N, D).
        batch_size: examples per step; the last batch of an epoch is smaller where it must be, and weighs the same.
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
    def steps_per_epoch(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        order = torch.randperm(len(self.inputs), generator=generator).to(self.inputs.device)
        for index in order.split(self.batch_size):
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
    """Batches (inputs, targets) from DataLoaders; each batch is checked when it is first seen."""

    loader: "DataLoader[Any]"
    validation_loader: "DataLoader[Any] | None" = None
    check: Check | None = None
    device: torch.device | None = None

    @property
    def num_data(self) -> int:
        dataset: Any = self.loader.dataset
        if not hasattr(dataset, "__len__"):
            raise InvalidInput(
                "The DataLoader's dataset has no length; a posterior needs to know how many data there are."
            )
        if self.loader.drop_last and self.loader.batch_size:
            return int(len(self.loader) * self.loader.batch_size)
        return len(dataset)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        # A DataLoader shuffles by torch's global random numbers, which its sampler reads when the first batch is taken:
        # lend it a seed until then. (What a data set draws for itself, augmentations say, stays its own affair.)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            iterator = iter(self.loader)
            first = list(islice(iterator, 1))
        for batch in chain(first, iterator):
            yield self._ready(batch, check=epoch == 0)

    def validation(self) -> Iterator[Batch] | None:
        if self.validation_loader is None:
            return None
        return (self._ready(batch, check=False) for batch in self.validation_loader)

    def checked(self, check: Check, device: torch.device) -> "LoaderData":
        """Try the first batch now, the others as they come in the first epoch."""
        ready = replace(self, check=check, device=device)
        with torch.random.fork_rng(devices=[]):
            first = next(iter(self.loader), None)
        if first is None:
            raise InvalidInput("The DataLoader has no batches.")
        ready._ready(first, check=True)
        return ready

    def _ready(self, batch: Any, check: bool) -> Batch:
        if (
            not isinstance(batch, list | tuple)
            or len(batch) != 2
            or not all(isinstance(part, Tensor) for part in batch)
        ):
            raise InvalidInput(
                f"A batch must be a pair of tensors (inputs, targets); the loader gave a {type(batch).__name__}."
            )
        inputs, targets = batch
        if check and self.check is not None:
            self.check((inputs, targets))
        return inputs.to(self.device), targets.to(self.device)


def as_data(data: Any) -> TensorData | LoaderData:
    """Accept a DataLoader, a pair of tensors (or arrays), or data that already are in the engine's form."""
    if isinstance(data, TensorData | LoaderData):
        return data
    if isinstance(data, DataLoader):
        return LoaderData(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        inputs, targets = (part if isinstance(part, Tensor) else torch.as_tensor(part) for part in data)
        return TensorData(inputs, targets)
    raise InvalidInput(
        f"Data of type {type(data).__name__} were given; expected a DataLoader, a pair (inputs, targets) of tensors, "
        "or TensorData."
    )
