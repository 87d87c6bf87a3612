"""The Python of README and guides runs as it is printed, and their commands exist."""

import re
import tomllib
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


def test_the_guide_on_priors_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    page = (README.parent / "docs" / "guide.md").read_text(encoding="utf-8")
    part = page[page.index("## Look at a prior") : page.index("## When mean field stays")]
    for block in re.findall(r"```python\n(.*?)```", part, re.S):
        exec(compile(block, "guide.md", "exec"), names)
    assert names["scale"].draws.shape == (1000,)
    assert (tmp_path / "prior.svg").is_file()


def test_its_file_of_a_product_is_a_configuration() -> None:
    from posterity.cli.flags import undotted
    from posterity.cli.merge import merge

    page = (README.parent / "docs" / "guide.md").read_text(encoding="utf-8")
    (file,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    flag = undotted(['--prior.parts."*.bias".std', "2"])[1].split("=")
    config = merge(tomllib.loads(file), {flag[0]: ("--prior", flag[1])})
    assert list(config.prior.parts) == ["*.bias", "*"]
    assert config.prior.parts["*.bias"].std == 2
    assert config.prior.parts["*"].per == "row"


def test_every_command_shown_is_one() -> None:
    from posterity.cli.app import run

    shown = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("posterity ")}
    assert {"train", "evaluate", "predict", "data"} <= shown
    for command in shown:
        assert run([command, "--help"]) == 0


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
