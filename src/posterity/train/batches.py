"""Batches from tensors in memory (the fast path: no workers, no collation) or from anyone's `DataLoader`.

Both shuffle by a generator that depends on seed and epoch alone, so that a resumed run sees the same batches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from posterity.errors import InvalidInput
from posterity.options import convert
from posterity.train.digest import digest, of_augmentation
from posterity.train.loader import CountedLoader as CountedLoader
from posterity.train.loader import LoaderData as LoaderData
from posterity.train.own import OwnData, is_own
from posterity.train.reading import tensor, weights_of, whole
from posterity.types import IGNORED, Batch, Likelihood
from posterity.weighing import of_seen, on, rows, simplified, size, told_apart

Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class TensorData:
    """A training set in memory, and a validation set split from it or given.

    Args:
        inputs: (N, ...); targets: (N,) or (N, D).
        batch_size: examples per step; the last batch of an epoch is smaller where it must be, and weighs by its size. A single
            example that is left over joins the batch before it: alone, it has no variance to normalise by.
        held_out: validation (inputs, targets), or with weights; see `split` for a seeded share of the training data.
        augment: gives another view of each batch of inputs whenever it is drawn, by the generator that shuffles, so that a
            resumed run sees the same views; see `posterity.data.augment`, also for what it means for the posterior.
        weights: (N,), at least 0: how often each datum counts, a power of its likelihood; once unless given. N is their sum.

    Raises:
        InvalidInput: where lengths differ, there is nothing to train on, or weights are no such numbers.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int = 128
    held_out: Batch | None = None
    augment: Augment | None = None
    weights: Tensor | None = None
    left_out: int = field(default=0, init=False)  # data whose targets are missing

    def __post_init__(self) -> None:
        vars(self).update(inputs=tensor(self.inputs, "inputs"), targets=tensor(self.targets, "targets"))
        if self.held_out is not None:
            given: Any = self.held_out
            parts = tuple(given) if isinstance(given, tuple | list) else (given,)
            own = whole(parts[:2] if len(parts) > 1 else given)
            weights = (weights_of(part, own[1], anything=False) for part in parts[2:3])
            vars(self).update(held_out=(*own[:2], *weights))
        convert(self, batch_size=int, augment=Callable[..., Any] | None)
        if len(self.inputs) != len(self.targets):
            raise InvalidInput(
                f"There are {len(self.inputs)} inputs but {len(self.targets)} targets; give one target per input."
            )
        if len(self.inputs) == 0:
            raise InvalidInput("The training set is empty.")
        if self.batch_size < 1:
            raise InvalidInput(f"The batch size is {self.batch_size}; it must be at least 1.")
        if self.weights is not None:
            vars(self).update(weights=weights_of(self.weights, self.targets))

    @property
    def whole(self) -> Batch:
        """All of the training data as one batch."""
        pair = self.inputs, self.targets
        return pair if self.weights is None else (*pair, self.weights)

    @property
    def num_data(self) -> int | float:
        own = float(size(self.whole))
        return int(own) if own == int(own) else own

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
        return self.num_data / self.steps_per_epoch

    @property
    def smallest_batch(self) -> int:
        return min(self.sizes)

    def content(self) -> dict[str, Any]:
        """Return what the data are, in values that tell them from others; see `posterity.train.digest`."""
        parts = zip(("inputs", "targets", "weights"), map(digest, self.held_out or ()), strict=False)
        out = dict(parts)
        own = {"inputs": digest(self.inputs), "targets": digest(self.targets), "batch size": self.batch_size}
        if self.weights is not None:
            own["weights"] = digest(self.weights)
        return {**own, **of_augmentation(self.augment, self.inputs), "validation": out}

    def counted(self) -> "TensorData":  # tensors know how many they are
        return self

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        order = torch.randperm(len(self.inputs), generator=generator).to(self.inputs.device)
        for index in order.split(self.sizes):
            batch = rows(self.whole, index)
            yield batch if self.augment is None else (self.augment(batch[0], generator), *batch[1:])

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
        return self._of(rows(self.whole, order[count:]), rows(self.whole, order[:count]))

    def checked(self, check: Callable[[Batch], None], device: torch.device) -> "TensorData":
        """Try all of it, then move it to the device once."""
        check(self.whole)
        if self.held_out is not None:
            check(self.held_out)
        return self._of(on(self.whole, device), None if self.held_out is None else on(self.held_out, device))

    def known_to(self, likelihood: Likelihood) -> "TensorData":
        """Fill in what is missing, and give it no weight: see `weighing.told_apart`.

        Raises:
            InvalidInput: where nothing is known.
        """
        if self.targets.is_complex():
            return self
        known = likelihood.known(self.targets)
        batch, count = told_apart(self.whole, known)
        if not bool(known.any()):
            what = "targets are NaN" if count else f"labels are {IGNORED}, or another that is ignored"
            raise InvalidInput(f"All {what}, not known: there is nothing to learn from.")
        out = self.held_out and told_apart(self.held_out, likelihood.known(self.held_out[1]))[0]
        if batch is self.whole and out is self.held_out:
            return self
        found = self._of(batch, out)
        vars(found).update(left_out=count)
        return found

    def seen_by(self, likelihood: Likelihood) -> "TensorData":
        """Leave out the data that count for nothing."""
        parts: list[Batch | None] = []
        for batch in (self.whole, self.held_out):
            if batch is not None and not batch[1].is_complex():
                own = of_seen(batch, likelihood.known(batch[1]))
                batch = simplified(rows(batch, own) if not bool(own.all()) else batch)
            parts.append(batch if batch is None or len(batch[1]) else None)
        training, held_out = parts
        if training is None:
            raise InvalidInput("All data that are known have weight 0: there is nothing to learn from.")
        return self._of(training, held_out)

    def _of(self, batch: Batch, held_out: Batch | None) -> "TensorData":
        """Return data of the same kind; single numbers of the targets may have weights of their own."""
        found = replace(self, inputs=batch[0], targets=batch[1], weights=None, held_out=None)
        vars(found).update(weights=batch[2] if len(batch) == 3 else None, held_out=held_out, left_out=self.left_out)
        return found


def as_data(data: Any) -> TensorData | CountedLoader | OwnData:
    """Accept a loader, a pair of tensors (or arrays), or data that already are in the engine's form; count them."""
    if isinstance(data, TensorData | LoaderData | CountedLoader | OwnData):
        return data.counted()
    if is_own(data):
        return OwnData.of(data)
    if isinstance(data, DataLoader) or (isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        return LoaderData(data).counted()  # what can be iterated and not indexed is a loader of somebody's own
    return TensorData(*whole(data))
