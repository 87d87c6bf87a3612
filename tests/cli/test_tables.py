"""A table as people have them, from the terminal: what is said first, and new tables of other columns."""

import json
from pathlib import Path

import numpy as np
import pytest

from posterity.cli.app import run

FLAGS = ("--method", "map", "--model", "mlp:8", "--epochs", "20", "--predictive-draws", "4")


@pytest.fixture(scope="module")
def passengers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    lines = ["PassengerId;Name;Sex;Age;Fare;Boarded;Survived"]
    for row in range(120):
        sex, age = rng.choice(["male", "female"]), rng.choice(["", "22", "38", "54"])
        fare, day = f"1.{rng.integers(100, 999)},50 €", f"{rng.integers(13, 28)}/04/1912"
        survived = "" if row == 7 else ("yes" if sex == "female" else "no")
        lines.append(f"{row + 1};Mr {row};{sex};{age};{fare};{day};{survived}")
    path = tmp_path_factory.mktemp("passengers") / "passengers.csv"
    path.write_text("\n".join(lines) + "\n", encoding="latin-1", errors="replace")
    path.write_bytes("\n".join(lines).encode("cp1252"))
    return path


@pytest.fixture(scope="module")
def sailed(passengers: Path) -> Path:
    path = passengers.parent / "run"
    assert run(["train", str(passengers), *FLAGS, "--quiet", "--out", str(path)]) == 0
    return path


def test_training_says_first_what_it_understood(call, passengers: Path, tmp_path: Path) -> None:
    said = call("train", passengers, *FLAGS[:-4], "--epochs", 1, "--drop", "Boarded", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    first, target, inputs, missing, left = said.err.splitlines()[:5]
    assert first == "passengers.csv: 120 rows, 7 columns separated by semicolons. The letters are Latin-1."
    assert target.startswith("Target 'Survived': 2 classes, no (")
    assert target.endswith("1 row without a target left out (line 9).")
    assert inputs.startswith("Inputs: 2 numbers (Age, Fare), 1 category (Sex); 5 numbers for the network.")
    assert "Fare (decimal commas, thousands as in 1.000, in €)" in inputs
    assert missing.startswith("Missing cells: Age ")
    assert left.startswith(
        "Left out: Boarded (dropped); PassengerId (a number for each row); Name (120 different texts in"
    )


def test_new_tables_of_other_columns_are_predicted_and_nothing_passes_in_silence(
    call, sailed: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.csv"
    new.write_text(
        'Boarded,Fare,note,Age,Sex\n14/04/1912,"1.200,50",x,30,female\n15/04/1912,,y,,other\n14/04/1912,9,z,30,male\n'
    )
    said = call("predict", sailed, new, "--format", "json")
    assert said.code == 0, said.err
    assert [one["class"] for one in json.loads(said.out)["predictions"]][::2] == ["yes", "no"]
    for words in ("Not used: note", "Missing cells: Age 1, Fare 1", "'Sex': 1 cell holds a category", "('other')"):
        assert words in said.err
    new.write_text("Fare,Age,Sex\n1,2,male\n")
    assert "lacks Boarded; it has Fare, Age, Sex" in call("predict", sailed, new).err


def test_another_table_is_scored_by_the_run_s_form(call, sailed: Path, passengers: Path, tmp_path: Path) -> None:
    own = json.loads(call("evaluate", sailed, "--json").out)
    columns = [line.split(";") for line in passengers.read_bytes().decode("cp1252").splitlines()]
    other = tmp_path / "other.csv"  # in another order, and without what the run did not use
    other.write_text("\n".join(";".join(row[place] for place in (6, 5, 2, 4, 3)) for row in columns))
    said = call("evaluate", sailed, "--data", other, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["model"]["test"]["nll"] == pytest.approx(own["model"]["test"]["nll"], rel=1e-5)


def test_a_run_keeps_how_its_rows_were_parted(call, passengers: Path, tmp_path: Path) -> None:
    flags = ("--method", "map", "--model", "mlp:4", "--epochs", 1, "--predictive-draws", 2, "--validation", 0.2)
    out = tmp_path / "run"
    said = call("train", passengers, *flags, "--split-by", "time:Boarded", "--out", out)
    assert said.code == 0, said.err
    assert "rows, the last by 'Boarded', from 1912-04-" in said.err
    assert 'split_by = "time:Boarded"' in (out / "config.toml").read_text()
    assert "the last by &#39;Boarded&#39;" in (out / "report.html").read_text()
    assert call("evaluate", out).code == 0  # of the same rows, or it would be refused
    assert call("calibrate", out).code == 0  # by the same rows of validation
    refused = call("train", "digits", "--split-by", "time:day")
    assert (refused.code, refused.out) == (2, "")
    assert "--split-by: 'digits' is published with its split" in refused.err
