"""Monte Carlo dropout on the command line, from training to prediction; a network without dropout gets some."""

import json
import tomllib
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from posterity.data import load

SMALL = ("--epochs", "3", "--batch", "256", "--predictive-draws", "6", "--quiet")


def test_a_run_is_trained_reported_evaluated_and_predicts(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = call("train", "digits", "--method", "mc_dropout", "--model", "mlp:16", *SMALL, "--twin", "--out", run)
    assert said.code == 0, said.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["model"]["method"] == "mc_dropout"
    assert metrics["model"]["parameters"] == metrics["twin"]["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert metrics["model"]["draws"] == 6
    assert metrics["model"]["test"]["mutual_information"] > 1e-3
    assert tomllib.loads((run / "config.toml").read_text())["method"]["rate"] == 0.1
    rates = {k: float(v) for k, v in load_file(run / "posterior.safetensors").items() if "rate." in k}
    assert list(rates.values()) == [0.1]
    assert "Monte Carlo dropout" in (run / "report.html").read_text()
    again = call("evaluate", run, "--json")
    assert json.loads(again.out)["model"]["test"] == metrics["model"]["test"]
    assert call("report", run, "--quiet").code == 0
    np.save(tmp_path / "digits.npy", load("digits").test_inputs[:3].numpy())
    rows = json.loads(call("predict", run, tmp_path / "digits.npy", "--json").out)["predictions"]
    assert len(rows) == 3
    assert all(row["mutual_information"] > 0 for row in rows)
    before = (run / "posterior.safetensors").read_bytes()
    assert call("train", "--resume", run).code == 0
    assert (run / "posterior.safetensors").read_bytes() == before


def test_dropout_of_the_network_itself_and_of_an_ensemble(call, tmp_path: Path) -> None:
    flags = ("--method", "mc_dropout", "--ensemble", "2", "--method.rate", "0.3", "--model", "mlp:8", *SMALL)
    said = call("train", "digits", *flags, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    tensors = load_file(tmp_path / "run" / "posterior.safetensors")
    assert sorted(float(v) for k, v in tensors.items() if "rate." in k) == [0.3, 0.3]


def test_a_rate_out_of_range_and_a_network_of_one_layer_are_refused(call, tmp_path: Path) -> None:
    said = call("train", "digits", "--method", "mc_dropout", "--method.rate", "1.5", "--out", tmp_path / "run")
    assert said.code == 2
    assert "--method.rate 1.5: must be below 1." in said.err
    assert not (tmp_path / "run").exists()
