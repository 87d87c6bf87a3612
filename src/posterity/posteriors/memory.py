"""What a prediction holds at a time: its result, once, and beside it no more than a budget of bytes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from posterity.core.threads import Stretch
from posterity.errors import InvalidInput, OutOfMemory, is_out_of_memory
from posterity.model.problem import Problem
from posterity.posteriors.evaluation import Draws, budget_of
from posterity.predict.predictive import AnyPredictive, General, predictive
from posterity.types import Likelihood

SMALL = 2**24  # multiplications, some milliseconds, less than what the interpreter takes for their calls
COPIES = 8  # of its outputs, at most, are what a likelihood's distribution, its checks and its probabilities take
_stretch = Stretch()


def gathered(passes: Iterable[Iterable[Draws]], n: int, count: int) -> Draws:
    """Put the values of n functions on `count` inputs, which come in parts, into one tensor: no second copy is ever held.

    Latents are those that all functions have.

    Raises:
        InvalidInput: where a network returns other than one row for each input, or two networks return different things.
    """
    whole, outputs, latents, row = None, None, [], 0
    for functions in passes:
        column, rows = 0, 0
        for part in functions:
            rows, width = part.outputs.shape[:2]
            if (rows, width) == (n, count):
                whole = part
            else:
                if outputs is None:
                    outputs = part.outputs.new_empty((n, count, *part.outputs.shape[2:]))
                target = outputs[row : row + rows, column : column + width]
                if target.shape != part.outputs.shape:
                    raise InvalidInput(_unlike(outputs, part.outputs, column, count))
                target.copy_(part.outputs)
            if column == 0:
                latents.append(part.latents)
            column += width
        if column != count:
            raise InvalidInput(f"A network returned {column} rows for {count} inputs; it must return one for each.")
        row += rows
    if whole is not None:
        return whole
    assert outputs is not None  # n ≥ 1
    names = set(latents[0]).intersection(*latents[1:])
    return Draws(outputs, {name: torch.cat([own[name] for own in latents]) for name in latents[0] if name in names})


def _unlike(outputs: Tensor, part: Tensor, column: int, count: int) -> str:
    if part.shape[2:] == outputs.shape[2:]:
        return (
            f"A network returned {column + part.shape[1]} rows or more for {count} inputs; it must return one for each."
        )
    shapes = {(outputs.shape[1], *shape[2:]) for shape in (outputs.shape, part.shape)}
    return f"A mixture's networks return the same; outputs are {' and '.join(map(str, sorted(shapes)))}."


def predicted(likelihood: Likelihood, draws: Draws, max_bytes: int | None) -> AnyPredictive:
    """Say what functions predict, some of the inputs after the others where all would take more than the budget at a time."""
    outputs, latents = draws.outputs, draws.latents
    size = max(1, budget_of(outputs, max_bytes) // COPIES // max(1, outputs[:, :1].nbytes))
    if size >= outputs.shape[1]:
        return predictive(likelihood(outputs, latents), outputs)
    first = predictive(likelihood(outputs[:, :size], latents), outputs[:, :size])
    if isinstance(first, General):
        return predictive(likelihood(outputs, latents), outputs)  # its distribution is of all, whatever it holds
    whole: dict[str, Any] = {}
    for start in range(0, outputs.shape[1], size):
        batch = slice(start, start + size)
        part = predictive(likelihood(outputs[:, batch], latents), outputs[:, batch])
        for name, value in _held(part).items():
            if value.data_ptr() == outputs[:, batch].data_ptr() and value.shape == outputs[:, batch].shape:
                whole[name] = outputs
                continue
            if name not in whole:
                whole[name] = value.new_empty((len(value), outputs.shape[1], *value.shape[2:]))
            whole[name][:, batch] = value
    joined = copy(first)  # its parts have been checked
    for name, value in whole.items():
        object.__setattr__(joined, name, value)
    return joined


def _held(part: AnyPredictive) -> dict[str, Tensor]:
    named = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


@contextmanager
def served(problem: Problem, inputs: Tensor, n: int, max_bytes: int | None) -> Iterator[None]:
    """Answer a request within memory, and small ones of tables by stretches: threads would hinder each other at every layer.

    Raises:
        OutOfMemory: see `within_memory`.
    """
    table = isinstance(inputs, Tensor) and isinstance(n, int) and inputs.dim() == 2  # what is neither is refused within
    small = table and n * len(inputs) * problem.layout.size <= SMALL
    with _stretch.mine() if small else nullcontext(), within_memory(inputs, n, max_bytes):
        yield


@contextmanager
def within_memory(inputs: Tensor, n: int, max_bytes: int | None) -> Iterator[None]:
    """Say what to lower where memory ends inside the block.

    Raises:
        OutOfMemory: in place of what torch or the interpreter raises.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        budget = "its default" if max_bytes is None else f"{max_bytes:,}"
        raise OutOfMemory(
            f"Out of memory for {n:,} functions of {len(inputs):,} inputs, with max_bytes at {budget}: the result alone holds "
            f"{n * len(inputs):,} rows of outputs. Lower n; give fewer inputs at a time; or lower max_bytes, which bounds what "
            "is held beside the result. `posterity.average` keeps no draw at all."
        ) from error
