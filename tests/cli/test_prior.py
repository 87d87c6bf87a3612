"""`posterity prior`: numbers and a picture before any training."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from posterity import Normal, Problem, prior_predictive
from posterity.cli.config import DataConfig, ModelConfig, RunConfig
from posterity.cli.experiment import prepare
from posterity.cli.prior import MOST, predicted
from posterity.metrics.prior import prior_scores
from posterity.train.random import derived_seed
from tests.cli.test_mistakes import check_one_line


def asked(call, tmp_path: Path, *flags: object) -> dict:
    said = call("prior", *flags, "--out", tmp_path / "prior.svg", "--json")
    assert said.code == 0, said.err
    values: dict = json.loads(said.out)
    return values


def test_wider_priors_are_surer(call, tmp_path: Path) -> None:
    flags = ("digits", "--model", "mlp:30", "--n", 40)
    stds = ("0.01", "0.3", "3")
    found = [asked(call, tmp_path, *flags, "--prior-std", std) for std in stds]
    assert found[0]["max_probability"] == pytest.approx(0.1, abs=0.01)
    assert found[0]["entropy"] == pytest.approx(2.3026, abs=0.01)
    assert found[0]["max_probability"] < found[1]["max_probability"] < found[2]["max_probability"]
    assert found[2]["saturated"] > 0.9
    assert found[1]["prior"] == "normal (mean 0, std 0.3)"
    assert (found[0]["n"], found[0]["num_inputs"]) == (40, MOST)
    root = ElementTree.parse(tmp_path / "prior.svg").getroot()
    assert root.tag.endswith("svg")
    assert not (tmp_path / "runs").exists()


def test_the_numbers_are_those_of_the_library(call, tmp_path: Path) -> None:
    found = asked(call, tmp_path, "digits", "--model", "mlp:30", "--n", 20, "--seed", 3)
    config = RunConfig(seed=3, data=DataConfig(name="digits"), model=ModelConfig(name="mlp:30"), prior=Normal(0, 0.3))
    experiment = prepare(config)
    _, inputs, _ = predicted(experiment, 1)
    inputs = (inputs - experiment.dataset.scaling.input_mean) / experiment.dataset.scaling.input_std
    problem = Problem(experiment.network, Normal(0, 0.3), experiment.config.likelihood, 1000)
    generator = torch.Generator().manual_seed(derived_seed(3, "prior"))
    scores = prior_scores(prior_predictive(problem, inputs, 20, generator=generator))
    assert {k: found[k] for k in scores} == pytest.approx(scores, rel=1e-4)
    assert asked(call, tmp_path, "digits", "--model", "mlp:30", "--n", 20, "--seed", 4)["entropy"] != found["entropy"]


def test_a_regression_is_compared_in_the_units_of_its_targets(call, tmp_path: Path, table: Path) -> None:
    noise = ("--likelihood", "gaussian", "--likelihood.std", "0.5")
    found = asked(call, tmp_path, table, "--model", "mlp:12", "--prior-std", "0.001", *noise)
    assert 100 < found["target_std"] < 250  # y ≈ 50 a − 20 b with stds 3 and 2
    assert found["function_std"] < 0.001 * found["target_std"]
    # Functions are constant, so that of what is predicted the noise is left: half a standardised std, of the training part.
    assert found["predicted_std"] == pytest.approx(0.5 * found["target_std"], rel=0.06)


def test_a_file_gives_the_prior_of_a_run_and_flags_override_it(call, tmp_path: Path, digits_run: Path) -> None:
    found = asked(call, tmp_path, "--config", digits_run / "config.toml", "--n", 5)
    assert found["model"] == "mlp:12"
    assert found["prior"] == "normal (mean 0, std 0.3)"
    found = asked(call, tmp_path, "--config", digits_run / "config.toml", "--n", 5, "--prior", "hierarchical")
    assert found["prior"].startswith("hierarchical (family normal, scale half_normal (std 1), per tensor, centered")


def test_a_table_for_people_and_the_default_name(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("prior", "digits", "--model", "mlp:12", "--n", 5, "--prior", "laplace", "--prior.scale", "0.05")
    assert said.code == 0, said.err
    assert "digits, mlp:12, laplace (mean 0, scale 0.05); 5 functions" in said.out
    assert "2.303" in said.out
    assert (tmp_path / "prior-digits-laplace.svg").is_file()


def test_mistakes(call, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "p.svg")
    check_one_line(call("prior", "digits", "--n", "0", *out), "--n 0", "at least 1")
    check_one_line(call("prior", "digits", "--n", "many", *out), "--n many", "whole number")
    check_one_line(call("prior", "digits", "--prior", "horshoe", *out), "Did you mean 'horseshoe'?")
    check_one_line(call("prior", "digits", "--prior", "flat", "--model", "mlp:9", *out), "improper")
    check_one_line(call("prior", "digits", "--out", tmp_path / "p.jpg"), "p.jpg", ".png")
    check_one_line(
        call("prior", "digits", "--n", 2, "--model", "mlp:9", "--out", tmp_path / "no" / "p.svg"), "cannot be"
    )
    check_one_line(call("prior"), "No data set")
    assert not list(tmp_path.iterdir())
