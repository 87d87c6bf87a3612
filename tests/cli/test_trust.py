"""Code that a file names is not run unless it is trusted; code that a flag names is the user's own."""

from pathlib import Path

import pytest

from tests.cli.test_mistakes import check_one_line

PLANTED = """
from pathlib import Path
from torch import nn
Path("ran").touch()
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
CONFIG = '[data]\nname = "digits"\n[model]\nname = "{name}"\n[method]\nkind = "mean_field"\nepochs = 1\n'


@pytest.mark.parametrize("name", ["os:system", "planted_by_a_file:make"])
@pytest.mark.parametrize(
    "command",
    [
        "train --resume evil",
        "train --config evil/config.toml",
        "explain --config evil/config.toml",
        "prior --config evil/config.toml",
    ],
)
def test_a_file_runs_no_code(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted_by_a_file.py").write_text(PLANTED)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/config.toml").write_text(CONFIG.format(name=name))
    check_one_line(call(*command.split(), "--quiet"), name, "--trust")
    assert not (tmp_path / "ran").exists()


def test_what_is_trusted_is_run(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted_by_a_file.py").write_text(PLANTED)
    (tmp_path / "run.toml").write_text(CONFIG.format(name="planted_by_a_file:make"))
    said = call("train", "--config", "run.toml", "--out", "run", "--trust", "--quiet")
    assert said.code == 0, said.err
    assert (tmp_path / "ran").exists()
    assert call("train", "--config", "run.toml", "--model", "mlp:8", "--out", "other", "--quiet").code == 0
