"""Ctrl-C and SIGTERM, whenever they come: one line and 130; and what is nobody's to take over is left alone."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from posterity.cli import app
from posterity.cli.directory import RunDirectory
from posterity.errors import InvalidInput
from posterity.train.signals import finish_step_first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outside_of_any_training_a_command_ends_in_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app, "make", lambda: lambda *_, **__: os.kill(os.getpid(), number))
    assert app.run(["data"]) == 130
    assert capsys.readouterr() == ("", "posterity: Interrupted.\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_in_the_background_of_a_script_is_stopped_as_any_other(number: int) -> None:
    """A script's & has Ctrl-C ignored; whoever sends the run one means it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with finish_step_first() as stop:
            os.kill(os.getpid(), number)
        assert stop.is_set()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_stopped_before_there_is_a_configuration_a_run_is_not_said_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "claim", stopped)
    assert app.run(["train", "diabetes", "--model", "mlp:2", "--out", str(tmp_path / "run"), "--quiet"]) == 130
    assert capsys.readouterr().err == "posterity: Interrupted, before anything was trained.\n"


@pytest.mark.parametrize("make", [Path.mkdir, None])
def test_a_directory_that_went_away_at_the_very_end_is_said(
    make: Callable[[Path], None] | None, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def wrote() -> None:
        with RunDirectory(folder).held(force=False):
            shutil.rmtree(folder)
            if make is not None:
                make(folder)

    with pytest.raises(InvalidInput, match="was removed or replaced while this run was writing to it"):
        wrote()
