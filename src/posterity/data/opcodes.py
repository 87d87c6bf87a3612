"""The few opcodes of pickles that data sets are made of, read without Python's own reader of pickles.

A pickle is a program: it can name any function and have it called, ask for memory that it does not have, or nest its values so
that comparing them never ends. Here a program can only make whole numbers, strings, lists, dictionaries whose keys are strings,
and arrays of bytes; nothing is imported, nothing is called, and each opcode takes a bounded step.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import corrupt

Bytes = NDArray[np.uint8]
MARK = object()
LINE = 100  # bytes of a name
MOST_STEPS = 1 << 20  # the longest file of either CIFAR set takes about 200,000


class Array:
    """Stands for a NumPy array: it keeps what it is told."""

    state: object = None

    def bytes(self, path: Path) -> Bytes:
        """Return the array of bytes that was meant. Raises `CorruptFile` for any other."""
        state = self.state
        if not (isinstance(state, tuple) and len(state) == 5):
            raise corrupt(path, "an array in it is damaged")
        _, shape, dtype, by_columns, content = state
        plain = isinstance(dtype, Kind) and dtype.name in (b"u1", "u1")
        if not plain or by_columns or not isinstance(content, bytes):
            raise corrupt(path, "an array in it does not hold bytes, row by row")
        sizes = isinstance(shape, tuple) and len(shape) == 2 and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or shape[0] * shape[1] != len(content):
            raise corrupt(path, f"an array in it holds {len(content)} bytes, which is not its shape")
        return np.frombuffer(content, np.uint8).reshape(shape)


class Kind:
    """Stands for a NumPy dtype; byte order and alignment, which bytes have none of, are not kept."""

    def __init__(self, name: object) -> None:
        self.name = name


NAMES: dict[object, type] = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Kind,
}


class Refused(Exception):
    """What no data set needs."""


class Program:
    """A pickle at work: a stack of values, a memory of values by number, and a place in the file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0
        self.stack: list[object] = []
        self.memory: dict[int, object] = {}

    def run(self, most: int) -> object:
        """Return the value that it makes, in at most so many steps."""
        for _ in range(most):
            code = self.take(1)[0]
            if code == STOP:
                return self.stack.pop()
            if code not in ACTIONS:
                raise Refused(f"it holds the opcode {code:#04x}, which no data set needs")
            ACTIONS[code](self)
        raise Refused(f"it takes more than {most:,} steps")

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        found = self.content[self.place : self.place + count]
        if len(found) < count:
            raise Refused("it is truncated")
        self.place += count
        return found

    def skip(self, count: int) -> None:
        """Pass over the next bytes."""
        self.take(count)

    def number(self, form: str) -> int:
        """Return the next whole number, in the form of `struct`."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def line(self) -> str:
        """Return what stands before the next end of line."""
        end = self.content.find(b"\n", self.place, self.place + LINE)
        if end < 0:
            raise Refused("a name in it has no end")
        found = self.content[self.place : end].decode("latin-1")
        self.place = end + 1
        return found

    def marked(self) -> list[object]:
        """Take what was put on the stack since the last mark, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise Refused("a mark is missing")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def several(self, count: int) -> tuple[object, ...]:
        """Take the last values."""
        if len(self.stack) < count:
            raise Refused("a value is missing")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        return found

    def named(self, module: object, name: object) -> type:
        """Return what stands for a name; nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it asks for something by what is no name")
        if (module, name) not in NAMES:
            raise Refused(f"it asks for {module}.{name}, which no data set needs")
        return NAMES[module, name]

    def make(self) -> None:
        """Make what stands for an array or a dtype."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or kind not in (Array, Kind):
            raise Refused("it calls something")
        self.stack.append(Array() if kind is Array else Kind(arguments[0] if arguments else None))

    def tell(self) -> None:
        """Tell an array what it holds."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Array):
            made.state = state
        elif not isinstance(made, Kind):
            raise Refused("it changes something that is no array")

    def set(self, pairs: list[object]) -> None:
        """Put keys and values into the dictionary that is last."""
        found = self.stack[-1]
        if not isinstance(found, dict) or len(pairs) % 2 or not all(isinstance(key, bytes | str) for key in pairs[::2]):
            raise Refused("a dictionary is missing, or a key that is a string")
        found.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, values: list[object]) -> None:
        """Put values at the end of the list that is last."""
        found = self.stack[-1]
        if not isinstance(found, list):
            raise Refused("a list is missing")
        found.extend(values)

    def remember(self, number: int) -> None:
        """Keep the last value under a number."""
        self.memory[number] = self.stack[-1]


Action: TypeAlias = Callable[[Program], None]


def unpickled(content: bytes, path: Path, most: int = MOST_STEPS) -> object:
    """Return the value that a pickle makes in at most `most` steps; `path` only names it in errors. Raises `CorruptFile`.

    Strings of Python 2 are bytes.

    >>> import pickle
    >>> unpickled(pickle.dumps({"labels": [3, 1]}, protocol=2), Path("test_batch"))
    {'labels': [3, 1]}
    """
    try:
        return Program(content).run(most)
    except (Refused, LookupError, UnicodeError) as error:
        raise corrupt(path, f"its pickle cannot be read ({error})") from error


def _put(make: Callable[[Program], object]) -> Action:
    return lambda p: p.stack.append(make(p))


STOP = ord(".")
ACTIONS: dict[int, Action] = {
    0x80: lambda p: p.skip(1),  # the protocol
    0x95: lambda p: p.skip(8),  # the length of what follows
    ord("("): _put(lambda p: MARK),
    ord("N"): _put(lambda p: None),
    0x88: _put(lambda p: True),
    0x89: _put(lambda p: False),
    ord("K"): _put(lambda p: p.number("<B")),
    ord("M"): _put(lambda p: p.number("<H")),
    ord("J"): _put(lambda p: p.number("<i")),
    ord("U"): _put(lambda p: p.take(p.number("<B"))),
    ord("T"): _put(lambda p: p.take(p.number("<I"))),
    ord("C"): _put(lambda p: p.take(p.number("<B"))),
    ord("B"): _put(lambda p: p.take(p.number("<I"))),
    0x8E: _put(lambda p: p.take(p.number("<Q"))),
    0x8C: _put(lambda p: p.take(p.number("<B")).decode()),
    ord("X"): _put(lambda p: p.take(p.number("<I")).decode()),
    ord("]"): _put(lambda p: []),
    ord("}"): _put(lambda p: {}),
    ord(")"): _put(lambda p: ()),
    ord("t"): _put(lambda p: tuple(p.marked())),
    0x85: _put(lambda p: p.several(1)),
    0x86: _put(lambda p: p.several(2)),
    0x87: _put(lambda p: p.several(3)),
    ord("a"): lambda p: p.extend([p.stack.pop()]),
    ord("e"): lambda p: p.extend(p.marked()),
    ord("s"): lambda p: p.set(list(p.several(2))),
    ord("u"): lambda p: p.set(p.marked()),
    ord("q"): lambda p: p.remember(p.number("<B")),
    ord("r"): lambda p: p.remember(p.number("<I")),
    0x94: lambda p: p.remember(len(p.memory)),
    ord("h"): _put(lambda p: p.memory[p.number("<B")]),
    ord("j"): _put(lambda p: p.memory[p.number("<I")]),
    ord("c"): _put(lambda p: p.named(p.line(), p.line())),
    0x93: _put(lambda p: p.named(*p.several(2))),
    ord("R"): lambda p: p.make(),
    ord("b"): lambda p: p.tell(),
}
