"""Which device a name means here, and in which precision a network runs there."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from posterity.errors import InvalidInput
from posterity.text import short


def device_of(name: str) -> torch.device:
    """Return a device by name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        InvalidInput: where torch knows no such device, or this machine has none.

    >>> device_of("cpu")
    device(type='cpu')
    """
    if isinstance(name, str) and name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        if name is None:
            raise TypeError("it has no name")
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        why = short(next(iter(str(error).splitlines()), ""), 200)
        raise InvalidInput(f"Device '{short(str(name))}' cannot be used here ({why}). Use 'auto'.") from error


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Have networks run in bfloat16 where that is asked for; parameters keep their own precision."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)
