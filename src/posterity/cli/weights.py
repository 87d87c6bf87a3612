"""Weights of a network that was trained elsewhere: a `state_dict` in a file, held against the network that it is for."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from posterity.data.files import corrupt
from posterity.errors import InvalidInput, Mismatch

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
KINDS = (".safetensors", *PICKLED)
NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints of other libraries keep the weights
WRAPPER = "module."  # what DataParallel puts before every name
SHOWN = 8  # rows of a difference


def is_posterior(path: Path) -> bool:
    """Tell whether a file is one of posterity's; of weights alone it is not."""
    if path.suffix.lower() != ".safetensors":
        return path.suffix.lower() not in PICKLED
    try:
        with safe_open(path, framework="pt") as file:
            return "posterity" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True  # damaged: whoever opens it as a posterior says so


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights and buffers of a file into a network, if every name and shape is the network's.

    Raises:
        InvalidInput: for a file that is not there, is a posterior, or holds no `state_dict`, and for weights not finite.
        CorruptFile: for a damaged one.
        Mismatch: with what is missing, what is too many, and what has another shape.
    """
    found = read_weights(path)
    known = network.state_dict()
    rows = [
        *(
            f"  {n}: missing in the file; the network's has shape {_shape(v)}"
            for n, v in known.items()
            if n not in found
        ),
        *(f"  {n}: {_shape(v)} in the file; the network has no such name" for n, v in found.items() if n not in known),
        *(
            f"  {n}: {_shape(v)} in the file, {_shape(known[n])} in the network"
            for n, v in found.items()
            if n in known and v.shape != known[n].shape
        ),
    ]
    if rows:
        more = f"\n  and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise Mismatch(
            f"{path} is of another network than {type(network).__name__}:\n" + "\n".join(rows[:SHOWN]) + more
        )
    for name, value in found.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InvalidInput(f"{path}: {name} holds NaN or infinite values; take a checkpoint of before.")
    network.load_state_dict(found)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; a pickle is read as weights alone, and runs no code. Errors are those of `load_weights`."""
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise InvalidInput(f"{path}: weights are in a file of kind {', '.join(KINDS)}.")
    if not path.is_file():
        raise InvalidInput(f"There is no file of weights {path}.")
    if suffix == ".safetensors":
        if is_posterior(path):
            raise InvalidInput(f"{path} is a posterior, or damaged; a file of weights was expected.")
        found: Any = load_file(path)
    else:
        found = _unpickled(path)
    names = {_without_wrapper(name): value for name, value in found.items()}
    wrapped = all(name.startswith(WRAPPER) for name in names)
    return {name.removeprefix(WRAPPER) if wrapped else name: value for name, value in names.items()}


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidInput(
            f"{path} holds objects beside weights, which would have to be run to be read. Write the weights alone: "
            "torch.save(network.state_dict(), 'weights.pt')."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise corrupt(path, f"it holds no weights that can be read ({str(error).splitlines()[0]})") from error
    for key in NESTED:
        if isinstance(found, Mapping) and _is_state(found.get(key)):
            return dict(found[key])
    if not _is_state(found):
        raise InvalidInput(
            f"{path} holds no state_dict, tensors by name: torch.save(network.state_dict(), 'weights.pt')."
        )
    return dict(found)


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _without_wrapper(name: str) -> str:
    """Return a parameter's name without what `torch.compile` puts before it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
