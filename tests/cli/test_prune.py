"""`posterity prune`: the curves, the choice, the file that it saves, and the section of the report."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch

from posterity.cli.experiment import prepare
from posterity.cli.saved import open_run
from posterity.compress import prune, sparsity, sparsity_curve
from posterity.data import load
from tests.cli.test_mistakes import check_one_line


@pytest.fixture
def own_run(digits_run: Path, tmp_path: Path) -> Path:
    return Path(copytree(digits_run, tmp_path / "run"))  # the run itself is other tests', too


def test_the_choice_is_made_on_validation_data_and_scored_on_test_data(call, own_run: Path) -> None:
    said = call("prune", own_run, "--json", "--tolerance", "2")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    saved = open_run(own_run)
    held = prepare(saved.config).data.held_out
    curve = sparsity_curve(saved.posterior, *held, draws=8)
    assert found["scored_on"] == "validation"
    assert found["sparsity"] == curve.largest(0.02)
    own = found["curves"]["signal_to_noise"]
    assert [p["draws"]["accuracy"] for p in own] == [p.draws["accuracy"] for p in curve.points]
    assert set(found["curves"]) == {"signal_to_noise", "kl", "magnitude"}
    assert own[-1]["sparsity"] == 0.99
    pruned = prune(saved.posterior, found["sparsity"])
    test = load("digits").standardised()
    middle = pruned.network()(test.test_inputs)
    accuracy = (middle.argmax(1) == test.test_targets).double().mean().item()
    assert found["test"]["mean"]["accuracy"] == pytest.approx(accuracy)
    kept = sum(k for k, _ in found["layers"].values())
    assert kept == round((1 - sparsity(pruned)) * 910)  # 64·12 + 12 + 12·10 + 10
    before = json.loads((own_run / "metrics.json").read_text())["model"]["test"]
    assert found["test"]["before"]["accuracy"] == before["accuracy"]


def test_the_file_is_a_run_like_any_other(call, own_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    said = call("prune", own_run, "--sparsity", "0.5", "--by", "kl", "--out", file, "--quiet")
    assert said.code == 0, said.err
    assert "50 % of its weights are 0" in said.out
    pruned = open_run(file).posterior
    assert sparsity(pruned) == 0.5
    assert torch.equal(pruned.mean, prune(open_run(own_run).posterior, 0.5, "kl").mean)
    scores = json.loads(call("evaluate", file, "--json").out)
    found = json.loads((own_run / "findings" / "prune.json").read_text())
    assert json.dumps(scores).count(str(found["test"]["after"]["accuracy"])) >= 1
    page = (own_run / "report.html").read_text()
    assert "What can be pruned" in page
    assert "50 % of the weights can go by KL: 455 of 910 are left." in page
    assert json.loads(call("prune", file, "--sparsity", "0.2", "--json").out)["layers"] == found["layers"]


def test_values_are_scored_in_their_own_units(call, table_run: Path, tmp_path: Path) -> None:
    run = Path(copytree(table_run, tmp_path / "run"))
    found = json.loads(call("prune", run, "--sparsity", "0.3", "--json", "--draws", "4").out)
    saved = open_run(run)
    dataset = prepare(saved.config).dataset
    held = prepare(saved.config).data.held_out
    point = sparsity_curve(saved.posterior, *held, (0.3,), draws=4).points[1]
    own = next(p for p in found["curves"]["signal_to_noise"] if p["sparsity"] == 0.3)
    std = dataset.scaling.target_std
    assert std > 10
    assert own["draws"]["rmse"] == pytest.approx(point.draws["rmse"] * std)
    assert own["mean"]["nll"] == pytest.approx(point.mean["nll"] + torch.tensor(std).log().item())
    assert "Test RMSE" in (run / "report.html").read_text()


def test_a_point_is_pruned_by_magnitude(call, own_run: Path) -> None:
    said = call("prune", own_run / "twin.safetensors", "--json", "--sparsity", "0.1")
    assert said.code == 0, said.err
    assert list(json.loads(said.out)["curves"]) == ["magnitude"]
    assert "Left out" in said.err


def test_mistakes_are_one_line(call, own_run: Path, tmp_path: Path) -> None:
    check_one_line(call("prune", tmp_path / "nothing"), "There is no run")
    check_one_line(call("prune", own_run, "--by", "snr"), "--by", "signal_to_noise")
    check_one_line(call("prune", own_run, "--sparsity", "90"), "--sparsity 90", "below 1")
    check_one_line(call("prune", own_run, "--tolerance", "-1"), "--tolerance -1")
    check_one_line(call("prune", own_run, "--out", "p.html"), "--out p.html", ".safetensors")
    check_one_line(call("prune", own_run / "twin.safetensors", "--by", "kl"), "by='magnitude'")
