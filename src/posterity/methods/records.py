"""Methods as values: read by their kind from configurations, written as records, and restored from them."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, TypeAlias

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import PydanticKnownError, PydanticSerializationError, core_schema

from posterity.errors import InvalidInput
from posterity.identity import plain_value
from posterity.methods.base import KINDS, Method, Plain, as_method, is_method, kind_of
from posterity.options import ByKind
from posterity.types import Data, Engine
from posterity.types import Method as Infers


class Recorded(Method):
    """A method that a record or a file names, and that is not at hand: its options and a title; it cannot infer."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    @property
    def kind(self) -> str:
        return str(self.record.get("kind"))

    @property
    def title(self) -> str:
        return re.split(r"[.:]", self.kind)[-1].replace("_", " ")

    @property
    def temperature(self) -> float | None:
        value = self.record.get("temperature")
        return float(value) if isinstance(value, int | float) else None

    def infer(self, problem: Any, data: Data, engine: Engine) -> Any:
        raise InvalidInput(f"The method '{self.kind}' is known by its name alone: give the method itself.")


class Imported(Method):
    """A method that `module:callable` made: it answers as that does, and is recorded by what was written."""

    def __init__(self, own: Any, record: Mapping[str, Any]) -> None:
        self.own, self.record = as_method(own), dict(record)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "own") if name in ASKED else self
        return getattr(own, name) if own is not self else object.__getattribute__(self, name)

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    def suited(self, problem: Any) -> "Imported":
        return Imported(self.own.suited(problem), self.record)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Imported) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.kind)


ASKED = {name for name in dir(Method) if not name.startswith("_")} - {"kind", "member", "stages", "suited"}


@dataclass(frozen=True)
class MethodOption(ByKind):
    """Marks an option that is a method: one that is made, a class of one's own with `infer`, or a table with its kind.

    Args:
        base: the class that it must be of; any method where it is `Method`.
    """

    base: type[Method] = Method

    @property
    def kinds(self) -> dict[str, type]:
        return {kind: KINDS[kind] for kind in sorted(KINDS) if issubclass(KINDS[kind], self.base)}

    def made(self, value: Any) -> Any:
        """Read an option's value; what is wrong is said as pydantic says it."""
        if isinstance(value, Mapping):
            return self._of_table(value)
        if isinstance(value, self.base) or (self.base is Method and is_method(value)):
            return value
        if is_method(value):
            raise self._strange(kind_of(value))
        raise PydanticKnownError("model_attributes_type")

    def _of_table(self, table: Mapping[str, Any]) -> Any:
        kind = table.get("kind")
        if kind is None:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        if isinstance(kind, str) and kind in self.kinds:
            return made_of(KINDS[kind], table)
        if isinstance(kind, str) and ":" in kind and self.base is Method:
            return Recorded(table)
        raise self._strange(str(kind))

    def _strange(self, kind: str) -> PydanticKnownError:
        expected = ", ".join(f"'{one}'" for one in self.kinds)
        return PydanticKnownError(
            "union_tag_invalid", {"discriminator": "'kind'", "tag": kind, "expected_tags": expected}
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        written = core_schema.plain_serializer_function_ser_schema(recorded)
        return core_schema.no_info_plain_validator_function(self.made, serialization=written)


AnyMethod: TypeAlias = Annotated[Infers, MethodOption()]


@cache
def _adapter(cls: Any) -> Any:
    return TypeAdapter(cls)


def made_of(cls: Any, table: Mapping[str, Any]) -> Any:
    """Make a method of a table of its options."""
    if hasattr(cls, "__pydantic_fields__"):
        return _adapter(cls).validate_python(dict(table))
    options = {name: value for name, value in table.items() if name != "kind"}
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(str(error)) from error


def recorded(method: Any) -> dict[str, Any]:
    """Return a method as plain JSON values: its kind and its options; of a class of one's own, as it says itself.

    >>> class Mine:
    ...     def infer(self, problem, data, engine): ...
    >>> recorded(Mine())["kind"].rpartition(".")[2]
    'Mine'
    """
    if isinstance(method, Recorded | Imported):
        return dict(method.record)
    own = method.own if isinstance(method, Plain) else method
    try:
        values = TypeAdapter(type(own)).dump_python(own, mode="json") if is_dataclass(own) else plain_value(own)
        json.dumps(values)
    except (PydanticSchemaGenerationError, PydanticSerializationError, TypeError, ValueError):
        values = plain_value(own)  # options that have no form in JSON
    said = {name: value for name, value in dict(values).items() if name != "code" or hasattr(own, name)}
    return {**said, "kind": kind_of(own)}  # a digest of its code tells runs apart, and is no option


def restored(record: Mapping[str, Any]) -> Method:
    """Return the method that a record is of; one that is not known here, or has other options by now, as `Recorded`.

    >>> from posterity.methods import MAP
    >>> restored(recorded(MAP(epochs=3))).epochs, restored({"kind": "elsewhere.Mine"}).title
    (3, 'Mine')
    """
    cls = KINDS.get(str(record.get("kind")))
    if cls is None:
        return Recorded(record)
    values = cls.renewed(record)
    inner = {name: restored(values[name]) for name in cls.stages if isinstance(values.get(name), Mapping)}
    try:
        found: Method = made_of(cls, {**values, **inner})
    except (ValueError, ValidationError):
        return Recorded(record)
    return found


def each_stage(method: Any, change: Callable[[Any], Any]) -> Any:
    """Return a method whose stages, methods themselves, are changed; itself where it has none."""
    stages = {name: getattr(method, name) for name in as_method(method).stages}
    changed = {name: change(stage) for name, stage in stages.items() if stage is not None}
    return replace(method, **changed) if any(changed[name] is not stages[name] for name in changed) else method


def lengthened(method: Any, epochs: int) -> Any:
    """Return a method of so many epochs, in each of its stages that counts in them.

    >>> from posterity import MAP, Ensemble
    >>> lengthened(Ensemble(MAP(epochs=3), 5), 34).method.epochs
    34
    """
    if is_dataclass(method) and any(one.name == "epochs" for one in fields(method)):
        return replace(method, epochs=epochs)  # type: ignore[type-var]  # an instance of one
    return each_stage(method, lambda stage: lengthened(stage, epochs))


def stages_of(method: Any) -> tuple[Any, ...]:
    """Return a method and all methods in it, outermost first.

    >>> from posterity import MAP, Ensemble
    >>> [kind_of(one) for one in stages_of(Ensemble(MAP(), 5))]
    ['ensemble', 'map']
    """
    inner = [getattr(method, name) for name in as_method(method).stages]
    return (method, *(one for stage in inner if stage is not None for one in stages_of(stage)))
