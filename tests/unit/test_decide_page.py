"""The page on decisions runs as it is printed, and what it promises holds there."""

import re
from pathlib import Path

from posterity.cli.app import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "decide.md"


def test_the_page_runs_from_top_to_bottom() -> None:
    names: dict = {}
    page = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    low, _ = names["posterity"].calibrate(names["held_out"], names["y"][900:]).coverage_interval(0.9999, 360)
    assert low <= names["covered"] <= 1
    assert names["answered"].float().mean() > 0.5
    assert names["errors"] < 0.05 + 4 * (0.05 * 0.95 / 180) ** 0.5
    assert names["p"].shape == (5,)
    for line in re.findall(r"^posterity (\w+)", page, re.M):
        assert line in COMMANDS


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target
