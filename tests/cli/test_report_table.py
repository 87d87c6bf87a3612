"""The report that a run on a table ends with."""

import re
from pathlib import Path


def test_it_says_what_the_columns_did_and_names_the_worst_rows(table_run: Path, table: Path) -> None:
    page = (table_run / "report.html").read_text(encoding="utf-8")
    text = page[page.index("What each column did") :]
    assert re.findall(r"<td>(a|b)</td>", text) == ["a", "b"]  # 50 · 3 and 20 · 2 of its spread
    assert "Most is lost without “a”" in text
    rows = table.read_text().splitlines()
    named = re.findall(r"<td>line (\d+)</td><td>([\d.]+)</td>", text)
    assert len(named) == 10
    for number, target in named:
        assert abs(float(rows[int(number) - 1].split(",")[2]) - float(target)) < 1
