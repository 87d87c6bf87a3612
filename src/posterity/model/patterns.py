"""What all priors share: values by name pattern, fan-in, and named tensors as one flat vector."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import Generator, Size, Tensor

from posterity.errors import InvalidInput, suggest
from posterity.types import Params

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PerPattern = Finite | dict[str, Finite]
PositivePerPattern = Positive | dict[str, Positive]
Value = TypeVar("Value")


def match(
    patterns: Mapping[str, Value], shapes: Mapping[str, Size], what: str, whose: str = "prior"
) -> dict[str, Value]:
    """Give every name the value of the first pattern, a glob over parameter names, that matches it.

    Raises:
        InvalidInput: where a pattern matches nothing, or only what earlier patterns take (but '*' may stand last to be
            safe), or where a name is matched by no pattern.

    >>> match({"*.bias": 1.0, "*": 0.1}, {"fc.weight": Size([2, 3]), "fc.bias": Size([2])}, "std")
    {'fc.weight': 0.1, 'fc.bias': 1.0}
    """
    chosen = {n: next((p for p in patterns if fnmatchcase(n, p)), None) for n in shapes}
    for pattern in patterns:
        if not any(fnmatchcase(n, pattern) for n in shapes):
            raise InvalidInput(
                f"The {whose}'s {what} pattern '{pattern}' matches no parameter.{suggest(pattern, shapes)}"
            )
        if pattern != "*" and pattern not in chosen.values():
            raise InvalidInput(
                f"The {whose}'s {what} pattern '{pattern}' matches only parameters that patterns before it take; put it first."
            )
    missing = [n for n, p in chosen.items() if p is None]
    if missing:
        raise InvalidInput(f"No {what} pattern of the {whose} matches '{missing[0]}'. Add '*' as the last pattern.")
    return {n: patterns[p] for n, p in chosen.items() if p is not None}


def per_name(value: float | Mapping[str, float], shapes: Mapping[str, Size], what: str) -> dict[str, float]:
    """Give every name its number: the number itself, or that of the first pattern that matches. See `match`."""
    return match(value, shapes, what) if isinstance(value, Mapping) else dict.fromkeys(shapes, value)


def fan_in(name: str, shapes: Mapping[str, Size]) -> int:
    """Count the inputs that one output sums over: Π shape[1:] of a weight, as torch's initialisers count it.

    A vector `x.bias` takes the fan-in of the `x.weight` beside it; any other vector (a norm layer's scale, say) has 1.

    >>> fan_in("conv.bias", {"conv.weight": Size([6, 1, 5, 5]), "conv.bias": Size([6])})
    25
    """
    shape = shapes[name]
    if len(shape) < 2 and "bias" in name:
        shape = shapes.get(name.replace("bias", "weight"), shape)
    return max(1, prod(shape[1:])) if len(shape) > 1 else 1


def expand(numbers: Mapping[str, float], shapes: Mapping[str, Size], like: Tensor | None = None) -> Tensor:
    """Repeat one number per name over that name's coordinates: a vector (P,)."""
    options: dict[str, Any] = {} if like is None else {"dtype": like.dtype, "device": like.device}
    values = torch.tensor([numbers[n] for n in shapes], **options)
    counts = [prod(s) for s in shapes.values()]  # their sum is given, since a compiler cannot know it from a tensor
    return values.repeat_interleave(torch.tensor(counts, device=values.device), output_size=sum(counts))


def spread(numbers: Mapping[str, float], shapes: Mapping[str, Size], like: Tensor) -> Tensor:
    """Do as `expand`, but return one number, shape (), where all are equal: it saves a pass over memory at each step."""
    values = set(numbers.values())
    return like.new_tensor(values.pop()) if len(values) == 1 else expand(numbers, shapes, like)


def shapes_of(params: Params) -> dict[str, Size]:
    return {n: p.shape for n, p in params.items()}


def flatten(params: Params) -> Tensor:
    """Copy named tensors into one vector (P,), in the order of the mapping."""
    return torch.cat([p.reshape(-1) for p in params.values()])


def split(vector: Tensor, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """View a vector (P,) as named tensors: the inverse of `flatten`."""
    parts = vector.split([prod(s) for s in shapes.values()])
    return {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}


def empty_like(shapes: Mapping[str, Size], generator: Generator | None) -> Tensor:
    """Make room for a draw (P,): of torch's default dtype, on the generator's device."""
    return torch.empty(sum(prod(s) for s in shapes.values()), device=generator.device if generator else None)
