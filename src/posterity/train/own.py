"""Data of a class of one's own that keeps the contract of `posterity.Data`: counted once, checked, and moved to the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Generator, nn

from posterity.errors import InvalidInput
from posterity.options import Count, convert
from posterity.train.census import Census
from posterity.train.digest import digest
from posterity.train.reading import pair
from posterity.types import Batch
from posterity.weighing import on

Check = Callable[[Batch], None]
WANTED = ("num_data", "steps_per_epoch", "batches")


def is_own(value: Any) -> bool:
    """Tell whether an object has what data must have: `num_data`, `steps_per_epoch` and `batches(epoch, generator)`."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in WANTED) and callable(value.batches)


@dataclass(eq=False)
class _Said:
    """The numbers that data say of themselves, as whole ones."""

    num_data: Any
    steps_per_epoch: Any

    def __post_init__(self) -> None:
        convert(self, num_data=Count, steps_per_epoch=Count)


@dataclass(frozen=True, eq=False)
class OwnData:
    """Data of one's own, in the form that a fit asks of its data."""

    source: Any
    count: Census
    check: Check | None = field(default=None, repr=False)
    device: torch.device | None = field(default=None, repr=False)

    @classmethod
    def of(cls, source: Any) -> "OwnData":
        """Count an epoch, in one pass that uses up nobody's random numbers.

        Raises:
            InvalidInput: where an epoch has fewer batches than the data say, or one of them is no pair.
        """
        said = _Said(source.num_data, source.steps_per_epoch)
        with torch.random.fork_rng(devices=[]):
            batches = islice(source.batches(0, Generator().manual_seed(0)), said.steps_per_epoch)
            sizes = [len(pair(batch)[1]) for batch in batches]
        if len(sizes) < said.steps_per_epoch or not all(sizes):
            raise InvalidInput(
                f"{type(source).__name__} says that an epoch has {said.steps_per_epoch} batches, and batches(0, generator) "
                f"gives {len(sizes)}{', one of them empty' if not all(sizes) else ''}: give as many, of one datum at least."
            )
        again = max(0, sum(sizes) - said.num_data)
        return cls(source, Census(said.num_data, sum(sizes), len(sizes), min(sizes), again))

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

    @property
    def augment(self) -> Any:
        return getattr(self.source, "augment", None)

    def content(self) -> dict[str, Any]:
        """Return what tells the data from others: what they say themselves by `content`, or their number and first batch."""
        if callable(getattr(self.source, "content", None)):
            return dict(self.source.content())
        inputs, targets = next(self.batches(0, Generator().manual_seed(0)))[:2]
        count = {"number": self.num_data, "steps": self.steps_per_epoch, "batch size": round(self.mean_batch_size, 6)}
        return {**count, "first inputs": digest(inputs), "first targets": digest(targets)}

    def counted(self) -> "OwnData":
        return self

    def known_to(self, likelihood: Any) -> "OwnData":
        return self

    def seen_by(self, likelihood: Any) -> "OwnData":
        return self

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        """Give the batches of an epoch, as many as were counted."""
        for batch in islice(self.source.batches(epoch, generator), self.steps_per_epoch):
            yield self._ready(batch, check=epoch == 0)

    def validation(self) -> Iterator[Batch] | None:
        batches = self.source.validation() if hasattr(self.source, "validation") else None
        return None if batches is None else (self._ready(batch, check=False) for batch in batches)

    def checked(self, check: Check, device: torch.device) -> "OwnData":
        """Try the first batch now, the others as they come in the first epoch."""
        ready = replace(self, check=check, device=device)
        next(ready.batches(0, Generator().manual_seed(0)))
        return ready

    def _ready(self, batch: Any, check: bool) -> Batch:
        own = pair(batch)
        if check and self.check is not None:
            self.check(own)
        return on(own, self.device)


def is_engine(value: Any) -> bool:
    """Tell whether an object can run inferences, and parts of the work, as an engine does."""
    return not isinstance(value, type) and all(callable(getattr(value, n, None)) for n in ("run", "fork", "streams"))


def place_of(engine: Any, network: nn.Module) -> torch.device:
    """Return where an engine computes: where it says, or where the network is."""
    if callable(getattr(engine, "torch_device", None)):
        found: torch.device = engine.torch_device()
        return found
    return next((p.device for p in network.parameters()), torch.device("cpu"))
