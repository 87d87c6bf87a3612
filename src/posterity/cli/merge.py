"""From a file and flags to one checked configuration; every mistake is one line that names the flag or key."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from posterity.cli.checks import line, refuse_unknown, refuse_unsound
from posterity.cli.config import RunConfig
from posterity.cli.kinds import keys_of, kinds_in
from posterity.cli.own import code_in
from posterity.cli.reach import completed, reached
from posterity.errors import InvalidInput
from posterity.importing import is_code
from posterity.methods import AnyMethod
from posterity.model.known import AnyLikelihood
from posterity.model.priors import AnyPrior
from posterity.text import short
from posterity.zoo.build import imports_code

Given = Mapping[str, tuple[str, object]]  # key -> (flag as typed, value)
TABLES = ("data", "model", "prior", "likelihood", "method", "engine")
KEYS = re.compile(r'"([^"]+)"|([^".]+)')  # of a path, as TOML writes it: prior.parts."*.bias".std


def merge(file: Mapping[str, Any], given: Given, where: str = "run.toml") -> RunConfig:
    """Lay flags over the values of a file and check the whole.

    Another prior, likelihood or method than the file's keeps of the file's keys those that it knows.

    Raises:
        InvalidInput: for an unknown key or name, with the nearest one, and for a value out of its range.
    """
    refuse_unsound(file, {}, where)
    _refuse_values(file, where)
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
    origin = _laid(values, flags)
    if "data" not in values:
        raise InvalidInput("No data set was named: posterity train digits. `posterity data` lists the known ones.")
    if "method" in values and isinstance(values["method"], dict):
        values["method"] = completed(values["method"])
    return checked(values, origin, where)


def checked(values: Mapping[str, Any], origin: Mapping[str, str], where: str) -> RunConfig:
    """Make a configuration of plain values.

    Raises:
        InvalidInput: as `merge`.
    """
    refuse_unsound(values, origin, where)
    refuse_unknown(values, RunConfig, "", origin, where)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(line(error, values, origin, where)) from error
    refuse_unsound(config.model_dump(), origin, where)  # a flag's value is a text until it is read
    return config


def refuse_code(config: RunConfig, given: Given, trust: bool, where: str) -> None:
    """Refuse a network, method, prior or likelihood that a file names and that is code, unless it is trusted.

    What a flag names is the user's own.

    Raises:
        InvalidInput: with the name, before anything of it is imported.
    """
    name = str(config.model.name)
    if imports_code(name) and "model.name" not in given and not trust:
        raise InvalidInput(f"{where} names the network '{name}', code that would be run. Add --trust if it is yours.")
    typed = {value for _, value in given.values() if isinstance(value, str)}
    for name in code_in(config.method, config.prior, config.likelihood):
        if name not in typed and not trust:
            raise InvalidInput(f"{where} names '{name}', code that would be run. Add --trust if it is yours.")


def _refuse_values(file: Mapping[str, Any], where: str) -> None:
    """Refuse one value where a table of keys belongs."""
    for noun in TABLES:
        if noun in file and not isinstance(file[noun], Mapping):
            key = "name" if noun in ("data", "model") else "device" if noun == "engine" else "kind"
            raise InvalidInput(
                f"{noun} in {where} {short(str(file[noun]))}: is a table of keys, not one value: [{noun}], {key} = …"
            )


def _laid(values: dict[str, Any], flags: Given) -> dict[str, str]:
    """Put each flag's value where its key lies; return which flag each key has its value from."""
    origin: dict[str, str] = {}
    for path, (flag, value) in flags.items():
        keys = [quoted or bare for quoted, bare in KEYS.findall(path)]
        if not keys:
            raise InvalidInput(f"{flag}: expected a key of run.toml, as prior.fan_in.")
        if keys[0] == "method" and len(keys) > 1 and isinstance(values.get("method"), Mapping):
            keys = ["method", *reached(values["method"], keys[1:], flag)]
        _place(values, keys, value, flag)
        origin[".".join(keys)] = flag
    return origin


def _wrap(values: dict[str, Any], flags: dict[str, tuple[str, object]]) -> None:
    """Let `--method` and `--ensemble` decide the kinds, keeping of the file's method what the new kind knows."""
    method = values.get("method", {})
    wrapper = dict(method) if method.get("kind") == "ensemble" else None
    inner = {} if wrapper is None else wrapper.pop("method", {})
    if not isinstance(inner, Mapping):
        raise InvalidInput("method.method of an ensemble is a table of keys, not one value: [method.method], kind = …")
    member = dict(inner) if wrapper is not None else dict(method)
    if "method.kind" in flags:
        kind = str(flags["method.kind"][1])
        if kind == "ensemble":
            wrapper = wrapper or {}
            member = member or {"kind": "mle"}
        else:
            member = _kept(member, kind, AnyMethod)
        del flags["method.kind"]
    if "ensemble" in flags:
        wrapper = wrapper or {}
        flags["method.n"] = flags.pop("ensemble")
    if not (member or wrapper is not None or any(path.startswith("method.") for path in flags)):
        return
    member.setdefault("kind", "mean_field")
    values["method"] = member if wrapper is None else {**wrapper, "kind": "ensemble", "method": member}


def _kept(table: Mapping[str, Any], kind: str, union: Any) -> dict[str, Any]:
    """Give a table another kind; of its keys those stay that the new kind has with the same type."""
    kinds = {name: keys_of(one) for name, one in kinds_in(union).items()}
    after = kinds.get(kind, {})
    before = kinds.get(str(table.get("kind")), after)
    return {"kind": kind, **{k: v for k, v in table.items() if k != "kind" and before.get(k) == after.get(k, object)}}


def _place(values: dict[str, Any], path: list[str], value: object, flag: str) -> None:
    table = values
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InvalidInput(f"{flag}: '{short(part)}' is a single value, not a table of keys.")
    if path in [[noun] for noun in TABLES]:
        raise InvalidInput(f"{flag}: '{path[0]}' is a table of keys, not a single value.")
    code = path[-1] != "kind" and is_code(table.get("kind"))
    if (path[0] == "model" and path != ["model", "name"]) or (code and isinstance(value, str)):
        value = _literal(str(value))
    table[path[-1]] = None if value == "none" else value


def _literal(text: str) -> object:
    """Read a network's option as TOML would: 4 is a number; what is no TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}
