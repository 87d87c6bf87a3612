"""What is asked of a posterior: numbers of functions, generators, bounds, inputs; looked at before anything is computed."""

import warnings
from collections.abc import Mapping
from operator import index
from typing import Any

from torch import Generator, Tensor

from posterity.errors import InvalidInput, PosterityWarning
from posterity.model.problem import check_inputs
from posterity.options import require, shown

MOST = 2**31  # functions: more are a slip of the keyboard, and would be drawn for years


def check_request(n: Any, what: str, generator: Any = None, max_bytes: Any = None) -> None:
    """Refuse what is no number of functions, no generator or no number of bytes.

    Raises:
        InvalidInput: with what it is.

    >>> check_request(0, "draws")
    Traceback (most recent call last):
    posterity.errors.InvalidInput: 0 draws were asked for; ask for at least 1.
    """
    number, size = _whole(n), 1 if max_bytes is None else _whole(max_bytes)
    if number is None or number >= MOST:
        raise InvalidInput(f"{shown(n)} {what} were asked for; ask for a whole number, at least 1 and below {MOST:,}.")
    if number < 1:
        raise InvalidInput(f"{number} {what} were asked for; ask for at least 1.")
    if generator is not None and not isinstance(generator, Generator):
        raise InvalidInput(
            f"generator={shown(generator)}: must be a torch.Generator: torch.Generator().manual_seed(0)."
        )
    if size is None or size < 1:
        raise InvalidInput(f"max_bytes={shown(max_bytes)}: must be a whole number of bytes, at least 1; 2**30 say.")


def check_posterior(posterior: Any, name: str = "posterior") -> None:
    """Refuse what predicts nothing in the place of a posterior.

    >>> check_posterior(3)
    Traceback (most recent call last):
    posterity.errors.InvalidInput: posterior=3: must be a posterior, as posterity.fit and posterity.load return it.
    """
    if isinstance(posterior, type) or not (hasattr(posterior, "predict") and hasattr(posterior, "problem")):
        raise InvalidInput(
            f"{name}={shown(posterior)}: must be a posterior, as posterity.fit and posterity.load return it."
        )


def check_averaging(draws: Any, seed: Any) -> None:
    """Refuse what is no number of functions, and no seed."""
    check_request(draws, "functions")
    require(seed=(seed, int))


def _whole(value: Any) -> int | None:
    if getattr(value, "ndim", 0):  # an array of one number is one, and what is computed with it is an array
        return None
    try:
        return index(value)
    except (TypeError, RuntimeError):  # of a tensor
        return None


def check_sets(inside: Any, outside: Any, training: Any, twin: Any, name: str) -> None:
    """Refuse what are no sets of inputs by names other than the one inside, and no pair of training inputs and targets."""
    if twin is not None:
        check_posterior(twin, "twin")
    require(outside=(outside, Mapping))
    for own in (inside, *outside.values()):
        check_inputs(own)
    if not outside or not all(map(len, outside.values())) or not len(inside):
        raise InvalidInput("Out-of-distribution scores need inputs inside, and at least one set of inputs outside.")
    if name in outside:
        raise InvalidInput(f"A set outside cannot be called '{name}'.")
    if training is None:
        return
    if not isinstance(training, tuple | list) or len(training) != 2:
        raise InvalidInput("training must be a pair of tensors, inputs (N, ...) and targets (N,).")
    for values, what in zip(training, ("inputs", "targets"), strict=True):
        require(**{f"training {what}": (values, Tensor)})


def say_of_statistics(lacking: bool) -> None:
    """Warn whoever draws from a posterior that lacks its functions' running statistics."""
    if lacking:
        warnings.warn(
            "The network normalises by running statistics, which are those of none of the functions that are drawn. Give "
            "each its own: posterity.with_statistics(posterior, data), with the training data.",
            PosterityWarning,
            stacklevel=4,
        )
