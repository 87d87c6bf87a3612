"""Roots and integrals of smooth functions, for all numbers of a tensor at once."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from posterity.errors import PosterityWarning

STEPS = 160  # of a search on a line, at most
CLOSE = 1e-15  # on a line of length 160, or of a number on it
TOLERANCE = 1e-6  # of the CRPS: the change from one number of panels to its double, whose own error is far less
NODES, PANELS = 16, 1024  # of Gauss–Legendre quadrature: nodes of a panel, most panels of one side


def crossing(function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor) -> Tensor:
    """Return where a rising function becomes ≥ 0 between two ends, for all numbers of a tensor at once (Chandrupatla 1997)."""
    a, b, c = upper, lower, upper
    fa, fb = torch.ones_like(a), -torch.ones_like(b)
    share = torch.full_like(a, 0.5)
    for _ in range(STEPS):
        x = a + share * (b - a)
        f = function(x)
        f = torch.where(f == 0, 1e-300, f)  # what is met is not below
        same = (f > 0) == (fa > 0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, f
        least = CLOSE * (1 + a.abs()) / (b - a).abs().clamp(min=1e-300)
        if bool((least > 0.5).all()):
            break
        place, level = (a - b) / (c - b), (fa - fb) / (fc - fb)
        curved = (level.square() < place) & ((1 - level).square() < 1 - place)
        through = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        share = torch.where(curved & through.isfinite(), through, 0.5)
        share = share.maximum(least).minimum(1 - least)
    return torch.where(fa > 0, a, b)


def rule(panels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of Gauss–Legendre quadrature on so many panels of [0, 1]."""
    nodes, weights = (like.new_tensor(part) for part in np.polynomial.legendre.leggauss(NODES))
    starts = torch.arange(panels, dtype=like.dtype, device=like.device)[:, None]
    return ((starts + (nodes + 1) / 2) / panels).flatten(), (weights / 2 / panels).repeat(panels)


def refined(integral: Callable[[int], Tensor]) -> Tensor:
    """Double the panels until no integral changes."""
    panels, before = 2, integral(1)
    while True:
        after: Tensor = integral(panels)
        change = ((after - before).abs() / after.abs().clamp(min=1e-300)).max() if after.numel() else 0.0
        if change <= TOLERANCE:
            return after
        if panels >= PANELS:
            warnings.warn(
                f"The CRPS is known to {float(change):.1g} of its value here.", PosterityWarning, stacklevel=4
            )
            return after
        panels, before = 2 * panels, after
