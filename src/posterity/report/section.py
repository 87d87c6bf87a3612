"""One part of the page, as the template puts it there."""

from dataclasses import dataclass

from markupsafe import Markup

from posterity.report.gallery import Group


@dataclass(frozen=True)
class Grid:
    """A table: what its first column is called and the others are, and its rows, each a name and a cell per column.

    best: (row, column) of the cells that are printed in bold, both counted from 0 and without the first column.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Section:
    """One part of the page: its title, how to read it, what it says, its tables and its figures."""

    title: str
    reading: str
    verdict: str = ""
    figures: tuple[Markup, ...] = ()
    groups: tuple[Group, ...] = ()
    beside: bool = False  # the figure stands to the right of the text
    grids: tuple[Grid, ...] = ()
