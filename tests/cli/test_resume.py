"""`train --resume` after config.toml or the data have changed; commands that read; two processes at once."""

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from posterity.cli import train
from tests.cli.conftest import TINY
from tests.processes import posterity

EDITS = {
    "activation": ('name = "mlp:12"', 'name = "mlp:12"\nactivation = "tanh"', "model."),
    "widths": ("mlp:12", "mlp:13", "mlp:13"),
    "seed": ("seed = 0", "seed = 1", "seed 0 → 1"),
    "rate": ("lr = 0.01", "lr = 0.02", "method.optimizer.lr 0.01 → 0.02"),
    "batch": ("batch_size = 256", "batch_size = 128", "data.batch_size 256 → 128"),
    "method": ('kind = "mean_field"', 'kind = "map"', "method.kind mean_field → map"),
    "estimator": ('estimator = "weight"', 'estimator = "flipout"', "method.estimator weight → flipout"),
    "prior": ("std = 0.3", "std = 0.5", "prior.std 0.3 → 0.5"),
    "validation": ("validation = 0.1", "validation = 0.2", "data.validation 0.1 → 0.2"),
    "epochs": ("epochs = 2", "epochs = 3", "method.epochs 2 → 3"),
    "temperature": ("temperature = 1.0", "temperature = 0.5", "method.temperature 1.0 → 0.5"),
    "scale of inputs": ("standardise = true", "standardise = false", "data.standardise True → False"),
}


def edited(run: Path, old: str, new: str) -> None:
    text = (run / "config.toml").read_text()
    assert old in text
    if new == 'kind = "map"':  # a MAP has no keys of mean field's
        text = re.sub(r"\[method\].*?(?=\n\[)", '[method]\nkind = "map"\nepochs = 2\n', text, flags=re.S)
        text = re.sub(r"\[method\.optimizer\].*?(?=\n\[|\Z)", "", text, flags=re.S)
    else:
        text = text.replace(old, new)
    (run / "config.toml").write_text(text)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_run_is_refused_in_one_line(name: str, call, digits_run: Path, tmp_path: Path) -> None:
    old, new, said = EDITS[name]
    run = shutil.copytree(digits_run, tmp_path / "run")
    edited(run, old, new)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "log.jsonl"}
    found = call("train", "--resume", run, "--quiet")
    assert found.code == 2
    assert "is of another run. What differs: " in found.err
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "log.jsonl"} == before


def test_what_may_change_goes_on_and_is_said(call, digits_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    edited(run, "[engine]", "[engine]\nthreads = 3")
    edited(run, "predictive_draws = 4", "predictive_draws = 5")
    found = call("train", "--resume", run, "--quiet")
    assert found.code == 0, found.err
    assert "goes on: threads 1 → 3" in found.err
    a, b = (load_file(p / "posterior.safetensors") for p in (run, digits_run))
    assert all((a[k] == b[k]).all() for k in b)


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines()


REPLACED = {
    "fewer rows": lambda lines: lines[:-20],
    "other values": lambda lines: [lines[0], *(re.sub(r"^(-?)", r"\g<1>1", line) for line in lines[1:])],
    "permuted": lambda lines: [lines[0], *reversed(lines[1:])],
}


@pytest.mark.parametrize("name", REPLACED)
def test_replaced_data_are_refused_everywhere(name: str, call, table: Path, tmp_path: Path) -> None:
    own, run = shutil.copy(table, tmp_path / "plant.csv"), tmp_path / "run"
    flags = ("--model", "mlp:4", "--epochs", "2", "--method", "map", "--quiet")
    assert call("train", own, *flags, "--out", run).code == 0
    whole = own.read_text()
    own.write_text("\n".join(REPLACED[name](rows(own))) + "\n")
    for command in (
        ("train", "--resume", run, "--quiet"),
        *((c, run, "--quiet") for c in ("evaluate", "diagnose", "calibrate")),
    ):
        found = call(*command)
        assert found.code == 2, command
        assert "What differs: " in found.err, command
        assert "train inputs" in found.err, command
        assert len(found.err.splitlines()) == 1
    own.write_text(whole)
    assert call("evaluate", run, "--quiet").code == 0
    assert call("train", "--resume", run, "--quiet").code == 0


def test_a_data_set_of_the_same_shape_is_another(call, table: Path, tmp_path: Path) -> None:
    own, run = shutil.copy(table, tmp_path / "plant.csv"), tmp_path / "run"
    flags = ("--model", "mlp:4", "--epochs", "2", "--method", "map", "--quiet")
    assert call("train", own, *flags, "--out", run).code == 0
    other = tmp_path / "other.csv"
    other.write_text("\n".join(REPLACED["other values"](rows(own))) + "\n")
    edited(run, str(own), str(other))
    assert "data.train inputs" in call("train", "--resume", run, "--quiet").err
    moved = shutil.move(own, tmp_path / "moved.csv")
    edited(run, str(other), str(moved))
    assert call("train", "--resume", run, "--quiet").code == 0  # the same data under another name


def test_columns_of_other_names_are_other_data(call, table: Path, tmp_path: Path) -> None:
    """The names are what later tables are read by."""
    own, run = shutil.copy(table, tmp_path / "plant.csv"), tmp_path / "run"
    flags = ("--model", "mlp:4", "--epochs", "1", "--method", "map", "--quiet")
    assert call("train", own, *flags, "--out", run).code == 0
    head, *lines = rows(own)
    own.write_text("\n".join((head.replace("a,b", "b,a"), *lines)) + "\n")
    assert "data.columns a, b → b, a" in call("train", "--resume", run, "--quiet").err
    edited(run, "standardise_targets = true", "standardise_targets = false")
    assert "data.standardise_targets none → False" in call("train", "--resume", run, "--quiet").err


LONG = ("train", "digits", "--model", "mlp:200", "--epochs", "400", "--batch", "8", "--quiet")


def until(ready, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_running_directory_has_one_writer_and_many_readers(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = posterity(*LONG, "--out", run)
    try:
        until(lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text())
        for more in ((*LONG, "--out", run), (*LONG, "--out", run, "--force"), ("train", "--resume", run, "--quiet")):
            found = call(*more)
            assert found.code == 2
            assert f"is being written by process {first.pid} on " in found.err
            assert len(found.err.splitlines()) == 1
        found = call("evaluate", run, "--quiet")
        assert "holds no posterior.safetensors" in found.err
        first.send_signal(signal.SIGKILL)
        first.wait()
        (run / "config.toml").write_text((run / "config.toml").read_text().replace("epochs = 400", "epochs = 401"))
        assert "method.epochs 400 → 401" in call("train", "--resume", run, "--quiet").err  # its lock died with it
    finally:
        first.kill()
        first.communicate()


def test_of_two_that_start_at_once_one_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = [posterity("train", "digits", *TINY, "--out", run) for _ in range(2)]
    said = [one.communicate(timeout=120) for one in both]
    assert sorted(one.returncode for one in both) == [0, 2], said
    assert (run / "report.html").exists()
    refused = next(err for one, (_, err) in zip(both, said, strict=True) if one.returncode)
    assert "is being written by process" in refused or "is not empty" in refused


def test_a_directory_that_is_removed_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = posterity(*LONG, "--out", run)
    try:
        until(lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text())
        os.rename(run, tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        _, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 2, err
    assert "was removed or replaced while this run was writing to it" in err or "No such file" in err
    assert len(err.splitlines()) == 1


def test_a_configuration_that_is_removed_is_written_again(
    call, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, score = tmp_path / "run", train.score

    def removing(*arguments: Any) -> Any:
        (run / "config.toml").unlink()
        return score(*arguments)

    monkeypatch.setattr(train, "score", removing)
    found = call("train", table, *TINY, "--out", run)
    assert found.code == 0
    assert "config.toml was removed during this run" in found.out + found.err
    monkeypatch.undo()
    assert call("evaluate", run).code == 0
