"""Targets as people hold them, beside the outputs that they are given for: what can be seen of their shape and values."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from posterity.types import IGNORED


@dataclass(frozen=True, eq=False)
class Held:
    """Targets as people hold them, beside outputs (B, *sites, D) with the classes or values last.

    Args:
        targets: of any shape and type.
        outputs: the shape of the outputs.
        axes: those of the network's own outputs, where a likelihood names them.

    >>> Held(torch.tensor([[0, 1], [1, 0]]), torch.Size([2, 1])).one_hot
    -1
    """

    targets: Tensor
    outputs: torch.Size
    axes: str | None = None

    @property
    def width(self) -> int:
        """D: the number of classes, or of values for each target."""
        return self.outputs[-1]

    @property
    def columns(self) -> int:
        """The number of values that each target has in its second axis, 1 where there is none."""
        return self.targets.shape[1] if self.targets.dim() > 1 else 1

    @property
    def like_outputs(self) -> bool:
        return self.targets.shape == self.outputs

    @property
    def column(self) -> bool:
        return self.targets.dim() == 2 and self.targets.shape[1] == 1

    @property
    def single(self) -> bool:
        """Whether there is one number for each example."""
        return self.targets.dim() == 1 or self.column

    @property
    def real(self) -> bool:
        return self.targets.is_floating_point()

    @property
    def sited(self) -> bool:
        """Whether the outputs have axes of sites, such as pixels, between batch and classes."""
        return len(self.outputs) > 2

    @property
    def two(self) -> bool:
        """Whether there is one output for labels of two values, whichever they are."""
        return self.width == 1 and self.whole and len(self.values) == 2

    @cached_property
    def values(self) -> Tensor:
        """All different values but −100, sorted, as float64."""
        plain = torch.view_as_real(self.targets) if self.targets.is_complex() else self.targets
        flat = plain.reshape(-1).double()
        values: Tensor = flat[flat != IGNORED].unique()
        return values

    @cached_property
    def missing(self) -> bool:
        return not bool(self.values.isfinite().all())

    @cached_property
    def whole(self) -> bool:
        return not self.missing and bool((self.values == self.values.round()).all())

    @cached_property
    def low(self) -> int:
        return int(self.values[0])

    @cached_property
    def high(self) -> int:
        return int(self.values[-1])

    @cached_property
    def fractions(self) -> bool:
        """Whether these are numbers between 0 and 1, and not whole ones alone."""
        return (
            self.real and not self.missing and not self.whole and bool((self.values.clamp(0, 1) == self.values).all())
        )

    def only(self, *values: int) -> bool:
        """Say whether there are no other values than these, and all of them but one at most."""
        return not self.missing and bool(torch.isin(self.values, torch.tensor(values).double()).all())

    def named(self, first: int) -> bool:
        """Whether these are labels of as many classes as there are outputs, from this number on; not all need occur."""
        return self.whole and first <= self.low and self.high < first + self.width

    @cached_property
    def one_hot(self) -> int | None:
        """The axis along which each target is one-hot, after the batch or last; None where there is none."""
        whole = self.targets.dim() == len(self.outputs) and self.only(0, 1)
        axes = [a for a in (1, -1) if whole and self.targets.shape[a] > 1 and self._ones(a)]
        return axes[-1] if axes else None

    def _ones(self, axis: int) -> bool:
        return bool((self.targets.double().sum(axis) == 1).all())

    @cached_property
    def sums_to_one(self) -> bool:
        """Whether each row of fractions is a distribution."""
        return (
            self.fractions and self.targets.dim() > 1 and bool(((self.targets.double().sum(-1) - 1).abs() < 1e-3).all())
        )

    @property
    def class_axis(self) -> int:
        """Where the network's own outputs have their classes: 1, or -1."""
        return -1 if self.axes and self.axes[-1] == "C" else 1

    @cached_property
    def sites(self) -> tuple[int, ...] | None:
        """The sites of the network's own outputs (B, D, *sites) or (B, *sites, D), where targets hold as many in one axis."""
        each = (tuple(self.outputs[2:]), tuple(self.outputs[1:-1]))
        counts = [sites for sites in each if len(sites) > 1 and torch.Size(sites).numel() == self.columns]
        return counts[0] if counts and self.targets.dim() == 2 else None
