"""Other implementations, each run in an environment of its own."""

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

HERE = Path(__file__).parent


class NumPyro:
    """NumPyro's NUTS in another process, made to draw when it is told to; see `numpyro_nuts.py` for its settings.

    Args:
        python: the interpreter of an environment that has numpyro.
        target: `network`, `schools`, `funnel` or `banana`.
        settings: numbers and arrays.
    """

    def __init__(self, python: Path, target: str, settings: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        np.savez(folder / "settings.npz", **settings)
        self._out = folder / "draws.npz"
        command = [str(python), str(HERE / "numpyro_nuts.py"), target, str(folder / "settings.npz"), str(self._out)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def read(self) -> dict[str, Any]:
        """Wait for a line that it writes: the first when it is ready, one more for each `draw`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("NumPyro's process ended early; what it said is above.")
        read: dict[str, Any] = json.loads(line)
        return read

    def draw(self) -> dict[str, Any]:
        """Make it draw; return seconds, gradients and divergences."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self.read()

    def values(self) -> np.ndarray[Any, Any]:
        """End it; return all that it drew, (chains, draws, values)."""
        self._process.communicate()
        drawn: np.ndarray[Any, Any] = np.load(self._out)["values"]
        return drawn
