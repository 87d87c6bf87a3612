"""The program itself: its commands, loaded when they are called, and what becomes of their errors."""

import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from posterity.cli.flags import undotted
from posterity.errors import Interrupted, PosterityError, unknown
from posterity.text import visible

USER_ERROR, BUG, INTERRUPTED = 2, 1, 130
LINE = re.compile(r"\r?\n(?!  )")  # of a name: an error's own further lines are indented
COMMANDS = {
    "demo": "Teach a Bayesian LeNet handwritten digits, beside its ordinary twin: one minute, no flags needed.",
    "train": "Infer a posterior from a data set, and score it on the test data.",
    "prior": "Draw functions from a prior before any training, to see what it says.",
    "explain": "Say for each parameter what mean field makes of it, and why, before any training.",
    "evaluate": "Score a trained posterior on test data.",
    "compare": "Put runs of the same data side by side: scores, costs, and a page of curves.",
    "diagnose": "Ask whether a trained posterior can be trusted, and what to do where not.",
    "ood": "Ask whether a trained posterior knows what it was not trained on.",
    "shift": "Score a trained posterior on its test data under corruptions of five severities.",
    "calibrate": "Make promises that a trained posterior keeps: prediction sets, when to abstain, a temperature.",
    "predict": "Predict images, tables or .npy files, with uncertainty.",
    "acquire": "Say which inputs to label next, or simulate what choosing them well is worth.",
    "prune": "Remove the weights that matter least, and show what that costs.",
    "report": "Write a run's report.html anew.",
    "bench": "Run methods on the same data, and print one table: uci, images or cifar.",
    "conformance": "Hold methods, ours or another library's, to the same laws, and print one table.",
    "data": "List the known data sets, or show (and fetch) one.",
}


def installed_version() -> str:
    """Return the package's version without importing it."""
    try:
        return version("posterity")
    except PackageNotFoundError:
        from posterity import __version__

        return __version__


def make() -> App:
    """Make the command line; no command's module is imported before it is called."""
    app = App(
        name="posterity",
        help="Bayesian neural networks: train one, and know how far to trust each prediction.",
        version=installed_version,
        help_format="plaintext",
        default_parameter=Parameter(show_default=False, json_list=False, json_dict=False),  # "[a].csv" is a name
        suppress_keyboard_interrupt=False,
    )
    for name, text in COMMANDS.items():
        app.command(f"posterity.cli.{name}:{name}", name=name, help=text)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code: 0, 1 (a bug, or a broken law), 2 (the user's mistake), 130 (interrupted)."""
    debug = "--debug" in arguments or bool(os.environ.get("POSTERITY_DEBUG"))
    try:
        with _plain_warnings(), _terminated_as_interrupted():
            _refuse_unknown(arguments)
            code = make()(undotted(arguments), exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
    except (PosterityError, CycloptsError) as error:
        return _failed(str(error).strip(), USER_ERROR, debug)
    except Interrupted as error:
        return _failed(str(error), INTERRUPTED, debug)
    except KeyboardInterrupt:
        return _failed("Interrupted.", INTERRUPTED, debug)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not error.filename and error.errno == errno.ENOSPC:  # of what is printed: files are written with their names
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            error.filename = "standard output"
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}.", USER_ERROR, debug)
    except Exception as error:
        hint = "" if debug else " This is a bug; run again with --debug to see where."
        return _failed(f"{type(error).__name__}: {error}.{hint}", BUG, debug)


def _refuse_unknown(arguments: Sequence[str]) -> None:
    """Refuse a command that is none, before the parser imports all of them for what it would say."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)


def main() -> None:
    """Run the command line and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign is no reason to stop
    sys.exit(run(sys.argv[1:]))


def _failed(text: str, code: int, debug: bool) -> int:
    if debug:
        print(visible(traceback.format_exc(), keep="\n"), file=sys.stderr)
    lines = LINE.sub(r"\\n", text)
    print(f"posterity: {visible(lines, keep=chr(10))}", file=sys.stderr, flush=True)
    return code


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Write warnings without what would command the terminal: their texts have names of columns and files in them."""
    before = warnings.formatwarning

    def harmless(*told: Any) -> str:
        return visible(before(*told), keep="\n")

    warnings.formatwarning = harmless  # type: ignore[assignment]  # what is told is handed on as it came
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, in one line, with its locks and unfinished files taken away."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # whoever has a handler of its own keeps it
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
