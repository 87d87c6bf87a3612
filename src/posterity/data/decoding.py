"""Which letters the bytes of a text table are: UTF-8, UTF-16 and UTF-32 by their marks, else the letters of Western Europe."""

import codecs
import re
from pathlib import Path

from posterity.data.files import corrupt

MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
WESTERN = "cp1252"  # Latin-1 with the letters that Windows put where Latin-1 has none
BEGINNING = 1000  # bytes that are looked at
CONTROLS = re.compile(b"[\x00-\x08\x0e-\x1f]")


def encoding_of(content: bytes, path: Path) -> tuple[str, str]:
    """Tell the encoding of a text: Python's name of it, and people's.

    Raises:
        CorruptFile: where it is no text: a NUL, or bytes that are letters in none of these.

    >>> encoding_of("Zürich".encode("latin-1"), Path("cities.csv"))
    ('cp1252', 'Latin-1')
    """
    for mark, codec, name in MARKS:
        if content.startswith(mark):
            return codec, _checked(content, codec, name, path)
    if codec := _without_mark(content):
        return codec, _checked(content, codec, "UTF-16", path)
    if b"\0" in content:
        raise corrupt(path, f"byte {content.index(0)} is NUL, which text does not have; save it as UTF-8")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if CONTROLS.search(content):
            raise corrupt(path, f"byte {error.start} is not UTF-8 text, nor Latin-1; save it as UTF-8") from error
        return WESTERN, _checked(content, WESTERN, "Latin-1", path)
    return "utf-8", "UTF-8"


def _without_mark(content: bytes) -> str:
    """Tell UTF-16 without its mark: of most letters of the West, every second byte is NUL, and no other is."""
    first, second = content[:BEGINNING:2].count(0), content[1:BEGINNING:2].count(0)
    many = min(len(content), BEGINNING) // 2 * 0.9
    if len(content) < 4 or len(content) % 2 or (first and second) or max(first, second) < many:
        return ""
    return "utf-16-be" if first else "utf-16-le"


def _checked(content: bytes, codec: str, name: str, path: Path) -> str:
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        known = "UTF-8, nor Latin-1" if codec == WESTERN else name
        raise corrupt(path, f"byte {error.start} is not {known} text; save it as UTF-8") from error
    if "\0" in text:
        raise corrupt(path, f"character {text.index(chr(0))} is NUL, which text does not have")
    return name
