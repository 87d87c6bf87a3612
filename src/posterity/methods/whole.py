"""What samplers of the whole data share: all of them as one batch, and what cannot be sampled so, refused at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import Problem
from posterity.posteriors.evaluation import activation_bytes
from posterity.types import Batch, Data
from posterity.weighing import joined, size

PER_EPOCH = 25  # transitions between two checkpoints and rows of the history
BATCH_BYTES = 2**33  # of the activations of all data, which one gradient needs at once


def refuse_points(problem: Problem, method: str) -> None:
    """Refuse parameters that are not sampled.

    Raises:
        InvalidInput: with their names.
    """
    where = problem.coordinates
    if where.start:
        names = [n for n, offset in zip(where.layout.names, where.layout.offsets, strict=True) if offset < where.start]
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise InvalidInput(
            f"{method} samples every trainable parameter, and {shown} are points. Select all by where='*', or "
            "hold them at the values that they have (trained by MAP, say): parameter.requires_grad_(False)."
        )


def refuse_too_large(problem: Problem, chains: int, draws: int, max_bytes: int) -> None:
    """Refuse draws that do not fit.

    Raises:
        InvalidInput: with their size.
    """
    needed = chains * draws * problem.theta().nbytes
    if needed > max_bytes:
        raise InvalidInput(
            f"{chains} chains of {draws} draws of {problem.layout.size:,} numbers take {needed:,} bytes, more than "
            f"max_bytes={max_bytes:,}. Take fewer draws or chains, a smaller network, or a larger max_bytes."
        )


@dataclass(frozen=True, eq=False)
class FullBatch:
    """All training data as one batch, once for each transition."""

    batch: Batch
    transitions: int

    @classmethod
    def of(cls, problem: Problem, data: Data, transitions: int, dtype: torch.dtype) -> "FullBatch":
        """Gather the batches of one epoch.

        Raises:
            InvalidInput: where the network's activations for all data would not fit into memory, for augmented data, and where
                an epoch does not deliver each datum once.
        """
        if getattr(data, "augment", None) is not None:
            raise InvalidInput(
                "augment=… shows other inputs at every pass, and this method needs the same. Leave it out, or take "
                "a method of batches: MeanField, SGHMC."
            )
        parts = list(data.batches(0, torch.Generator().manual_seed(0)))
        shapes = {(part[0].shape[1:], part[1].shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise InvalidInput(
                "This method takes all data at once, and the batches of these have inputs or targets of several "
                "shapes. Pad all of them to one length, or take a method of batches: MeanField, SGHMC."
            )
        batch = joined(parts)
        inputs = batch[0]
        repeated = getattr(data, "repeated", 0)
        if not isclose(float(size(batch)), data.num_data, rel_tol=1e-6) or repeated:
            again = f", {repeated:,} of them again" if repeated else ""
            raise InvalidInput(
                f"This method takes all data at once, and an epoch of these delivers {len(inputs):,} of "
                f"{data.num_data:,}{again}. Give a loader that delivers each datum once, or take MeanField or SGHMC."
            )
        with torch.no_grad():
            needed = activation_bytes(problem.snapshot(), inputs[:1]) * len(inputs)
        if needed > BATCH_BYTES:
            raise InvalidInput(
                f"One gradient over all {len(inputs):,} data needs about {needed:,} bytes of activations, more than "
                f"{BATCH_BYTES:,}. Use fewer data or a smaller network, or a method that takes batches: MeanField, SGHMC."
            )
        return cls(tuple(_cast(part, dtype) for part in batch), transitions)  # type: ignore[arg-type]  # as many as there were

    @property
    def num_data(self) -> float:
        return float(size(self.batch))

    @property
    def steps_per_epoch(self) -> int:
        return min(PER_EPOCH, self.transitions)

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]:
        """Give the same batch for each transition of this part of the run; the last part may be shorter."""
        for _ in range(min(PER_EPOCH, self.transitions - epoch * PER_EPOCH)):
            yield self.batch

    def validation(self) -> None:
        return None


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values
