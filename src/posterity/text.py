"""Names that others chose, of classes, columns, files and data sets, made harmless where they are shown.

One function for each place: `visible` for terminals and pages, `cell` for CSV, `markdown` for Markdown, `short` for figures.
What programs read, JSON, is left as it is: its own escapes are enough.
"""

import re
from collections.abc import Sequence

LONGEST = 60  # characters of a name in a figure or as part of a file's name
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: escapes of terminals begin with one of them
    "\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # text that runs or hides
    "\ud800-\udfff\ufffe\uffff]"  # no characters: bytes of a file's name that are no UTF-8
)
FORMULA = "=+-@＝＋－＠"  # what a spreadsheet takes for the beginning of a formula


def visible(text: str, keep: str = "") -> str:
    r"""Return a text whose invisible characters are written out, so that it is shown as it is and commands no terminal.

    >>> print(visible("\x1b[31mred\n"), visible("a\nb", keep="\n"))
    \x1b[31mred\n a
    b
    """
    return HIDDEN.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


def short(text: str, most: int = LONGEST) -> str:
    """Return a text of one line, visible and not longer than `most` characters.

    >>> short("abcdefgh", 4)
    'abc…'
    """
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def some(things: Sequence[object], most: int = 5) -> str:
    """Name some of many things.

    >>> some(range(9))
    '0, 1, 2, 3, 4, …'
    """
    return ", ".join(map(str, things[:most])) + ", …" * (len(things) > most)


def cell(value: object) -> object:
    """Return a value as a CSV may hold it: a text that a spreadsheet would run begins with an apostrophe.

    >>> cell("=1+1"), cell("-1.5"), cell(-1.5), cell("=1\\n")
    ("'=1+1", '-1.5', -1.5, "'=1\\\\n")
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip()[:1] in FORMULA and text.strip() and not _is_number(text) else text


def markdown(text: str) -> str:
    r"""Return a text as Markdown shows it: no mark, link or tag, and no end of a table's cell.

    >>> print(markdown("a|b `c` <b> [d](e)"))
    a\|b \`c\` &lt;b&gt; \[d\](e)
    """
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", shown)


def file_name(text: str, most: int = LONGEST) -> str:
    """Return a text as part of a file's name: letters, digits, hyphens, dots and underscores, and not too many.

    >>> file_name("uci/wine: ../../etc")
    'uci-wine--..-..-etc'
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)[:most]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
