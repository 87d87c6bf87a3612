"""Inputs that a run was not trained on, brought to the form that its network takes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from posterity.cli.inputs import IMAGES, fitted, read_inputs
from posterity.cli.saved import Saved
from posterity.cli.shift import some
from posterity.data import Dataset, load
from posterity.data.own import TABLES
from posterity.data.pictures import below
from posterity.data.shift import SEVERITIES, corruptions, shuffled
from posterity.errors import InvalidInput, Mismatch

FILES = (*IMAGES, *TABLES, ".npy")
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as for single images


def outside_sets(saved: Saved, names: Sequence[str], limit: int, seed: int) -> dict[str, Tensor]:
    """Read sets by name, or folders and files by path: at most `limit` inputs of each, as the network takes them.

    Raises:
        DataNotFound, CorruptFile, InvalidInput: where one cannot be read.
        Mismatch: where its inputs cannot be brought to the network's form.
    """
    found = {}
    for name in names:
        label = name if not Path(name).exists() else Path(name).stem
        if label in found:
            raise InvalidInput(f"--against {name}: '{label}' is there already.")
        found[label] = _read(saved, name, limit, seed)
    return found


def built_in(dataset: Dataset, inputs: Tensor, seed: int) -> dict[str, Tensor]:
    """Make sets outside of a run's own test inputs: every corruption at its worst, and shuffled pixels or columns."""
    made = {kind: apply(inputs, SEVERITIES[-1]) for kind, apply in corruptions(dataset, seed=seed).items()}
    what = "pixels" if inputs.dim() == 4 else "columns"
    return {**made, f"shuffled {what}": shuffled(inputs, seed)}


def _read(saved: Saved, name: str, limit: int, seed: int) -> Tensor:
    path = Path(name).expanduser()
    if path.is_dir():
        files = below(path)
        if not files:
            raise InvalidInput(f"--against {name}: there is no image in that folder ({', '.join(IMAGES)}).")
        chosen = [files[row] for row in some(len(files), limit, seed).tolist()]
        return read_inputs(chosen, saved, invert=False).inputs
    if path.suffix.lower() in FILES:
        inputs = read_inputs([path], saved, invert=False).inputs
        return inputs[some(len(inputs), limit, seed)]
    other = load(name, root=saved.config.data.root)
    rows = some(len(other.test_inputs), limit, seed)
    return _brought(saved, other, other.test_inputs[rows])


def _brought(saved: Saved, other: Dataset, inputs: Tensor) -> Tensor:
    """Bring inputs of another set to original units, to the network's form, and to the run's scaling."""
    shape, features = tuple(saved.data["input_shape"]), tuple(saved.data["features"])
    if other.scaling is not None:
        inputs = inputs * other.scaling.input_std + other.scaling.input_mean
    if len(shape) == 3 and inputs.dim() == 4:
        inputs = fitted(_coloured(inputs, shape[0]), saved)
    if tuple(inputs.shape[1:]) != shape or (features and other.features != features):
        theirs, own = _told(other.input_shape, other.features), _told(shape, features)
        raise Mismatch(
            f"--against {other.name} cannot be brought to this network: its inputs are {theirs}, the network's {own}."
        )
    return inputs if saved.scaling is None else saved.scaling.scale_inputs(inputs)


def _coloured(images: Tensor, channels: int) -> Tensor:
    """Give images (N, C, H, W) the network's channels: colours become grey, grey becomes colours."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 3:
        images = torch.einsum("nchw,c->nhw", images, torch.tensor(LUMINANCE, dtype=images.dtype))[:, None]
    return images.expand(-1, channels, -1, -1)


def _told(shape: Sequence[int], features: Sequence[str]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} columns" + (
            f" ({', '.join(features[:4])}{' …' if len(features) > 4 else ''})" if features else ""
        )
    return f"of shape {tuple(shape)}"
