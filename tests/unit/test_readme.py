"""The Python of README and guides runs as it is printed, and their commands exist."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


def test_the_python_example_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    scores = names["prediction"].scores(names["digits"].test_targets)
    assert scores["accuracy"] > 0.93
    assert (tmp_path / "digits.safetensors").is_file()


def test_the_page_on_networks_runs_from_top_to_bottom() -> None:
    names: dict = {}
    page = README.parent / "docs" / "any-network.md"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        exec(compile(block, page.name, "exec"), names)
    digits = names["digits"]
    scores = names["posterior"].predict(digits.test_inputs, 32).scores(digits.test_targets)
    assert scores["accuracy"] > 0.93
    assert set(names["later"].layout.names) == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_every_command_shown_is_one() -> None:
    from posterity.cli.app import run

    shown = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("posterity ")}
    assert {"train", "evaluate", "predict", "data"} <= shown
    for command in shown:
        assert run([command, "--help"]) == 0


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
