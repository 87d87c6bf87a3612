"""What the rows of a table are called, as people find them in their file."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from posterity.data.sheet import Sheet
from posterity.text import short


def called(sheet: Sheet, identifier: str, kept: NDArray[np.bool_]) -> Callable[[int], str]:
    """Return what the rows that are kept, (N,) of all, are called: by their lines, and by what the identifier says of each.

    >>> from pathlib import Path
    >>> from posterity.data.sheet import Wanted, read_sheet
    >>> sheet = read_sheet(b"who,y\\nann,1\\nbob,2\\ncem,3\\n", Path("mine.csv"), Wanted())
    >>> called(sheet, "who", np.array([True, False, True]))(1)
    'line 4: cem'
    """
    lines, texts = sheet.lines[kept], identified(sheet, identifier)

    def name(row: int) -> str:
        own = f"{sheet.unit} {lines[row]}"
        return f"{own}: {short(text)}" if (text := texts(places[row])) else own

    places = np.flatnonzero(kept)
    return name


def identified(sheet: Sheet, identifier: str) -> Callable[[int], str]:
    """Return the text of the identifier of each row, from 0; empty where there is none."""
    if identifier not in sheet.cells:
        return lambda row: ""
    cells = sheet.cells[identifier].worded()
    return lambda row: cells.words[cells.codes[row]]
