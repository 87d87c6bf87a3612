"""Files that are whole or not there: against links put in their way, umasks, full disks and writers that fail."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from posterity.storage import append_text, replace_text, replacing, unlinked


def write_half(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise RecursionError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.json"
    replace_text(path, "old")
    with pytest.raises(RecursionError):
        write_half(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("report.html", "report.html.part"):
        (folder / name).symlink_to(victim)
    replace_text(folder / "report.html", "page")
    assert victim.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()
    assert (folder / "report.html").read_text() == "page"


def test_what_is_appended_goes_through_no_link(tmp_path: Path):
    victim, log = tmp_path / "victim", tmp_path / "log.jsonl"
    victim.write_text("mine")
    log.symlink_to(victim)
    with pytest.raises(OSError, match=r"log\.jsonl"):
        append_text(log, "row\n")
    assert victim.read_text() == "mine"
    log.unlink()
    append_text(log, "row\n")
    append_text(log, "ä\n")
    assert log.read_text(encoding="utf-8") == "row\nä\n"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int):
    before = os.umask(umask)
    try:
        replace_text(tmp_path / "a", "text")
        append_text(tmp_path / "b", "text")
        with replacing(tmp_path / "c") as part:
            save_file({"x": torch.ones(2)}, part)
    finally:
        os.umask(before)
    for name in "abc":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert torch.equal(load_file(tmp_path / "c")["x"], torch.ones(2))


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        replace_text(tmp_path / "none" / "a.txt", "text")
    assert caught.value.filename == str(tmp_path / "none" / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        replace_text(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]


def test_long_names(tmp_path: Path):
    name = "n" * 250
    replace_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"


def test_a_file_that_is_gone_on_with_is_no_link(tmp_path: Path):
    victim, part = tmp_path / "victim", tmp_path / "a.part"
    victim.write_text("mine")
    part.symlink_to(victim)
    for mode in ("ab", "wb"):
        with pytest.raises(OSError, match="symbolic link"), open(part, mode, opener=unlinked):
            pass
    assert victim.read_text() == "mine"
    part.unlink()
    for mode, text in (("wb", b"one"), ("ab", b" two")):
        with open(part, mode, opener=unlinked) as file:
            file.write(text)
    assert part.read_text() == "one two"
