"""Names that others chose: of classes, columns and files. Nothing in them runs, and nothing breaks, whatever shows them."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from posterity.cli import report
from posterity.cli.app import run
from posterity.report.style import Figure
from tests.drawings import empty

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = (
    "[red]markup[/red] [link=http://evil.example]x[/] :smile:",
    '=HYPERLINK("http://evil.example")',
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "$5_$10",
    "\\frac{1 _{}^ $1_5_$",
    "<script>alert(1)</script>]]></style><svg onload=alert(1)>",
    '"><img src=x onerror=alert(1)> {{ 7 * 7 }}{% x %}',
    "../../etc/passwd",
    "x" * 190,  # longer ones are refused as no names
    "𝔘𝔫😀漢字",
    "_hidden",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x07\x7f",
    "\u202egnp.exe\u2066 two\nlines a\ttab",
)


class Page(HTMLParser):
    """What a browser would run or fetch in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += (
            [tag] if tag in ("script", "iframe", "object", "embed", "link", "a", "form", "foreignobject") else []
        )
        for name, value in attrs:
            fetched = name in ("src", "href", "xlink:href") and not str(value).startswith(
                ("#", "data:image/png;base64,")
            )
            self.found += [f"{tag} {name}={value}"] if name.startswith("on") or fetched else []


@pytest.fixture(autouse=True)
def drawings_of_pages_are_empty() -> None:
    """Not here: what a name does to a drawing is what is asked."""


def check_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert Page(text).found == []
    assert not CONTROL.search(text)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawings
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def check_said(said) -> None:
    assert said.code == 0, said.err
    for text in (said.out, said.err):
        assert not CONTROL.search(text), CONTROL.search(text)
    assert "Traceback" not in said.err


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose columns, classes and file have hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    columns = [f"{name}{i}" for i, name in enumerate(HOSTILE)]
    rows = [[*rng.normal(size=len(columns)).round(3), name] for name in HOSTILE for _ in range(6)]
    with (folder / "[red]$5_$10<b>.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([[*columns, "target"], *rows])
    flags = ("--model", "mlp:4", "--epochs", "1", "--predictive-draws", "2", "--twin", "--validation", "0.2")
    with pytest.MonkeyPatch.context() as patch:
        empty(Figure, patch.setattr)  # `report` draws them again, and more
        assert run(["train", str(folder / "[red]$5_$10<b>.csv"), *flags, "--out", str(folder / "run")]) == 0
    return folder


def test_training_says_and_writes_nothing_that_runs(planted: Path) -> None:
    check_page(planted / "run/report.html")


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run",
        "predict run {data}",
        "diagnose run",
        "ood run --against {data} --limit 20",
        "shift run --limit 20",
        "calibrate run --coverage 0.5",
        "prune run --out pruned.safetensors",
        "acquire --run run --pool {data}",
        "compare run run/twin.safetensors --out compare.html",
        "explain {data} --model mlp:4",
        "prior {data} --n 3 --model mlp:4 --out prior.svg",
        "report run",  # the last: it shows what the others found
    ],
)
def test_every_command(call, planted: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(planted)
    monkeypatch.setattr(report, "rewrite", lambda saved: None)  # once is enough
    data = "[red]$5_$10<b>.csv"
    said = call(*(data if part == "{data}" else part for part in command.split()))
    check_said(said)
    for page in [planted / "compare.html"] * ("compare" in command) + [planted / "run/report.html"] * (
        "report" in command
    ):
        check_page(page)
    if "prior.svg" in command:
        ElementTree.fromstring((planted / "prior.svg").read_text(encoding="utf-8"))


def test_a_table_of_predictions_has_no_formula(call, planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planted)
    data = "[red]$5_$10<b>.csv"
    check_said(call("predict", "run", data, "--format", "csv"))
    check_said(call("predict", "run", data, "--out", "out.csv"))
    rows = list(csv.reader(io.StringIO((planted / "out.csv").read_text(encoding="utf-8"))))
    assert len({len(row) for row in rows}) == 1
    assert len(rows[0]) >= 6 + len(HOSTILE)
    for row in rows:
        assert not any(text[:1] in "=+@\t\r" and text for text in row), row
        assert all(is_number(text) for text in row if text.startswith("-")), row
    assert all(is_number(text) for row in rows[1:] for text in row[2:6])


def test_what_programs_read_is_unchanged(call, planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planted)
    said = call("predict", "run", "[red]$5_$10<b>.csv", "--format", "json")
    assert set(json.loads(said.out)["predictions"][0]["probabilities"]) == set(HOSTILE)
    assert said.out.isascii()


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
