"""A run that came from elsewhere, with links planted in it: nothing outside of its folder is written or removed."""

import os
import shutil
from pathlib import Path

import pytest

from posterity.cli.directory import default_path
from tests.cli.test_mistakes import check_one_line
from tests.processes import python

TINY = ("--model", "mlp:4", "--epochs", "1", "--method", "map", "--predictive-draws", "1", "--quiet")
FILES = ("report.html", "metrics.json", "config.toml", "log.jsonl", "posterior.safetensors", ".writable")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file, to which the links lead."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("mine")
    return tmp_path / "outside"


def check_untouched(outside: Path) -> None:
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("kept", "mine")]


def test_links_are_replaced_and_files_have_the_permissions_of_the_umask(call, tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in FILES:
        (run / name).symlink_to(outside / "kept")
    for name in ("checkpoints", "findings"):
        (run / name).symlink_to(outside)
    before = os.umask(0o027)
    try:
        said = call("train", "digits", *TINY, "--out", run, "--force")
    finally:
        os.umask(before)
    assert said.code == 0, said.err
    check_untouched(outside)
    assert not [path for path in run.rglob("*") if path.is_symlink()]
    modes = {file.name: file.stat().st_mode & 0o777 for file in run.rglob("*") if file.is_file()}
    assert set(modes.values()) == {0o640}, modes


@pytest.mark.parametrize("name", ["checkpoints", "findings", "findings/earlier"])
def test_a_linked_folder_is_refused_by_what_would_write_in_it(
    call, digits_run: Path, tmp_path: Path, outside: Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(outside)
    later = [("shift", run, "--limit", "20", "--draws", "1")] if name == "findings" else []
    for command in (("train", "--resume", run), *later):
        said = call(*command, "--quiet")
        assert said.code == 2
        assert "link" in said.err
        assert len(said.err.splitlines()) == 1
    check_untouched(outside)


@pytest.mark.parametrize("command", ["predict run x.csv --out link.csv", "prior digits --n 2 --out link.svg"])
def test_an_output_that_is_a_link_is_replaced(
    call, table_run: Path, table: Path, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(table_run, "run")
    shutil.copy(table, "x.csv")
    link = Path(command.split()[-1])
    link.symlink_to(outside / "kept")
    assert call(*command.split(), "--quiet").code == 0
    check_untouched(outside)
    assert not link.is_symlink()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a" * 5000, "a\x1b[31m", "\ud800", "a b$"])
def test_names_become_parts_of_one_files_name(name: str) -> None:
    path = default_path(name, name, name)
    assert path.parent == Path("runs")
    assert len(path.name) < 255
    assert path.name.isprintable()
    assert path.name not in ("..", ".")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_device_is_named(call, digits_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = python("import os, posterity.cli.app as a; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); a.main()", "data")
    assert said.wait() == 2
    assert said.stderr.read_text() == "posterity: standard output: No space left on device.\n"


def test_no_space_names_the_file(call, digits_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    shutil.copytree(digits_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    for command, file in (
        (("prior", "digits", "--n", "2", "--out", "p.svg", "--quiet"), "p.svg"),
        (("prune", "run", "--out", "p.safetensors", "--quiet"), "p.safetensors"),
        (("train", "digits", *TINY, "--out", "new"), "new"),
    ):
        said = call(*command)
        assert said.code == 2
        assert file in said.err
        assert "No space left on device" in said.err
        check_one_line(said._replace(out=""))
