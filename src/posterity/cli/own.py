"""Methods, likelihoods and priors that are code of one's own, named `module:callable` by a flag or a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, isroutine, signature
from typing import Annotated, Any

from pydantic import WrapSerializer, WrapValidator

from posterity.importing import Wanted, imported, is_code
from posterity.methods.base import Method
from posterity.methods.records import Imported, Recorded, each_stage, stages_of
from posterity.model.adopted import PRIOR, as_likelihood, as_own_prior
from posterity.model.known import AnyLikelihood
from posterity.model.priors import AnyPrior
from posterity.types import Likelihood, Prior


def _infers(value: Any) -> bool:
    return callable(getattr(value, "infer", None)) or callable(getattr(value, "start", None))


def _believes(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in PRIOR)


def _likely(value: Any) -> bool:
    """Tell whether something is called with outputs and latents: an object with `__call__`, or a function of these two."""
    if isinstance(value, type):
        return any("__call__" in vars(base) for base in value.__mro__)
    if not isroutine(value):
        return callable(value)
    try:
        parameters = signature(value).parameters.values()
    except (TypeError, ValueError):  # of a function that is not Python
        return False
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return len([one for one in parameters if one.kind in places and one.default is one.empty]) == 2


_ADVICE = "neither {0} nor a callable; nothing says that it makes {0}. Name a class or a function of your own that does"
METHOD = Wanted("Method", "my_methods:Mine", Method, _infers, _ADVICE.format("a method, with infer"))
LIKELIHOOD = Wanted(
    "Likelihood",
    "my_likelihoods:Mine",
    Likelihood,
    _likely,
    _ADVICE.format("a likelihood, called with outputs and latents"),
)
WANTED_PRIOR = Wanted("Prior", "my_priors:Mine", Prior, _believes, _ADVICE.format("a prior, with log_prob and sample"))


@dataclass(frozen=True)
class Named:
    """A likelihood or a prior by its name, and the options that it is made with; nothing is imported before it is asked for."""

    record: Mapping[str, Any]
    wanted: Wanted

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    @cached_property
    def made(self) -> Any:
        """Import and make it."""
        adopt = as_likelihood if self.wanted is LIKELIHOOD else as_own_prior
        return adopt(imported(self.wanted, self.kind, options_of(self.record)))

    def __str__(self) -> str:
        return self.kind


def made(part: Any) -> Any:
    """Return a likelihood or a prior; one that is named is imported."""
    return part.made if isinstance(part, Named) else part


def with_code(method: Any) -> Any:
    """Return a method whose parts that are named are imported."""
    if isinstance(method, Recorded) and is_code(method.kind):
        return Imported(imported(METHOD, method.kind, options_of(method.record)), method.record)
    return each_stage(method, with_code)


def code_in(method: Any, *parts: Any) -> list[str]:
    """Return the names of code in a method, a prior and a likelihood."""
    kinds = [one.record["kind"] for one in stages_of(method) if isinstance(one, Recorded | Imported)]
    kinds += [part.kind for part in parts if isinstance(part, Named)]
    return [str(kind) for kind in kinds if is_code(kind)]


def options_of(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "kind"}


def _named(wanted: Wanted) -> WrapValidator:
    def read(value: Any, handler: Any) -> Any:
        if isinstance(value, Named):
            return value
        return (
            Named(dict(value), wanted) if isinstance(value, Mapping) and is_code(value.get("kind")) else handler(value)
        )

    return WrapValidator(read)


def _written(value: Any, handler: Any) -> Any:
    return dict(value.record) if isinstance(value, Named) else handler(value)


LikelihoodOption = Annotated[AnyLikelihood, _named(LIKELIHOOD), WrapSerializer(_written)]
PriorOption = Annotated[AnyPrior, _named(WANTED_PRIOR), WrapSerializer(_written)]
