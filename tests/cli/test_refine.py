"""One method after another on the command line: nested keys, what a run says of it, resuming."""

import json
import tomllib
from pathlib import Path

from posterity.cli.flags import Settings, given
from posterity.cli.merge import merge
from posterity.methods import MAP, Refine

STAGES = ("--method", "refine", "--method.method.kind", "mean_field", "--method.method.epochs", "1")
AFTER = ("--method.after.kind", "map", "--method.after.epochs", "2", "--method.after.optimizer.lr", "0.01")
SMALL = ("--model", "mlp:8", "--batch", "256", "--predictive-draws", "4", "--quiet")


def test_a_refined_run_is_trained_reported_and_resumed(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = call("train", "digits", *STAGES, *AFTER, *SMALL, "--out", run)
    assert said.code == 0, said.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["model"]["method"], metrics["model"]["temperature"]) == ("refine", 1.0)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(r["run"], r["epoch"]) for r in rows] == [("model/stage-1", 1), ("model/stage-1", 2), ("model/stage-2", 1)]
    method = tomllib.loads((run / "config.toml").read_text())["method"]
    assert method["after"]["optimizer"]["lr"] == 0.01
    assert method["method"]["optimizer"]["schedule"] == "one_cycle"  # mean field's own
    assert "Mean field after MAP" in (run / "report.html").read_text()
    before = (run / "posterior.safetensors").read_bytes()
    assert call("train", "--resume", run, "--quiet").code == 0
    assert (run / "posterior.safetensors").read_bytes() == before
    assert [json.loads(line)["run"] for line in (run / "log.jsonl").read_text().splitlines()] == [
        r["run"] for r in rows
    ]


def test_a_stage_without_a_kind_is_the_usual_one() -> None:
    values = given(Settings(method="refine", set_=("method.after.epochs=3",)))
    assert merge({"data": {"name": "digits"}}, values).method == Refine(after=MAP(epochs=3))
