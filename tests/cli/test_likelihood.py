"""`--likelihood`: targets in their own units, from training to prediction and report."""

import json
from pathlib import Path

import numpy as np
import pytest

from posterity.cli.app import run


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CSV of counts, some in the thousands, and a run on it."""
    path = tmp_path_factory.mktemp("counts")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = rng.poisson(100 * np.exp(x[:, 0]))
    rows = "\n".join(f"{a},{b},{k}" for (a, b), k in zip(x, y, strict=True))
    (path / "visits.csv").write_text(f"a,b,visits\n{rows}\n")
    flags = ["--method", "map", "--epochs", "20", "--lr", "0.02", "--quiet"]
    assert run(["train", str(path / "visits.csv"), "--likelihood", "poisson", *flags, "--out", str(path / "run")]) == 0
    return path / "visits.csv", path / "run"


def test_counts_are_trained_scored_predicted_and_reported_as_counts(call, counted) -> None:
    table, directory = counted
    assert "standardise_targets = false" in (directory / "config.toml").read_text()
    scores = json.loads(call("evaluate", directory, "--json").out)["model"]["test"]
    assert {"rmse", "nll", "crps", "coverage_90"} <= scores.keys()
    predicted = json.loads(call("predict", directory, table, "--json").out)["predictions"]
    assert all(float(one["lower_90"]).is_integer() and one["lower_90"] <= one["upper_90"] for one in predicted)
    means, true = np.array([one["mean"] for one in predicted]), np.loadtxt(table, delimiter=",", skiprows=1)[:, 2]
    assert np.corrcoef(np.log(means), np.log(true + 1))[0, 1] > 0.8
    assert "Are the bands as wide as they should be?" in (directory / "report.html").read_text()
    refused = call("calibrate", directory)
    assert refused.code == 2
    assert "Poisson" in refused.err


def test_another_likelihood_is_advised_and_a_wrong_one_refused(call, counted, table: Path, tmp_path: Path) -> None:
    counts, _ = counted
    told = call("train", counts, "--method", "map", "--epochs", "1", "--out", tmp_path / "a")
    assert told.err.count("likelihood=NegativeBinomial(); as values, Gaussian(). Choose with --likelihood.") == 1
    wrong = call("train", table, "--likelihood", "poisson", "--out", tmp_path / "b")
    assert wrong.code == 2
    assert "Poisson takes counts" in wrong.err
    assert "LogNormal()" in wrong.err
    unfit = call("train", "digits", "--likelihood", "gamma", "--out", tmp_path / "c")
    assert unfit.code == 2
    assert "Choices: categorical, bernoulli" in unfit.err


def test_quantiles_are_trained_scored_predicted_and_reported_as_no_density(call, table: Path, tmp_path: Path) -> None:
    flags = ["--likelihood", "quantile", "--likelihood.levels", "0.1,0.9", "--method", "map", "--epochs", "2"]
    done = call("train", table, *flags, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    scores = json.loads(call("evaluate", tmp_path / "run", "--json").out)["model"]["test"]
    assert set(scores) == {"pinball"}
    predicted = json.loads(call("predict", tmp_path / "run", table, "--json").out)["predictions"]
    assert all(one["q0.1"] <= one["q0.9"] for one in predicted)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Are the quantiles where they should be?" in page
    assert "mean pinball loss" in page


def test_few_whole_numbers_are_read_as_the_likelihood_says(call, tmp_path: Path) -> None:
    rows = "\n".join(f"{a / 10},{a % 4}" for a in range(60))
    (tmp_path / "wins.csv").write_text(f"a,wins\n{rows}\n")
    flags = ["--method", "map", "--epochs", "1", "--out", tmp_path / "run"]
    done = call("train", tmp_path / "wins.csv", "--likelihood", "binomial", "--likelihood.trials", "3", *flags)
    assert done.code == 0, done.err
    assert 'task = "regression"' in (tmp_path / "run" / "config.toml").read_text()
    refused = call("train", tmp_path / "wins.csv", "--likelihood", "censored", "--out", tmp_path / "c")
    assert refused.code == 2
    assert "posterity.fit(network, (inputs, targets), likelihood=Censored(…))" in refused.err
