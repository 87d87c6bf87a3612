"""`posterity diagnose`: what it says, what it keeps, and the section of the report."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from posterity.cli.app import run
from posterity.cli.experiment import prepare
from posterity.cli.saved import open_run
from posterity.posteriors.diagnosis import diagnosis_from
from posterity.posteriors.importance import log_joint
from tests.cli.test_mistakes import check_one_line


def test_a_gaussian_is_diagnosed_by_the_data_that_it_was_trained_on(call, table_run: Path) -> None:
    said = call("diagnose", table_run, "--draws", "60", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    saved = open_run(table_run)
    data = prepare(saved.config).data
    expected = saved.posterior.diagnose(None, data, 60)
    assert found["khat"] == pytest.approx(expected.khat, rel=1e-6)
    assert found["verdict"] == expected.verdict
    assert set(found["contraction"]) == {"layers.0", "layers.1"}
    assert [g["layer"] for g in found["gradients"]] == ["layers.0", "layers.1"]
    assert data.num_data == saved.posterior.problem.num_data
    theta = saved.posterior.mean
    whole = log_joint(saved.posterior.problem, theta, [(data.inputs, data.targets)])
    joint = saved.posterior.problem.log_joint(theta, (data.inputs, data.targets))
    assert float(whole.detach()) == pytest.approx(float(joint.detach()), rel=1e-5)  # the one sums in float64


def test_it_is_kept_and_gets_a_section_of_the_report(call, digits_run: Path, tmp_path: Path) -> None:
    digits_run = Path(copytree(digits_run, tmp_path / "run"))  # the run itself is other tests', too
    page = digits_run / "report.html"
    assert "Can the posterior be trusted?" not in page.read_text()
    said = call("diagnose", digits_run, "--draws", "30")
    assert said.code == 0, said.err
    assert "Pareto k̂" in said.out
    kept = diagnosis_from(json.loads((digits_run / "findings" / "diagnosis.json").read_text()))
    assert kept.verdict in said.out
    text = page.read_text()
    assert "Can the posterior be trusted?" in text
    assert "The tail of the importance ratios." in text
    assert "Contraction of each layer from prior to posterior." in text
    assert call("report", digits_run).code == 0
    assert "Can the posterior be trusted?" in page.read_text()


@pytest.fixture(scope="module")
def chain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chains") / "run"
    flags = [part for f in ("chains=2", "warmup=10", "draws=12", "max_depth=2") for part in ("--set", f"method.{f}")]
    words = ["train", "diabetes", "--method", "nuts", "--model", "mlp:4", *flags, "--quiet", "--out", str(path)]
    assert run(words) == 0
    return path


def test_chains_are_diagnosed_by_weights_latents_and_functions(call, chain_run: Path) -> None:
    said = call("diagnose", chain_run, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["chains"], found["draws"], found["method"]) == (2, 12, "nuts")
    for row in ("weights", "latents", "functions"):
        assert found[row]["rhat"] > 0.9
        assert found[row]["ess_bulk"] > 0
    assert [len(t["values"]) for t in found["traces"]] == [2, 2, 2]
    assert found["traces"][1]["name"] == "likelihood.std"
    assert "Trace and rank plots of likelihood.std." in (chain_run / "report.html").read_text()


def test_mistakes_are_one_line(call, tmp_path: Path, table_run: Path) -> None:
    check_one_line(call("diagnose", tmp_path / "nothing"), "There is no run")
    check_one_line(call("diagnose", table_run, "--draws", "3"), "--draws 3", "at least 25")


def test_data_that_have_changed_are_refused(call, table: Path, table_run: Path) -> None:
    kept = table.read_text()
    try:
        table.write_text("\n".join(kept.splitlines()[:-20]) + "\n")
        check_one_line(call("diagnose", table_run, "--quiet"), "What differs: train inputs", "sha256")
    finally:
        table.write_text(kept)


def test_a_new_run_forgets_an_old_diagnosis(call, tmp_path: Path, table: Path) -> None:
    flags = ("train", table, "--model", "mlp:3", "--epochs", "1", "--quiet", "--out", tmp_path / "run")
    assert call(*flags).code == 0
    assert call("diagnose", tmp_path / "run", "--draws", "25", "--quiet").code == 0
    assert (tmp_path / "run" / "findings" / "diagnosis.json").is_file()
    assert call(*flags, "--force").code == 0
    assert not (tmp_path / "run" / "findings" / "diagnosis.json").exists()
