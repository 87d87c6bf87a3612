"""Folders that cannot be written, read or searched, files where a folder is expected, and what is missing from a run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from posterity.storage import replace_text
from tests.processes import python

NOBODY = "import os, sys\nif os.geteuid() == 0:\n    os.setuid(65534)\n"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be listed but not searched, whoever runs the tests."""
    folder = tmp_path / "closed"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if os.stat(path).st_uid == os.geteuid() and path.is_relative_to(tmp_path.parents[1]):
            path.chmod(0o755)
    folder.chmod(0o444)
    yield folder
    folder.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="permissions are Unix's")
def test_a_file_that_cannot_be_made_is_named_and_not_its_unfinished_part(closed: Path) -> None:
    code = NOBODY + "from pathlib import Path\nfrom posterity.storage import replace_text\n"
    said = python(code + "replace_text(Path(sys.argv[1]), '')", closed / "a.json").done(60)
    last = said.stderr.splitlines()[-1]
    assert last.startswith("PermissionError: ")
    assert last.endswith(f"Permission denied: '{closed / 'a.json'}'")


def test_a_file_where_a_folder_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(NotADirectoryError, match=r"/a/b\.json'$"):
        replace_text(tmp_path / "a" / "b.json", "")


def test_force_that_fails_leaves_a_run_that_may_be_replaced(call, digits_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "metrics.json").unlink()
    (run / "metrics.json").mkdir()  # in the way, as what may not be removed is
    again = ("train", "digits", "--model", "mlp:4", "--epochs", "1", "--predictive-draws", "2", "--out", run, "--force")
    said = call(*again, "--quiet")
    assert said.code == 2
    assert said.err.startswith(f"posterity: --out {run} cannot be written: ")
    assert (run / "config.toml").exists()
    (run / "metrics.json").rmdir()
    assert call(*again, "--quiet").code == 0


def test_files_in_the_place_of_a_runs_folders_are_replaced(call, digits_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    for name in ("checkpoints", "findings"):
        (run / name).write_text("in the way")
    flags = ("--model", "mlp:4", "--epochs", "1", "--predictive-draws", "2", "--force", "--quiet")
    assert call("train", "digits", *flags, "--out", run).code == 0
    assert (run / "checkpoints").is_dir()


def test_a_run_without_checkpoints_says_that_it_starts_from_its_beginning(
    call, digits_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    assert "from its beginning" not in call("train", "--resume", run).err
    for name in ("last", "previous"):
        (run / "checkpoints" / "model" / f"{name}.safetensors").unlink(missing_ok=True)
        (run / "checkpoints" / "twin" / f"{name}.safetensors").unlink(missing_ok=True)
    said = call("train", "--resume", run)
    assert said.code == 0
    assert f"There is no checkpoint in {run / 'checkpoints'}: the run starts from its beginning." in said.err
    assert (run / "posterior.safetensors").read_bytes() == (digits_run / "posterior.safetensors").read_bytes()
