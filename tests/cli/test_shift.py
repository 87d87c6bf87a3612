"""`posterity shift`: what it says, what it keeps, and the section of the report."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch

from posterity.cli.saved import open_run, scored_data
from posterity.data.shift import corruptions
from posterity.posteriors.average import Averaging
from posterity.posteriors.shift import under_shift
from tests.cli.test_mistakes import check_one_line


def test_it_is_kept_and_gets_a_section_of_the_report(call, digits_run: Path, tmp_path: Path) -> None:
    run = Path(copytree(digits_run, tmp_path / "run"))  # the run itself is other tests', too
    said = call("shift", run, "--kinds", "noise", "blur", "--limit", "100", "--seed", "4", "--draws", "3", "--json")
    assert said.code == 0, said.err
    assert "Mean field: blur …" in said.err
    told = json.loads(said.out)
    assert list(told["models"]) == ["Mean field", "Maximum likelihood"]
    kept = json.loads((run / "findings" / "shift.json").read_text())
    assert kept["models"] == told["models"]
    saved = open_run(run)
    data = scored_data(saved)
    rows = torch.randperm(360, generator=torch.Generator().manual_seed(4))[:100].sort().values
    chosen = corruptions(data, ["noise", "blur"], 4)
    expected = under_shift(saved.posterior, data.test_inputs[rows], data.test_targets[rows], chosen, Averaging(3, 4))
    found = told["models"]["Mean field"]
    assert found["count"] == 100
    for kind, own in expected.scores.items():
        for name, values in own.items():
            assert found["scores"][kind][name] == pytest.approx(list(values)), (kind, name)
    text = (run / "report.html").read_text()
    assert "Under shift" in text
    assert "Scores against severity, a panel for each corruption and score." in text


def test_a_table_in_its_own_units(call, table_run: Path) -> None:
    run = table_run / "posterior.safetensors"  # a file keeps nothing
    said = call("shift", run, "--draws", "4", "--quiet")
    assert said.code == 0, said.err
    assert said.err == ""
    assert "scaling" in said.out
    assert "90 % coverage" in said.out
    found = json.loads(call("shift", run, "--draws", "4", "--json").out)["models"]["Mean field"]["scores"]
    evaluated = json.loads(call("evaluate", run, "--draws", "4", "--json").out)["model"]["test"]
    for kind in ("noise", "dropout", "scaling"):
        for name, values in found[kind].items():
            assert values[0] == pytest.approx(evaluated[name], rel=1e-4), name


def test_mistakes_are_one_line(call, tmp_path: Path, digits_run: Path, table_run: Path) -> None:
    check_one_line(call("shift", tmp_path / "nothing"), "There is no run")
    check_one_line(call("shift", digits_run, "--kinds", "blurr"), "'blurr'", "Did you mean 'blur'")
    check_one_line(call("shift", table_run, "--kinds", "rotation"), "'rotation'", "dropout, noise, scaling")
    check_one_line(call("shift", digits_run, "--limit", "0"), "--limit 0", "at least 20")
    check_one_line(call("shift", digits_run, "--seed", "-1"), "--seed -1")
    check_one_line(call("shift", digits_run, "--draws", "none"), "--draws none")
