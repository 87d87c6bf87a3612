"""What a posterior file says of itself: one model, whose every field is checked before anything is made of it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import Size

from posterity.core.layout import Layout
from posterity.documents import damaged
from posterity.errors import CorruptFile, InvalidInput
from posterity.model.informative import Informative
from posterity.model.known import AnyLikelihood
from posterity.model.priors import AnyPrior, Flat
from posterity.tensors import AGAIN
from posterity.types import Likelihood, Prior

FORMAT = "posterity-1"
INFORMATIVE = "informative"
Whole = Annotated[int, Field(ge=0, lt=1 << 60)]
Shapes = dict[str, Annotated[list[Whole], Field(max_length=32)]]
_STRANGE = ("union_tag_invalid", "union_tag_not_found")


class Described(BaseModel):
    """What a file says of a problem.

    Args:
        network: its class, and `structure`: its modules and their settings, as they print.
        parameters: shapes of the trainable ones; `random`: the names of those that are.
        constant: rows of padding, by the table's name; None in files of versions that drew them like any others.
        movers: modules that hold running statistics, see `Problem`.
        dtype: of the parameters.
        prior, likelihood: by kind, with their options.
        num_data: of the training set.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    network: str
    structure: str
    parameters: Shapes
    random: list[str]
    constant: dict[str, list[Whole]] | None = None
    movers: list[str] = []
    dtype: Literal["float64", "float32", "float16", "bfloat16"]
    prior: dict[str, Any]
    likelihood: dict[str, Any]
    num_data: Annotated[int | float, Field(gt=0, lt=1 << 60)]

    @model_validator(mode="after")
    def _of_one_network(self) -> Self:
        if len(set(self.random)) < len(self.random) or not set(self.random) <= self.parameters.keys():
            raise ValueError("what is random is not among the parameters")
        for name, rows in (self.constant or {}).items():
            shape = self.parameters.get(name, [])
            if not shape or rows != sorted(set(rows)) or any(row >= shape[0] for row in rows):
                raise ValueError("its constant rows are none of a parameter's")
        return self

    @property
    def of_informative(self) -> bool:
        """Whether the prior is an earlier posterior, whose numbers are among the file's tensors."""
        return self.prior.get("kind") == INFORMATIVE

    def informative_layout(self, path: Path) -> Layout:
        """Return the names and shapes that an `Informative` prior speaks of."""
        try:
            shapes = TypeAdapter(Shapes, config=ConfigDict(strict=True)).validate_python(self.prior.get("layout"))
        except ValidationError as error:
            raise damaged(path, f"its prior: {_first(error)}", AGAIN) from error
        return Layout(tuple(shapes), tuple(Size(shape) for shape in shapes.values()))

    def restored_prior(self, path: Path) -> Prior:
        """Restore the prior; a flat one stands for an `Informative` one until its numbers are read."""
        found: Prior = Flat() if self.of_informative else _restored(self.prior, AnyPrior, "prior", path)
        return found

    def restored_likelihood(self, path: Path) -> Likelihood:
        """Restore the likelihood."""
        found: Likelihood = _restored(self.likelihood, AnyLikelihood, "likelihood", path)
        return found


class Specification(Described):
    """What a file says of itself: its family, the problem, and what else is known of how it came about (`model_extra`).

    Args:
        spec: what the family needs beside tensors, see `FunctionPosterior.spec`.
        components: of a mixture of different problems, each.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    format: Literal["posterity-1"]
    family: str
    torch: str | None = None
    spec: dict[str, Any] | None = None
    components: Annotated[list[Described], Field(min_length=1)] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], path: Path) -> Self:
        """Check what a file says.

        Raises:
            CorruptFile: naming the first thing that cannot be.
        """
        if values.get("format") != FORMAT:
            said = str(values.get("format"))[:40]
            raise CorruptFile(f"{path} has the format {said!r}; this version reads '{FORMAT}'.")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise damaged(path, f"its header's {_first(error)}", AGAIN) from error


def described(part: Any) -> dict[str, Any]:
    """Return what a file says of a prior or a likelihood."""
    if isinstance(part, Informative):
        return {"kind": INFORMATIVE, "layout": {n: list(s) for n, s in part.layout.named_shapes().items()}}
    if not type(part).__module__.startswith("posterity."):
        return _named(part)
    return dict(TypeAdapter(type(part)).dump_python(part, mode="json", fallback=_named))  # a part may be somebody's own


def _named(part: Any) -> dict[str, str]:
    return {"kind": type(part).__qualname__}


def _restored(values: Mapping[str, Any], union: Any, what: str, path: Path) -> Any:
    try:
        return _adapter(union).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] in _STRANGE:
            name = str(values.get("kind"))[:80]
            raise InvalidInput(f"The file's {what} {name!r} is not posterity's own; pass {what}=…") from error
        raise damaged(path, f"its {what}: {_first(error)}", AGAIN) from error


@cache
def _adapter(union: Any) -> Any:
    """Making one takes longer than reading a small file."""
    return TypeAdapter(union)


def _first(error: ValidationError) -> str:
    """Say the first thing that is wrong, by its place."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
