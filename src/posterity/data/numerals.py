"""Numbers as people write them: one way for a whole column, or it holds no numbers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

Decimal: TypeAlias = Literal[".", ","]
SPACES = " \u00a0\u2009\u202f'’"  # between thousands: spaces of three widths, and the Swiss apostrophe
CURRENCIES = "$€£¥₹₽₩₺₫₴"
CODES = r"(?:USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|RUB|KRW|TRY|US\$|Fr\.|R\$)"
UNIT = r"\s+[A-Za-zµμΩ°][\wµμΩ°/%²³^*.·-]{0,14}|°\s?[CFK]?|\s*‰"  # after a space, as in 12 kg
LONGEST = 60  # characters of a number
OUTER = re.compile(
    rf"(?P<open>\(?)\s*(?P<sign>[-+−]?)\s*(?P<before>(?:[{CURRENCIES}]|{CODES})?)\s*(?P<inner>[-+−]?)(?P<body>[\d.,].*?)"
    rf"(?P<after>(?:\s*(?:[%{CURRENCIES}]|{CODES})|{UNIT})?)\s*(?P<close>\)?)",
    re.ASCII,
)
THOUSAND = re.compile(r"[1-9]\d{0,2}[.,]\d{3}", re.ASCII)  # which may as well be three decimals


@dataclass(frozen=True)
class Writing:
    """How a column writes its numbers: what stands before decimals and between thousands, and which sign beside them."""

    decimal: Decimal = "."
    thousands: Literal["", ",", ".", " "] = ""
    mark: str = ""  # % or a currency

    def value(self, word: str) -> float | None:
        """Read one cell; None where it is no number of this writing.

        >>> Writing(".", ",").value("(1,234.5)"), Writing(",", ".").value("1.234,5"), Writing().value("1,5")
        (-1234.5, 1234.5, None)
        """
        parts = _parts(word)
        thousands = self.thousands or ("." if self.decimal == "," else "")  # a point is nothing else there
        if parts is None or parts[2] not in ("", self.mark) or not _body(self.decimal, thousands).fullmatch(parts[1]):
            return None
        body = parts[1].translate(_dropping(thousands)).replace(self.decimal, ".")
        return parts[0] * float(body)

    def __str__(self) -> str:
        said = ["decimal commas"] * (self.decimal == ",")
        said += [f"thousands as in 1{self.thousands}000"] * bool(self.thousands)
        return ", ".join([*said, *([f"in {self.mark}"] if self.mark else [])])


PLAIN = Writing()


def is_number(word: str) -> bool:
    """Tell whether a cell alone could be a number, by any writing.

    >>> is_number("$1,234.50"), is_number("12%"), is_number("1.2.3"), is_number("3rd")
    (True, True, False, False)
    """
    parts = _parts(word)
    return parts is not None and any(_body(*one).fullmatch(parts[1]) for one in WAYS)


def writings(words: Sequence[str]) -> list[Writing]:
    """Return the ways in which all of some cells are numbers, the plain one first.

    A sign stands beside all cells or, where it is a currency's, beside some; percent signs may be left out beside 0 alone.

    >>> [str(one) for one in writings(["1,234", "12,000"])]
    ['thousands as in 1,000', 'decimal commas']
    >>> writings(["$5", "€7"]), writings(["12%", "0.3"]), writings(["1.5", "Paris"])
    ([], [], [])
    """
    mark = _mark(words)
    if mark is None:
        return []
    bodies = {parts[1] for word in words if (parts := _parts(word)) is not None}
    text = "".join(bodies)
    return [
        Writing(decimal, thousands, mark)
        for decimal, thousands in WAYS
        if (not thousands or any(sign in text for sign in (SPACES if thousands == " " else thousands)))
        and all(map(_body(decimal, thousands).fullmatch, bodies))
    ]


def could_be_decimals(words: Iterable[str]) -> bool:
    """Tell whether every point or comma in some numbers may stand before three decimals as well as after thousands."""
    bodies = [parts[1] for word in words if (parts := _parts(word)) is not None]
    marked = [body for body in bodies if "." in body or "," in body]
    return bool(marked) and all(map(THOUSAND.fullmatch, marked))


WAYS: tuple[tuple[Decimal, Literal["", ",", ".", " "]], ...] = (
    (".", ""),
    (".", ","),
    (",", ""),
    (",", "."),
    (".", " "),
    (",", " "),
)


@cache
def _body(decimal: str, thousands: str) -> re.Pattern[str]:
    d = re.escape(decimal)
    plain = rf"(?:\d+(?:{d}\d*)?|{d}\d+)(?:[eE][-+]?\d+)?"
    if not thousands:
        return re.compile(plain, re.ASCII)
    t = f"[{SPACES}]" if thousands == " " else re.escape(thousands)
    indian = rf"|\d{{1,2}}(?:{t}\d\d)+{t}\d{{3}}(?:{d}\d*)?" if thousands == "," else ""
    return re.compile(rf"[1-9]\d{{0,2}}(?:{t}\d{{3}})+(?:{d}\d*)?{indian}|{plain}", re.ASCII)


@cache
def _dropping(thousands: str) -> dict[int, None]:
    return dict.fromkeys(map(ord, SPACES if thousands == " " else thousands))


def _parts(word: str) -> tuple[float, str, str] | None:
    """Take a cell apart: its sign as a factor, its digits, and the mark beside them."""
    found = OUTER.fullmatch(word.strip()) if len(word) <= LONGEST else None
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    signs, marks = found["sign"] + found["inner"] + found["open"], found["before"] + found["after"].strip()
    if len(signs) > 1 or (found["before"] and found["after"]):
        return None
    return -1.0 if signs in ("-", "−", "(") else 1.0, found["body"], marks


def _mark(words: Sequence[str]) -> str | None:
    """Return the one sign that stands beside some cells, or none; None where there are several, or percents with others."""
    marks: set[str] = set()
    bare = False
    for word in words:
        parts = _parts(word)
        if parts is None:
            return None
        marks |= {parts[2]} - {""}
        bare |= not parts[2] and bool(parts[1].strip("0.,"))
    if len(marks) > 1 or ("%" in marks and bare):
        return None
    return next(iter(marks), "")
