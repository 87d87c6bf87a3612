"""Other processes, forked from one that has imported the package: a new interpreter would import for seconds.

Each has its own memory, signals and standard streams, and no checks of types, as users have it; what it starts from is a
process that has computed nothing.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FORKS = multiprocessing.get_context("forkserver")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A call in a process of its own, with what a test asks of a `subprocess.Popen`."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        folder = Path(tempfile.mkdtemp())
        self.stdout, self.stderr = folder / "out", folder / "err"
        self._process = FORKS.Process(target=_called, args=(call, arguments, self.stdout, self.stderr), daemon=True)
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and return what it wrote."""
        self.wait(timeout)
        return self.stdout.read_text(), self.stderr.read_text()

    def done(self, timeout: float | None = None) -> Done:
        out, err = self.communicate(timeout)
        return Done(self._process.exitcode or 0, out, err)

    def send_signal(self, which: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def posterity(*arguments: object) -> Forked:
    """The command line in a process of its own; figures are made, but not drawn into pages, which takes seconds."""
    return Forked(_command, [str(a) for a in arguments])


def python(code: str, *arguments: object, environment: Mapping[str, str] | None = None) -> Forked:
    """What `python -c` would run."""
    return Forked(_script, code, [str(a) for a in arguments], dict(environment or {}))


def _command(arguments: list[str]) -> None:
    from posterity.cli.app import main
    from posterity.report.style import Figure
    from tests.drawings import empty

    empty(Figure, setattr)
    sys.argv = ["posterity", *arguments]
    main()


def _script(code: str, arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def _called(call: Callable[..., Any], arguments: tuple[Any, ...], out: Path, err: Path) -> None:
    for number, path in enumerate((out, err), 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever runs the tests may have had it ignored
    sys.exit(call(*arguments))
