"""What a network is, by its names: without the wrappers that `torch.compile` puts around modules, and without addresses."""

import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from torch import nn

from posterity.model.problem import Problem

WRAPPED = "_orig_mod"  # what torch.compile calls the module that it wraps


@contextmanager
def plain(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the network with every compiled module replaced by the one that it wraps, and put them back afterwards.

    So parameters are called `fc.weight` and not `_orig_mod.fc.weight`: a posterior of a compiled network is one of the plain.
    """
    whole = _unwrapped(network)
    swapped = [
        (parent, name, child)
        for parent in whole.modules()
        for name, child in parent.named_children()
        if _unwrapped(child) is not child
    ]
    for parent, name, child in swapped:
        parent._modules[name] = _unwrapped(child)
    try:
        yield whole
    finally:
        for parent, name, child in swapped:
            parent._modules[name] = child


def plain_name(name: str) -> str:
    """Return a parameter's name in the plain network.

    >>> plain_name("_orig_mod.encoder._orig_mod.weight")
    'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def structure(network: nn.Module) -> str:
    """Print a network's modules and their settings, without memory addresses: what shapes alone do not tell apart."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(network))


def identity(problem: Problem) -> Hashable:
    """Return what two problems share where a θ of one means the same to the other."""
    layout, where = problem.layout, problem.coordinates
    with plain(problem.network) as network:
        form = type(network).__qualname__, structure(network)
    names = tuple(map(plain_name, layout.names))
    return (*form, names, layout.shapes, where.start, where.network, where.noncentred)


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = module._modules.get(WRAPPED)
    return _unwrapped(inner) if inner is not None and type(module).__name__ == "OptimizedModule" else module
