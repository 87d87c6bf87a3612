"""Targets that a likelihood of one's own cannot give, found before anything is trained."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from posterity.errors import InvalidInput
from posterity.weighing import separate


@torch.no_grad()
def check_support(distribution: Distribution, targets: Tensor) -> None:
    """Refuse targets that a distribution cannot give, by the first of them; all else a rehearsal refuses."""
    try:
        support: Any = distribution.support
        fits = support.check(targets)
        shown = type(support).__name__.strip("_") if "tensor" in str(support) else str(support)
    except Exception:  # what is not ours may raise anything
        return
    name = type(distribution).__name__
    if fits.shape[:1] == targets.shape[:1] and not fits.all():
        row = int((~fits.reshape(len(targets), -1).all(1)).nonzero()[0, 0])
        raise InvalidInput(
            f"Target {row} is {targets[row].tolist()}, which {name} cannot give; its targets are in {shown}."
        )
    try:
        dense = distribution.log_prob(targets).isfinite()
    except Exception:
        return
    if dense.shape == targets.shape[:1] and not dense.all() and dense.double().mean() > 0.5:
        row = int((~dense).nonzero()[0, 0])
        raise InvalidInput(
            f"Target {row} is {targets[row].tolist()}, to which {name} gives a log-density that is NaN or infinite at the "
            f"network's first outputs, unlike others: does it lie on the bound of what {name} can give? Move it inside, or "
            "leave it out."
        )


def refuse_parts(name: str, distribution: Distribution, targets: Tensor, known: Tensor | None) -> None:
    """Refuse targets of which some numbers are missing where only all of them have a density."""
    if known is None or separate(distribution, targets):
        return
    each = known.flatten(1) if known.dim() > 1 else known[:, None]
    parts = each.any(1) & ~each.all(1)
    if bool(parts.any()):
        raise InvalidInput(
            f"Target {int(parts.nonzero()[0, 0])} misses some of its numbers, and {name} gives a density to all of them "
            "together alone: make it NaN as a whole, which leaves it out, or take a likelihood of numbers that are each by "
            "themselves."
        )
