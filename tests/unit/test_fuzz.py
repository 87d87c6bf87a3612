"""The fuzzer sees what it should, and goes on where it stopped."""

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from posterity.errors import CorruptFile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
from fuzzing import targets, trial  # noqa: E402  # they are beside the library, not in it


@pytest.mark.parametrize("name", targets.MAKERS)
def test_an_input_depends_on_its_number_alone_and_good_files_are_read_as_they_are(name):
    target = targets.MAKERS[name]()
    first, second = (trial.case(target, Random("0/a/7")) for _ in range(2))
    assert first == second
    for number, wanted in enumerate(originals := trial.originals(target)):
        made = trial.Case(number, target.seeds[number], True)
        assert trial.attempt(target, made, originals).kind == "as it was", wanted


def reading(read, guarded=True):
    return replace(targets.MAKERS["idx"](), seeds=(b"seed",), edits=(), guarded=(guarded,), read=read)


def raises(error):
    def read(content):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (raises(CorruptFile("no")), "refused"),
        (raises(CorruptFile("no" * 3000)), "endless words"),
        (raises(KeyError("no")), "traceback"),
        (raises(MemoryError()), "memory"),
        (lambda content: trial.Content(content), "other content"),
        (lambda content: trial.Content(b"seed", content), "other words"),
        (lambda content: trial.Content(b"seed"), "as it was"),
    ],
)
def test_each_kind_of_failure_is_seen(read, kind):
    made = trial.case(reading(read), Random(0))
    assert trial.attempt(reading(read), made, (trial.Content(b"seed"),)).kind == kind


def test_a_file_without_a_checksum_may_say_something_else():
    target = reading(lambda content: trial.Content(content), guarded=False)
    assert trial.attempt(target, trial.case(target, Random(0)), (trial.Content(b"seed"),)).kind == "accepted"


def test_a_reader_that_takes_too_long_is_ended_whatever_it_catches(monkeypatch):
    def read(content):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    monkeypatch.setattr(trial, "SECONDS", 0.2)
    target = reading(read)
    assert trial.attempt(target, trial.case(target, Random(0)), (trial.Content(b"seed"),)).kind == "hang"


def test_a_run_goes_on_where_it_stopped(tmp_path):
    def run(inputs):
        command = [sys.executable, BENCHMARKS / "fuzz.py", "--target", "idx", "--folder", tmp_path / "state"]
        done = subprocess.run([*command, "--inputs", str(inputs), "--out", tmp_path / "a.md"], capture_output=True)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return json.loads((tmp_path / "a.json").read_text())["targets"]["idx"]

    run(20)
    both, once = run(60), run(60)
    assert both["done"] == sum(both["counts"].values()) == 60
    assert once == both
