"""One input and what came of it: refused, read as it was, read as something else, a traceback, a hang, or too much memory."""

import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from fuzzing.mutators import Mutator, damaged
from posterity.errors import PosterityError

SECONDS, WAITING, MEMORY = 5.0, 30.0, 2**30  # of the processor, of the clock, bytes
ALARMS = (signal.SIGPROF, signal.SIGALRM)
LONGEST_REFUSAL = 4_000  # characters that a person may be asked to read
FAILURES = ("traceback", "hang", "memory", "other content", "endless words", "died")


@dataclass(frozen=True)
class Content:
    """What was read, in a form that can be compared: `values` are numbers, `words` all else (names, settings)."""

    values: object
    words: object = None


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        seeds: good files.
        read: reads a file's bytes by the library; raises what the library raises.
        edits: changes that leave a well-formed file.
        guarded: for each seed, whether it carries a checksum, so that damage must be seen.
        sealed: no edit renews that checksum, so that an edit must not change values either.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], Content]
    edits: tuple[Mutator, ...]
    guarded: tuple[bool, ...]
    sealed: bool = False


@dataclass(frozen=True)
class Case:
    """One input; `compared` where another content must not be accepted."""

    seed: int
    content: bytes
    compared: bool


@dataclass(frozen=True)
class Outcome:
    """What came of it, and where: the kind of error and the innermost function of the library."""

    kind: str
    place: str = ""


class Hang(BaseException):
    """The time is over; no `except Exception` of a reader takes this."""


def case(target: Target, rng: Random) -> Case:
    """Make one input: damage, an edit, or both."""
    number = rng.randrange(len(target.seeds))
    content, guarded = target.seeds[number], target.guarded[number]
    kind = rng.random()
    edited = kind < 0.6 and bool(target.edits)
    if edited:
        content = rng.choice(target.edits)(rng, content)
    if not edited or (kind < 0.1 and not target.sealed):
        content = damaged(rng, content)
    return Case(number, content, guarded and (target.sealed or not edited))


def originals(target: Target) -> tuple[Content, ...]:
    """Read the good files."""
    return tuple(target.read(seed) for seed in target.seeds)


def attempt(target: Target, made: Case, wanted: tuple[Content, ...]) -> Outcome:
    """Read one input under an alarm."""
    for number in ALARMS:
        signal.signal(number, _ring)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            _set(SECONDS, WAITING)
            try:
                found = target.read(made.content)
            finally:
                _set(0, 0)
    except PosterityError as error:
        outcome = Outcome("refused") if len(str(error)) <= LONGEST_REFUSAL else Outcome("endless words", _place(error))
    except Hang as error:
        outcome = Outcome("hang", _place(error))
    except MemoryError as error:
        outcome = Outcome("memory", _place(error))
    except Exception as error:
        outcome = Outcome("traceback", _place(error))
    else:
        outcome = _compared(made, found, wanted[made.seed])
    if time.process_time() - start > SECONDS:
        return Outcome("hang", outcome.place or "after " + outcome.kind)
    return outcome


def _compared(made: Case, found: Content, wanted: Content) -> Outcome:
    if found == wanted:
        return Outcome("as it was")
    if not made.compared:
        return Outcome("accepted")
    return Outcome("other words" if found.values == wanted.values else "other content", "accepted")


def peak() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _set(seconds: float, waiting: float) -> None:
    """Set both alarms: a busy machine makes no reader slow, and one that sleeps uses no processor."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, waiting)


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hang


def _place(error: BaseException) -> str:
    """Name the kind of error and the innermost function of the library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/posterity/" in f.filename]
    if not frames:
        return type(error).__name__
    file = Path(frames[-1].filename).as_posix().rpartition("/posterity/")[2]
    return f"{type(error).__name__} in {file}:{frames[-1].name}"
