"""What the classes of a configuration are: their keys and types, and the kinds that a table may name."""

from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from inspect import signature
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from posterity.options import ByKind


@cache
def keys_of(kind: Any) -> dict[str, Any]:
    """Return the keys of a class of options, with their types."""
    if not issubclass(kind, BaseModel) and not is_dataclass(kind):  # a class of one's own, of which nothing is known
        return {key: Any for key in signature(kind).parameters} | {"kind": str}
    hints = get_type_hints(kind, include_extras=True)
    keys = kind.model_fields if issubclass(kind, BaseModel) else [field.name for field in fields(kind)]
    return {key: hints[key] for key in keys}


def classes_in(hint: Any) -> list[type]:
    """Return the classes that a type is, or is a union of, or that are found by their kind."""
    if get_origin(hint) is Annotated:
        found = next((note for note in hint.__metadata__ if isinstance(note, ByKind)), None)
        if found is not None:
            return list(found.kinds.values())
        return classes_in(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [c for part in get_args(hint) for c in classes_in(part)]
    return [hint] if isinstance(hint, type) and get_origin(hint) is None else []


def kinds_in(hint: Any) -> dict[str, type]:
    """Return the classes of a union by the kind that a table names.

    >>> from posterity.methods import AnyMethod
    >>> kinds_in(AnyMethod)["map"].__name__
    'MAP'
    """
    found = {}
    for one in classes_in(hint):
        kind = getattr(one, "kind", None)  # that of a class of options is its field's default
        if isinstance(kind, str):
            found[kind] = one
    return found


def default_of(kind: Any, key: str) -> Any:
    """Return what a class of options has for a key where nothing is said, as plain values; None where it must be said."""
    field = next(one for one in fields(kind) if one.name == key)
    made: Any = field.default_factory() if field.default_factory is not MISSING else field.default
    if hasattr(made, "default_factory"):  # pydantic's description of a field
        made = made.default_factory() if made.default_factory is not None else made.default
    return asdict(made) if hasattr(made, "__dataclass_fields__") else None
