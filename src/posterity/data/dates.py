"""Dates as people write them: one order of day, month and year for a whole column; and truth values."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

from posterity.data.columns import DAY

Order: TypeAlias = Literal["ymd", "dmy", "mdy"]
ORDERS: tuple[Order, ...] = get_args(Order)
LONGEST = 40  # characters of a date
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
YEARS = range(1700, 2300)  # other numbers of four digits are parts of codes
CENTURY = 69  # years of two digits from here on are of the 1900s, as in POSIX
CLOCK = r"(?:(?:T|,?\s+)(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?\s*([AaPp][Mm])?\s*(Z|UTC|[-+]\d\d:?\d\d)?)?"
TRUTH = (("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("off", "on"))


def _pattern(day: str) -> re.Pattern[str]:
    return re.compile(day + CLOCK, re.ASCII)


YEAR_FIRST = _pattern(r"(\d{4})([-/.])(\d{1,2})(?:\2(\d{1,2}))?")
YEAR_LAST = _pattern(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d\d)")
DAY_NAMED = _pattern(r"(\d{1,2})[-\s/.]+([A-Za-z]{3,9})[-\s/.,]+(\d{4}|\d\d)")
MONTH_NAMED = _pattern(r"([A-Za-z]{3,9})[\s.]+(\d{1,2}),?\s+(\d{4})")


def days(word: str, order: Order) -> float | None:
    """Read a date, with a time or without, as days since 1970; None where it is none of this order.

    >>> days("1970-01-02 12:00", "ymd"), days("2/1/1970", "dmy"), days("13/1/1970", "mdy"), days("3 Jan 1970", "dmy")
    (1.5, 1.0, None, 2.0)
    """
    parts = _date(word.strip(), order) if len(word) <= LONGEST else None
    if parts is None:
        return None
    (year, month, day), (hour, minute, second, fraction, half, zone) = parts
    hours = int(hour or 0)
    if half is not None:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + 12 * (half.lower() == "pm")
    if year not in YEARS or hours > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    try:
        moment = datetime(year, month, day, tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    clock = 3600 * hours + 60 * int(minute or 0) + int(second or 0) + float(f"0.{fraction or 0}")
    return (moment.timestamp() + clock - _offset(zone)) / DAY


def orders(words: Sequence[str]) -> list[Order]:
    """Return the orders of day, month and year by which all of some cells are dates.

    >>> orders(["31/12/2020", "1/2/2020"]), orders(["1/2/2020", "2/2/2020"]), orders(["2020"])
    (['dmy'], ['dmy', 'mdy'], [])
    """
    return [one for one in ORDERS if words and all(days(word, one) is not None for word in words)]


def truth(words: Sequence[str]) -> dict[str, float] | None:
    """Return what each of some cells is worth where they are the two of a pair, as yes and no; else None.

    >>> truth(["Yes", "no"]), truth(["yes"]), truth(["yes", "maybe"])
    ({'Yes': 1.0, 'no': 0.0}, None, None)
    """
    small = {word: word.strip().lower() for word in words}
    pair = next((pair for pair in TRUTH if set(small.values()) == set(pair)), None)
    return None if pair is None else {word: float(pair.index(one)) for word, one in small.items()}


def _date(text: str, order: Order) -> tuple[tuple[int, int, int], tuple[str | None, ...]] | None:
    if order == "ymd":
        if found := YEAR_FIRST.fullmatch(text):
            return (int(found[1]), int(found[3]), int(found[4] or 1)), found.groups()[4:]
        return None
    if found := YEAR_LAST.fullmatch(text):
        first, second = int(found[1]), int(found[3])
        day, month = (first, second) if order == "dmy" else (second, first)
        return (_year(found[4]), month, day), found.groups()[4:]
    named, at = (DAY_NAMED, (1, 2)) if order == "dmy" else (MONTH_NAMED, (2, 1))
    if (found := named.fullmatch(text)) and (month := _month(found[at[1]])):
        return (_year(found[3]), month, int(found[at[0]])), found.groups()[3:]
    return None


def _month(name: str) -> int:
    """Return the number of a month in English, by its name or the beginning of it; 0 where it is none."""
    return next((at for at, month in enumerate(MONTHS, 1) if month.startswith(name.lower())), 0)


def _year(digits: str) -> int:
    return int(digits) if len(digits) == 4 else int(digits) + (1900 if int(digits) >= CENTURY else 2000)


def _offset(zone: str | None) -> float:
    """Return the seconds by which a zone is before Greenwich."""
    if zone is None or zone[0] not in "+-":
        return 0.0
    return (-60.0 if zone[0] == "-" else 60.0) * (60 * int(zone[1:3]) + int(zone[-2:]))
