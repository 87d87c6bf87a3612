"""The pages for people with a table run as they are printed, but with quick fits in the place of the usual ones."""

import re
import shlex
import warnings
from pathlib import Path

import matplotlib.pyplot as plt  # noqa: F401  # the report's, before the directory is another one
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from posterity import MAP, MeanField, Normal, Optimizer
from posterity.cli.app import run
from posterity.report.style import Figure
from posterity.usual import Usual
from tests.drawings import empty

DOCS = Path(__file__).parents[2] / "docs"
QUICK = Usual(MeanField(epochs=10, optimizer=Optimizer(lr=0.05)), Normal(0, 0.5), (8,), "It is quick.")
QUICKER = Usual(MAP(epochs=2), Normal(0, 1), (8,), "It is quicker.")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


def quick(monkeypatch: pytest.MonkeyPatch, chosen: Usual) -> None:
    for home in ("sklearn.regressor.for_numbers", "sklearn.classifier.for_classes", "cli.usual.for_numbers"):
        monkeypatch.setattr(f"posterity.{home}", lambda *_: chosen)
    empty(Figure, monkeypatch.setattr)


def test_the_page_from_scikit_learn_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick(monkeypatch, QUICKER)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks("from-scikit-learn.md", "python"):
            exec(compile(block, "from-scikit-learn.md", "exec"), names)
    assert names["lower"].shape == names["mean"].shape == names["y_test"].shape
    assert names["sets"].shape == (569, 2)
    assert names["first"].name == "x0"
    assert (tmp_path / "diabetes.safetensors").is_file()


def test_my_first_table_runs_and_says_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick(monkeypatch, QUICK)
    made, *commands = blocks("first-table.md", "sh")
    exec(compile(shlex.split(made)[2], "made", "exec"), {})
    table = np.loadtxt("diabetes.csv", delimiter=",", skiprows=1)
    assert np.allclose(table[:, :-1], load_diabetes(scaled=False).data)
    said = ""
    for command in (line for block in commands for line in block.splitlines()):
        if command.startswith("head"):
            Path("new.csv").write_text("".join(Path("diabetes.csv").read_text().splitlines(keepends=True)[:4]))
            continue
        assert run(shlex.split(command, comments=True)[1:]) == 0, command
        captured = capsys.readouterr()
        said += captured.out + captured.err
    shown = "\n".join(blocks("first-table.md", "text"))
    labels = re.findall(r"^ ?([A-Z9][\w %→↓,]*?)  +", shown, re.M)
    assert len(labels) > 8
    assert [label for label in labels if label not in said] == []
    assert [
        line
        for line in shown.splitlines()
        if line.startswith(("diabetes.csv:", "Target", "Inputs")) and line not in said
    ] == []
    page, html = (DOCS / "first-table.md").read_text(encoding="utf-8"), Path("runs/diabetes/report.html").read_text()
    titles = re.findall(r"^- \*\*(.*?)\*\*", page[page.index("## The report") : page.index("## Predict")], re.M)
    assert len(titles) >= 5
    assert [title for title in titles if title not in html] == []
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks("first-table.md", "python"):
            exec(compile(block, "first-table.md", "exec"), names)
    assert names["interval"].shape == (3, 2)
