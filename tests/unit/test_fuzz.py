"""The fuzzer sees what it should, and our readers of data give it nothing to see."""

import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from posterity.errors import CorruptFile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import fuzz  # noqa: E402  # they are beside the library, not in it
from fuzzing import targets, trial  # noqa: E402

INPUTS = 250


def failing(name: str, inputs: int = INPUTS) -> set[str]:
    target = targets.MAKERS[name]()
    wanted = trial.originals(target)
    found = set()
    for number in range(inputs):
        made = trial.case(target, Random(f"1/{name}/{number}"))
        outcome = trial.attempt(target, made, wanted)
        if outcome.kind in trial.FAILURES:
            found.add(f"{outcome.kind}: {outcome.place} (input {number})")
    return found


@pytest.mark.parametrize("name", targets.MAKERS)
def test_no_damaged_or_hostile_file_gives_a_traceback_a_hang_or_other_content(name):
    assert failing(name) == set()


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

    monkeypatch.setattr(trial, "WAITING", 0.2)
    target = reading(read)
    assert trial.attempt(target, trial.case(target, Random(0)), (trial.Content(b"seed"),)).kind == "hang"


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "limit_memory", lambda: None)  # of this process

    def run(folder, *totals):
        folder.mkdir(exist_ok=True)
        (folder / "found").mkdir(exist_ok=True)
        (folder / "at").write_bytes(b" " * 64)
        for total in totals:
            fuzz.worker(folder, 0, "idx", total)
        return fuzz.read_state(folder, "idx")

    stopped, whole = run(tmp_path / "a", 20, 20, 60), run(tmp_path / "b", 60)
    assert stopped["done"] == sum(stopped["counts"].values()) == 60
    assert stopped["counts"] == whole["counts"]


DIES_ONCE = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--folder") + 1])
state = folder / "idx.json"
found = json.loads(state.read_text()) if state.exists() else {"died": {}, "done": 0}
(folder / "at").write_bytes(b"idx 3".ljust(64))
if "3" not in found["died"]:
    os._exit(9)
state.write_text(json.dumps({**found, "done": 10}))
"""


def test_a_worker_that_dies_is_a_failure_of_the_input_at_hand(tmp_path, monkeypatch):
    (script := tmp_path / "dies.py").write_text(DIES_ONCE)
    monkeypatch.setattr(fuzz, "__file__", str(script))
    fuzz.supervise(tmp_path / "state", 0, "idx", 10)
    assert fuzz.read_state(tmp_path / "state", "idx")["died"] == {"3": "exit status 9"}
