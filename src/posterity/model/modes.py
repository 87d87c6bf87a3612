"""Which modules of a network keep still, in eval mode, while the rest of it is trained."""

from collections.abc import Set

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
    """Name what stands in eval mode inside a network in train mode: somebody has put it there."""
    if not network.training:
        return frozenset()  # the whole network comes from a use of it; that says nothing of its training
    return frozenset(n for n, m in network.named_modules() if not m.training)


def frozen(network: nn.Module) -> frozenset[str]:
    """Name the normalisation layers whose running statistics belong to weights that do not move.

    Those with parameters, none of which is trainable; and those without, inside a module (the innermost with parameters)
    that has no trainable one either.
    """
    modules = dict(network.named_modules())
    return frozenset(
        name
        for name, module in modules.items()
        if isinstance(module, _NormBase) and module.track_running_stats and _is_frozen(name, modules)
    )


def moving(network: nn.Module, still: Set[str]) -> list[_NormBase]:
    """Return the layers whose running statistics move while the network is trained: they are those of one θ."""
    named = network.named_modules()
    return [m for name, m in named if isinstance(m, _NormBase) and m.track_running_stats and name not in still]


def train(network: nn.Module, still: Set[str]) -> None:
    """Put a network in train mode, but for the modules of these names."""
    network.train()
    keep_still(network, still)


def keep_still(network: nn.Module, still: Set[str]) -> None:
    """Put the modules of these names in eval mode, each alone: what they hold is named by itself."""
    for name, module in network.named_modules():
        if name in still:
            module.training = False


def _is_frozen(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether the innermost module with parameters, from this one outwards, has no trainable one."""
    while True:
        trainable = [p.requires_grad for p in modules[name].parameters()] if name in modules else []
        if trainable or not name:
            return bool(trainable) and not any(trainable)
        name = name.rpartition(".")[0]
