"""A run directory: complete, reproducible from its own config.toml, and safe from a second run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posterity.cli.directory import RunDirectory
from tests.cli.conftest import TINY

FILES = {
    "config.toml",
    "log.jsonl",
    "checkpoints",
    "posterior.safetensors",
    "twin.safetensors",
    "metrics.json",
    "report.html",
}


def test_a_run_leaves_everything_that_its_description_promises(digits_run: Path) -> None:
    assert {p.name for p in digits_run.iterdir()} == FILES
    rows = [json.loads(line) for line in (digits_run / "log.jsonl").read_text().splitlines()]
    assert [(r["run"], r["epoch"]) for r in rows] == [("model", 1), ("model", 2), ("twin", 1), ("twin", 2)]
    assert {"nelbo", "nll", "kl", "accuracy", "validation", "seconds"} <= set(rows[0])
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert {"accuracy", "nll", "ece", "brier"} <= set(metrics["model"]["test"])
    assert metrics["model"]["temperature"] == 1.0
    assert metrics["model"]["draws"] == 4
    assert metrics["model"]["parameters"] == 2 * metrics["twin"]["parameters"] == 2 * (64 * 12 + 12 + 12 * 10 + 10)
    assert (metrics["seed"], metrics["num_train"], metrics["num_test"]) == (0, 1293, 360)
    assert {"posterity", "torch", "python"} <= set(metrics["versions"])
    assert "<html" in (digits_run / "report.html").read_text()


def test_its_config_reproduces_a_run_bit_for_bit(call, digits_run: Path, tmp_path: Path) -> None:
    said = call("train", "--config", digits_run / "config.toml", "--out", tmp_path / "again", "--json", "--quiet")
    assert said.code == 0, said.err
    first, second = (json.loads((p / "metrics.json").read_text()) for p in (digits_run, tmp_path / "again"))
    for which in ("model", "twin"):
        assert first[which]["test"] == second[which]["test"]
        file = RunDirectory(digits_run).posterior(which).name
        a, b = load_file(digits_run / file), load_file(tmp_path / "again" / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert json.loads(said.out)["model"]["test"] == first["model"]["test"]


def test_another_seed_gives_another_run(call, digits_run: Path, tmp_path: Path) -> None:
    flags = ("--seed", 1, "--no-twin", "--quiet")
    assert call("train", "--config", digits_run / "config.toml", *flags, "--out", tmp_path / "other").code == 0
    a, b = (load_file(p / "posterior.safetensors") for p in (digits_run, tmp_path / "other"))
    assert not torch.equal(a["posterior.loc"], b["posterior.loc"])
    assert not (tmp_path / "other" / "twin.safetensors").exists()


def test_json_is_one_object_on_stdout_and_notes_go_to_stderr(call, tmp_path: Path) -> None:
    flags = [f for f in TINY if f != "--quiet"]
    said = call("train", "digits", *flags, "--method", "map", "--json", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert json.loads(said.out)["model"]["test"]["accuracy"] > 0
    assert "examples to train on" in said.err


def test_a_posterior_that_never_left_its_prior_is_told_so(call, tmp_path: Path) -> None:
    flags = [f for f in TINY if f != "--quiet"]
    said = call("train", "digits", *flags, "--temperature", 100, "--lr", 0.03, "--out", tmp_path / "run")
    assert "predicts no better than guessing; 12 steps were too few" in said.err
    assert "--method.kl-schedule warmup" in said.err
    said = call("train", "digits", *flags, "--method", "mle", "--lr", 0.03, "--out", tmp_path / "learnt")
    assert "guessing" not in said.err


def test_the_default_directory_and_the_table(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("train", "digits", *TINY)
    assert said.code == 0, said.err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("digits-mlp-12-mean_field-")
    assert all(word in said.out for word in ("Accuracy", "ECE, 15 bins", "Temperature", "report.html"))
    assert "\x1b[" not in said.out
    assert said.err == ""


def test_an_ensemble_of_points_logs_and_scores_its_members(call, tmp_path: Path) -> None:
    said = call("train", "digits", *TINY, "--method", "mle", "--ensemble", 2, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "Ensemble of 2 × maximum likelihood" in said.out
    rows = [json.loads(line)["run"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows == ["model/member-1"] * 2 + ["model/member-2"] * 2
    assert call("evaluate", tmp_path / "run").code == 0


def test_a_network_of_ones_own(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = (
        "from torch import nn\ndef make(width=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))\n"
    )
    (tmp_path / "cli_test_nets.py").write_text(source)
    flags = [f for f in TINY if f not in ("--model", "mlp:12")]
    said = call("train", "digits", *flags, "--model", "cli_test_nets:make", "--model.width", "4", "--out", "run")
    assert said.code == 0, said.err
    assert load_file(tmp_path / "run" / "posterior.safetensors")["posterior.loc"].numel() == 64 * 4 + 4 + 40 + 10
    refused = call("evaluate", "run")
    assert refused.code == 2
    assert "--trust" in refused.err
    assert call("evaluate", "run", "--trust").code == 0


def test_regression_is_scored_in_original_units(call, table: Path, table_run: Path) -> None:
    scores = json.loads((table_run / "metrics.json").read_text())["model"]["test"]
    assert {"rmse", "nll", "crps", "coverage_90"} <= set(scores)
    assert 3 < scores["rmse"] < 60  # the noise's std is 5, the targets' about 155
    said = call("evaluate", table_run, "--json")
    again = json.loads(said.out)["model"]["test"]
    assert again == scores
    other = call("evaluate", table_run, "--data", table, "--json")
    assert json.loads(other.out)["model"]["test"]["rmse"] == pytest.approx(scores["rmse"], rel=1e-3)


def test_evaluate_repeats_the_scores_of_training(call, digits_run: Path) -> None:
    expected = json.loads((digits_run / "metrics.json").read_text())
    said = call("evaluate", digits_run, "--json")
    found = json.loads(said.out)
    assert found["model"]["test"] == expected["model"]["test"]
    assert found["twin"]["test"] == expected["twin"]["test"]
    assert found["model"]["temperature"] == 1.0
    file = json.loads(call("evaluate", digits_run / "posterior.safetensors", "--json").out)
    assert file["model"]["test"] == expected["model"]["test"]
    more = json.loads(call("evaluate", digits_run, "--draws", 8, "--json").out)
    assert more["model"]["draws"] == 8
    assert more["model"]["test"]["nll"] != expected["model"]["test"]["nll"]


def test_report_is_written_anew(call, digits_run: Path) -> None:
    (digits_run / "report.html").unlink()
    said = call("report", digits_run, "--json")
    assert json.loads(said.out) == {"report": str(digits_run / "report.html")}
    assert "Maximum likelihood" in (digits_run / "report.html").read_text()


def test_force_replaces_a_run_and_nothing_else(call, tmp_path: Path) -> None:
    kept = tmp_path / "mine" / "checkpoints" / "week-1.pt"
    kept.parent.mkdir(parents=True)
    kept.write_text("months of work")
    said = call("train", "digits", *TINY, "--out", tmp_path / "mine", "--force")
    assert said.code == 2
    assert "holds no run that --force could replace" in said.err
    assert kept.read_text() == "months of work"


def test_a_run_is_not_overwritten_without_force(call, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("train", "digits", *TINY, "--method", "map", "--out", run).code == 0
    before = (run / "posterior.safetensors").read_bytes()
    said = call("train", "digits", *TINY, "--out", run)
    assert said.code == 2
    assert "--force" in said.err
    bad = call("train", "digits", *TINY, "--out", run, "--force", "--device", "nonsense")
    assert bad.code == 2
    assert (run / "posterior.safetensors").read_bytes() == before  # a refused run removes nothing, even with --force
    assert call("train", "digits", *TINY, "--out", run, "--force").code == 0
    assert (run / "posterior.safetensors").read_bytes() != before
    assert len((run / "log.jsonl").read_text().splitlines()) == 2


def test_resuming_a_finished_run_changes_nothing(call, digits_run: Path) -> None:
    def state() -> list[object]:
        tensors = [load_file(digits_run / f"{name}.safetensors") for name in ("posterior", "twin")]
        metrics = json.loads((digits_run / "metrics.json").read_text())
        return [tensors, (digits_run / "log.jsonl").read_text(), metrics["model"], metrics["twin"]]

    before = state()
    assert call("train", "--resume", digits_run, "--quiet").code == 0
    after = state()
    assert before[1:] == after[1:]
    assert str(before[0]) == str(after[0])


def test_what_is_far_from_the_scales_is_said_before_it_trains_and_once(call, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sure.py").write_text(
        "from torch import nn\ndef net(**_): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(-1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = call("train", "digits", "--model", "sure:net", *TINY[2:], "--twin", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert said.err.count("Note: The network's outputs are probabilities, as after a softmax") == 1
    assert "ScaleWarning" not in said.err
    assert "Note" not in call("train", "diabetes", *TINY, "--out", tmp_path / "table").err  # it standardises


def test_a_fit_that_has_not_arrived_says_so_everywhere(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = call("train", "digits", *TINY, "--out", run)
    assert said.code == 0, said.err
    wanted = "still fell"
    assert wanted in said.out
    assert "NotArrived" not in said.err  # told below the scores, not as a warning of Python's
    assert any(wanted in remark for remark in json.loads((run / "metrics.json").read_text())["model"]["remarks"])
    page = (run / "report.html").read_text()
    assert wanted in page
    assert page.index("This fit has not arrived") < page.index("Training curves")
    assert wanted in call("evaluate", run).out
    told = json.loads(call("evaluate", run, "--json").out)
    assert any(wanted in remark for remark in told["model"]["remarks"])
    assert wanted in call("report", run).out
