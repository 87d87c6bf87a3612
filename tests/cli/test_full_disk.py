"""A disk that is full, or a file that may grow no further: one line with the path, and what was there stays as it was."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from posterity.storage import append_text
from tests.processes import Done, python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are Unix's")
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
del sys.argv[1]
"""
COMMAND = "\nfrom posterity.cli.app import main\nmain()"


def limited(size: int, *arguments: object) -> Done:
    """The command line in a process whose files may have so many bytes, as on a disk that has no more."""
    return python(LIMITED + COMMAND, size, *arguments).done(120)


def full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_a_figure_that_does_not_fit_is_no_bug(kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"prior.{kind}"
    out.write_text("earlier")
    said = limited(2048, "prior", "digits", "--model", "mlp:4", "--n", 2, "--out", out, "--quiet")
    assert said.returncode == 2, said.stderr
    assert said.stderr == f"posterity: --out {out} cannot be written: File too large.\n"
    assert [(file, file.read_text()) for file in tmp_path.iterdir()] == [(out, "earlier")]


def test_a_finding_that_does_not_fit_leaves_the_earlier_one_in_its_place(
    call, digits_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    assert call("calibrate", run, "--quiet").code == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = call("calibrate", run, "--coverage", 0.8, "--quiet")
    assert said.code == 2
    assert said.err == f"posterity: {run / 'findings' / 'calibrate.json'}: No space left on device.\n"
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert call("calibrate", run, "--coverage", 0.8, "--quiet").code == 0
    earlier = run / "findings" / "earlier" / "calibrate-1.json"
    assert earlier.read_bytes() == before[run / "findings" / "calibrate.json"]
    assert call("calibrate", run, "--coverage", 0.8, "--quiet").code == 0
    assert list(earlier.parent.iterdir()) == [earlier]  # the same again is not kept twice


def test_a_line_of_a_log_is_whole_or_not_there(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_text(log, "x" * 9000 + "\n")
    code = (
        "from pathlib import Path\nfrom posterity.storage import append_text\nappend_text(Path(sys.argv[1]), 'y' * 100)"
    )
    said = python(LIMITED + code, 9050, log).done(60)
    assert f"File too large: '{log}'" in said.stderr
    assert log.read_text() == "x" * 9000 + "\n"


def test_a_run_of_a_table_that_went_on_is_that_of_one_go_byte_by_byte(call, table_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(table_run, tmp_path / "run")
    for name in ("posterior.safetensors", "metrics.json", "report.html"):
        (run / name).unlink()
    assert call("train", "--resume", run, "--quiet").code == 0
    assert (run / "posterior.safetensors").read_bytes() == (table_run / "posterior.safetensors").read_bytes()
    assert json.loads((run / "metrics.json").read_text())["model"]["test"]
