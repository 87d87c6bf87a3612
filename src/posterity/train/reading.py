"""Inputs and targets read from whatever people hold them in, or a line that says how to make a pair of tensors of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from posterity.errors import InvalidInput
from posterity.types import Batch

TARGETS = ("y", "label", "labels", "target", "targets", "class", "mask")  # what people call them in a mapping


def pair(batch: Any) -> Batch:
    """Read a batch of a loader: two tensors, or two arrays or lists of numbers, as (inputs, targets).

    Raises:
        InvalidInput: for anything else, with what to give the loader so that it delivers pairs.

    >>> pair([torch.zeros(2, 3), [0, 1]])[1]
    tensor([0, 1])
    """
    if not isinstance(batch, list | tuple) or len(batch) != 2 or hasattr(batch, "batch_sizes"):
        raise InvalidInput(
            f"A batch must be a pair of tensors (inputs, targets); the loader gave {shown(batch)}. {_of_loader(batch)}"
        )
    return _beside(tensor(batch[0], "inputs"), tensor(batch[1], "targets"))


def whole(data: Any) -> Batch:
    """Read a whole data set: a pair of tensors, arrays, frames or lists of numbers.

    Raises:
        InvalidInput: for anything else, with the line to write.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and not all(_is_data(part) for part in data):
        return tensor(data[0], "inputs"), tensor(data[1], "targets")
    raise InvalidInput(
        f"Data of type {type(data).__name__} were given; expected a DataLoader, a pair (inputs, targets) of tensors, or "
        f"TensorData. {_of_data(data)}"
    )


def tensor(values: Any, what: str) -> Tensor:
    """Make a dense tensor of numbers, with its first axis the batch's, of a tensor, array, frame, series or list.

    Raises:
        InvalidInput: for text, objects, ragged rows, several tensors, sparse tensors, and a single number.
    """
    if isinstance(values, Mapping) or (isinstance(values, Sequence) and any(isinstance(v, Tensor) for v in values)):
        raise InvalidInput(_several(values, what))
    numbers = values.detach() if isinstance(values, Tensor) else _of_numbers(values, what)
    if numbers.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch computes little with these
        numbers = numbers.long()
    if numbers.is_nested or numbers.layout != torch.strided:
        dense = f"torch.nested.to_padded_tensor({what}, 0.0)" if numbers.is_nested else f"{what}.to_dense()"
        raise InvalidInput(f"The {what} are a nested or sparse tensor; give a dense one, {dense}.")
    if numbers.dim() == 0:
        raise InvalidInput(
            f"The {what} are a single number; give one for each example of a batch: DataLoader(dataset, batch_size=32), not "
            "batch_size=None, or unsqueeze(0)."
        )
    if len(numbers) and not numbers.numel():
        raise InvalidInput(f"The {what} have shape {tuple(numbers.shape)}: there is no number in them.")
    return numbers


def weights_of(values: Any, targets: Tensor, anything: bool = True) -> Tensor:
    """Read the weights of data, (B,).

    Args:
        anything: whether they must count for anything together.

    Raises:
        InvalidInput: for other shapes, and weights that are below 0, or not finite, or all 0.
    """
    weights = tensor(values, "weights")
    if weights.shape != targets.shape[:1]:
        raise InvalidInput(
            f"Weights of shape {tuple(weights.shape)} were given for {len(targets)} targets; give one for each, (B,). A number "
            "of a target that is missing is NaN in the targets."
        )
    weights = weights if weights.is_floating_point() else weights.to(torch.get_default_dtype())
    fits = weights.isfinite() & (weights >= 0)
    if not bool(fits.all()):
        row = int((~fits).nonzero()[0, 0])
        raise InvalidInput(
            f"Weight {row} is {weights[row]:g}; a weight says how often a datum counts: at least 0, and finite."
        )
    if anything and not bool(weights.any()):
        raise InvalidInput("All weights are 0: there is nothing to learn from.")
    return weights


def shown(value: Any) -> str:
    """Say in a few words what a value is: its type, and what it holds."""
    name = type(value).__name__
    article = "an" if name[0] in "AEIOaeio" else "a"
    if isinstance(value, Tensor):
        return f"a single tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{article} {name} with {', '.join(repr(k) for k in list(value)[:6])}"
    if isinstance(value, list | tuple):
        return f"{article} {name} of {len(value)}: {', '.join(type(v).__name__ for v in value[:6])}"
    return f"{article} {name}"


def _of_numbers(values: Any, what: str) -> Tensor:
    array = values.to_numpy() if hasattr(values, "to_numpy") else values  # pandas, polars
    if isinstance(array, numpy.ma.MaskedArray) and array.mask.any():
        raise InvalidInput(
            f"Some of the {what} are masked, and what is under a mask is no number: leave these rows out, or fill them, "
            f"{what}.filled(…)."
        )
    if (
        isinstance(array, numpy.ndarray) and array.dtype.kind in "biuf"
    ):  # also those that are flipped, or of other machines
        array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("="))
    try:
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        first = _first(array)
        if isinstance(first, str | bytes):
            advice = (
                f"Text is no number: number it, as names, {what} = numpy.unique({what}, return_inverse=True), and keep names."
                if what == "targets"
                else "Text is no number: give columns of numbers, as pandas.get_dummies(frame, dtype='float32'), or indices "
                "of tokens."
            )
        elif getattr(getattr(array, "dtype", None), "kind", "") in ("M", "m"):
            advice = (
                f"Dates are no numbers: ({what} - {what}.min()) / numpy.timedelta64(1, 'D') are days since the first."
            )
        elif getattr(getattr(array, "dtype", None), "kind", "") == "O":
            kinds = "'int64') for labels, or .astype('float32') for values" if what == "targets" else "'float32')"
            advice = (
                f"An array of objects is no array of numbers: {what}.astype({kinds}, once nothing is missing in it."
            )
        else:
            advice = f"Rows of one length, all numbers, are wanted: numpy.asarray({what}, dtype='float32')."
        raise InvalidInput(f"The {what} are {shown(values)}, which makes no tensor. {advice}") from error


def _is_data(part: Any) -> bool:
    """Tell whether a part is data by itself: a loader, or a pair of tensors."""
    pair = isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(p, Tensor) and p.dim() for p in part)
    return pair or isinstance(part, DataLoader)


def _first(values: Any) -> Any:
    """Return the first value that is no list or array of values."""
    while (
        not isinstance(values, str | bytes)
        and hasattr(values, "__getitem__")
        and hasattr(values, "__len__")
        and len(values)
    ):
        values = values[0]
    return values


def _several(values: Any, what: str) -> str:
    said = f"The {what} are {shown(values)}; they must be one tensor. "
    tensors = list(values.values() if isinstance(values, Mapping) else values)
    shapes = {tuple(v.shape) for v in tensors if isinstance(v, Tensor)}
    if isinstance(values, list | tuple) and len(shapes) == 1:
        return f"{said}If each is one example: torch.stack({what}). If each is another input of one network, see torch.cat."
    if what == "targets":
        return f"{said}Pick one, or torch.cat them along the second axis."
    return (
        f"{said}For sequences of several lengths: torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True). For a network of "
        "several inputs: put them side by side, torch.cat([a, b], 1), and wrap it in a module that takes them apart."
    )


def _beside(inputs: Tensor, targets: Tensor) -> Batch:
    if len(inputs) != len(targets):
        raise InvalidInput(
            f"A batch has {len(inputs)} inputs but {len(targets)} targets; give one target per input. A label map (B, T) or "
            "(B, H, W) is one target."
        )
    return inputs, targets


def _of_loader(batch: Any) -> str:
    """Say how a loader comes to deliver pairs."""
    collated = "DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=lambda rows: default_collate([{} for row in rows]))"
    where = "with default_collate of torch.utils.data"
    if isinstance(batch, Mapping):
        x, y = _keys(batch)
        return f"Write {collated.format(f'(row[{x!r}], row[{y!r}])')}, {where}."
    if isinstance(batch, Tensor) or (isinstance(batch, list | tuple) and len(batch) == 1):
        return (
            "There are no targets: give them, TensorDataset(inputs, targets); for an autoencoder the targets are the inputs, "
            "TensorDataset(inputs, inputs)."
        )
    if isinstance(batch, list | tuple) and len(batch) > 2 and not hasattr(batch, "batch_sizes"):
        return (
            f"If the first two are inputs and targets, write {collated.format('(row[0], row[1])')}, {where}; if the third is "
            "weights of examples, LoaderData(loader, weighted=True). A network of several inputs is given one tensor and takes "
            "it apart."
        )
    return "Write a collate_fn for the DataLoader that returns (inputs, targets)."


def _of_data(data: Any) -> str:
    """Say how to give whole data sets of other forms."""
    if isinstance(data, Dataset):
        return "Of a data set: DataLoader(dataset, batch_size=128, shuffle=True)."
    if isinstance(data, Mapping):
        x, y = _keys(data)
        if all(map(_is_data, data.values())):
            return (
                f"Of loaders by name: data[{x!r}], or LoaderData(data[{x!r}], data[{y!r}]) to validate by the second."
            )
        return f"Write (data[{x!r}], data[{y!r}])."
    if hasattr(data, "to_numpy"):
        return "Of a frame: (frame.drop(columns='y').to_numpy('float32'), frame['y'].to_numpy()), if 'y' is the target."
    if isinstance(data, tuple | list) and len(data) == 2:
        tensors = "TensorData(inputs, targets, held_out=(inputs, targets))"
        batches = " Of a list of batches: LoaderData(batches)." if isinstance(data, list) else ""
        return f"Of training and validation data: {tensors}, or LoaderData(loader, validation_loader).{batches}"
    if isinstance(data, list) and data and all(isinstance(part, tuple | list) and len(part) == 2 for part in data):
        examples = "DataLoader(examples, batch_size=128, shuffle=True)"
        return f"Of a list of batches: LoaderData(batches). Of a list of examples: {examples}."
    if isinstance(data, tuple | list) and len(data) > 2:
        return (
            "Write (data[0], data[1]) if these are inputs and targets; if the third is weights of examples, "
            "TensorData(data[0], data[1], weights=data[2])."
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Tensor | Sequence):
        return "Of a data set: DataLoader(dataset, batch_size=128, shuffle=True), whose batches are pairs (inputs, targets)."
    return "Write (inputs, targets); for an autoencoder the targets are the inputs."


def _keys(values: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Guess which entries are inputs and targets."""
    names = list(values)
    target = next((n for n in names if str(n).lower() in TARGETS), names[-1] if names else "y")
    return next((n for n in names if n != target), "x"), target
