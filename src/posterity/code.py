"""Code: whose it is, and what it does in one line of text, by which a part of one's own is told from another of its name."""

import dis
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any

INSTALLED = ("site-packages", "dist-packages")  # folders of packages that the user did not write
STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
DEPTH = 2  # of functions that functions name
SHOWN = 16  # hexadecimal digits
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def foreign(module: object, file: str) -> bool:
    """Tell whether code is of the standard library or of an installed package, by its module's name and its file's.

    >>> foreign("posixpath", inspect.__file__), foreign("__main__", "<stdin>")
    (True, False)
    """
    first = str(module).partition(".")[0]
    if first in sys.stdlib_module_names and first != "__main__":
        return True
    path = Path(file).resolve()
    return any(part in INSTALLED for part in path.parts) or not STANDARD.isdisjoint(path.parents)


def code_of(thing: Any) -> str:
    """Return a digest of what a function, or a class with those it derives from, does; nothing of what somebody else wrote.

    Of what code refers to, functions of one's own and globals that are numbers or texts count too; comments and places do not.

    >>> one, again, other = (eval(f"lambda x: x + {n}", {"__name__": "mine"}) for n in (1, 1, 2))
    >>> code_of(one) == code_of(again), code_of(one) == code_of(other)
    (True, False)
    >>> code_of(print), code_of(dict)
    ('', '')
    """
    found = "".join(_class(thing, DEPTH) if isinstance(thing, type) else _function(thing, DEPTH))
    return sha256(found.encode()).hexdigest()[:SHOWN] if found else ""


def _class(kind: type, depth: int) -> Iterator[str]:
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("posterity", "builtins"):
            continue
        for name, value in sorted(vars(base).items()):
            parts = [value.fget, value.fset] if isinstance(value, property) else [getattr(value, "__func__", value)]
            said = [text for part in parts for text in _function(part, depth)]
            if isinstance(value, _PLAIN) and not name.startswith("__") and said == [] and _is_own(base):
                said = [repr(value)]
            yield from (f"{name} {text}\n" for text in said)


def _is_own(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or "<none>"
    return not foreign(kind.__module__, file)


def _function(value: Any, depth: int) -> Iterator[str]:
    function = inspect.unwrap(value) if hasattr(value, "__code__") or hasattr(value, "cache_info") else value
    if not isinstance(function, FunctionType) or depth < 0:
        return
    code, module = function.__code__, function.__module__
    if str(module).partition(".")[0] == "posterity" or foreign(module, code.co_filename):
        return
    documented = function.__doc__ is not None and code.co_consts[:1] == (function.__doc__,)
    yield _text(code, 1 if documented else 0)
    for name in sorted(set(_names(code))):
        named = function.__globals__.get(name)
        if isinstance(named, BuiltinFunctionType | FunctionType | type):
            yield f"{name} = {named.__module__}.{named.__qualname__}"
            yield from _function(named, depth - 1)
        elif isinstance(named, _PLAIN) and not name.startswith("__"):
            yield f"{name} = {named!r}"


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code refers to, but for globals that it changes itself, as a counter."""
    changed = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_GLOBAL"}
    yield from (name for name in code.co_names if name not in changed)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _text(code: CodeType, first: int = 0) -> str:
    """Return what code does: no line numbers, no addresses, and no order that a hash gives."""
    return f"{code.co_code.hex()} {code.co_names} {[_constant(c) for c in code.co_consts[first:]]}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _text(value)
    if isinstance(value, frozenset):
        return str(sorted(map(repr, value)))
    return repr(value)
