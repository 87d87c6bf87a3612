"""What commands find about a run, kept by several of them at once, and of a run that is replaced meanwhile."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posterity.cli import report
from posterity.cli.console import Voice
from posterity.cli.directory import findings, read_json
from posterity.cli.flags import Output
from posterity.cli.saved import open_run
from posterity.errors import CorruptFile, InvalidInput

QUIET = Voice(Output(quiet=True))


def test_what_is_found_at_once_is_all_kept_and_shown(digits_run: Path, tmp_path: Path, monkeypatch) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    before, shown = set(findings(run)), []

    def rewrite(saved) -> None:
        seen = findings(run)
        time.sleep(0.01)
        shown.append(seen)

    monkeypatch.setattr(report, "rewrite", rewrite)
    saved = open_run(run)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: report.keep(saved, ("one", "two")[i % 2], {"value": i}, QUIET), range(8)))
    files = [run / f"findings/{name}.json" for name in ("one", "two")] + list((run / "findings/earlier").iterdir())
    assert sorted(read_json(file)["value"] for file in files if file.stem[:3] in ("one", "two")) == list(range(8))
    assert set(shown[-1]) == before | {"one", "two"}
    assert shown[-1] == findings(run)
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("removed", [False, True])
def test_what_was_found_of_another_posterior_is_not_kept(removed: bool, digits_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    saved = open_run(run)
    (run / "posterior.safetensors").unlink()
    if removed:
        shutil.rmtree(run)
    else:
        shutil.copy(digits_run / "posterior.safetensors", run)
    with pytest.raises(InvalidInput, match="was trained again or removed in the meantime"):
        report.keep(saved, "one", {"value": 1}, QUIET)
    assert not (run / "findings/one.json").exists()
    assert run.exists() != removed


def test_edited_metrics_are_refused(digits_run: Path, tmp_path: Path) -> None:
    text = (digits_run / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert read_json(digits_run / "metrics.json")["seed"] == 0
    with pytest.raises(CorruptFile, match="not those that were written"):
        read_json(tmp_path / "metrics.json")
