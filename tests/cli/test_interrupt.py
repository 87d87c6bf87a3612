"""Ctrl-C in epoch 2, then --resume: as if nothing had happened, bit for bit."""

import json
import signal
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.processes import posterity

FLAGS = ("train", "digits", "--model", "mlp:32", "--epochs", "4", "--batch", "4", "--predictive-draws", "2", "--quiet")


def test_10_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = posterity(*FLAGS, "--out", stopped)
    log = stopped / "log.jsonl"
    for _ in range(6000):
        if process.poll() is not None or (log.exists() and log.read_text()):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[0].startswith("posterity: Interrupted in epoch 2 of 4, step ")
    assert f"posterity train --resume {stopped}" in err
    assert "Traceback" not in err
    assert not (stopped / "posterior.safetensors").exists()

    for arguments in (("train", "--resume", stopped, "--quiet"), (*FLAGS, "--out", whole)):
        finished = posterity(*arguments)
        _, err = finished.communicate(timeout=240)
        assert finished.returncode == 0, err
    a, b = load_file(stopped / "posterior.safetensors"), load_file(whole / "posterior.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4]
    again = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [r["nll"] for r in rows] == [r["nll"] for r in again]
    scores = [json.loads((p / "metrics.json").read_text())["model"]["test"] for p in (stopped, whole)]
    assert scores[0] == scores[1]
