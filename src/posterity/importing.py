"""Code that is named `module:callable`: imported, also from the current directory, and called where it is a maker.

Importing a module already runs it, so whoever asks for it says so: by typing the name, or by --trust. What may then be called
is decided before it is: a class that makes what is wanted, a function whose annotation says that it returns it, or a function
or class that is written in a file of the user's, not of Python or of an installed package.
"""

import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from posterity.code import foreign
from posterity.errors import InvalidInput, unknown


def is_code(name: object) -> bool:
    """Tell whether a name is that of code that would be imported and called.

    >>> is_code("my_module:make"), is_code("mean_field")
    (True, False)
    """
    return isinstance(name, str) and ":" in name


@dataclass(frozen=True)
class Wanted:
    """What is to be made.

    Args:
        noun: what messages call it. example: of a name.
        base: the class, whose subclasses are makers of it.
        fits: whether an object is one; of a class, whether its objects are, before any is made.
        advice: what to name instead of what makes none.
    """

    noun: str
    example: str
    base: type
    fits: Callable[[Any], bool]
    advice: str
    any_class: bool = True  # whether a class of the user's own need not derive from `base`


def imported(wanted: Wanted, name: str, options: Mapping[str, Any]) -> Any:
    """Import what `module:callable` names, and return what it makes; what is made already is returned as it is.

    Raises:
        InvalidInput: where there is no such name, where it makes nothing of the kind (before it is called), and where it fails.
    """
    module_name, _, attribute = name.partition(":")
    noun = wanted.noun
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise InvalidInput(f"{noun} '{name}': expected module:callable, as {wanted.example}.")
    with _current_directory():
        found = _attribute(noun, name, _import(noun, name, module_name), attribute)
        if not isinstance(found, type) and wanted.fits(found):
            return found
        if not callable(found):
            raise InvalidInput(f"{noun} '{name}' is a {type(found).__name__}, {wanted.advice.partition(';')[0]}.")
        if not makes(found, wanted):
            raise InvalidInput(f"{noun} '{name}' was not called: {wanted.advice.partition('; ')[2]}.")
        try:
            made = found(**options)
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"{noun} '{name}': calling it failed: {one_line(error)}") from error
    if not wanted.fits(made):
        raise InvalidInput(f"{noun} '{name}' returned a {type(made).__name__}, expected a {_called(wanted.base)}.")
    return made


def makes(found: Any, wanted: Wanted) -> bool:
    """Tell, without calling it, whether a callable may be called as a maker of what is wanted."""
    while isinstance(found, partial):
        found = found.func
    if isinstance(found, type):
        return issubclass(found, wanted.base) or (wanted.any_class and wanted.fits(found) and _by_the_user(found))
    if not inspect.isroutine(found):
        found = type(found).__call__
    function = inspect.unwrap(found)
    returned = _returned(function)
    return written_by_the_user(function) if returned is Any else _is(returned, wanted)


def _returned(function: Any) -> Any:
    """Return what a function's annotation says that it returns; `Any` where there is none, or none that can be read."""
    try:
        return inspect.get_annotations(function, eval_str=True).get("return", Any)
    except Exception:  # whatever the text of an annotation of somebody else raises: it says nothing
        return Any


def _is(annotation: Any, wanted: Wanted) -> bool:
    if isinstance(annotation, TypeVar):
        return _is(annotation.__bound__, wanted)
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is(part, wanted) for part in get_args(annotation))
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, wanted.base) or (
        wanted.any_class and wanted.fits(annotation) and _by_the_user(annotation)
    )


def written_by_the_user(function: Any) -> bool:
    """Tell whether a function is Python in a file that is neither of the standard library nor of an installed package."""
    code = getattr(function, "__code__", None)
    return code is not None and _elsewhere(function.__module__, code.co_filename)


def _by_the_user(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and _elsewhere(cls.__module__, file)


def _elsewhere(module: object, name: str) -> bool:
    return Path(name).is_file() and not foreign(module, name)


def _called(base: type) -> str:
    return f"torch.nn.{base.__name__}" if base.__module__.startswith("torch.nn") else base.__name__


def _import(noun: str, name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise InvalidInput(f"{noun} '{name}': there is no module '{error.name}' here or installed.") from error
        raise InvalidInput(f"{noun} '{name}': importing it failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a `__main__` guard may end itself
        raise InvalidInput(f"{noun} '{name}': importing it failed: {one_line(error)}") from error


def _attribute(noun: str, name: str, module: Any, attribute: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = f"name in module '{module.__name__}'"
        raise unknown(what, attribute, public or ["(nothing callable)"]) from None
    except (Exception, SystemExit) as error:  # a module that makes its names when they are asked for
        raise InvalidInput(f"{noun} '{name}': importing it failed: {one_line(error)}") from error


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
