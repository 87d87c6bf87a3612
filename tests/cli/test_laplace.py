"""Laplace on the command line: trained, scored and reported; what it cannot be around is refused in a line."""

import json
from pathlib import Path

import pytest

from posterity.cli.config import RunConfig
from posterity.cli.merge import merge
from posterity.methods import MAP, Ensemble, Laplace

FEW = ("--model", "mlp:4", "--batch", "256", "--predictive-draws", "8", "--quiet")


def config(*given: tuple[str, str]) -> RunConfig:
    flags = {path: (f"--{path}", value) for path, value in (("data.name", "digits"), *given)}
    return merge({}, flags)


def test_flags_of_the_training_are_those_of_its_method() -> None:
    own = config(
        ("method.kind", "laplace"), ("method.epochs", "3"), ("method.structure", "diag"), ("method.patience", "2")
    )
    assert own.method == Laplace(MAP(epochs=3, patience=2), "diag")
    several = config(
        ("method.kind", "laplace"), ("ensemble", "3"), ("method.epochs", "4"), ("method.optimizer.lr", "0.1")
    )
    assert isinstance(several.method, Ensemble)
    assert several.method.method.method.epochs == 4
    assert several.method.method.method.optimizer.lr == 0.1
    assert several.method.method.method.optimizer.schedule == MAP().optimizer.schedule
    assert config(("method.kind", "laplace"), ("method.method.epochs", "5")).method.method.epochs == 5


def test_it_is_trained_scored_evaluated_and_reported(call, tmp_path: Path) -> None:
    flags = ("--method", "laplace", "--epochs", "2", "--method.structure", "full", "--where", "last_layer")
    said = call("train", "digits", *flags, *FEW, "--twin", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["model"]["method"] == "laplace"
    assert found["model"]["test"]["mutual_information"] > 0
    again = call("evaluate", tmp_path / "run", "--json", "--quiet")
    assert again.code == 0, again.err
    assert "Laplace, full" in (tmp_path / "run" / "report.html").read_text()
    assert call("report", tmp_path / "run", "--quiet").code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prior", "laplace"), "--prior laplace is not normal"),
        (("--method.method", "none"), "leave out --method.method none"),
        (("--method.structure", "kronecker"), "no such choice. Did you mean 'kron'"),
        (("--method.epoch", "3"), "no key 'epoch'. Did you mean 'epochs'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(call, flags: tuple, message: str, tmp_path: Path) -> None:
    said = call("train", "digits", "--method", "laplace", *flags, *FEW, "--out", tmp_path / "run")
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "run").exists()
