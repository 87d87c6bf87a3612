"""`posterity bench`: one command, one table, stopped and continued; mistakes in one line."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from posterity import bench
from posterity.bench.study import Job, remaining
from posterity.data import describe
from tests.cli.test_mistakes import check_one_line
from tests.processes import python


@pytest.fixture
def fits(monkeypatch) -> list[Job]:
    """Studies whose fits take no time; the list of the fits that were run."""
    seen: list[Job] = []

    def run(job: Job, folder: Path) -> dict:
        seen.append(job)
        scores = {column.score: 0.25 + job.repeat for column in bench.STUDIES["uci"].columns["boston"]}
        return {"scores": scores, "seconds": 1.0}

    monkeypatch.setitem(bench.STUDIES, "uci", replace(bench.UCI, run=run))
    return seen


def test_one_command_makes_one_table_and_adds_to_it(call, fits, tmp_path):
    flags = ("bench", "uci", "--sets", "wine", "boston", "--splits", "2", "--out", tmp_path / "uci")
    said = call(*flags, "--methods", "map", "nuts")
    assert said.code == 0, said.err
    assert [(j.data, j.method, j.repeat) for j in fits[:4]] == [
        ("boston", "map", 0),
        ("boston", "nuts", 0),
        ("wine", "map", 0),
        ("wine", "nuts", 0),
    ]
    assert "0 of 8 fits are in" in said.err
    assert "boston, split 0, MAP: RMSE 0.25, log likelihood -0.25, 1 s; 1 of 8, 0 s left" in said.err
    assert "MC dropout" in said.out
    assert "0.75 ± 0.50" in said.out
    assert "| **MAP** | 2 | 0.75 ± 0.50 | −0.75 ± 0.50 |" in (tmp_path / "uci.md").read_text()
    again = call(*flags, "--methods", "map", "nuts", "sgld", "--json")
    assert len(fits) == 12
    assert "8 of 12 fits are in" in again.err
    found = json.loads(again.out)
    assert found["study"] == "uci"
    assert set(found["sets"]) == {"boston", "wine"}
    assert found["sets"]["wine"]["sgld"]["scores"]["rmse"]["mean"] == 0.75
    assert found["sets"] == json.loads((tmp_path / "uci.json").read_text())


def test_a_table_alone_runs_nothing(call, fits, tmp_path):
    out = tmp_path / "uci"
    check_one_line(call("bench", "uci", "--table", "--out", out), "no results of 'uci'", str(out), "--table")
    call("bench", "uci", "--sets", "boston", "--methods", "map", "--splits", "1", "--out", out, "--quiet")
    (out / "remarks.md").write_text("MAP wins.\n")
    said = call("bench", "uci", "--table", "--out", out)
    assert "MAP wins.\n\n## boston\n" in (tmp_path / "uci.md").read_text()
    assert (said.code, len(fits)) == (0, 1)
    assert "MAP" in said.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("ucy",), ("Unknown study 'ucy'", "Did you mean 'uci'")),
        (("uci", "--sets", "bostn"), ("Unknown set 'bostn'", "Did you mean 'boston'")),
        (("uci", "--methods", "maps"), ("Unknown method 'maps'", "Did you mean 'map'")),
        (("uci", "--splits", "21"), ("--splits 21", "from 1 to 20")),
        (("uci", "--splits", "two"), ("--splits two", "whole number")),
        (("uci", "--seeds", "2"), ("--seeds 2", "--splits")),
        (("images", "--splits", "2"), ("--splits 2", "--seeds")),
        (("images", "--seeds", "0"), ("--seeds 0", "from 1 to")),
        (("uci", "--threads", "0"), ("--threads 0", "from 1 to")),
    ],
)
def test_mistakes_are_answered_in_one_line(call, fits, tmp_path, flags, words):
    check_one_line(call("bench", *flags, "--out", tmp_path / "out"), *words)
    assert not fits
    assert not (tmp_path / "out").exists()


def test_what_is_run_by_name_alone_is_left_open_and_the_page_says_so(call, monkeypatch, tmp_path):
    seen = []

    def run(job: Job, folder: Path) -> dict:
        seen.append((job.data, job.method))
        return {"scores": {c.score: 0.5 for c in bench.CIFAR.columns[job.data]}, "seconds": 1.0}

    monkeypatch.setitem(bench.STUDIES, "cifar", replace(bench.CIFAR, run=run))
    flags = ("bench", "cifar", "--seeds", "1", "--out", tmp_path / "cifar")
    assert call(*flags).code == 0
    usual = ["lenet_mle", "lenet_mean_field", "lenet_cold", "3conv3fc_mle", "3conv3fc_cold"]
    assert seen == [("cifar-10", name) for name in usual]
    page = (tmp_path / "cifar.md").read_text()
    assert page.count("| not run |") == 4 + 9  # AlexNet thrice and a 3Conv3FC on CIFAR-10, and all of CIFAR-100
    assert page.index("## cifar-100") < page.index("| **LeNet, mean field** | not run |") < page.index("| 31 |")
    assert call(*flags, "--sets", "cifar-100", "--methods", "alexnet_mle", "lenet_mle").code == 0
    assert seen[5:] == [("cifar-100", "lenet_mle"), ("cifar-100", "alexnet_mle")]
    assert (tmp_path / "cifar.md").read_text().count("| not run |") == 4 + 7


def test_its_help_names_the_flags(call):
    said = call("bench", "--help")
    assert said.code == 0
    assert all(
        flag in said.out for flag in ("--sets", "--methods", "--splits", "--seeds", "--out", "--table", "--json")
    )


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(call, monkeypatch, tmp_path):
    def run(job: Job, folder: Path) -> dict:
        if job.repeat == 1:
            raise KeyboardInterrupt
        return {"scores": {c.score: 1.0 for c in bench.UCI.columns["boston"]}, "seconds": 1.0}

    monkeypatch.setitem(bench.STUDIES, "uci", replace(bench.UCI, run=run))
    out = tmp_path / "uci"
    said = call("bench", "uci", "--sets", "boston", "--methods", "map", "--splits", "3", "--out", out)
    assert said.code == 130
    last = said.err.splitlines()[-1]
    assert last.startswith("posterity: Interrupted after 1 of 3 fits, which are kept.")
    assert f"posterity bench uci --out {out} --table" in last
    assert [p.name for p in (out / "boston").iterdir()] == ["map-0.json"]


def located(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not describe(name).available, reason=f"the files of {name} are not on this machine")


# The models of the study, with a fifth of their steps.
SHORTER = """
from dataclasses import replace
from posterity.bench import uci
from posterity.cli.app import main
uci.FAMILIES = {
    name: replace(family, models=tuple(replace(model, steps=model.steps // 5) for model in family.models))
    for name, family in uci.FAMILIES.items()
}
main()
"""


@located("uci/boston")
def test_a_real_study_stopped_by_a_signal_goes_on_where_it_was(tmp_path):
    out = tmp_path / "uci"
    words = f"bench uci --sets boston --methods mle ensemble_map --splits 1 --threads 1 --out {out}".split()
    process = python(SHORTER, *words)
    first = out / "boston" / "mle-0.json"
    for _ in range(20_000):
        if process.poll() is not None or first.exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Interrupted after 1 of 2 fits" in err
    assert "Traceback" not in err
    written = first.stat().st_mtime_ns
    done = python(SHORTER, *words).done()
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == written
    jobs = bench.UCI.jobs(("boston",), ("mle", "ensemble_map"), 1)
    assert not remaining(jobs, out)
    record = json.loads((out / "boston" / "ensemble_map-0.json").read_text())
    assert 1.5 < record["scores"]["rmse"] < 4.5  # published rows: 2.9 to 3.3 over all splits
    assert record["threads"] == 1
