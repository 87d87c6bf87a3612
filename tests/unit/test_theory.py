"""The chapters on the theory run as they are printed, in two languages that share their code."""

import re
from pathlib import Path

import pytest

THEORY = Path(__file__).parents[2] / "docs" / "theory"
ENGLISH = sorted((THEORY / "en").glob("*.md"))
SLOW = {  # compare many fits, or sample a network by NUTS
    "1-from-least-squares-to-the-posterior.md",
    "4-six-ways-to-one-network.md",
    "5-what-the-posterior-buys.md",
}
every_page = pytest.mark.parametrize("page", sorted(THEORY.rglob("*.md")), ids=lambda p: f"{p.parent.name}/{p.name}")


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(
    "chapter",
    [
        pytest.param(p, id=p.name, marks=[pytest.mark.slow, pytest.mark.timeout(1800)] if p.name in SLOW else [])
        for p in ENGLISH
    ],
)
def test_a_chapter_runs_from_top_to_bottom(chapter: Path) -> None:
    """Its claims are the assertions that it is made of."""
    assert sum(block.count("assert ") for block in blocks(chapter)) >= 5
    names: dict = {}
    for block in blocks(chapter):
        exec(compile(block, chapter.name, "exec"), names)


@pytest.mark.parametrize("chapter", ENGLISH, ids=lambda p: p.name)
def test_both_languages_have_the_same_code_equations_and_figures(chapter: Path) -> None:
    other = THEORY / "zh" / chapter.name
    assert blocks(other) == blocks(chapter)
    for shared in (r"^\$\$.*?\$\$$", r"\]\(([^)]*\.svg)\)"):
        first, second = (re.findall(shared, page.read_text(encoding="utf-8"), re.S | re.M) for page in (chapter, other))
        assert first == second


def test_there_is_no_chapter_in_one_language_alone() -> None:
    assert [p.name for p in sorted((THEORY / "zh").glob("*.md"))] == [p.name for p in ENGLISH]
    assert len(ENGLISH) >= 5


@every_page
def test_what_it_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@every_page
def test_its_equations_render(page: Path) -> None:
    """GitHub reads a dollar as mathematics after white space alone, and takes backslashes off punctuation."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    assert text.count("$") % 2 == 0
    equations = re.findall(r"\$\$(.*?)\$\$|\$([^$]+)\$", text, re.S)
    for displayed, inline in equations:
        assert not re.search(r"\\[^a-zA-Z ]", displayed or inline), displayed or inline
        assert displayed or (inline == inline.strip() and "\n" not in inline), inline
    for before, _ in re.findall(r"(.?)\$([^$]+)\$", text.replace("$$", "")):
        assert not before.strip(), f"an equation follows '{before}' without a space"
