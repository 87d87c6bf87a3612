"""Which of a network's parameters are random: by type, name, regular expression, predicate, or lists of these."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from posterity.core.layout import trainable
from posterity.errors import LONGEST, InvalidInput, suggest
from posterity.text import short

NORMALISATION: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
LAST_LAYER = "last_layer"

# None | glob over names, or 'last_layer' | compiled regular expression | module type | predicate(name, module) |
# frozenset of exact parameter names | Not(…) | list of these
Where: TypeAlias = Any


@dataclass(frozen=True)
class Not:
    """Leaves out what it holds: `where=[nn.Linear, Not("*.bias")]`. In a string, a leading `!` says the same."""

    what: Where


def select(network: nn.Module, where: Where = None) -> frozenset[str]:
    """Return the names of the trainable parameters that a selection makes random.

    Args:
        network: tied parameters go by the name that `named_parameters` gives them, and are found by any of their names.
        where: None: all but those of normalisation layers. A string: a glob over names of parameters and modules (a
            module's name takes all that is in it), or `last_layer`: the module that holds the last parameters. A compiled
            regular expression: the same, matched whole. A module type: all in modules of that type. A function of
            (parameter's name, module that owns it). A set of exact names. `Not(…)` or a leading `!`: all that None gives,
            without these. A list: what any of its members takes, without what any `Not` in it names.

    Raises:
        InvalidInput: where a part of the selection matches nothing, all of it is empty, or it takes one of two tied
            parameters and leaves the other.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    >>> sorted(select(net)), sorted(select(net, ["2", Not("*.bias")]))
    (['0.bias', '0.weight', '2.bias', '2.weight'], ['2.weight'])
    """
    names = _names(network)
    chosen = _chosen(names, where)
    canonical = {owner.canonical for name, owner in names.items() if name in chosen}
    if not canonical:
        raise InvalidInput(f"where={where!r} selects no trainable parameter.{suggest(str(where), names)}")
    if not isinstance(where, frozenset):
        _refuse_half_tied(names, chosen, canonical)
    return frozenset(canonical)


@dataclass(frozen=True)
class _Owner:
    within: tuple[nn.Module, ...]  # the modules that hold the parameter, from the network to its own
    canonical: str  # the first of a tied parameter's names

    @property
    def module(self) -> nn.Module:
        return self.within[-1]


def _names(network: nn.Module) -> dict[str, _Owner]:
    """Every name of every trainable parameter, with the module that owns it."""
    first = {id(p): n for n, p in trainable(network).items()}
    found = {}
    for prefix, module in network.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) in first:
                above = [network.get_submodule(n) for n in reversed(_and_above(prefix))] if prefix else []
                found[f"{prefix}.{name}" if prefix else name] = _Owner((network, *above), first[id(parameter)])
    return found


def _chosen(names: Mapping[str, _Owner], where: Where) -> set[str]:
    if where is None:
        return {n for n, owner in names.items() if not isinstance(owner.module, NORMALISATION)}
    parts = list(where) if isinstance(where, Sequence) and not isinstance(where, str) else [where]
    if not parts:
        raise InvalidInput("where=[] selects nothing; give None for the whole network.")
    without = [p.what if isinstance(p, Not) else p[1:] for p in parts if _excludes(p)]
    within = [p for p in parts if not _excludes(p)] or [None]
    taken = set[str]().union(*(_matches(names, p) for p in within))
    return taken.difference(*(_matches(names, p) for p in without))


def _excludes(part: Where) -> bool:
    return isinstance(part, Not) or (isinstance(part, str) and part.startswith("!"))


def _matches(names: Mapping[str, _Owner], part: Where) -> set[str]:
    if part is None or (isinstance(part, Sequence) and not isinstance(part, str)):
        return _chosen(names, part)
    test = _test(names, part)
    found = {name for name, owner in names.items() if test(name, owner)}
    if not found:
        if isinstance(part, type):
            types = ", ".join(sorted({type(module).__name__ for owner in names.values() for module in owner.within}))
            raise InvalidInput(f"where={part.__name__}: no such module holds trainable parameters; these do: {types}.")
        every = {above for name in names for above in _and_above(name)}
        raise InvalidInput(f"where={_shown(part)} matches no trainable parameter.{suggest(_shown(part), every)}")
    return found


def _test(names: Mapping[str, _Owner], part: Where) -> Callable[[str, _Owner], bool]:
    if isinstance(part, frozenset):
        missing = sorted(n for n in part if n not in names)
        if missing:
            raise InvalidInput(f"The network has no trainable parameter '{missing[0]}'.{suggest(missing[0], names)}")
        return lambda name, _: name in part
    if part == LAST_LAYER:
        last = [o.module for o in names.values() if not isinstance(o.module, NORMALISATION)][-1:]
        return lambda _, owner: owner.module in last
    if isinstance(part, str):
        return lambda name, _: any(fnmatchcase(n, part) for n in _and_above(name))
    if isinstance(part, re.Pattern):
        return lambda name, _: any(part.fullmatch(n) for n in _and_above(name))
    if isinstance(part, type) and issubclass(part, nn.Module):
        return lambda _, owner: any(isinstance(module, part) for module in owner.within)
    if callable(part) and not isinstance(part, type | nn.Module):
        return lambda name, owner: bool(part(name, owner.module))
    raise InvalidInput(
        f"where= was given {part!r}; expected a name pattern, a compiled regular expression, a module type, a function of "
        "(name, module), a set of names, Not(…), or a list of these."
    )


def _and_above(name: str) -> list[str]:
    """A parameter's name and those of the modules that hold it: 'a.b.weight', 'a.b', 'a'."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts), 0, -1)]


def _shown(part: Where) -> str:
    return short(part.pattern if isinstance(part, re.Pattern) else str(part), LONGEST)


def _refuse_half_tied(names: Mapping[str, _Owner], chosen: set[str], canonical: set[str]) -> None:
    for name, owner in names.items():
        if name not in chosen and owner.canonical in canonical:
            taken = next(n for n, o in names.items() if n in chosen and o.canonical == owner.canonical)
            raise InvalidInput(
                f"where= takes '{taken}' and leaves '{name}', which is the same tensor. Select both, or neither."
            )
