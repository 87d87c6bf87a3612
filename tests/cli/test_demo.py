"""The demo's way through the program, with one epoch in place of sixty."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from posterity.cli import demo
from posterity.core.optimizer import Optimizer
from posterity.methods import MeanField


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = demo.CONFIG.model_copy(update={"method": MeanField(epochs=1, optimizer=Optimizer(lr=1e-2))})
    monkeypatch.setattr(demo, "CONFIG", short)


def test_the_demo_ends_on_both_models_the_report_and_what_to_do_next(call, tmp_path: Path) -> None:
    said = call("demo", "--out", tmp_path / "demo", "--quiet")
    assert said.code == 0, said.err
    assert all(word in said.out for word in ("Mean field", "Maximum likelihood", "Temperature", "report.html"))
    assert f"posterity predict {tmp_path / 'demo'}" in said.out
    assert said.err == ""
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000


def test_its_temperature_and_threads_are_in_the_config(call, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    said = call("demo", "--temperature", "0.1", "--out", tmp_path / "demo", "--json")
    assert json.loads(said.out)["model"]["temperature"] == 0.1
    config = tomllib.loads((tmp_path / "demo" / "config.toml").read_text())
    assert (config["method"]["temperature"], config["engine"]["threads"]) == (0.1, 1)
    assert torch.get_num_threads() == threads
    assert call("demo", "--temperature", "-1").code == 2
