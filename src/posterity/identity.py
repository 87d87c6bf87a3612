"""What a fit is of: its network, prior, likelihood, method and data in plain values, by which a resumed run is compared.

A part is known by its class and its attributes, but for private ones that its constructor does not take; a function by its
name; classes and functions of one's own by their code, too. So parts of one's own need nothing for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from hashlib import sha256
from inspect import getattr_static
from math import isfinite
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from posterity.code import code_of
from posterity.model.problem import Problem
from posterity.train.digest import SHOWN, digest
from posterity.train.identity import Identity

DEPTH, NEAR = 6, 2  # of attributes inside of attributes; of a module's own
FEW = 8  # names that are listed
FUNCTIONS = (FunctionType, BuiltinFunctionType)


def identified(network: nn.Module, problem: Problem, method: Any, source: Any) -> Identity:
    """Return what a fit is of, before anything has run.

    Weights that are trained are not part of it: a checkpoint has them. What is frozen is.

    Args:
        network: as it was given.
        problem: with its likelihood as it was given.
        method: ours, or a class of one's own; what it calls `growing` may become larger when a run goes on.
        source: the data, which know their `content`.
    """
    values: dict[str, Any] = {
        "method": plain_value(method),
        "prior": plain_value(problem.prior),
        "likelihood": plain_value(problem.likelihood),
        "network": _network(network, NEAR),
        "random": _listed(problem.coordinates.random_names),
    }
    if getattr(method, "starts_anew", False):
        values["start"] = weights_of(network.named_parameters())
    growing = frozenset(f"method.{name}" for name in getattr(method, "growing", ()))
    return Identity(values, growing, lambda: {"data": source.content()})


def plain_value(value: Any, depth: int = DEPTH) -> Any:
    """Return a value as JSON has it: an object as its class and its public attributes, a tensor as its digest.

    >>> plain_value({"std": 0.1, "of": (1, torch.float32)})
    {'std': 0.1, 'of': [1, 'torch.float32']}
    >>> from posterity import Normal
    >>> plain_value(Normal(0, 0.3))
    {'mean': 0.0, 'std': 0.3, 'fan_in': False, 'kind': 'normal'}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if isfinite(value) else str(value)
        case Tensor() | numpy.ndarray():
            return digest(value)
        case torch.dtype() | torch.device() | Enum() | numpy.generic():
            return str(value)
        case partial():
            return {"kind": _name(value.func), "with": plain_value([value.args, value.keywords], depth - 1)}
        case nn.Module():
            return _network(value, min(depth, NEAR) - 1) if depth > 0 else _name(type(value))
    if isinstance(value, FunctionType | MethodType) and depth > 0:
        return _function(value, depth)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _name(value)
    if depth <= 0:
        return _name(type(value))
    if isinstance(value, Mapping):
        return {str(k): plain_value(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(v, depth - 1) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(str(plain_value(v, depth - 1)) for v in value)
    found = {k: plain_value(v, depth - 1) for k, v in _public(value)}
    named = found if "kind" in found else {"kind": _name(type(value)), **found}
    code = code_of(type(value))
    return {**named, "code": code} if code else named


def _public(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield attributes that are public, functions, or constructor's arguments, but for values that are computed and kept."""
    kind = type(value)
    slots = (n for base in reversed(kind.__mro__) for n in _tuple(vars(base).get("__slots__", ())) if hasattr(value, n))
    held = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
    arguments = getattr(getattr(kind.__init__, "__code__", None), "co_varnames", ())[: _count(kind.__init__)]
    for name, one in held.items():
        settings = not name.startswith("_") or name.lstrip("_") in arguments or isinstance(one, FUNCTIONS)
        if settings and not _computes(getattr_static(kind, name, None)):
            yield name, one


def _tuple(slots: str | Iterable[str]) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _count(function: Any) -> int:
    code = getattr(function, "__code__", None)
    return 0 if code is None else int(code.co_argcount + code.co_kwonlyargcount)


def _computes(found: Any) -> bool:
    """Whether a class's attribute computes what an instance then holds under its name, as `cached_property` does."""
    lazy = hasattr(type(found), "__get__") and not hasattr(type(found), "__set__")
    return lazy and not callable(found)


def _function(value: Any, depth: int) -> Any:
    """Return a function's name, and the digest of its code where it is one's own."""
    name, code, owner = _name(value), code_of(value), getattr(value, "__self__", None)
    if owner is not None:
        return {"kind": name, "of": plain_value(owner, depth - 1)}
    if not code:
        return name
    defaults = [value.__defaults__, value.__kwdefaults__, [_cell(cell) for cell in value.__closure__ or ()]]
    return {"kind": f"{name} {code}", "with": plain_value(defaults, depth - 1)}


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}".removeprefix("builtins.")


def _network(network: nn.Module, depth: int) -> dict[str, Any]:
    """Return each module's class and settings by its name, the parameters' names and shapes, and what is frozen.

    Settings are looked into as deep as `depth` says: those of a traced network lead back to it, in a circle.
    """
    modules = {name or "class": _module(module, depth) for name, module in network.named_modules()}
    shapes = [f"{n} {tuple(p.shape)} {p.dtype}" for n, p in network.named_parameters()]
    fixed = [(n, p) for n, p in network.named_parameters() if not p.requires_grad]
    constant = weights_of([*fixed, *network.named_buffers()])
    return {**modules, "parameters": _listed(shapes), **({"frozen": constant} if constant else {})}


def _module(module: nn.Module, depth: int) -> str:
    settings = {k: plain_value(v, depth) for k, v in _public(module) if k != "training"}
    if code := code_of(type(module)):
        settings["code"] = code
    return f"{type(module).__qualname__}({', '.join(f'{k}={v}' for k, v in settings.items())})"


def weights_of(named: Any) -> str:
    """Return one digest of tensors by name; nothing of none."""
    lines = [f"{name} {digest(tensor)}" for name, tensor in named]
    return _listed(lines, few=0) if lines else ""


def _listed(lines: Any, few: int = FEW) -> str:
    """Return a few lines as they are, and a digest of many."""
    lines = tuple(lines)
    if len(lines) <= few:
        return ", ".join(lines)
    return f"{len(lines):,} of them, sha256 {sha256(chr(10).join(lines).encode()).hexdigest()[:SHOWN]}"
