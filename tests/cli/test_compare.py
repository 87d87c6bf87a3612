"""`posterity compare`: rows of runs that differ by seeds, twins, its page, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from statistics import fmean, stdev

import pytest

from posterity.cli.app import run
from posterity.cli.compare import Entry, _entries, _machines, _names
from posterity.cli.flags import AS_TRAINED
from posterity.cli.saved import open_run
from tests.cli.conftest import TINY
from tests.cli.test_mistakes import check_one_line


@pytest.fixture(scope="module")
def second_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits_run` from another seed."""
    path = tmp_path_factory.mktemp("second") / "run"
    assert run(["train", "digits", *TINY, "--lr", "0.01", "--seed", "1", "--twin", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def map_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "run"
    assert run(["train", "digits", *TINY, "--method", "map", "--out", str(path)]) == 0
    return path


def scores(path: Path, which: str = "model") -> dict[str, float]:
    return json.loads((path / "metrics.json").read_text())[which]["test"]


def test_runs_that_differ_by_seed_share_a_row(call, digits_run: Path, second_seed: Path, map_run: Path) -> None:
    said = call("compare", digits_run, second_seed, map_run, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    field, point = found["contenders"]
    assert (field["name"], field["seeds"], point["name"], point["seeds"]) == ("Mean field", [0, 1], "MAP", [0])
    assert (found["data"], found["num_test"]) == ("digits", 360)
    for key in ("accuracy", "nll", "ece", "smooth_ece", "aurc"):
        own = [scores(path)[key] for path in (digits_run, second_seed)]
        assert field["numbers"][key]["mean"] == pytest.approx(fmean(own), rel=1e-6)
        assert field["numbers"][key]["std"] == pytest.approx(stdev(own), rel=1e-4)
        assert point["numbers"][key]["mean"] == pytest.approx(scores(map_run)[key], rel=1e-6)
    saved = open_run(digits_run)
    size = sum(t.nbytes for t in saved.posterior.tensors().values()) / 2**20
    numbers = field["numbers"]
    assert numbers["megabytes"]["mean"] == pytest.approx(size)
    assert numbers["parameters"]["mean"] == 2 * (64 * 12 + 12 + 12 * 10 + 10)
    assert (numbers["draws"]["mean"], point["numbers"]["draws"]["mean"]) == (4, 1)
    trained = [
        json.loads((path / "metrics.json").read_text())["model"]["seconds"] for path in (digits_run, second_seed)
    ]
    assert numbers["train_seconds"]["mean"] == pytest.approx(fmean(trained))
    assert 0 < numbers["predict_seconds"]["mean"] < 60
    assert "Mean field: 0, 1; MAP: 0" in found["warnings"][0]


def test_twins_take_part_when_asked(call, digits_run: Path, second_seed: Path) -> None:
    said = call("compare", digits_run, second_seed, "--twins")
    assert said.code == 0, said.err
    assert "Maximum likelihood" in said.out
    assert "Note" not in said.err
    for key in ("Accuracy", "Smooth ECE", "AURC", "Training", "Memory"):
        assert key in said.out
    own = [100 * scores(path, "twin")["accuracy"] for path in (digits_run, second_seed)]
    assert f"{fmean(own):.2f} ± {stdev(own):.2f}" in said.out or f"{fmean(own):.1f} ± {stdev(own):.1f}" in said.out


def test_the_page_overlays_what_the_runs_have(
    call, digits_run: Path, map_run: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.undo()  # figures are drawn
    curve = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.7, 1.0]}
    runs = []
    for name, source in (("bayes", digits_run), ("point", map_run)):
        copied = Path(copytree(source, tmp_path / name))
        (copied / "findings").mkdir(exist_ok=True)
        kept = {"curves": {"letters": {"entropy": curve, "mutual_information": curve, "twin_entropy": curve}}}
        (copied / "findings" / "ood.json").write_text(json.dumps(kept))
        runs.append(copied)
    page = tmp_path / "compare.html"
    said = call("compare", *runs, "--out", page)
    assert said.code == 0, said.err
    assert str(page) in said.out
    text = page.read_text()
    for title in (
        "How good",
        "At what cost",
        "Do they keep their promises?",
        "What they get wrong",
        "Training",
        "Knowing strangers",
    ):
        assert title in text
    assert "against letters" in text
    assert "Mean field" in text
    call("compare", digits_run, map_run, "--out", page, "--quiet")
    assert "against letters" not in page.read_text()  # they were never held against anything


def test_regressions_compare_coverage(call, table: Path, table_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.undo()  # figures are drawn
    flags = ("--model", "mlp:12", "--method", "map", "--epochs", "30", "--batch", "32", "--quiet")
    assert call("train", table, *flags, "--out", tmp_path / "map").code == 0
    said = call("compare", table_run, tmp_path / "map", "--out", tmp_path / "c.html", "--draws", "5", "--json")
    assert said.code == 0, said.err
    field, _ = json.loads(said.out)["contenders"]
    assert field["numbers"]["rmse"]["mean"] == pytest.approx(scores(table_run)["rmse"], rel=0.2)  # 5 draws, not 32
    assert field["numbers"]["draws"]["mean"] == 5
    assert "Coverage of intervals" in (tmp_path / "c.html").read_text()


def test_mistakes_are_one_line(call, digits_run: Path, table_run: Path, tmp_path: Path) -> None:
    check_one_line(call("compare", digits_run), "two or more")
    check_one_line(call("compare"), "two or more")
    check_one_line(call("compare", digits_run, digits_run), "given twice")
    check_one_line(call("compare", digits_run, tmp_path / "none"), "There is no run")
    check_one_line(call("compare", digits_run, table_run), "is of other data", "data set: plant")
    check_one_line(
        call("compare", digits_run, digits_run / "posterior.safetensors", "--out", tmp_path), "is a directory"
    )


def test_a_run_and_its_own_file_are_the_same_seed_twice(call, digits_run: Path) -> None:
    said = call("compare", digits_run, digits_run / "posterior.safetensors")
    assert said.code == 0, said.err
    assert "several runs of the same seed" in said.err


def test_names_tell_contenders_apart(digits_run: Path, map_run: Path) -> None:
    (point,) = _entries(map_run, open_run(map_run), AS_TRAINED, False)
    (field,) = _entries(digits_run, open_run(digits_run), AS_TRAINED, False)

    def changed(noun: str, **values: object) -> Entry:
        return replace(point, settings={**point.settings, noun: {**point.settings[noun], **values}})

    assert _names([[point], [field]]) == ["MAP", "Mean field"]
    assert _names([[point], [changed("prior", std=2.0)]]) == ["MAP, prior std 0.3", "MAP, prior std 2.0"]
    assert _names([[point], [changed("model", name="mlp:5")]]) == ["MAP, mlp:12", "MAP, mlp:5"]
    assert _names([[field], [replace(field, draws=9)]]) == ["Mean field, draws 4", "Mean field, draws 9"]
    many = replace(
        changed("data", batch_size=1, validation=0.5, standardise=False, image_size=9), path=Path("runs/odd")
    )
    assert _names([[point], [many], [field]]) == ["MAP, run", "MAP, odd", "Mean field"]
    assert len({replace(one, draws=4).key for one in (point, field, many)}) == 3


def test_training_times_of_other_machines_are_not_compared(digits_run: Path, map_run: Path, tmp_path: Path) -> None:
    moved = Path(copytree(map_run, tmp_path / "moved"))
    metrics = json.loads((moved / "metrics.json").read_text())
    del metrics["sha256"]
    metrics["machine"]["threads"] += 7
    (moved / "metrics.json").write_text(json.dumps(metrics))
    opened = {path: open_run(path) for path in (digits_run, map_run, moved)}
    assert _machines({path: opened[path] for path in (digits_run, map_run)}) == ()
    assert "threads" in _machines(opened)[0]
