"""Weights of a network that was trained elsewhere: a `state_dict` in a file, held against the network that it is for."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from posterity.data.files import corrupt
from posterity.errors import InvalidInput, Mismatch, PosterityError
from posterity.tensors import Check, Entry, read, read_header

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
KINDS = (".safetensors", *PICKLED)
NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
)  # where checkpoints of other libraries keep the weights, best first
WRAPPERS = ("module.", "model.", "net.", "network.")  # what DataParallel, and training loops, put before every name
Held = TypeVar("Held")  # a tensor, or what a header says of one
SHOWN = 8  # rows of a difference


def is_posterior(path: Path) -> bool:
    """Tell whether a file is one of posterity's; of weights alone it is not."""
    if path.suffix.lower() != ".safetensors":
        return path.suffix.lower() not in PICKLED
    try:
        return "posterity" in read_header(path).metadata
    except PosterityError:
        return True  # damaged: whoever opens it as a posterior says so


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights and buffers of a file into a network, if every name and shape is the network's.

    Raises:
        InvalidInput: for a file that is not there, is a posterior, or holds no `state_dict`, and for weights not finite.
        CorruptFile: for a damaged one.
        Mismatch: with what is missing, what is too many, and what has another shape.
    """
    known = network.state_dict()

    def check(_: object, held: Mapping[str, Entry]) -> None:
        _refuse_unlike(path, network, _unwrapped(_named(held), known))

    found = _unwrapped(read_weights(path, check), known)
    _refuse_unlike(path, network, found)
    for name, value in found.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InvalidInput(f"{path}: {name} holds NaN or infinite values; take a checkpoint of before.")
    network.load_state_dict(found)


def _refuse_unlike(path: Path, network: nn.Module, found: Mapping[str, Tensor | Entry]) -> None:
    """Hold names, shapes and kinds of numbers against the network's."""
    known = network.state_dict()
    rows = [
        *(
            f"  {n}: missing in the file; the network's has shape {_shape(v)}"
            for n, v in known.items()
            if n not in found
        ),
        *(f"  {n}: {_shape(v)} in the file; the network has no such name" for n, v in found.items() if n not in known),
    ]
    for n, v in found.items():
        if n in known and v.shape != known[n].shape:
            rows.append(f"  {n}: {_shape(v)} in the file, {_shape(known[n])} in the network")
        elif n in known and v.dtype.is_floating_point != known[n].dtype.is_floating_point:
            rows.append(f"  {n}: {v.dtype} in the file, {known[n].dtype} in the network")
    if rows:
        more = f"\n  and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise Mismatch(
            f"{path} is of another network than {type(network).__name__}:\n" + "\n".join(rows[:SHOWN]) + more
        )


def read_weights(path: Path, check: Check | None = None) -> dict[str, Tensor]:
    """Read tensors by name; a pickle is read as weights alone, and runs no code. Errors are those of `load_weights`."""
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise InvalidInput(f"{path}: weights are in a file of kind {', '.join(KINDS)}.")
    if not path.is_file():
        raise InvalidInput(f"There is no file of weights {path}.")
    if suffix == ".safetensors":
        if is_posterior(path):
            raise InvalidInput(f"{path} is a posterior, or damaged; a file of weights was expected.")
        _, found = read(path, None, check)
    else:
        found = dict(_unpickled(path))
    return _named(found)


def _named(found: Mapping[str, Held]) -> dict[str, Held]:
    """Give tensors the names that the network's own have, without those of wrappers."""
    names = {_without_wrapper(name): value for name, value in found.items()}
    wrapped = all(name.startswith(WRAPPERS[0]) for name in names)
    return {name.removeprefix(WRAPPERS[0]) if wrapped else name: value for name, value in names.items()}


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidInput(
            f"{path} holds objects beside weights, which would have to be run to be read. Write the weights alone: "
            "torch.save(network.state_dict(), 'weights.pt')."
        ) from error
    except Exception as error:  # of a file that is no pickle its reader raises whatever the bytes lead it to
        first = next(iter(str(error).splitlines()), "")
        reason = first if " " in first else "torch.save did not write it"
        raise corrupt(path, f"it holds no weights that can be read ({reason})") from error
    states = _states(found)
    if len(states) == 1 or (states and next(iter(states)).rpartition(".")[2] in ("", *NESTED)):
        return dict(next(iter(states.values())))
    content = f"several networks, {', '.join(states)}" if states else "no state_dict, tensors by name"
    raise InvalidInput(f"{path} holds {content}: torch.save(network.state_dict(), 'weights.pt').")


def _states(found: Any, name: str = "") -> dict[str, Mapping[str, Tensor]]:
    """Find what may be a network's weights in a checkpoint, the likeliest first."""
    if _is_state(found):
        return {name: found}
    if not isinstance(found, Mapping):
        return {}
    keys = sorted(
        (k for k in found if isinstance(k, str)), key=lambda k: NESTED.index(k) if k in NESTED else len(NESTED)
    )
    return {n: state for k in keys for n, state in _states(found[k], f"{name}.{k}" if name else k).items()}


def _unwrapped(found: dict[str, Held], known: Mapping[str, Any]) -> dict[str, Held]:
    """Leave out what is before every name in the file, where the names are the network's without it."""
    for wrapper in WRAPPERS:
        if all(n.startswith(wrapper) for n in found) and {n.removeprefix(wrapper) for n in found} == set(known):
            return {n.removeprefix(wrapper): value for n, value in found.items()}
    return found


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _shape(value: Tensor | Entry) -> tuple[int, ...]:
    return tuple(value.shape)


def _without_wrapper(name: str) -> str:
    """Return a parameter's name without what `torch.compile` puts before it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
