"""A learnt noise level beside what a linear model leaves of the same targets: a fit that is worse has not arrived.

The residuals of a fit's own functions do not tell of it: the noise level is theirs wherever the weights stand.
"""

from dataclasses import dataclass
from math import log
from typing import Self

from torch import Tensor

from posterity.methods.arrival import Remark
from posterity.model.noise import line_leaves
from posterity.types import Batch, Data

ABOVE = 0.1  # of the linear model's


@dataclass(frozen=True, eq=False)
class Line:
    """What a linear model leaves of each target, (D,), of how many data, and how much a noise level may be above by chance."""

    left: Tensor
    chance: float

    @classmethod
    def of(cls, data: Data, batch: Batch) -> Self | None:
        """Fit it to all data in memory, or to some; None for what is no table, and for data that do not count alike."""
        whole = getattr(data, "whole", None)
        seen = batch if whole is None else whole
        if len(seen) == 3 and not bool((seen[-1] == 1).all()):
            return None
        inputs, targets = seen[:2]
        if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor) and targets.is_floating_point()):
            return None
        left = line_leaves(inputs, targets) if len(inputs) == len(targets) else None
        if left is None:
            return None
        sampling = 0.0 if whole is not None else 2 / (2 * len(targets)) ** 0.5
        return cls(left, 2 * (inputs[:1].numel() + 1) / len(targets) + sampling)


def beside_line(line: Line | None, draws: Tensor | None) -> list[Remark]:
    """Say that the noise level, of draws (S,) or (S, D), is above what a linear model leaves."""
    if line is None or draws is None:
        return []
    levels = draws.double().cpu().reshape(len(draws), -1).median(0).values
    if levels.shape != line.left.shape or not bool((line.left > 0).all()):
        return []
    ratios = (levels / line.left).log()
    worst = int(ratios.argmax())
    if not float(ratios[worst]) > log(1 + ABOVE) + line.chance:
        return []
    return [
        Remark(
            "line",
            f"The noise level is {levels[worst]:.3g}, and a linear model of the same inputs leaves {line.left[worst]:.3g} of "
            "the targets: the network does not fit them as well as a line yet, and the noise level is too high for the data. "
            "Train longer, with another lr, or with a wider prior.",
        )
    ]
