"""Changes of any file, and of text: bytes flipped, cut and repeated; literals, keys and lines made hostile."""

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

Mutator: TypeAlias = Callable[[Random, bytes], bytes]
MAX_OPERATIONS = 4

NUMBERS = (
    *("0", "-0", "-1", "1", "2", "0.5", "255", "65536", "2147483648", "-2147483649", "9223372036854775808"),
    *("18446744073709551616", str(2**70), str(-(2**70)), "1e308", "-1e308", "1e-320", "1e999", "-1e999"),
    "9" * 400,
    "9" * 5000,
)
NAMES = (
    *(
        "",
        " ",
        "a",
        "none",
        "null",
        "True",
        "nan",
        "inf",
        "-inf",
        "os:system",
        "../../etc/passwd",
        "/dev/zero",
        "C:\\x",
    ),
    *("<script>alert(1)</script>", "=cmd|' /C calc'!A0", "$5_$10", "\\frac", "{0.__class__}", "%s%n", "${HOME}"),
    *("\x1b[2J\x1b]0;x\x07", "\x00", "\ufeff", "\u202eabc", "\ud7ff", "é" * 3, "a\nb", "a\rb", "x" * 10_000),
)
DEEP = ("[" * 300 + "]" * 300, "[" * 20_000, '{"a":' * 300 + "1" + "}" * 300, '{"a":' * 20_000)
JSON_LITERALS = (
    *NUMBERS,
    *map(json.dumps, NAMES),
    *DEEP,
    "NaN",
    "Infinity",
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[1, 2]",
)
TOML_LITERALS = (
    *(number for number in NUMBERS if len(number) < 5000),
    *map(json.dumps, NAMES),
    *("nan", "inf", "true", "[]", "{}", "[[]]", "[1, 'a']", "1979-05-27T07:32:00Z", "0x7fffffffffffffffff", "'''"),
    *("[" * 300 + "]" * 300, "[" * 20_000, "{a=" * 300 + "1" + "}" * 300),
)
CSV_LITERALS = (
    *NUMBERS,
    *NAMES,
    "NaN",
    "Infinity",
    "1_000",
    "0x10",
    "1,5",
    '"',
    '"a',
    'a"b',
    '"a""b"',
    ",,",
    ";",
    "\t",
    "١٢",
)
TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\btrue\b|\bfalse\b|\bnull\b|\[[^\[\]]*\]')
CELLS = re.compile(r"[^,;\t\r\n]+")
ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-16-le")


def flip(rng: Random, content: bytes) -> bytes:
    """Change one bit."""
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def overwrite(rng: Random, content: bytes) -> bytes:
    """Write an interesting whole number of 1, 2, 4 or 8 bytes somewhere, in either order."""
    width = rng.choice("BHIQ")
    limit = 256 ** struct.calcsize(width)
    number = rng.choice((0, 1, limit - 1, limit // 2, limit // 2 - 1, len(content), rng.randrange(limit))) % limit
    new = struct.pack(rng.choice("<>") + width, number)
    place = rng.randrange(len(content))
    return content[:place] + new + content[place + len(new) :]


def cut(rng: Random, content: bytes) -> bytes:
    """End early, or leave out a part."""
    first, last = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:first] if rng.random() < 0.5 else content[:first] + content[last:]


def repeat(rng: Random, content: bytes) -> bytes:
    """Write a part twice, or many times."""
    first, last = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:last] + content[first:last] * rng.choice((1, 1, 2, 50)) + content[last:]


def insert(rng: Random, content: bytes) -> bytes:
    """Put a few bytes in: random ones, zeros, or ones."""
    length = rng.choice((1, 2, 4, 8, 100))
    new = rng.choice((rng.randbytes(length), b"\0" * length, b"\xff" * length))
    place = rng.randrange(len(content) + 1)
    return content[:place] + new + content[place:]


def exchange(rng: Random, content: bytes) -> bytes:
    """Exchange two parts."""
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


DAMAGE: tuple[Mutator, ...] = (flip, flip, overwrite, overwrite, cut, repeat, insert, exchange)


def damaged(rng: Random, content: bytes) -> bytes:
    """Do from one to four of these."""
    for _ in range(rng.randint(1, MAX_OPERATIONS)):
        content = rng.choice(DAMAGE)(rng, content) if content else rng.randbytes(8)
    return content


def literals(choices: Sequence[str], pattern: re.Pattern[str] = TOKENS) -> Mutator:
    """Make a mutator that puts a hostile literal in the place of one that is there."""

    def change(rng: Random, content: bytes) -> bytes:
        text = content.decode("utf-8", "surrogateescape")
        found = list(pattern.finditer(text))
        if not found:
            return content
        match = rng.choice(found)
        return _encoded(text[: match.start()] + rng.choice(choices) + text[match.end() :])

    return change


def lines(rng: Random, content: bytes) -> bytes:
    """Leave out, repeat, exchange, join or end a line, by any end of lines."""
    rows = content.split(b"\n")
    place, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(6)
    if kind == 0:
        del rows[place]
    elif kind == 1:
        rows.insert(other, rows[place])
    elif kind == 2:
        rows[place], rows[other] = rows[other], rows[place]
    elif kind == 3:
        rows[place] = rows[place] * rng.choice((2, 1000))
    elif kind == 4:
        return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\0\n", b"\x0b", "\u2028".encode())))
    else:
        rows[place] = b"#" + rows[place]
    return b"\n".join(rows)


def encoded(rng: Random, content: bytes) -> bytes:
    """Write a text in another encoding."""
    return content.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")


def tree(rng: Random, content: bytes) -> bytes:
    """Change a JSON object: a value made hostile, a key left out, renamed, or written twice."""
    try:
        return json.dumps(_branch(rng, json.loads(content))).encode()
    except (ValueError, RecursionError):
        return damaged(rng, content)


def _branch(rng: Random, value: object) -> object:
    """Change this value, or one below it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.7:
            return {**value, key: _branch(rng, value[key])}
        kept = {k: v for k, v in value.items() if k != key}
        return kept if rng.random() < 0.5 else {**kept, rng.choice(NAMES): value[key]}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], _branch(rng, value[place]), *value[place + 1 :]]
    while True:
        try:
            return json.loads(rng.choice(JSON_LITERALS))
        except (ValueError, RecursionError):
            continue


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
