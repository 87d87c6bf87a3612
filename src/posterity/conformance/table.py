"""The table of verdicts: in green and red for people, in Markdown for a page, as plain values for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from posterity.conformance.laws import LAWS
from posterity.conformance.verdict import Check, Status, Verdict
from posterity.text import markdown as escaped
from posterity.text import visible

Rows = Mapping[str, Sequence[Verdict]]  # by subject
SIGNS: dict[Status, str] = {"kept": "✓", "broken": "✗", "not applicable": "n/a", "not asked": "—"}
STYLES: dict[Status, str] = {"kept": "green", "broken": "bold red", "not applicable": "dim", "not asked": "dim"}
KEY = "✓ kept, ✗ broken, n/a: the law says nothing about such a method, —: not asked, and so never green."


def rich_table(rows: Rows) -> Table:
    """Return the table in colours, a row for each subject and a column for each law."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=KEY, caption_justify="left")
    table.add_column("method", no_wrap=True)
    for number in _numbers(rows):
        table.add_column(str(number), justify="center", no_wrap=True)
    table.add_column("seconds", justify="right")
    for name, verdicts in rows.items():
        cells = [f"[{STYLES[v.status]}]{SIGNS[v.status]}[/]" for v in verdicts]
        table.add_row(Text(visible(name)), *cells, f"{sum(v.seconds for v in verdicts):.1f}")
    return table


def markdown(rows: Rows) -> str:
    """Return the table as Markdown, with what each law says, the number furthest off, and why a law is n/a.

    >>> print(markdown({"map": [Verdict(2, "not applicable", note="no KL")]}).splitlines()[4])
    | map | n/a |
    """
    numbers = _numbers(rows)
    lines = [
        f"| method | {' | '.join(map(str, numbers))} |",
        f"|---|{':-:|' * len(numbers)}",
        *(f"| {escaped(name)} | {' | '.join(SIGNS[v.status] for v in verdicts)} |" for name, verdicts in rows.items()),
    ]
    laws = [f"{n}. {LAWS[n].says}" for n in numbers]
    measured = [
        "| method | law | furthest off | measured | expected | tolerance |",
        "|---|:-:|---|--:|--:|--:|",
        *(_measured(name, v.law, v.check) for name, verdicts in rows.items() for v in verdicts if v.check is not None),
    ]
    parts = [
        "# Conformance",
        "",
        *lines,
        "",
        KEY,
        "",
        "The laws:",
        "",
        *laws,
        "",
        "## What was measured",
        "",
        *measured,
    ]
    notes = [f"- {escaped(note)}" for note in notes_of(rows)]
    return "\n".join([*parts, "", "## Remarks", "", *notes]) + "\n"


def values(rows: Rows) -> dict[str, Any]:
    """Return all verdicts as plain values."""
    return {name: {str(v.law): _values(v) for v in verdicts} for name, verdicts in rows.items()}


def notes_of(rows: Rows) -> list[str]:
    """Return the reasons, each with those that it is true of.

    >>> notes_of({"map": [Verdict(2, "not applicable", note="no KL")], "sgld": [Verdict(2, "not applicable", note="no KL")]})
    ['law 2, no KL: map, sgld']
    """
    found: dict[str, list[str]] = {}
    for name, verdicts in rows.items():
        for v in verdicts:
            if v.note:
                found.setdefault(f"law {v.law}, {v.note}", []).append(name)
    return [f"{reason}: {', '.join(names)}" for reason, names in found.items()]


def told(name: str, verdict: Verdict) -> str:
    """Say one verdict in a line."""
    start = f"{name}, law {verdict.law} ({LAWS[verdict.law].says}): {verdict.status}"
    check = verdict.check
    if check is None:
        return start + (f", {verdict.note}" if verdict.note else "")
    numbers = f"{check.quantity} {check.measured:.5g}, expected {check.expected:.5g} ± {check.tolerance:.2g}"
    return f"{start}, {numbers}; {verdict.seconds:.1f} s"


def _numbers(rows: Rows) -> list[int]:
    return [v.law for v in next(iter(rows.values()))]


def _measured(name: str, law: int, check: Check) -> str:
    numbers = (check.measured, check.expected, check.tolerance)
    return f"| {escaped(name)} | {law} | {escaped(check.quantity)} | {' | '.join(f'{v:.5g}' for v in numbers)} |"


def _values(verdict: Verdict) -> dict[str, Any]:
    check = verdict.check
    found: dict[str, Any] = {"status": verdict.status, "seconds": round(verdict.seconds, 2)}
    if verdict.note:
        found["note"] = verdict.note
    if check is not None:
        found |= {
            "quantity": check.quantity,
            "measured": check.measured,
            "expected": check.expected,
            "tolerance": check.tolerance,
            "standard_error": check.standard_error,
        }
    return found
