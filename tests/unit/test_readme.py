"""The Python of README and guides runs as it is printed, and their commands exist."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
PAGES = [README, *sorted((README.parent / "docs").rglob("*.md"))]


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


def shown(node: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield what a piece of code takes from the package: a module, and attributes that lead on from it."""
    match node:
        case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "posterity":
            yield from ((module, [alias.name]) for alias in names)
        case ast.Import(names=names):
            yield from ((alias.name, []) for alias in names if alias.name.split(".")[0] == "posterity")
        case ast.Attribute():
            chain: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                chain, inner = [inner.attr, *chain], inner.value
            if isinstance(inner, ast.Name) and inner.id == "posterity":
                yield "posterity", chain


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_of_the_package_that_a_page_shows_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for node in ast.walk(ast.parse(block)):
            for module, chain in shown(node):
                reduce(getattr, chain, importlib.import_module(module))


def test_every_command_shown_is_one() -> None:
    from posterity.cli.app import run

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    commands = {line.split()[1] for line in lines if line.startswith("posterity ")}
    assert {"train", "evaluate", "predict", "data"} <= commands
    for command in commands:
        assert run([command, "--help"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
