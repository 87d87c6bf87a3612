"""Priors and likelihoods that are plain classes: what they do not say of themselves is as the base class has it."""

from collections.abc import Callable
from typing import Any

from posterity.types import Likelihood, Prior

PRIOR = "log_prob", "sample"  # what a prior must have


def as_likelihood(value: Any) -> Any:
    """Return a likelihood as it is; a plain class or a function of (outputs, latents) as one; anything else untouched.

    >>> from torch.distributions import Poisson
    >>> own = as_likelihood(lambda outputs, latents: Poisson(outputs.exp().squeeze(-1)))
    >>> isinstance(own, Likelihood), dict(own.latents())
    (True, {})
    """
    if isinstance(value, type | Likelihood) or not callable(value):
        return value
    return adopted(value, Likelihood)


def as_own_prior(value: Any) -> Any:
    """Return a prior as it is; a plain class with `log_prob` and `sample` as one; anything else untouched."""
    fits = all(callable(getattr(value, name, None)) for name in PRIOR)
    return adopted(value, Prior) if fits and not isinstance(value, type | Prior) else value


def adopted(own: Any, base: Any) -> Any:
    """Return an object of a class that derives from `base`, has the own class's name, and answers by the own object."""
    names = [name for name in dir(base) if (not name.startswith("_") or name == "__call__") and hasattr(own, name)]
    parts: dict[str, Any] = {name: _forwarded(name, own) for name in names}
    cls = type(own)
    named = own if hasattr(own, "__qualname__") else cls  # a function has a name of its own
    parts |= {"__module__": named.__module__, "__qualname__": named.__qualname__, "__doc__": cls.__doc__}
    return type(named.__name__, (_Adopted, base), parts)(own)


class _Adopted:
    """Holds the own object; copies and pickles as that does."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __reduce__(self) -> Any:
        base: Any = next(one for one in type(self).__mro__ if one in (Likelihood, Prior))
        return adopted, (self.own, base)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Adopted) and bool(self.own == other.own)

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, id(self.own)))

    def __repr__(self) -> str:
        plain = "__repr__" not in {name for base in type(self.own).__mro__[:-1] for name in vars(base)}
        return type(self).__name__ if plain else repr(self.own)


def _forwarded(name: str, own: Any) -> Any:
    if not callable(getattr(own, name)):
        return property(lambda self: getattr(self.own, name))

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = getattr(self.own, name)(*args, **kwargs)
        return as_likelihood(found) if name == "started" else found

    method: Callable[..., Any] = call
    method.__name__ = name
    return method
