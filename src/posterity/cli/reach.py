"""Where in a composed method a flag's key lies: `--epochs` of an ensemble of refinements is that of each one's last stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from posterity.cli.kinds import default_of, keys_of
from posterity.errors import InvalidInput, suggest
from posterity.importing import is_code
from posterity.methods import KINDS as METHODS

KINDS: Mapping[str, Any] = METHODS
STAGES = ("method", "after")  # keys whose values are methods: the one whose posterior is returned comes first


def reached(method: Mapping[str, Any], keys: Sequence[str], flag: str) -> list[str]:
    """Return the keys by which a flag's value is put into a method's table: outermost method first, then its stages.

    A learning rate and its schedule are the method's own or its optimiser's.

    Raises:
        InvalidInput: where no part of the method has such a key, with the keys that there are.

    >>> reached({"kind": "ensemble", "method": {"kind": "laplace"}}, ["epochs"], "--epochs")
    ['method', 'method', 'epochs']
    >>> reached({"kind": "cyclical"}, ["optimizer", "lr"], "--lr")
    ['method', 'lr']
    """
    found = _places(method, keys)
    if found is not None:
        return found
    own = _innermost(method)
    known = set(keys_of(KINDS[own])) - {"kind"} if own in KINDS else set()
    if not known:  # an unknown kind is refused by name, later
        return list(keys)
    raise InvalidInput(f"{flag}: method '{own}' has no key '{keys[-1]}'.{suggest(keys[-1], known)}")


def completed(method: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a flag left out of a stage or an optimiser: the rest is as the method around it has it."""
    values, kind = dict(method), KINDS.get(str(method.get("kind")))
    for key in (*STAGES, "optimizer"):
        inner = values.get(key)
        if not isinstance(inner, Mapping):
            continue
        usual = default_of(kind, key) if kind is not None and key in keys_of(kind) else None
        if usual is not None and "kind" not in inner:
            inner = {**usual, **inner}
        values[key] = completed(inner) if key in STAGES else dict(inner)
    return values


def _places(method: Mapping[str, Any], keys: Sequence[str]) -> list[str] | None:
    kind = KINDS.get(str(method.get("kind")))
    if is_code(method.get("kind")):
        return [keys[-1]]  # whose options are its own
    if kind is None:
        return None
    known = keys_of(kind)
    for spelled in _spellings(keys):
        if spelled[0] not in known:
            continue
        inner = _stage(method, kind, spelled[0])
        if len(spelled) > 1 and isinstance(inner, Mapping) and spelled[0] in STAGES:
            return [spelled[0], *(_places(inner, spelled[1:]) or spelled[1:])]
        return list(spelled)
    for stage in STAGES:
        inner = _stage(method, kind, stage) if stage in known else None
        if isinstance(inner, Mapping) and (found := _places(inner, keys)) is not None:
            return [stage, *found]
    return None


def _spellings(keys: Sequence[str]) -> tuple[Sequence[str], ...]:
    if len(keys) == 2 and keys[0] == "optimizer":
        return keys, keys[1:]
    return (keys, ("optimizer", *keys)) if list(keys) in (["lr"], ["schedule"]) else (keys,)


def _stage(method: Mapping[str, Any], kind: Any, stage: str) -> Any:
    """Return a stage's table, or what the method has there by default; a table without a kind is of the default's."""
    if stage not in STAGES:
        return None
    usual = default_of(kind, stage) if stage in keys_of(kind) else None
    found = method.get(stage, usual)
    return {**(usual or {}), **found} if isinstance(found, Mapping) and "kind" not in found else found


def _innermost(method: Mapping[str, Any]) -> str:
    kind = KINDS.get(str(method.get("kind")))
    inner = _stage(method, kind, "method") if kind is not None else None
    return _innermost(inner) if isinstance(inner, Mapping) else str(method.get("kind"))
