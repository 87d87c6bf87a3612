"""Stochastic-gradient samplers on the command line: trained, scored, reported; what cannot be kept is refused in a line."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from posterity.cli.scoring import temperatures

FEW = ("--model", "mlp:4", "--batch", "256", "--predictive-draws", "8", "--quiet")  # 6 steps per epoch


@pytest.mark.parametrize(
    ("flags", "temperature", "draws"),
    [
        (("--method", "sgld", "--epochs", "4", "--method.draws", "6", "--temperature", "0.5"), 0.5, 6),
        (("--method", "sghmc", "--epochs", "4", "--method.draws", "10"), 1.0, 8),
    ],
)
def test_a_chain_is_trained_scored_and_reported(
    call, flags: tuple, temperature: float, draws: int, tmp_path: Path
) -> None:
    said = call("train", "digits", *flags, *FEW, "--twin", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["model"]["temperature"], metrics["model"]["draws"]) == (temperature, draws)
    kept = load_file(tmp_path / "run" / "posterior.safetensors")["posterior.thetas"]
    assert kept.shape == (int(flags[5]), 64 * 4 + 4 + 4 * 10 + 10)
    assert flags[1].upper() in (tmp_path / "run" / "report.html").read_text()


def test_more_draws_than_steps_are_refused(call, tmp_path: Path) -> None:
    said = call("train", "digits", "--method", "sgld", "--epochs", "2", *FEW, "--out", tmp_path / "run")
    assert said.code == 2
    assert "50 draws were asked of 6 sampling steps" in said.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--temperature", "0.5"), {"temperature": 0.5, "joint_temperature": 1.0}),
        (("--method.joint-temperature", "0.25"), {"temperature": 1.0, "joint_temperature": 0.25}),
    ],
)
def test_the_report_and_evaluate_say_what_is_tempered(call, flags: tuple, expected: dict, tmp_path: Path) -> None:
    run = tmp_path / "run"
    method = ("--method", "sghmc", "--epochs", "4", "--method.draws", "4")
    assert call("train", "digits", *method, *flags, *FEW, "--out", run).code == 0
    said = call("evaluate", run)
    for metrics in (
        json.loads((run / "metrics.json").read_text()),
        json.loads(call("evaluate", run, "--json").out),
    ):
        assert {name: metrics["model"][name] for name in expected} == expected
    names = {"temperature": "Temperature of the likelihood", "joint_temperature": "Temperature of likelihood and prior"}
    page = (run / "report.html").read_text()
    for name, value in expected.items():
        row = next(line for line in said.out.splitlines() if names[name] in line)
        assert f"{value:g}" in row.split()
        assert re.search(rf"{names[name]}\W+\w+\W+(\w+\W+)?{value:g}<", page)


def test_files_of_before_tempered_the_joint() -> None:
    assert temperatures({"kind": "sgld", "temperature": 0.5}) == {"temperature": 1.0, "joint_temperature": 0.5}
    assert temperatures({"kind": "mean_field", "temperature": 0.5}) == {"temperature": 0.5, "joint_temperature": None}
