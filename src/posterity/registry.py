"""Classes by their kind, ours and yours, and copies of what is made of them."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

from posterity.errors import InvalidInput

Made = TypeVar("Made")


def remember(registry: dict[str, Any], kind: str, cls: type, noun: str) -> None:
    """Remember a class by its kind; one that is written anew, in a notebook say, takes its own place.

    Raises:
        InvalidInput: where another class has the kind.
    """
    known = registry.get(kind)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InvalidInput(
            f"There is a {noun} of the kind '{kind}' already, {known.__module__}.{known.__qualname__}: give "
            f"{cls.__qualname__} a kind of its own."
        )
    registry[kind] = cls


def changed(value: Made, changes: Mapping[str, Any]) -> Made:
    """Return a copy with other values of attributes; of a dataclass one that is made by its `__init__`.

    >>> class Mine:
    ...     size = 1
    >>> changed(Mine(), {"size": 2}).size
    2
    """
    if "__dataclass_params__" in vars(type(value)):
        found: Made = replace(value, **changes)  # type: ignore[type-var]
        return found
    other = copy(value)
    for name, own in changes.items():
        object.__setattr__(other, name, own)
    return other
