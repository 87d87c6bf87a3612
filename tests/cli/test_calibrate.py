"""`posterity calibrate` and what `predict` says after it: the library's numbers, kept, shown, and refused to strangers."""

import csv
import io
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from posterity.cli import report
from posterity.cli.app import run as run_command
from posterity.cli.promises import coins, promises_of
from posterity.cli.saved import open_run, scored_data
from posterity.cli.scoring import predict
from posterity.data import load
from posterity.decide import APS, Temperature, abstain, p_value, uncertainty
from posterity.decide import calibrate as conformal
from posterity.metrics.calibration import ece
from posterity.posteriors.files import save
from posterity.report.calibrate import plot_abstention, plot_sizes, plot_temperature, verdict
from posterity.train.batches import TensorData
from tests.cli.test_mistakes import check_one_line

command = import_module("posterity.cli.calibrate")
LEARNT = ("--model", "mlp:12", "--epochs", "12", "--lr", "0.03", "--predictive-draws", "4", "--quiet")
ASKED = ("--risk", "0.05", "--confidence", "0.9", "--score", "aps", "--randomised", "--coverage", "0.8")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is right often enough to promise something."""
    path = tmp_path_factory.mktemp("calibrated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "rewrite", lambda saved: None)
        assert run_command(["train", "digits", *LEARNT, "--out", str(path)]) == 0
        assert run_command(["calibrate", str(path), *ASKED, "--quiet"]) == 0
    return path


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports take seconds; one test looks at one."""
    monkeypatch.setattr(report, "rewrite", lambda saved: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", load("digits").test_inputs.numpy())
    return tmp_path / "x.npy"


def held_out(run: Path) -> tuple:
    saved = open_run(run)
    dataset = scored_data(saved)
    data = TensorData(dataset.train_inputs, dataset.train_targets).split(
        saved.config.data.validation, saved.config.seed
    )
    assert data.num_data == saved.posterior.problem.num_data
    return saved, dataset, *data.held_out


def test_it_promises_what_the_library_finds_on_the_held_out_examples(calibrated: Path) -> None:
    saved, dataset, inputs, labels = held_out(calibrated)
    predictive = predict(saved.posterior, inputs, 4, saved.config.seed)
    found = promises_of(saved)
    assert found.conformal == conformal(
        predictive, labels, 0.8, APS(randomised=True), generator=coins(saved.config.seed)
    )
    assert found.abstention == abstain(predictive, labels, 0.05, 0.9)
    assert found.temperature == Temperature.fit(predictive, labels)
    assert list(found.usual) == uncertainty(predictive, "max_probability").sort().values.tolist()
    test = predict(saved.posterior, dataset.test_inputs, 4, saved.config.seed)
    scores = json.loads((calibrated / "findings" / "calibrate.json").read_text())["test"]["scores"]
    sets = found.conformal.sets(test, coins(saved.config.seed))
    held = sets.gather(1, dataset.test_targets[:, None]).squeeze(1)
    assert scores["coverage"] == pytest.approx(held.double().mean().item())
    assert scores["mean_size"] == pytest.approx(sets.sum(1).double().mean().item())
    accepted = found.abstention.accepts(test)
    assert scores["risk"] == pytest.approx((test.labels != dataset.test_targets)[accepted].double().mean().item())
    tempered = found.temperature.apply(test)
    assert scores["nll_after"] == pytest.approx(tempered.scores(dataset.test_targets)["nll"])
    assert scores["ece_after"] == pytest.approx(ece(tempered.mean, dataset.test_targets))


def test_its_table_its_json_and_the_report(call, calibrated: Path, tmp_path: Path) -> None:
    run = Path(copytree(calibrated, tmp_path / "run"))
    said = call("calibrate", run)
    assert said.code == 0, said.err
    assert all(word in said.out for word in ("Coverage", "≥ 90.0", "Mean set size", "temperature", "NLL", "ECE"))
    assert "149 held-out examples" in said.err  # 144 cannot show a risk of 2 %
    page = (run / "report.html").read_text()
    assert "What predictions promise" in page
    assert "Risk against the share of inputs that is answered" in page


def test_each_class_by_itself(call, no_report: None, calibrated: Path, tmp_path: Path) -> None:
    run = Path(copytree(calibrated, tmp_path / "run"))
    said = call("calibrate", run, "--risk", "0.3", "--by-class", "--coverage", "0.7", "--score", "thr", "--json")
    found = json.loads(said.out)
    assert len(found["promises"]["conformal"]["thresholds"]) == 10
    assert found["test"]["worst_class_coverage"] <= found["test"]["coverage"]
    assert found["test"]["risk_interval"][0] <= found["test"]["risk"] <= found["test"]["risk_interval"][1]


def test_predict_then_says_sets_abstention_and_p_values(call, calibrated: Path, images: Path) -> None:
    said = call("predict", calibrated, images, "--json")
    assert said.code == 0, said.err
    records = json.loads(said.out)["predictions"]
    saved = open_run(calibrated)
    found = promises_of(saved)
    predictive = predict(saved.posterior, scored_data(saved).test_inputs, 4, saved.config.seed)
    sets = found.conformal.sets(predictive, coins(saved.config.seed))
    answers = found.abstention.accepts(predictive)
    unusual = p_value(uncertainty(predictive, "max_probability"), torch.tensor(found.usual, dtype=torch.float64))
    for row, own, answer, p in zip(records, sets.tolist(), answers.tolist(), unusual.tolist(), strict=True):
        assert row["set"] == [str(c) for c, inside in enumerate(own) if inside]
        assert row["abstains"] is not answer
        assert row["p_value"] == pytest.approx(p, abs=2 / len(found.usual))
    assert {r["abstains"] for r in records} == {True, False}
    rows = list(csv.DictReader(io.StringIO(call("predict", calibrated, images, "--format", "csv").out)))
    assert [r["set"] for r in rows] == ["|".join(r["set"]) for r in records]
    assert list(rows[0])[6:9] == ["set", "abstains", "p_value"]
    table = call("predict", calibrated, images)
    assert "{" in table.out
    assert "At least 80.0" in table.err


def test_predict_tempers_what_it_says_and_not_what_was_promised(call, calibrated: Path, images: Path) -> None:
    plain, tempered = (
        json.loads(call("predict", calibrated, images, "--json", *flag).out)["predictions"]
        for flag in ((), ("--tempered",))
    )
    saved = open_run(calibrated)
    predictive = predict(saved.posterior, scored_data(saved).test_inputs, 4, saved.config.seed)
    expected = promises_of(saved).temperature.apply(predictive)
    for row, own, probability, entropy in zip(
        tempered, plain, expected.confidence.tolist(), expected.entropy.tolist(), strict=True
    ):
        assert row["probability"] == pytest.approx(probability, rel=1e-4)
        assert row["entropy"] == pytest.approx(entropy, rel=1e-4, abs=1e-6)
        assert [row[k] for k in ("set", "abstains", "p_value")] == [own[k] for k in ("set", "abstains", "p_value")]
    assert tempered[0]["probability"] != plain[0]["probability"]


def test_there_must_be_a_temperature_to_temper_by(call, digits_run: Path, images: Path) -> None:
    check_one_line(call("predict", digits_run, images, "--tempered"), "no temperature yet", "posterity calibrate")


def test_other_draws_are_not_what_was_promised(call, calibrated: Path, images: Path) -> None:
    said = call("predict", calibrated, images, "--draws", "7", "--json")
    assert "calibrated with 4 draws, and 7" in said.err
    assert "set" not in json.loads(said.out)["predictions"][0]


def test_those_of_another_posterior_are_refused(
    call, no_report: None, calibrated: Path, images: Path, tmp_path: Path
) -> None:
    run = Path(copytree(calibrated, tmp_path / "run"))
    saved = open_run(run)
    saved.posterior.mean.add_(1e-3)
    save(saved.posterior, run / "posterior.safetensors")
    check_one_line(call("predict", run, images), "another posterior", f"posterity calibrate {run}")
    assert call("calibrate", run, "--quiet").code == 0
    assert call("predict", run, images).code == 0
    (run / "findings" / "calibrate.json").write_text('{"promises": {"level": 1}}')
    check_one_line(call("predict", run, images), "calibrate.json", "Run it again")


def test_values_have_intervals_in_original_units(call, no_report: None, table_run: Path, tmp_path: Path) -> None:
    run = Path(copytree(table_run, tmp_path / "run"))
    flags = ("--coverage", "0.75", "--score", "quantile", "--tolerance", "12", "--risk", "0.5", "--confidence", "0.8")
    said = call("calibrate", run, *flags, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["test"]["mean_width"] > 5  # a noise of std 5, in units of y
    assert {"coverage_90_before", "coverage_90_after", "answered"} <= set(found["test"])
    (tmp_path / "new.csv").write_text("b,a\n-4,10\n-4,16\n")
    for row in json.loads(call("predict", run, tmp_path / "new.csv", "--json").out)["predictions"]:
        assert row["conformal_lower"] < row["mean"] < row["conformal_upper"]
        assert row["conformal_upper"] - row["conformal_lower"] < 200
        assert row["abstains"] in (True, False)
    assert "Mean interval width" in call("calibrate", run, "--coverage", "0.8").out
    said = call("predict", run, tmp_path / "new.csv")
    assert said.code == 0
    assert "80.0" in said.err
    assert "90" not in said.out.splitlines()[1]  # the model's own interval makes room for the one that is promised


def test_a_run_without_validation_is_refused(call, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = open_run(digits_run)
    data = saved.config.data.model_copy(update={"validation": 0.0})
    without = replace(saved, config=saved.config.model_copy(update={"data": data}))
    monkeypatch.setattr(command, "opened", lambda path, source, trust: without)
    check_one_line(call("calibrate", digits_run), "without a validation share", "--validation 0.1")
    changed = saved.config.data.model_copy(update={"validation": 0.2})
    other = replace(saved, config=saved.config.model_copy(update={"data": changed}))
    monkeypatch.setattr(command, "opened", lambda path, source, trust: other)
    check_one_line(call("calibrate", digits_run), "its data have changed")


def test_mistakes_are_one_line(call, digits_run: Path, table_run: Path, tmp_path: Path) -> None:
    for flags, words in (
        (("--score", "apx"), "Did you mean 'aps'"),
        (("--score", "thr", "--randomised"), "no coin"),
        (("--coverage", "1.5"), "--coverage 1.5"),
        (("--coverage", "0.999"), "at least 999"),
        (("--risk", "2"), "--risk 2"),
        (("--risk", "0.001"), "it takes 2995"),
        (("--tolerance", "3"), "for values alone"),
        (("--measure", "entropie"), "Did you mean 'entropy'"),
    ):
        check_one_line(call("calibrate", digits_run, *flags, "--quiet"), words)
    check_one_line(call("calibrate", table_run, "--risk", "0.1", "--quiet"), "--tolerance")
    check_one_line(call("calibrate", table_run, "--coverage", "0.5", "--by-class", "--quiet"), "for classes")
    check_one_line(call("calibrate", tmp_path / "nothing"), "There is no run")
    assert not (digits_run / "findings" / "calibrate.json").exists()


def test_a_posterior_file_alone_is_calibrated_and_nothing_is_kept(call, digits_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "posterior.safetensors"
    file.write_bytes((digits_run / "posterior.safetensors").read_bytes())
    said = call("calibrate", file, "--json")
    assert said.code == 0, said.err
    assert list(tmp_path.iterdir()) == [file]


def test_figures_and_words(calibrated: Path) -> None:
    values = json.loads((calibrated / "findings" / "calibrate.json").read_text())
    promises, test = values["promises"], values["test"]
    assert isinstance(plot_temperature(test["reliability"], 1.5), Figure)
    bars = plot_sizes(test["sizes"], test["scores"]).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    figure = plot_abstention(test["curve"], promises["abstention"], test["scores"])
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == test["curve"]["coverage"]
    assert y[-1] == pytest.approx(test["scores"]["risk_of_all"])
    assert isinstance(plot_abstention(test["curve"], None, {}), Figure)
    assert "answered" in verdict(promises, test["scores"])
    nothing = {**test["scores"], "risk": None, "risk_interval": None}
    assert "nothing is answered" in verdict(promises, nothing)
    broken = {**test["scores"], "risk": 0.5, "risk_interval": [0.4, 0.6]}
    assert "broken" in verdict(promises, broken)
    assert "another kind" in verdict(promises, {**test["scores"], "coverage": 0.1})
    assert "easier" in verdict(promises, {**test["scores"], "coverage": 1.0})
    never_empty = {**promises, "conformal": {"level": 0.9, "score": {"kind": "aps", "randomised": False}}}
    assert "never empty" in verdict(never_empty, {**test["scores"], "coverage": 1.0})
