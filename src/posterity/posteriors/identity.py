"""What a network is, by its names and its settings: whether a θ of one means the same to another."""

import re
from collections.abc import Hashable

from torch import nn

from posterity.model.problem import Problem


def structure(network: nn.Module) -> str:
    """Print a network's modules and their settings, without memory addresses: what shapes alone do not tell apart."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(network))


def identity(problem: Problem) -> Hashable:
    """Return what two problems share where a θ of one means the same to the other."""
    layout, where = problem.layout, problem.coordinates
    form = type(problem.network).__qualname__, structure(problem.network)
    return (*form, layout.names, layout.part_shapes, where.start, where.network, where.noncentred)
