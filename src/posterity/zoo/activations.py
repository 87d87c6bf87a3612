"""The activations that the zoo's networks offer, by name."""

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from posterity.errors import unknown

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: MappingProxyType[str, Activation] = MappingProxyType(
    {
        "relu": functional.relu,
        "softplus": functional.softplus,
        "tanh": torch.tanh,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }
)


def activation_named(name: str) -> Activation:
    """Return the activation of that name. Raises `InvalidInput`, with the nearest name.

    >>> activation_named("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
