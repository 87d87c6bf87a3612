"""A disk that is full at one write or another: one line that names the path, and a run that goes on when there is space."""

import errno
from pathlib import Path
from typing import Any

import pytest

import posterity.tensors
from tests.cli.conftest import TINY

METHODS = {
    "mean field": ("--epochs", "4"),
    "chain on disk": ("--method", "sgld", "--method.on-disk", "true", "--method.draws", "10", "--epochs", "60"),
}


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the n-th file of tensors fail as it does on a full disk."""
    real = posterity.tensors.save_file

    def at(number: int) -> None:
        written = iter(range(1, 10_000))

        def save_file(*arguments: Any, **options: Any) -> None:
            if next(written) >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(*arguments, **options)

        monkeypatch.setattr(posterity.tensors, "save_file", save_file)

    yield at
    monkeypatch.setattr(posterity.tensors, "save_file", real)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_that_a_full_disk_ended_goes_on_to_the_same_file(
    name: str, number: int, full: Any, call: Any, table: Path, tmp_path: Path
) -> None:
    flags = ("train", table, *TINY[:2], *TINY[4:], *METHODS[name])
    assert call(*flags, "--out", tmp_path / "whole").code == 0
    full(number)
    ended = call(*flags, "--out", tmp_path / "run")
    if ended.code == 0:
        pytest.skip(f"it writes fewer than {number} files")
    assert ended.code == 2
    assert "No space left on device" in ended.err.splitlines()[-1]
    assert str(tmp_path / "run") in ended.err.splitlines()[-1]
    full(10_000)
    found = call("train", "--resume", tmp_path / "run", "--quiet")
    assert found.code == 0, found.err
    assert (tmp_path / "run/posterior.safetensors").read_bytes() == (
        tmp_path / "whole/posterior.safetensors"
    ).read_bytes()
