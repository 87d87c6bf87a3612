"""What a family's file must hold, and what its numbers may be: by which one is told from a damaged one before it is made."""

from collections.abc import Mapping
from math import isfinite
from typing import TypeVar

import torch
from torch import Tensor

from posterity.model.problem import Problem

Kind = tuple[torch.dtype, tuple[int, ...]]  # of a tensor: its type and shape
Stated = dict[str, Kind]
Held = Mapping[str, Kind]
Value = TypeVar("Value")
SHOWN = 3  # differences in one message


def sized(problem: Problem, *shape: int) -> Kind:
    """Return the kind of a tensor of the weights' type."""
    return next(iter(problem.params.values())).dtype, shape


def whole(problem: Problem) -> int:
    """Return P, the length of θ."""
    return problem.layout.size


def random(problem: Problem, held: Held, name: str = "std") -> int:
    """Return how many coordinates, the last ones of θ, a tensor in a file has noise for: those that are random, at least."""
    return max(problem.layout.size - problem.coordinates.start, min(problem.layout.size, length(held, name)))


def length(held: Held, name: str, dim: int = 0) -> int:
    """Return a size that a file is free to choose, at least 1: that of a tensor in it along a dimension."""
    shape = held[name][1] if name in held else ()
    return max(1, shape[dim]) if len(shape) > dim else 1


def buffers(problem: Problem) -> Stated:
    """Return the kinds of a network's buffers, by name."""
    return {n: (b.dtype, tuple(b.shape)) for n, b in problem.network.named_buffers()}


def under(start: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return what stands under a start of names, without it."""
    return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}


def within(start: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Put a start before all names."""
    return {start + k: v for k, v in values.items()}


def numbered(values: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Return what stands under 0., 1., … up to as many as there are; other names are in none.

    >>> numbered({"1.b": 2, "0.a": 1, "loc": 0})
    [{'a': 1}, {'b': 2}]
    """
    parts: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        index, _, key = name.partition(".")
        if index.isascii() and index.isdigit():
            parts.setdefault(index, {})[key] = value
    return [parts.get(str(i), {}) for i in range(len(parts))]


def difference(stated: Held, held: Held) -> str | None:
    """Say how what a file holds is not what it must hold; None where it is."""
    rows = [f"{n[:80]!r} is absent" for n in stated if n not in held]
    rows += [f"nothing is to be in {n[:80]!r}" for n in held if n not in stated]
    for name, (dtype, shape) in stated.items():
        if name in held and held[name] != (dtype, shape):
            own = f"{_short(held[name][0])} {held[name][1]}"
            rows.append(f"{name[:80]!r} is {own}, not {_short(dtype)} {shape}")
    return ", ".join(rows[:SHOWN]) or None


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Say which tensor holds NaN or infinite values; None where none does."""
    name = next((n for n, v in tensors.items() if v.is_floating_point() and not _finite(v)), None)
    return None if name is None else f"{name[:80]!r} holds NaN or infinite values"


def outside(name: str, value: Tensor, least: float = 0.0, most: float | None = None) -> str | None:
    """Say that a tensor has values outside of an interval; None where it has not, or is empty."""
    if value.numel():
        low, high = (float(bound) for bound in value.aminmax())
        if low < least or (most is not None and high > most):
            return f"{name!r} goes from {low:g} to {high:g}, outside of what it can be"
    return None


def _finite(value: Tensor) -> bool:
    """Tell whether all values are finite, in one pass and without memory for what is true of each."""
    return not value.numel() or all(isfinite(bound) for bound in value.aminmax())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
