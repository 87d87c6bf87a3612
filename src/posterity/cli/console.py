"""What people and programs read: results on stdout, everything else on stderr."""

import json
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posterity.cli.flags import Output
from posterity.text import short, visible

MAX_WIDTH = 400  # characters
LONGEST = 200  # characters of one cell


@dataclass(frozen=True)
class Voice:
    """How one command speaks: `note` on stderr, `table` and `say` on stdout, or one JSON object there instead."""

    output: Output

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self.output.quiet:
            tell(text)

    def say(self, text: str) -> None:
        """Print a line of the result, where the result is for people."""
        if not self.output.json:
            print(visible(text, keep="\n"), flush=True)

    def table(self, table: Table) -> None:
        """Print a table of the result, where the result is for people: as wide as it is, in a terminal as words allow."""
        if self.output.json:
            return
        console = Console(highlight=False)
        needed = console.measure(table, options=console.options.update(max_width=MAX_WIDTH))
        width = max(console.width, needed.minimum + len(table.columns)) if console.is_terminal else needed.maximum
        Console(highlight=False, width=width).print(table)

    def result(self, values: Mapping[str, Any]) -> None:
        """Print the result where it is for programs: one JSON object."""
        if self.output.json:
            print(json.dumps(finite(values), indent=2), flush=True)


def tell(text: str) -> None:
    """Print on stderr, without what would command the terminal."""
    print(visible(text, keep="\n"), file=sys.stderr, flush=True)


def finite(value: Any) -> Any:
    """Return a value as strict JSON can hold it: NaN and infinities become null.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def grid(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    bold: Collection[tuple[int, int]] = (),
) -> Table:
    """Make a table: the first `left` columns are text, the others numbers; cells (row, column) of `bold` stand out.

    All of it is shown as it is written: nothing in a name is markup, or an escape of the terminal.
    """
    from rich import box

    columns = [short(name, LONGEST) for name in columns]
    rows = [[short(cell, LONGEST) for cell in row] for row in rows]
    table = Table(
        title=Text(visible(title)) if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    for index, name in enumerate(columns):
        text = index < left
        # A number and its spread stay together; words of a name may go below each other.
        widest = 0 if text else max((len(row[index]) for row in rows), default=0)
        longest = max(map(len, name.split()), default=0)
        least = None if text else max(widest, longest)
        table.add_column(Text(name), justify="left" if text else "right", overflow="fold", min_width=least)
    for at, row in enumerate(rows):
        table.add_row(*(Text(cell, style="bold" if (at, i) in bold else "") for i, cell in enumerate(row)))
    return table
