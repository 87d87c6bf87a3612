"""`posterity acquire`: the next inputs of a pool, and simulated learning curves that can be interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity.cli import curves
from posterity.cli.saved import open_run
from posterity.data import load
from posterity.decide.acquire import ranked
from posterity.train.random import derived_seed
from tests.cli.test_mistakes import check_one_line

SMALL = ("--model", "mlp:8", "--labels", "30", "--buy", "5", "--steps", "20", "--test-size", "50", "--pool-size", "120")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.npy"
    np.save(path, load("digits").test_inputs[:60].numpy())
    return path


@pytest.mark.parametrize("score", ["bald", "batch_bald", "random"])
def test_the_next_inputs_are_those_of_the_library(call, digits_run: Path, pool: Path, score: str) -> None:
    flags = ("--run", digits_run, "--pool", pool, "-n", "4", "--score", score)
    said = call("acquire", *flags, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)["inputs"]
    saved = open_run(digits_run)
    generator = torch.Generator().manual_seed(derived_seed(saved.config.seed, "acquire"))
    inputs = load("digits").standardised().test_inputs[:60]
    predictive = saved.posterior.predict(inputs, 4, generator=generator)
    places = ranked(predictive, 4, score, generator).tolist()
    assert [f["input"] for f in found] == [f"{pool}:{place + 1}" for place in places]
    assert [f["prediction"] for f in found] == [str(int(predictive.labels[place])) for place in places]
    assert found[0]["mutual_information"] == pytest.approx(float(predictive.mutual_information[places[0]]), abs=1e-6)
    assert f"To label next, by {score.replace('_', ' ')}" in call("acquire", *flags).out


def test_the_next_rows_of_a_table(call, table_run: Path, table: Path) -> None:
    found = json.loads(call("acquire", "--run", table_run, "--pool", table, "-n", "3", "--json").out)
    assert found["score"] == "variance"
    assert len(found["inputs"]) == 3
    means = [float(f["prediction"]) for f in found["inputs"]]
    assert all(500 < m < 3000 for m in means)  # in the units of the table
    spreads = [f["epistemic_std"] for f in found["inputs"]]
    assert spreads == sorted(spreads, reverse=True)


def test_curves_of_two_scores(call, tmp_path: Path) -> None:
    out = tmp_path / "curves"
    said = call("acquire", "digits", *SMALL, "--seeds", "2", "--target", "0.2", "--out", out, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert set(found["scores"]) == {"bald", "random"}
    assert found["scores"]["bald"]["seeds"] == 2
    bald, random = (json.loads((out / f"{name}-1.json").read_text()) for name in ("bald", "random"))
    assert [r["labels"] for r in bald["rounds"]] == [20, 25, 30]
    assert bald["rounds"][0] == random["rounds"][0]
    assert bald["rounds"][1]["chosen"] != random["rounds"][1]["chosen"]
    assert (out / "curves.svg").stat().st_size > 1000
    assert set(curves.read_curves(out)) == {"bald", "random"}
    more = call("acquire", "digits", *SMALL, "--seeds", "1", "--scores", "entropy", "--out", out)
    assert "0 of 1 reach it" in more.out or "±" not in more.out
    other = call("acquire", "digits", *SMALL[:-1], "110", "--out", out)
    check_one_line(other, "curves of other settings")


def test_an_interrupted_simulation_goes_on(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("acquire", "digits", *SMALL, "--seeds", "1", "--scores", "bald", "--quiet", "--out")
    assert call(*flags, tmp_path / "whole").code == 0
    fit, calls = curves.fit, []

    def interrupted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(curves, "fit", interrupted)
    said = call(*flags, tmp_path / "part")
    assert said.code == 130
    assert "The same command goes on from there" in said.err
    kept = json.loads((tmp_path / "part" / "bald-0.json").read_text())["rounds"]
    assert len(kept) == 2
    assert call(*flags, tmp_path / "part").code == 0
    whole, part = (json.loads((tmp_path / p / "bald-0.json").read_text())["rounds"] for p in ("whole", "part"))
    assert whole == part


def test_values_are_scored_in_their_own_units(call, table: Path, tmp_path: Path) -> None:
    flags = ("--model", "mlp:8", "--labels", "20", "--start", "10", "--steps", "20", "--seeds", "1", "--method", "map")
    found = json.loads(call("acquire", table, *flags, "--out", tmp_path / "v", "--json").out)
    assert found["score"] == "rmse"
    assert found["target"] is None
    assert set(found["scores"]) == {"variance", "random"}
    own = json.loads((tmp_path / "v" / "variance-0.json").read_text())["rounds"][-1]["scores"]["rmse"]
    assert found["scores"]["variance"]["last"][0] > 20 * own


def test_mistakes_are_one_line(call, digits_run: Path, pool: Path, tmp_path: Path) -> None:
    check_one_line(call("acquire"), "posterity acquire digits")
    check_one_line(call("acquire", "--run", digits_run), "--pool FILE")
    check_one_line(call("acquire", "digits", "--run", digits_run, "--pool", pool), "or DATA to simulate")
    check_one_line(call("acquire", "--run", digits_run, "--pool", pool, "-n", "61"), "-n 61", "60 inputs")
    check_one_line(call("acquire", "--run", digits_run, "--pool", pool, "--score", "bold"), "Did you mean 'bald'")
    check_one_line(call("acquire", "digits", "--scores", "variance", "--out", tmp_path / "x"), "--scores", "bald")
    check_one_line(call("acquire", "digits", "--labels", "5", "--out", tmp_path / "x"), "labels is 5", "start")
    check_one_line(
        call("acquire", "digits", "--pool-size", "9999", "--out", tmp_path / "x"), "--pool-size 9999", "1,437"
    )
    check_one_line(call("acquire", "diabetes", "--scores", "bald", "--out", tmp_path / "x"), "variance")
    assert not (tmp_path / "x").exists()
