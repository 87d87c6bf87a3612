"""What all options have in common: frozen dataclasses that are checked when they are made, and refuse a misspelt name.

The checks are pydantic's; what it says of a mistake is translated here, and here alone, into what was given, what was
expected, and the nearest valid choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from functools import cache, wraps
from numbers import Integral, Real
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from posterity.errors import InvalidInput, suggest
from posterity.text import short

STRICT = ConfigDict(extra="forbid")  # a misspelt key of a configuration is refused, however deep it lies
LONGEST = 60  # characters of a value in a message
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
WHOLE, NUMBER, SWITCH, TEXT = "must be a whole number", "must be a number", "must be true or false", "must be text"
LIST, KEYS = "must be a list", "must be a table of names"
WORDS = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), WHOLE),
    **dict.fromkeys(("float_parsing", "float_type", "decimal_type", "complex_type"), NUMBER),
    **dict.fromkeys(("bool_parsing", "bool_type"), SWITCH),
    **dict.fromkeys(("string_type", "string_sub_type"), TEXT),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), LIST),
    **dict.fromkeys(("dict_type", "mapping_type"), KEYS),
    **dict.fromkeys(("missing", "missing_argument", "missing_keyword_only_argument"), "is missing"),
    "int_parsing_size": "is too large",
    "finite_number": "must be a finite number",
    "string_unicode": "must be text; it has bytes that are no characters",
    "none_required": "must be none",
    "callable_type": "must be a function",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
    "union_tag_not_found": "is missing its kind",
    "recursion_loop": "contains itself",
}
COMPOSED = (
    "dataclass_type",
    "model_type",
    "model_attributes_type",
    "dataclass_exact_type",
)  # what has options of its own
OURS = ("Value error, ", "Assertion failed, ")  # what stands before the texts of our own checks
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
TYPES: dict[type, tuple[type, str]] = {
    float: (Real, NUMBER),
    int: (Integral, WHOLE),
    bool: (bool, SWITCH),
    str: (str, TEXT),
    Mapping: (Mapping, KEYS),
}
Made = TypeVar("Made")


class ByKind:
    """Marks an option whose classes are found by the `kind` that a table names: `kinds` has those that there are."""

    @property
    def kinds(self) -> Mapping[str, type]:
        return {}


Count = Annotated[int, Field(ge=1)]


@dataclass_transform(field_specifiers=(Field, field))
def dataclass(*, frozen: bool = False, config: ConfigDict = STRICT) -> Callable[[type[Made]], type[Made]]:
    """Make a dataclass of options, as pydantic's own decorator does; a mistake in one is an `InvalidInput`.

    >>> @dataclass(frozen=True)
    ... class Steps:
    ...     epochs: int = 20
    >>> try:
    ...     Steps(epochs="many")
    ... except InvalidInput as error:
    ...     print(error)
    Steps(epochs='many'): must be a whole number.
    """

    def made(cls: type[Made]) -> type[Made]:
        checked: Any = checked_dataclass(frozen=frozen, config=config)(cls)
        check = checked.__init__

        @wraps(check)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                check(self, *args, **kwargs)
            except ValidationError as error:
                raise InvalidInput(_of_object(error, type(self), args, kwargs)) from error

        checked.__init__ = __init__
        return checked  # type: ignore[no-any-return]

    return made


def convert(owner: Any, **types: Any) -> None:
    """Check and convert fields of a class that is no class of options, when it is made, as options are.

    >>> class Steps:
    ...     def __init__(self, epochs):
    ...         self.epochs = epochs
    ...         convert(self, epochs=int)
    >>> try:
    ...     Steps(epochs=[2])
    ... except InvalidInput as error:
    ...     print(error)
    Steps(epochs=[2]): must be a whole number.
    """
    for name, kind in types.items():
        value = getattr(owner, name)
        try:
            object.__setattr__(owner, name, _adapter(kind).validate_python(value))
        except ValidationError as error:
            words = text_of(error.errors(include_url=False), value)
            raise InvalidInput(f"{type(owner).__name__}({name}={shown(value)}): {words}.") from error


def require(**given: tuple[object, type]) -> None:
    """Refuse arguments of a function that are of another type than they must be: `name=(value, type)` each.

    Numbers of other libraries are numbers, and a number that is whole is none with a fraction.

    >>> require(level=(0.9, float), by=("kl", str))
    >>> try:
    ...     require(level=("high", float))
    ... except InvalidInput as error:
    ...     print(error)
    level='high': must be a number.
    """
    for name, (value, kind) in given.items():
        accepted, words = TYPES.get(kind, (kind, f"must be a {kind.__name__}"))
        other_bool = kind is bool and type(value).__name__ in ("bool", "bool_")  # numpy's
        if not isinstance(value, accepted) and not other_bool:
            raise InvalidInput(f"{name}={shown(value)}: {words}.")


_adapter = cache(TypeAdapter)


def text_of(errors: Sequence[Any], value: object) -> str:
    """Say what is wrong with one value, of which pydantic has these errors: one, or one for each kind that it might be."""
    bounds = [one for one in errors if one["type"] in BOUNDS]  # a number was meant, whatever else may stand there
    texts = list(dict.fromkeys(_text(one, value) for one in bounds or errors))
    if len(texts) > 1 and all(text.startswith("must be ") for text in texts):
        return f"must be {' or '.join(text.removeprefix('must be ') for text in texts)}"
    return texts[0]


def deepest(error: ValidationError, reached: Callable[[tuple[int | str, ...]], Sequence[str]]) -> list[Any]:
    """Return those errors that lie deepest in what was given: of a union's, they are of the member that was meant."""
    errors = error.errors(include_url=False)
    first = max(errors, key=lambda one: len(reached(one["loc"])))
    return [first, *(e for e in errors if e is not first and reached(e["loc"]) == reached(first["loc"]))]


def shown(value: object) -> str:
    """Write a value in a message: short, and on one line.

    >>> shown("x"), shown(3), shown([1, 2]), shown(Field())
    ("'x'", '3', '[1, 2]', 'FieldInfo(…)')
    """
    plain = value is None or isinstance(value, str | int | float | list | tuple | dict)
    try:
        return short(repr(value), LONGEST) if plain else f"{type(value).__name__}(…)"
    except ValueError:  # Python writes out no whole number of thousands of digits
        return "a number of thousands of digits"


def _text(error: Mapping[str, Any], value: object) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        limit = context[bound]
        return f"must be {words} {f'{limit:g}' if isinstance(limit, float) or abs(limit) < 1e6 else limit}"
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected", context.get("expected_tags", ""))).replace(" or ", ", ")
        given = context.get("tag", value)
        return f"no such choice.{suggest(str(given), [part.strip(chr(39)) for part in expected.split(', ')])}".rstrip(
            "."
        )
    if kind == "is_instance_of":
        return f"must be a {context['class']}"
    if kind in COMPOSED:
        name = context.get("class_name")
        return f"must be {f'a {name}' if name else 'one of the objects that have options of their own, as MAP()'}"
    if kind in UNKNOWN:
        return f"no such option '{short(str(error['loc'][-1]), LONGEST)}'"
    if kind in ("value_error", "assertion_error"):
        message = str(error["msg"])
        for start in OURS:
            message = message.removeprefix(start)
        return message.rstrip(".")
    return WORDS.get(kind, "is of a kind that cannot be used here")


def _of_object(error: ValidationError, cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Say what is wrong with the arguments of a class of options."""
    names = [one.name for one in fields(cls) if one.init]
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    if len(args) > len(names):
        return f"{cls.__name__} takes {len(names)} options, and {len(args)} were given: {', '.join(names)}."
    if unknown := next((name for name in kwargs if name not in names), None):
        return f"{cls.__name__} has no option '{short(unknown, LONGEST)}'.{suggest(unknown, names)}"

    def reached(location: tuple[int | str, ...]) -> list[str]:
        start = names[location[0]] if location and isinstance(location[0], int) else next(iter(location), None)
        return [str(start)] if start in names else []

    errors = deepest(error, reached)
    path = reached(errors[0]["loc"])
    if not path:
        return f"{cls.__name__}: {text_of(errors, None)}."
    value = f"={shown(given[path[0]])}" if path[0] in given else ""
    return f"{cls.__name__}({path[0]}{value}): {text_of(errors, given.get(path[0]))}."
