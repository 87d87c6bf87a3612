"""A configuration's keys, kinds and types, held against its classes; the first mistake is one line that names its place."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from posterity.cli.config import DEEPEST
from posterity.cli.kinds import classes_in, keys_of, kinds_in
from posterity.errors import InvalidInput, suggest, unknown
from posterity.importing import is_code
from posterity.options import COMPOSED, deepest, shown, text_of
from posterity.text import short

PLACE = 200  # characters of a key, and of the tables that it is in, that are looked at
LARGEST = 2**63 - 1
OWN = ("method", "prior", "likelihood")  # what may be code of one's own, by its name
Origin = Mapping[str, str]  # dotted key -> the flag that it came from


def refuse_unsound(values: Mapping[str, Any], origin: Origin, where: str) -> None:
    """Refuse what no key can have: tables nested without end, numbers that are none or that no machine counts to.

    Raises:
        InvalidInput.
    """
    left: list[tuple[str, Any, int]] = [("", values, 0)]
    while left:
        path, value, depth = left.pop()
        if depth > DEEPEST:
            raise InvalidInput(f"{where}: {short(path)} nests tables or lists more than {DEEPEST} deep.")
        if isinstance(value, Mapping):
            left += [(f"{path}.{key[:PLACE]}".lstrip(".")[:PLACE], inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            left += [(path, inner, depth + 1) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"{_label(path, origin, where)} {value}: must be a finite number.")
        elif isinstance(value, int) and abs(value) > LARGEST:
            raise InvalidInput(f"{_label(path, origin, where)} {shown(value)}: must be at most 2⁶³ − 1.")


def refuse_unknown(values: Any, hint: Any, path: str, origin: Origin, where: str) -> None:
    """Walk values and types together; refuse the first key, or name of a kind, that there is not.

    Raises:
        InvalidInput.
    """
    if not isinstance(values, Mapping):
        _refuse_disguised(values, hint, path, origin, where)
        return
    kind = _model(values, hint, path, origin, where)
    if kind is None:
        return
    known = keys_of(kind)
    for key, value in values.items():
        here = f"{path}.{key}".lstrip(".")
        if key in known:
            refuse_unknown(value, known[key], here, origin, where)
        elif not (issubclass(kind, BaseModel) and kind.model_config.get("extra") == "allow"):
            named = origin.get(here) or next((f for p, f in origin.items() if p.startswith(f"{here}.")), None)
            owner = (
                f"{path.rpartition('.')[2]} '{values['kind']}'"
                if "kind" in values
                else f"[{path}]"
                if path
                else "a run"
            )
            raise InvalidInput(
                f"{named or where}: {owner} has no key '{short(key)}'.{suggest(key, set(known) - {'kind'})}"
            )


def line(error: ValidationError, values: Mapping[str, Any], origin: Origin, where: str) -> str:
    """Say the first thing that is wrong, as flag or key, value, and what is allowed."""
    errors = deepest(error, lambda location: _follow(location, values)[0])
    first = errors[0]
    parts, found = _follow(first["loc"], values)
    kind = first["type"]
    path = ".".join([*parts, str(first["loc"][-1])] if kind == "missing" else parts)
    if kind == "missing" and isinstance(found, Mapping) and (flag := origin.get(".".join([*parts, "kind"]))):
        needs = (
            f"its {first['loc'][-1]} are missing: add --{path} VALUE; where they are a table, write [{path}] in a file"
        )
        return f"{flag} {found['kind']}: {needs}, and add --config FILE."
    value = "" if kind == "missing" or isinstance(found, Mapping) else f" {_plain(found)}"
    if all(one["type"] in COMPOSED for one in errors) or kind == "model_attributes_type":
        text = f"is a table of keys, not one value: say its kind, as --{path or 'prior'}.kind NAME"
        return f"{_label(path, origin, where)}{value}: {text}."
    text = text_of(errors, found)
    return f"{_label(path, origin, where)}{value}: {text}{'' if text.endswith('.') else '.'}"


def _refuse_disguised(value: object, hint: Any, path: str, origin: Origin, where: str) -> None:
    """Refuse a switch, or a text of a file, where a number belongs, which pydantic would take for one."""
    kinds = set(_leaves(hint))
    if not kinds or kinds & {bool, str, object, Any} or path in origin or not kinds & {int, float}:
        return
    if isinstance(value, bool | str):
        given = str(value).lower() if isinstance(value, bool) else shown(value)
        raise InvalidInput(f"{_label(path, origin, where)} {given}: must be a number, without quotes.")


def _leaves(hint: Any) -> Iterator[Any]:
    """Yield the plain types that a value may have."""
    inner = classes_in(hint)
    if not inner and get_origin(hint) is not None:
        yield str if any(isinstance(part, str) for part in get_args(hint)) else object
    yield from inner


def _model(values: Mapping[str, Any], hint: Any, path: str, origin: Origin, where: str) -> type | None:
    """Return the class that a table is checked against: the one whose `kind` it names, where there are several."""
    classes = [c for c in classes_in(hint) if is_dataclass(c) or issubclass(c, BaseModel)]
    if not classes:
        return None
    if len(classes) == 1:
        return classes[0]
    kinds = kinds_in(hint)
    if "kind" not in values:
        named = any(p.startswith(f"{path}.") for p in origin)
        label = f"--{path}" if named else f"{path}.kind in {where}"
        raise InvalidInput(f"{label} is missing: say which. Choices: {', '.join(sorted(kinds))}.")
    kind = values["kind"]
    if is_code(kind) and path.partition(".")[0] in OWN:
        return None  # whose options are its own
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown(path.rpartition(".")[2], _plain(kind), kinds)
    return kinds[kind]


def _label(path: str, origin: Origin, where: str) -> str:
    return next((f for p, f in origin.items() if p == path or p.startswith(f"{path}.")), f"{short(path)} in {where}")


def _plain(value: object) -> str:
    return short(value) if isinstance(value, str) else shown(value).lower() if isinstance(value, bool) else shown(value)


def _follow(location: tuple[int | str, ...], values: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Follow a validation error's location through the values; names of union members in it are passed over."""
    parts: list[str] = []
    here: Any = values
    for part in location:
        if isinstance(here, Mapping) and part in here:
            parts.append(str(part))
            here = here[part]
    return parts, here
