"""`posterity train --augment`: images alone, recorded in the run, and other views than the images themselves."""

import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import TINY
from tests.cli.test_mistakes import check_one_line


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * i},{0.5 * i}\n" for i in range(30)))
    return path


def test_it_is_recorded_and_changes_what_is_learnt(call, tmp_path):
    means = {}
    for flag in ("--augment", "--no-augment"):
        out = tmp_path / flag[2:]
        assert call("train", "digits", *TINY, flag, "--method", "map", "--device", "cpu", "--out", out).code == 0
        config = tomllib.loads((out / "config.toml").read_text())
        assert config["data"]["augment"] is (flag == "--augment")
        assert ("flips and shifts" in (out / "report.html").read_text()) is (flag == "--augment")
        means[flag] = load_file(out / "posterior.safetensors")
    assert any(not a.equal(b) for a, b in zip(*(m.values() for m in means.values()), strict=True))


def test_where_it_does_not_fit_it_is_refused_before_anything_is_written(call, table, tmp_path):
    out = tmp_path / "run"
    check_one_line(call("train", table, *TINY, "--augment", "--out", out), "--augment", "images")
    said = call("train", "digits", "--model", "mlp:4", "--method", "nuts", "--augment", "--out", out)
    check_one_line(said, "--augment", "nuts needs the same")
    assert not out.exists()
