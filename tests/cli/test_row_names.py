"""Rows are called what their file calls them: by lines and identifiers, in the report and beside predictions."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posterity.data import load
from posterity.data.dataset import Options, Reader

QUICK = ("--method", "map", "--epochs", "2", "--model", "mlp:4", "--predictive-draws", "2", "--quiet")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Sixty people, two of whom have no target: rows of the network are not lines of the file."""
    rng = np.random.default_rng(0)
    rows = [f"P{k:02d},{a:.3f},{b:.3f},{'' if k in (3, 7) else a}" for k, (a, b) in enumerate(rng.normal(size=(60, 2)))]
    path = tmp_path / "people.csv"
    path.write_text("person,a,b,y\n" + "\n".join(rows) + "\n")
    return path


def test_test_rows_are_called_by_their_lines_and_identifiers(people: Path) -> None:
    found = load(str(people))
    lines = people.read_text().splitlines()
    assert len(found.test_names) == len(found.test_inputs) == 12
    assert found.scaling is not None
    targets = found.scaling.restore_targets(found.test_targets.double())
    for name, target in zip(found.test_names, targets.tolist(), strict=True):
        line, person = name.removeprefix("line ").split(": ")
        cells = lines[int(line) - 1].split(",")
        assert cells[0] == person
        assert float(cells[-1]) == pytest.approx(target, abs=1e-4)


def test_rows_of_another_table_are_called_by_its_own(people: Path, tmp_path: Path) -> None:
    header, *rows = people.read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join([header, *rows[:40]]))
    (tmp_path / "b.csv").write_text("\n".join([header, *rows[40:]]))
    found = load(str(tmp_path / "a.csv"), options=Options(table=Reader(test=str(tmp_path / "b.csv"))))
    assert found.test_names[:2] == ("line 2: P40", "line 3: P41")


def test_predictions_carry_what_the_table_calls_its_rows(people: Path, call: Any, tmp_path: Path) -> None:
    assert call("train", people, *QUICK, "--out", tmp_path / "run").code == 0
    plain = tmp_path / "plain.csv"
    plain.write_text("a,b\n0.1,0.2\n")
    found = call("predict", tmp_path / "run", people, plain, "--format", "csv")
    rows = list(csv.DictReader(found.out.splitlines()))
    assert [row["person"] for row in rows] == [*(f"P{k:02d}" for k in range(60)), ""]
    assert rows[2]["input"].endswith("people.csv:3")
    assert "person" not in found.err
    shown = call("predict", tmp_path / "run", people).out
    assert "P59" in shown


def test_a_name_that_is_one_of_predictions_is_told_apart(people: Path, call: Any, tmp_path: Path) -> None:
    people.write_text(people.read_text().replace("person,", "mean,", 1))
    assert call("train", people, *QUICK, "--out", tmp_path / "run").code == 0
    row = next(csv.DictReader(call("predict", tmp_path / "run", people, "--format", "csv").out.splitlines()))
    assert row["mean of the table"] == "P00"
    assert float(row["mean"]) < 10


def test_numbers_that_are_names_are_carried_as_they_stand(people: Path, call: Any, tmp_path: Path) -> None:
    header, *rows = people.read_text().splitlines()
    numbered = [f"{k}{row[3:]}" for k, row in enumerate(rows)]
    people.write_text("\n".join([header.replace("person", "person_id"), *numbered]))
    assert call("train", people, *QUICK, "--out", tmp_path / "run").code == 0
    new = tmp_path / "new.csv"
    new.write_text("person_id,a,b\n007,0.1,0.2\n12345678901234567890,0.1,0.2\n")
    found = call("predict", tmp_path / "run", new, "--format", "csv")
    assert [row["person_id"] for row in csv.DictReader(found.out.splitlines())] == ["007", "12345678901234567890"]
