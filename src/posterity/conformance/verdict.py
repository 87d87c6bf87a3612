"""How a law was answered: what was measured, what was expected, and how far apart the two may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LIMIT = 4.0  # Monte-Carlo standard errors that a measurement may be away
Status = Literal["kept", "broken", "not applicable", "not asked"]


@dataclass(frozen=True)
class Check:
    """One number measured.

    Args:
        quantity: what it is, in words.
        measured, expected: it must be |measured − expected| ≤ tolerance.
        tolerance: LIMIT standard errors and what floating-point numbers, or an optimiser's last steps, leave.
        standard_error: Monte Carlo's; 0 where nothing is random.
    """

    quantity: str
    measured: float
    expected: float
    tolerance: float
    standard_error: float = 0.0

    @property
    def excess(self) -> float:
        """Distance in units of the tolerance: above 1 is too far; infinite for a NaN."""
        distance = abs(self.measured - self.expected)
        if not distance <= self.tolerance:
            return distance / self.tolerance if self.tolerance > 0 and distance == distance else float("inf")
        return distance / self.tolerance if self.tolerance > 0 else 0.0


@dataclass(frozen=True)
class Verdict:
    """What a law says of a subject: `check` is the number that was furthest off, `note` says why there is none.

    Args:
        law: 1 … 14.
        status: kept, broken; not applicable (the law says nothing about such a method), not asked (it cannot be).
        seconds: of processor time that it took.
    """

    law: int
    status: Status
    check: Check | None = None
    note: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.status == "kept"

    @property
    def failed(self) -> bool:
        return self.status == "broken"


def worst(law: int, checks: Sequence[Check]) -> Verdict:
    """Judge by the number that is furthest off.

    >>> worst(1, [Check("a", 1.0, 1.1, 0.2), Check("b", 2.0, 3.0, 0.5)]).status
    'broken'
    """
    check = max(checks, key=lambda c: c.excess)
    return Verdict(law, "kept" if check.excess <= 1 else "broken", check)


def compared(
    quantity: str,
    measured: Tensor | float,
    expected: Tensor | float,
    *,
    error: Tensor | float = 0.0,
    atol: Tensor | float = 0.0,
) -> Check:
    """Compare element by element, and return the one that is furthest off; all broadcast.

    Args:
        error: Monte-Carlo standard errors. atol: what is allowed beside LIMIT of them.

    >>> compared("mean", torch.tensor([0.1, 0.9], dtype=torch.float64), 0.0, error=0.1).excess
    2.25
    """
    tensors = (torch.as_tensor(v, dtype=torch.float64) for v in (measured, expected, error, atol))
    found, right, spread, slack = (t.flatten() for t in torch.broadcast_tensors(*tensors))
    tolerance = LIMIT * spread + slack
    distance = ((found - right).abs() / tolerance.clamp(min=1e-300)).nan_to_num(nan=torch.inf)
    k = int(distance.argmax())
    return Check(quantity, float(found[k]), float(right[k]), float(tolerance[k]), float(spread[k]))


def counted(quantity: str, right: Sequence[bool]) -> Check:
    """Expect all of them.

    >>> counted("refused", [True, False]).measured
    1.0
    """
    return Check(quantity, float(sum(right)), float(len(right)), 0.0)
