"""What went wrong, in one clear line: what was given, what was expected, the nearest valid choice, the fix.

Every mistake that a user can make raises a `PosterityError`; the command line prints its text and exits with code 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from posterity.text import short

MANY, LONGEST = 16, 100  # names in one message, and characters of each


class PosterityError(Exception):
    """A mistake in what the library was given; its message says how to mend it."""


class InvalidInput(PosterityError, ValueError):
    """A value, shape, name or file that cannot be used."""


class DataNotFound(PosterityError, FileNotFoundError):
    """A data set whose files are in none of the places looked at."""


class CorruptFile(PosterityError, ValueError):
    """A file that is empty, truncated, or not of the format that its name promises."""


class Mismatch(PosterityError, ValueError):
    """A saved posterior or checkpoint that belongs to another network or run."""


class Diverged(PosterityError, ArithmeticError):
    """A fit whose loss is no longer finite."""


class OutOfMemory(PosterityError, MemoryError):
    """What was asked for needs more memory than there is; the message says what to lower."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a fit: the step was finished, and the message says where it was saved and how to go on."""


class PosterityWarning(UserWarning):
    """Something that a user should know, and may go on with."""


class ScaleWarning(PosterityWarning):
    """Data, outputs or a noise level that are far from the scales that a fit starts from; said before it trains."""


class NotArrived(PosterityWarning):
    """A fit that ended before it arrived, and by what one sees it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ended: Python's, torch's on an accelerator by its name, on a processor by its text.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    True
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "not enough memory" in str(error))
    )


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest of `choices`, with all of them listed, or those most alike of many.

    >>> suggest("latin", ["linear", "lattice"])
    " Did you mean 'lattice'? Choices: lattice, linear."
    """
    known = sorted(short(choice, LONGEST) for choice in choices)
    name = short(name, LONGEST)
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    few = known if len(known) <= MANY else get_close_matches(name, known, n=MANY, cutoff=0.0)
    more = f", and {len(known) - len(few)} more" if len(few) < len(known) else ""
    return (f" Did you mean '{near[0]}'?" if near else "") + f" Choices: {', '.join(few)}{more}."


def unknown(what: str, name: str, choices: Iterable[str]) -> InvalidInput:
    """Make the error for a `name` that is none of `choices`.

    >>> print(unknown("method", "map2", ["map", "mean_field"]))
    Unknown method 'map2'. Did you mean 'map'? Choices: map, mean_field.
    """
    own = str(name)  # a name that is no text is unknown, too
    return InvalidInput(f"Unknown {what} '{short(own, LONGEST)}'.{suggest(own, choices)}")
