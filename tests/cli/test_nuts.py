"""NUTS from the command line: a run that is whole, and what its report says of it."""

import json
from pathlib import Path

import posterity
from posterity.posteriors.chains import Chains
from posterity.zoo import MLP

FLAGS = ("chains=2", "warmup=20", "draws=10", "max_depth=3")


def test_a_run_of_nuts(call, tmp_path: Path) -> None:
    flags = [part for flag in FLAGS for part in ("--set", f"method.{flag}")]
    said = call(
        "train", "diabetes", "--method", "nuts", "--model", "mlp:8", *flags, "--quiet", "--out", tmp_path / "run"
    )
    assert said.code == 0, said.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model"]["method"] == "nuts"
    assert metrics["model"]["test"]["rmse"] > 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["run"] == "model"] == [1, 2]
    assert {"nll", "step_size", "acceptance", "divergences"} <= set(rows[0])
    assert isinstance(posterity.load(tmp_path / "run" / "posterior.safetensors", MLP((10, 8, 1))), Chains)
