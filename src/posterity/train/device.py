"""Which device a name means here."""

import torch

from posterity.errors import InvalidInput


def device_of(name: str) -> torch.device:
    """Return a device by name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        InvalidInput: where torch knows no such device, or this machine has none.

    >>> device_of("cpu")
    device(type='cpu')
    """
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"Device '{name}' cannot be used here ({str(error).splitlines()[0]}). Use 'auto'."
        ) from error
