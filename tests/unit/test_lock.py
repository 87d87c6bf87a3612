"""One writer of a folder, among processes and threads; a process that dies holds nothing."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
from posterity import MAP, Engine, Gaussian, InvalidInput, TensorData
from posterity.train.lock import NAME, Occupied, held, refuse_held
from tests.processes import Forked, python

HOLD = """
import os, sys, time
from pathlib import Path
from posterity.train.lock import held
os.setsid()
with held(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *more: str) -> Forked:
    process = python(HOLD, folder, *more)
    while not (process.stdout.exists() and process.stdout.read_text() == "held\n"):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def ended(process: Forked) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def fit(folder: Path, **engine: object) -> posterity.Engine:
    x = torch.linspace(-1, 1, 12)[:, None]
    own = Engine(progress=False, device="cpu", directory=folder, **engine)
    return posterity.fit(
        nn.Linear(1, 1), TensorData(x, x[:, 0], 4), likelihood=Gaussian(std=0.3), method=MAP(epochs=2), engine=own
    )


def test_another_process_is_refused_by_name_until_it_dies(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        for resume in (False, True):
            with pytest.raises(Occupied, match=f"is being written by process {process.pid} on ") as refused:
                fit(tmp_path / "run", resume=resume)
            assert len(str(refused.value).splitlines()) == 1
        with pytest.raises(Occupied):
            refuse_held(tmp_path / "run")
        assert [p.name for p in (tmp_path / "run").iterdir()] == [NAME]
    finally:
        process.kill()  # by SIGKILL: it cleans nothing up
        process.wait()
    assert (tmp_path / "run" / NAME).exists()
    refuse_held(tmp_path / "run")
    fit(tmp_path / "run")
    assert not (tmp_path / "run" / NAME).exists()


def test_a_child_does_not_hold_what_its_parent_held(tmp_path: Path) -> None:
    process = holder(tmp_path, "and a child")
    try:
        process.kill()
        process.wait()
        until(
            lambda: free(tmp_path)
        )  # the child closes what it was given when it first runs, which a busy machine puts off
    finally:
        ended(process)


def until(ready: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def free(folder: Path) -> bool:
    try:
        with held(folder):
            return True
    except Occupied:
        return False


def test_threads_of_one_process_are_two_writers(tmp_path: Path) -> None:
    begun, refused = threading.Event(), []

    def first(name: str, row: object) -> None:
        begun.set()
        second.join()

    def other() -> None:
        begun.wait()
        try:
            fit(tmp_path)
        except Occupied as error:
            refused.append(str(error))

    second = threading.Thread(target=other)
    second.start()
    fit(tmp_path, on_epoch=first)
    assert len(refused) == 1
    assert f"process {os.getpid()}" in refused[0]


def test_of_many_that_come_at_once_one_at_a_time_is_let_in(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most, entered
        for _ in range(40):
            try:
                with held(tmp_path):
                    with guard:
                        inside, most, entered = inside + 1, max(most, inside + 1), entered + 1
                    time.sleep(0.001)
                    with guard:
                        inside -= 1
            except Occupied:
                pass

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered > 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("planted", ["link", "hard link", "pipe", "folder"])
def test_what_is_planted_in_its_place_is_not_written_through(planted: str, tmp_path: Path) -> None:
    target, run = tmp_path / "precious", tmp_path / "run"
    target.write_text("precious")
    run.mkdir()
    {
        "link": lambda: (run / NAME).symlink_to(target),
        "hard link": lambda: (run / NAME).hardlink_to(target),
        "pipe": lambda: os.mkfifo(run / NAME),
        "folder": lambda: (run / NAME).mkdir(),
    }[planted]()
    with pytest.raises(InvalidInput):
        fit(run)
    assert target.read_text() == "precious"


def test_what_a_lock_file_says_is_harmless_in_a_terminal(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        (tmp_path / NAME).write_text("process 7\x1b[31m\nmore" + "x" * 10_000)
        with pytest.raises(Occupied) as refused, held(tmp_path):
            pass
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 800
    finally:
        ended(process)


@pytest.mark.parametrize("what", ["all of it", "replaced", "a member's"])
def test_a_folder_that_is_removed_is_missed(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def remove(name: str, row: object) -> None:
        if what == "a member's":
            for file in (folder / "member-1").iterdir():
                file.unlink()
            (folder / "member-1").rmdir()
            return
        folder.rename(tmp_path / "gone")
        if what == "replaced":
            folder.mkdir()

    x = torch.linspace(-1, 1, 12)[:, None]
    engine = Engine(progress=False, device="cpu", directory=folder, on_epoch=remove)
    with pytest.raises(InvalidInput, match="was removed or replaced while this run was writing to it"):
        posterity.fit(
            nn.Linear(1, 1),
            (x, x[:, 0]),
            likelihood=Gaussian(std=0.3),
            method=posterity.Ensemble(MAP(2), 2),
            engine=engine,
        )


def test_no_space_names_the_file(tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk."""
    code = """
import resource, sys, torch, posterity, warnings
warnings.simplefilter("ignore")
from torch import nn
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
x = torch.linspace(-1, 1, 12)[:, None]
engine = posterity.Engine(progress=False, device="cpu", directory=sys.argv[1])
try:
    posterity.fit(nn.Sequential(nn.Linear(1, 3000), nn.Linear(3000, 1)), (x, x[:, 0]), likelihood=posterity.Gaussian(std=.3),
                  method=posterity.MAP(2), engine=engine)
except posterity.InvalidInput as error:
    print(error)
"""
    done = python(code, tmp_path).done()
    assert done.stdout.startswith(f"Cannot write {tmp_path}/last.safetensors: "), done.stdout + done.stderr
    assert "too large" in done.stdout
    assert not list(tmp_path.iterdir())
