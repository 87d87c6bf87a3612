"""What was probably meant by targets that do not fit, and the line to write: one table for each family of likelihoods.

A row is a condition on the targets as they are held and a sentence; the first that holds is said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

IGNORED = -100  # the label that is not known
VOID = 255  # what label maps have where nothing is labelled


@dataclass(frozen=True, eq=False)
class Held:
    """Targets as people hold them, beside outputs (B, *sites, D) with the classes or values last."""

    targets: Tensor
    outputs: torch.Size

    @property
    def width(self) -> int:
        """D: the number of classes, or of values for each target."""
        return self.outputs[-1]

    @property
    def like_outputs(self) -> bool:
        return self.targets.shape == self.outputs

    @property
    def column(self) -> bool:
        return self.targets.dim() == 2 and self.targets.shape[1] == 1

    @property
    def real(self) -> bool:
        return self.targets.is_floating_point()

    @cached_property
    def values(self) -> Tensor:
        """All different values but −100, sorted, as float64."""
        flat = self.targets.reshape(-1).double()
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

    def only(self, *values: int) -> bool:
        """Say whether there are no other values than these, and all of them but one at most."""
        return not self.missing and bool(torch.isin(self.values, torch.tensor(values).double()).all())

    @cached_property
    def rows_sum_to_one(self) -> bool:
        if self.targets.dim() < 2 or self.missing:
            return False
        sums = self.targets.double().sum(-1)
        return bool(((sums - 1).abs() < 1e-3).all()) and float(self.values[0]) >= 0


Row: TypeAlias = tuple[Callable[[Held], bool], str]
MISSING = "Some are NaN: leave them out, keep = targets.isfinite(), then inputs[keep], targets[keep]."

CLASSES: Sequence[Row] = (
    (lambda t: t.missing, MISSING + " A class label that is not known is −100."),
    (
        lambda t: t.width == 1 and t.only(0, 1),
        "One output and labels 0 and 1: likelihood=Bernoulli(), targets.float().",
    ),
    (
        lambda t: t.real and not t.whole and t.rows_sum_to_one and t.like_outputs,
        "Rows of probabilities (soft labels): take the most probable class, targets.argmax(-1), or write a Likelihood of "
        "your own.",
    ),
    (
        lambda t: t.real and not t.whole,
        "Real values: likelihood=Gaussian(), and one output of the network for each value.",
    ),
    (lambda t: t.like_outputs and t.rows_sum_to_one and t.only(0, 1), "One-hot rows: targets.argmax(-1)."),
    (
        lambda t: t.like_outputs and t.only(0, 1),
        "Several labels for each example: likelihood=Bernoulli(), of targets 0 and 1 for each output.",
    ),
    (lambda t: t.column and t.width > 1 and t.low >= 0 and t.high < t.width, "A column: targets.squeeze(-1).long()."),
    (
        lambda t: t.targets.dim() == len(t.outputs) and t.targets.shape[1] == 1 and len(t.outputs) > 2,
        "An axis too many: targets.squeeze(1).long().",
    ),
    (lambda t: t.only(-1, 1), "Labels −1 and 1: write (targets > 0).long()."),
    (lambda t: t.only(0, VOID), "Values 0 and 255: write (targets > 0).long()."),
    (
        lambda t: t.high == VOID and t.width <= VOID,
        "255 marks what is not labelled (void) in label maps: targets.long().masked_fill(targets == 255, -100).",
    ),
    (
        lambda t: t.real and t.low >= 0 and t.high < t.width,
        "Class labels held as floats: targets.long(). Real values: likelihood=Gaussian().",
    ),
    (lambda t: t.low == 1 and t.high == t.width, "Labels from 1 on: targets - 1."),
    (
        lambda t: t.low == -1 and t.high < t.width,
        "If −1 is a label that is not known, it is −100 here: targets.masked_fill(targets == -1, -100).",
    ),
    (
        lambda t: t.real or len(t.values) > max(20, 2 * t.width),
        "So many different numbers are values rather than classes: likelihood=Gaussian(), targets.float(), and one output.",
    ),
    (
        lambda t: t.low < 0 or t.high + 1 > 2 * len(t.values) + 2,
        "Number the classes from 0: names, targets = targets.unique(return_inverse=True), and as many outputs as names.",
    ),
    (lambda t: True, "Give the network {classes} outputs, or number the classes from 0."),
)

BINARY: Sequence[Row] = (
    (lambda t: t.missing, MISSING + " A label that is not known is −100."),
    (lambda t: t.column and t.width == 1 and t.only(0, 1), "A column: targets.squeeze(-1)."),
    (
        lambda t: t.targets.dim() == 1 and t.width > 1 and t.only(*range(t.width)),
        "One label for each example and {width} outputs: likelihood=Categorical(), targets.long().",
    ),
    (
        lambda t: t.targets.dim() == len(t.outputs) - 1 and t.outputs[1:2] == (1,) and t.only(0, 1),
        "Masks need the axis of the outputs: targets.unsqueeze(1).",
    ),
    (lambda t: t.only(-1, 1), "Labels −1 and 1: write (targets > 0).float()."),
    (lambda t: t.only(1, 2), "Labels 1 and 2: targets - 1."),
    (lambda t: t.only(0, VOID), "Values 0 and 255: write (targets > 0).float()."),
    (
        lambda t: t.real and not t.whole and float(t.values[0]) >= 0 and float(t.values[-1]) <= 1,
        "Probabilities (soft labels): write (targets > 0.5).float(), or a Likelihood of your own.",
    ),
    (
        lambda t: t.whole and t.low >= 0 and t.high > 1,
        "More than two classes: likelihood=Categorical(), targets.long(), and {classes} outputs of the network.",
    ),
    (lambda t: not t.whole, "Real values: likelihood=Gaussian()."),
    (lambda t: True, "One label for each output: targets of the outputs' shape; (B,) for outputs (B, 1)."),
)

VALUES: Sequence[Row] = (
    (lambda t: t.missing, MISSING),
    (lambda t: t.column and t.width == 1, "A column: targets.squeeze(-1).float()."),
    (
        lambda t: t.targets.dim() == 1 and t.width > 1 and not t.real and t.low >= 0 and t.high < t.width,
        "Labels of {width} classes: likelihood=Categorical(). One value for each example: targets.float(), and one output.",
    ),
    (
        lambda t: t.targets.dim() == 1 and t.width > 1,
        "One value for each example needs one output of the network, which has {width}.",
    ),
    (
        lambda t: t.targets.dim() == 2 and t.targets.shape[1] != t.width,
        "Give the network {columns} outputs, one for each column of targets.",
    ),
    (
        lambda t: not t.real,
        "Counts and other whole numbers: targets.float(). Class labels: likelihood=Categorical().",
    ),
    (lambda t: True, "Targets of the outputs' shape; (B,) for outputs (B, 1)."),
)


def advice(table: Sequence[Row], targets: Tensor, outputs: torch.Size) -> str:
    """Say what was probably meant by targets, given the shape of the outputs with classes or values last.

    >>> advice(CLASSES, torch.tensor([1, 2, 3]), torch.Size([3, 3]))
    'Labels from 1 on: targets - 1.'
    """
    held = Held(targets, outputs)
    if not len(held.values):
        return f"All are {IGNORED}, not known."
    text = next(text for holds, text in table if holds(held))
    columns = targets.shape[1] if targets.dim() > 1 else 1
    classes = 0 if held.missing else max(held.high + 1, 2)
    return text.format(width=held.width, columns=columns, classes=classes)
