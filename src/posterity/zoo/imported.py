"""Networks that are code of the user's own: `module:callable`, imported and called, where it is a maker of networks.

What may be called is decided before it is: a class of `torch.nn.Module`, a function whose annotation says that it returns
one, or a function without annotation that is written in a file of the user's, not of Python or of an installed package.
"""

import copy
import importlib
import inspect
import os
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from torch import nn

from posterity.code import foreign
from posterity.errors import InvalidInput, unknown


def imported(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Import what `module:callable` names, also from the current directory, and return the network that it makes.

    Raises:
        InvalidInput: where there is no such name, where it is no maker of networks (before it is called), and where it fails.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise InvalidInput(f"Network '{name}': expected module:callable, as my_networks:make.")
    with _current_directory():
        found = _attribute(name, _import(name, module_name), attribute)
        if isinstance(found, nn.Module):
            return copy.deepcopy(found)
        if not callable(found):
            raise InvalidInput(f"Network '{name}' is a {type(found).__name__}, neither a module nor a callable.")
        if not makes_networks(found):
            raise InvalidInput(
                f"Network '{name}' was not called: nothing says that it makes a torch.nn.Module. Name a class of modules, a "
                "function of your own, or one whose annotation says so: def make() -> nn.Module."
            )
        try:
            network = found(**options)
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"Network '{name}': calling it failed: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"Network '{name}' returned a {type(network).__name__}, expected a torch.nn.Module.")
    return network


def makes_networks(found: Any) -> bool:
    """Tell, without calling it, whether a callable may be called as a maker of networks.

    >>> import os, shutil, torch
    >>> [makes_networks(made) for made in (nn.Linear, os.system, exec, torch.load, shutil.rmtree, dict)]
    [True, False, False, False, False, False]
    """
    while isinstance(found, partial):
        found = found.func
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    if not inspect.isroutine(found):
        found = type(found).__call__
    function = inspect.unwrap(found)
    returned = _returned(function)
    return _written_by_the_user(function) if returned is Any else _is_module(returned)


def _returned(function: Any) -> Any:
    """Return what a function's annotation says that it returns; `Any` where there is none, or none that can be read."""
    try:
        return inspect.get_annotations(function, eval_str=True).get("return", Any)
    except Exception:  # whatever the text of an annotation of somebody else raises: it says nothing
        return Any


def _is_module(annotation: Any) -> bool:
    if isinstance(annotation, TypeVar):
        return _is_module(annotation.__bound__)
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_module(part) for part in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, nn.Module)


def _written_by_the_user(function: Any) -> bool:
    """Tell whether a function is Python in a file that is neither of the standard library nor of an installed package."""
    code = getattr(function, "__code__", None)
    return code is not None and Path(code.co_filename).is_file() and not foreign(function.__module__, code.co_filename)


def _import(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise InvalidInput(f"Network '{name}': there is no module '{error.name}' here or installed.") from error
        raise InvalidInput(f"Network '{name}': importing it failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a `__main__` guard may end itself
        raise InvalidInput(f"Network '{name}': importing it failed: {one_line(error)}") from error


def _attribute(name: str, module: Any, attribute: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = f"name in module '{module.__name__}'"
        raise unknown(what, attribute, public or ["(nothing callable)"]) from None
    except (Exception, SystemExit) as error:  # a module that makes its names when they are asked for
        raise InvalidInput(f"Network '{name}': importing it failed: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def _current_directory() -> Iterator[None]:
    """Let imports find modules of the current directory, as `python` itself does, and put `sys.path` back."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
