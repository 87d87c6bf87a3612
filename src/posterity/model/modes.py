"""Which modules of a network keep still, in eval mode, while the rest of it is trained."""

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def still(network: nn.Module) -> frozenset[str]:
    """Name the modules that stay in eval mode when the network is trained: `placed(network) | frozen(network)`.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    >>> _ = network[1].requires_grad_(False), network[2].eval()
    >>> sorted(still(network))
    ['1', '2']
    >>> train(network, still(network))
    >>> [m.training for m in network]
    [True, False, False, True, True]
    """
    return placed(network) | frozen(network)


def placed(network: nn.Module) -> frozenset[str]:
    """Name what stands in eval mode inside a network in train mode: somebody has put it there, or its own `train` does."""
    modes = {module: module.training for module in network.modules()}
    try:
        if not network.training:  # it comes from a use of it; what stands in eval mode now says nothing of its training
            network.train()
        return frozenset(n for n, m in network.named_modules() if not m.training)
    finally:
        for module, mode in modes.items():
            module.training = mode


def frozen(network: nn.Module, movers: Set[str] = frozenset()) -> frozenset[str]:
    """Name the normalisation layers, torch's and these, whose running statistics belong to weights that do not move.

    Those with parameters, none of which is trainable; those without, inside a module (the innermost with parameters) that has
    no trainable one either; and those whose momentum somebody has set to 0.
    """
    modules = dict(network.named_modules())
    return frozenset(
        name
        for name, module in modules.items()
        if _has_statistics(name, module, movers)
        and (_is_frozen(name, modules) or getattr(module, "momentum", None) == 0)
    )


def moving(network: nn.Module, still: Set[str], movers: Set[str] = frozenset()) -> list[nn.Module]:
    """Return the layers whose running statistics move while the network is trained: they are those of one θ.

    They are torch's normalisation, and modules of these names; see `posterity.model.running.moved`.
    """
    named = network.named_modules()
    return [module for name, module in named if name not in still and _has_statistics(name, module, movers)]


@contextmanager
def in_place(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let these modules' buffers be the same tensors after the block: one that was replaced has the new one's values.

    `self.mean = 0.9 * self.mean + 0.1 * x.mean(0)` makes another tensor, of which nobody knows who holds the first one.
    """
    before = [(module, dict(module._buffers)) for module in modules]
    yield
    with torch.no_grad():
        for module, buffers in before:
            for name, buffer in buffers.items():
                new = module._buffers[name]
                if buffer is not None and new is not None and new is not buffer:
                    module._buffers[name] = buffer.copy_(new)


def train(network: nn.Module, still: Set[str]) -> None:
    """Put a network in train mode, but for the modules of these names."""
    network.train()
    keep_still(network, still)


def keep_still(network: nn.Module, still: Set[str]) -> None:
    """Put the modules of these names in eval mode, each alone: what they hold is named by itself."""
    for name, module in network.named_modules():
        if name in still:
            module.training = False


def _has_statistics(name: str, module: nn.Module, movers: Set[str]) -> bool:
    return name in movers or (isinstance(module, _NormBase) and module.track_running_stats)


def _is_frozen(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether the innermost module with parameters, from this one outwards, has no trainable one."""
    while True:
        trainable = [p.requires_grad for p in modules[name].parameters()] if name in modules else []
        if trainable or not name:
            return bool(trainable) and not any(trainable)
        name = name.rpartition(".")[0]
