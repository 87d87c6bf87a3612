"""The cells of one column in memory: plain numbers as numbers, texts each kept once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from posterity.data.columns import DAY, Floats, Kind, number_text
from posterity.data.separated import is_missing


@dataclass(frozen=True, eq=False)
class Cells:
    """One column: plain numbers with NaN where missing, or texts, of which `words` holds each once and `codes` says where."""

    floats: Floats | None
    words: tuple[str, ...] = ()
    codes: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    markers: Counter[str] = field(default_factory=Counter)  # how missing cells are written, and how many are
    kind: Kind | None = None  # what the file says that they are; a date's floats are days. None: told from the cells

    def row_of(self, word: str) -> int:
        """Return the first row that holds a text."""
        return int(np.argmax(self.codes == self.words.index(word)))

    def worded(self) -> "Cells":
        """Return them as texts, which are categories; a day is written as its date."""
        if self.floats is None:
            return self
        distinct, codes = np.unique(self.floats, return_inverse=True)  # of NaN too there is one
        words = tuple(self._word(float(value)) for value in distinct)
        gone = Counter({"": count} if (count := int(np.isnan(self.floats).sum())) else {})
        return Cells(None, words, codes.reshape(-1).astype(np.int32), gone, "category")

    def _word(self, value: float) -> str:
        if np.isnan(value):
            return ""
        if self.kind == "date":
            return str(np.datetime64(round(value * DAY * 1e6), "us")).removesuffix("T00:00:00.000000")
        return number_text(value)


class Gathering:
    """One column while it is read."""

    def __init__(self, name: str, text: bool, missing: frozenset[str]) -> None:
        self.name = name
        self.late = False
        self.text = text
        self._missing = missing
        self._floats: list[Floats] = []
        self._codes: list[NDArray[np.int32]] = []
        self._index: dict[str, int] = {}
        self._markers: Counter[str] = Counter()

    def add(self, cells: Sequence[str]) -> Floats | None:
        """Take some cells; return them where they are plain numbers."""
        if self.late:
            return None
        if not self.text:
            if (floats := self._numbers(cells)) is not None:
                self._floats.append(floats)
                return floats
            self.text, self.late = True, bool(self._floats)
        index = self._index
        codes = (index.setdefault(cell.strip(), len(index)) for cell in cells)
        self._codes.append(np.fromiter(codes, np.int32, len(cells)))
        return None

    def _numbers(self, cells: Sequence[str]) -> Floats | None:
        if "_" in "".join(cells):  # Python reads 1_2 as 12; in a table it is a name
            return None
        try:
            floats = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            markers: Counter[str] = Counter()
            floats = np.empty(len(cells))
            for place, cell in enumerate(cells):
                if is_missing(cell) or cell.strip().lower() in self._missing:
                    markers[cell.strip()] += 1
                    floats[place] = np.nan
                    continue
                try:
                    floats[place] = float(cell)
                except ValueError:
                    return None
            self._markers += markers
            return floats
        if count := int(np.isnan(floats).sum()):
            self._markers["NaN"] += count
        return floats

    def cells(self) -> Cells:
        if not self.text:
            return Cells(np.concatenate(self._floats), markers=self._markers)
        codes = np.concatenate(self._codes)
        gone = {code: word for word, code in self._index.items() if is_missing(word) or word.lower() in self._missing}
        times = np.bincount(codes, minlength=len(self._index))
        markers = Counter({word: int(times[code]) for code, word in gone.items()})
        return Cells(None, tuple(self._index), codes, markers)
