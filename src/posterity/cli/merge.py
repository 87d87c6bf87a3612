"""From a file and flags to one checked configuration; every mistake is one line that names the flag or key."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from posterity.cli.config import RunConfig
from posterity.errors import InvalidInput, suggest, unknown
from posterity.methods import AnyMethod, Laplace
from posterity.model.likelihoods import AnyLikelihood
from posterity.model.priors import AnyPrior
from posterity.zoo.build import imports_code

Given = Mapping[str, tuple[str, object]]  # key -> (flag as typed, value)
WRAPPER = ("n", "reinitialise")  # keys of an ensemble itself; all others are its members'
KEYS = re.compile(r'"([^"]+)"|([^".]+)')  # of a path, as TOML writes it: prior.parts."*.bias".std
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "missing": "is missing",
    "dataclass_type": "is a table of keys, not one value: say its kind, as --prior.scale.kind half_normal",
    "model_attributes_type": "is a table of keys, not one value: say its kind, as --prior.scale.kind half_normal",
}


def merge(file: Mapping[str, Any], given: Given, where: str = "run.toml") -> RunConfig:
    """Lay flags over the values of a file and check the whole.

    Another prior, likelihood or method than the file's keeps of the file's keys those that it knows.

    Raises:
        InvalidInput: for an unknown key or name, with the nearest one, and for a value out of its range.
    """
    values = _copied(file)
    flags = dict(given)
    _wrap(values, flags)
    for noun, union in (("prior", AnyPrior), ("likelihood", AnyLikelihood)):
        if f"{noun}.kind" in flags and isinstance(values.get(noun), dict):
            values[noun] = _kept(values[noun], str(flags[f"{noun}.kind"][1]), union)
    named = {path: value for path, (_, value) in flags.items() if path.startswith("prior.")}
    if "prior" not in values and named == {"prior.kind": "normal"}:
        del flags["prior.kind"]  # it is the default, std and all
    elif "prior" not in values and named:
        values["prior"] = {"kind": "normal"}
    ensemble = "method" in values and isinstance(values["method"], dict) and values["method"].get("kind") == "ensemble"
    origin: dict[str, str] = {}
    for path, (flag, value) in flags.items():
        real = _trained_path(values, _member_path(path) if ensemble else path)
        keys = [quoted or bare for quoted, bare in KEYS.findall(real)]
        _place(values, keys, value, flag)
        origin[".".join(keys)] = flag
    if "data" not in values:
        raise InvalidInput("No data set was named: posterity train digits. `posterity data` lists the known ones.")
    if ensemble:
        values["method"].setdefault("method", {}).setdefault("kind", "mle")
    _complete_optimizer(values.get("method"))
    refuse_unknown(values, RunConfig, "", origin, where)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(_line(error, values, origin, where)) from error


def refuse_code(config: RunConfig, given: Given, trust: bool, where: str) -> None:
    """Refuse a network that a file names and that is code, unless it is trusted; what a flag names is the user's own.

    Raises:
        InvalidInput: with the name, before anything of it is imported.
    """
    name = str(config.model.name)
    if imports_code(name) and "model.name" not in given and not trust:
        raise InvalidInput(f"{where} names the network '{name}', code that would be run. Add --trust if it is yours.")


def refuse_unknown(values: Any, hint: Any, path: str, origin: Mapping[str, str], where: str) -> None:
    """Walk values and types together; refuse the first key, or name of a kind, that there is not."""
    kind = _model(values, hint, path, origin, where)
    if kind is None or not isinstance(values, Mapping):
        return
    known = _fields(kind)
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
            raise InvalidInput(f"{named or where}: {owner} has no key '{key}'.{suggest(key, set(known) - {'kind'})}")


def _model(values: Any, hint: Any, path: str, origin: Mapping[str, str], where: str) -> type | None:
    """Return the class that a table is checked against: the one whose `kind` it names, where there are several."""
    classes = [c for c in _classes(hint) if is_dataclass(c) or issubclass(c, BaseModel)]
    if not classes or not isinstance(values, Mapping):
        return None
    if len(classes) == 1:
        return classes[0]
    kinds = {str(get_args(_fields(c)["kind"])[0]): c for c in classes}
    if "kind" not in values:
        named = any(p.startswith(f"{path}.") for p in origin)
        label = f"--{path}" if named else f"{path}.kind in {where}"
        raise InvalidInput(f"{label} is missing: say which. Choices: {', '.join(sorted(kinds))}.")
    if values["kind"] not in kinds:
        raise unknown(path.rpartition(".")[2], str(values["kind"]), kinds)
    return kinds[values["kind"]]


@cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    keys = kind.model_fields if issubclass(kind, BaseModel) else [field.name for field in fields(kind)]
    return {key: hints[key] for key in keys}


def _classes(hint: Any) -> list[type]:
    if get_origin(hint) is Annotated:
        return _classes(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [c for part in get_args(hint) for c in _classes(part)]
    return [hint] if isinstance(hint, type) and get_origin(hint) is None else []


def _wrap(values: dict[str, Any], flags: dict[str, tuple[str, object]]) -> None:
    """Let `--method` and `--ensemble` decide the kinds, keeping of the file's method what the new kind knows."""
    method = values.get("method", {})
    wrapper = dict(method) if method.get("kind") == "ensemble" else None
    member = dict(wrapper.pop("method", {})) if wrapper is not None else dict(method)
    if "method.kind" in flags:
        kind = str(flags["method.kind"][1])
        if kind == "ensemble":
            wrapper = wrapper or {}
            member = member or {"kind": "mle"}
            del flags["method.kind"]
        else:
            member = _kept(member, kind, AnyMethod)
    if "ensemble" in flags:
        wrapper = wrapper or {}
        flags["method.n"] = flags.pop("ensemble")
    if not (member or wrapper is not None or any(path.startswith("method.") for path in flags)):
        return
    member.setdefault("kind", "mean_field")
    values["method"] = member if wrapper is None else {**wrapper, "kind": "ensemble", "method": member}


def _kept(table: Mapping[str, Any], kind: str, union: Any) -> dict[str, Any]:
    """Give a table another kind; of its keys those stay that the new kind has with the same type."""
    kinds = {str(get_args(_fields(c)["kind"])[0]): _fields(c) for c in _classes(union)}
    after = kinds.get(kind, {})
    before = kinds.get(str(table.get("kind")), after)
    return {"kind": kind, **{k: v for k, v in table.items() if k != "kind" and before.get(k) == after.get(k, object)}}


def _complete_optimizer(method: Any) -> None:
    """Take what is left out of an optimiser from the method's own: --lr alone leaves the schedule as the method has it."""
    kinds = {str(get_args(_fields(c)["kind"])[0]): c for c in _classes(AnyMethod) if "optimizer" in _fields(c)}
    for stage in ("method", "after"):  # of a composed method
        if isinstance(method, dict):
            _complete_optimizer(method.get(stage))
    if isinstance(method, dict) and method.get("kind") in kinds and isinstance(method.get("optimizer"), dict):
        method["optimizer"] = {**asdict(kinds[method["kind"]]().optimizer), **method["optimizer"]}


def _member_path(path: str) -> str:
    noun, _, rest = path.partition(".")
    return path if noun != "method" or rest in WRAPPER or rest.startswith("method.") else f"method.method.{rest}"


def _trained_path(values: Mapping[str, Any], path: str) -> str:
    """Give Laplace's training what Laplace itself has no key for: --epochs, --lr, --patience.

    >>> _trained_path({"method": {"kind": "laplace"}}, "method.epochs")
    'method.method.epochs'
    """
    table, stem, rest = values, "", path
    while rest.startswith("method.") and isinstance(table.get("method"), Mapping):
        table, stem, rest = table["method"], f"{stem}method.", rest.removeprefix("method.")
    if table.get("kind") != "laplace" or not stem or rest.partition(".")[0] in _fields(Laplace):
        return path
    return f"{stem}method.{rest}"


def _place(values: dict[str, Any], path: list[str], value: object, flag: str) -> None:
    table = values
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InvalidInput(f"{flag}: '{part}' is a single value, not a table of keys.")
    if path[0] == "model" and path != ["model", "name"]:
        value = _literal(str(value))
    table[path[-1]] = None if value == "none" else value


def _literal(text: str) -> object:
    """Read a network's option as TOML would: 4 is a number; what is no TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _line(error: ValidationError, values: Mapping[str, Any], origin: Mapping[str, str], where: str) -> str:
    """Say the first thing that is wrong, as flag or key, value, and what is allowed."""
    errors = error.errors(include_url=False)
    # Of a union's errors the one that reaches deepest into the values is of the member that was meant.
    first = max(errors, key=lambda e: len(_follow(e["loc"], values)[0]))
    parts, found = _follow(first["loc"], values)
    kind, context = first["type"], first.get("ctx", {})
    path = ".".join([*parts, str(first["loc"][-1])] if kind == "missing" else parts)
    if kind == "missing" and (flag := origin.get(".".join([*parts, "kind"]))):
        table = f"its {first['loc'][-1]} are missing; write them in a file under [{path}], and add --config FILE"
        return f"{flag} {found['kind']}: {table}."
    label = next((f for p, f in origin.items() if p == path or p.startswith(f"{path}.")), f"{path} in {where}")
    shown = "" if kind == "missing" or isinstance(found, Mapping) else f" {found}"
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"{label}{shown}: must be {words} {context[bound]:g}."
    if kind == "literal_error":
        choices = [part.strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return f"{label}{shown}: no such choice.{suggest(str(found), choices)}"
    text = WORDS.get(kind, str(first["msg"]).removeprefix("Value error, "))
    return f"{label}{shown}: {text}."


def _follow(location: tuple[int | str, ...], values: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Follow a validation error's location through the values; names of union members in it are passed over."""
    parts: list[str] = []
    here: Any = values
    for part in location:
        if isinstance(here, Mapping) and part in here:
            parts.append(str(part))
            here = here[part]
    return parts, here
