"""One tiny trained run of each task, made once, and a way to call the command line in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from posterity.cli.app import run
from posterity.report.style import Figure
from tests.drawings import empty

TINY = ("--model", "mlp:12", "--epochs", "2", "--batch", "256", "--predictive-draws", "4", "--quiet")


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def drawings_of_pages_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not drawn into pages, which takes seconds."""
    empty(Figure, monkeypatch.setattr)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run one command; returns its exit code and what it printed."""

    def called(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        return Said(code, *capsys.readouterr())

    return called


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-field posterior of a small MLP on digits, with its twin."""
    path = tmp_path_factory.mktemp("digits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        empty(Figure, patch.setattr)
        assert run(["train", "digits", *TINY, "--lr", "0.01", "--twin", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of y ≈ 1000 + 50 a − 20 b, in units far from 1."""
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.normal(10, 3, 120), rng.normal(-4, 2, 120)
    y = 1000 + 50 * a - 20 * b + rng.normal(0, 5, 120)
    path = tmp_path_factory.mktemp("table") / "plant.csv"
    rows = "\n".join(f"{i},{j},{k}" for i, j, k in zip(a, b, y, strict=True))
    path.write_text(f"a,b,y\n{rows}\n")
    return path


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    path = tmp_path_factory.mktemp("table-run") / "run"
    flags = ["--model", "mlp:12", "--epochs", "150", "--lr", "0.02", "--batch", "32", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        empty(Figure, patch.setattr)
        assert run(["train", str(table), *flags, "--out", str(path)]) == 0
    return path
