"""Changes inside of files that are well formed again: lengths, offsets and checksums are those of the new content."""

import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

from fuzzing.mutators import JSON_LITERALS, NAMES, NUMBERS, Mutator, damaged, literals, tree

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
EDITS_OF_NPY = (
    *("'<f8'", "'>f8'", "'|u1'", "'<U100000000'", "'|O'", "'|V9'", "'<M8[s]'", "'<f16'", "[('a', '<f8')]", "'|S0'"),
    *("True", "False", "()", "(0,)", "(-1,)", "(3, 4)", "(1000000000000, 8)", "(4611686018427387904, 4)", "(2.0,)"),
    *(
        f"({2**70},)",
        "(" + "1, " * 40 + ")",
        "(" + "[" * 5000,
        "None",
        "'descr'",
        "lambda: 0",
        "(3" + "*9" * 3000 + ")",
    ),
)


def safetensors(edit: Mutator) -> Mutator:
    """Make a mutator of the JSON header of a safetensors file."""

    def change(rng: Random, content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = edit(rng, content[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + content[8 + length :]

    return change


def metadata(rng: Random, content: bytes) -> bytes:
    """Change the JSON text inside of a safetensors header's metadata."""

    def edit(rng: Random, header: bytes) -> bytes:
        found = json.loads(header)
        texts = found["__metadata__"]
        key = rng.choice(sorted(texts))
        inner = rng.choice((tree, literals(JSON_LITERALS)))(rng, texts[key].encode())
        texts[key] = inner.decode("utf-8", "replace")
        return json.dumps(found).encode()

    return safetensors(edit)(rng, content)


def npy(rng: Random, content: bytes) -> bytes:
    """Change the text of a `.npy` header, or its version."""
    start, width = (10, "<H") if content[6] == 1 else (12, "<I")
    length = struct.unpack(width, content[start - struct.calcsize(width) : start])[0]
    text, rest = content[start : start + length], content[start + length :]
    version = rng.choice((b"\1\0", b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\0\0"))
    text = _npy_text(rng, text)
    if rng.random() < 0.05:
        text = text.rstrip() + b" " * 100_000
        version = b"\2\0"
    size = struct.pack("<H", min(len(text), 65535)) if version[0] == 1 else struct.pack("<I", len(text))
    return content[:6] + version + size + text + rest


def _npy_text(rng: Random, text: bytes) -> bytes:
    values = text.split(b": ")
    place = rng.randrange(1, len(values)) if len(values) > 1 else 0
    head, comma, tail = values[place].rpartition(b", '")
    new = rng.choice((*EDITS_OF_NPY, *NUMBERS)).encode()
    values[place] = new + comma + tail if comma and head else new + b", }\n"
    return b": ".join(values)


def zipped(inner: Mutator) -> Mutator:
    """Make a mutator of an archive's members: their content by `inner`, their names, their number, and what it says of them."""

    def change(rng: Random, content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        place = rng.randrange(len(members))
        name, old = members[place]
        kind = rng.randrange(6)
        if kind <= 2:
            members[place] = (name, (inner if kind else damaged)(rng, old))
        elif kind == 3:
            members[place] = (rng.choice(NAMES[1:]).replace("\0", "") + rng.choice(("", ".npy")), old)
        elif kind == 4:
            del members[place]
        else:
            members.append((name, rng.choice((old, b"\0" * 100_000, b""))))
        new = _archive(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
        return _lying(rng, new) if rng.random() < 0.2 else new

    return change


def _archive(members: list[tuple[str, bytes]], method: int) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # one name twice is what is wanted
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def _lying(rng: Random, content: bytes) -> bytes:
    """Change a size, a method or a flag in the central directory."""
    place = content.rfind(b"PK\1\2")
    offset, width = rng.choice(((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I")))
    limit = 256 ** struct.calcsize(width)
    new = struct.pack(width, rng.choice((0, 1, limit - 1, rng.randrange(limit))))
    return content[: place + offset] + new + content[place + offset + len(new) :]


def idx(rng: Random, content: bytes) -> bytes:
    """Change a field of an IDX header: its type, the number of its dimensions, or one of their sizes."""
    place = rng.randrange(4 + 4 * content[3])
    if place < 4:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    place -= place % 4
    size = struct.pack(">I", rng.choice((0, 1, 2**31, 2**32 - 1, rng.randrange(100))))
    return content[:place] + size + content[place + 4 :]


def packed(inner: Mutator, unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> Mutator:
    """Make a mutator of what is inside of a compressed file."""
    return lambda rng, content: pack(inner(rng, unpack(content)))


def png(rng: Random, content: bytes) -> bytes:
    """Change a PNG chunk by chunk; mostly the checksums are those of the new chunks."""
    chunks = _chunks(content)
    place = rng.randrange(len(chunks))
    name, data = chunks[place]
    kind = rng.randrange(7)
    if kind == 0:
        chunks[0] = (b"IHDR", _header(rng, chunks[0][1]))
    elif kind == 1:
        chunks[place] = (name, damaged(rng, data))
    elif kind == 2:
        del chunks[place]
    elif kind == 3:
        chunks.insert(rng.randrange(len(chunks) + 1), (name, data))
    elif kind == 4:
        chunks[place] = (bytes([name[0] ^ 32]) + name[1:], data)
    elif kind == 5:
        pixels = [i for i, (n, _) in enumerate(chunks) if n == b"IDAT"]
        if pixels:
            raw = damaged(rng, zlib.decompress(chunks[pixels[0]][1]))
            chunks[pixels[0]] = (b"IDAT", zlib.compress(raw))
    else:
        chunks.insert(rng.randrange(1, len(chunks) + 1), _extra(rng))
    fix = rng.random() < 0.8
    return PNG_HEAD + b"".join(
        struct.pack(">I", len(data))
        + n
        + data
        + struct.pack(">I", zlib.crc32(n + data) if fix else rng.getrandbits(32))
        for n, data in chunks
    )


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(PNG_HEAD)
    while place < len(content):
        length = struct.unpack(">I", content[place : place + 4])[0]
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _header(rng: Random, data: bytes) -> bytes:
    width, height, *rest = struct.unpack(">IIBBBBB", data)
    sizes = (0, 1, 8, 60_000, 2**31 - 1, 2**32 - 1)
    if rng.random() < 0.6:
        width, height = rng.choice((width, *sizes)), rng.choice((height, *sizes))
    else:
        rest[rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", width, height, *rest)


def _extra(rng: Random) -> tuple[bytes, bytes]:
    """Make a chunk of text, colour, orientation, transparency or animation, some of them bombs."""
    bomb = zlib.compress(b"\0" * rng.choice((10, 3_000_000)))
    return rng.choice(
        (
            (b"zTXt", b"a\0\0" + bomb),
            (b"iTXt", b"a\0\1\0\0\0" + bomb),
            (b"iCCP", b"a\0\0" + bomb),
            (b"tEXt", b"a\0" + b"x" * 100_000),
            (b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0" + bytes([rng.randrange(256)]) + b"\0\0\0\0\0\0"),
            (b"tRNS", rng.randbytes(rng.choice((1, 2, 6, 256)))),
            (b"PLTE", rng.randbytes(rng.choice((3, 768, 769)))),
            (b"acTL", struct.pack(">II", rng.choice((1, 2, 2**31)), 0)),
            (b"fcTL", rng.randbytes(26)),
            (b"gAMA", rng.randbytes(4)),
            (b"pHYs", rng.randbytes(9)),
        )
    )


def jpeg(rng: Random, content: bytes) -> bytes:
    """Change a JPEG segment by segment up to its scan: sizes, components, tables, orientation."""
    segments, place = [], 2
    while place + 4 <= len(content) and content[place + 1] != 0xDA:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segments.append((content[place + 1], content[place + 4 : place + 2 + length]))
        place += 2 + length
    at = rng.randrange(len(segments))
    marker, data = segments[at]
    kind = rng.randrange(5)
    if kind == 0:
        segments[at] = (marker, damaged(rng, data)[:65_533])
    elif kind == 1:
        del segments[at]
    elif kind == 2:
        segments.insert(rng.randrange(len(segments) + 1), (rng.choice((marker, 0xE1, 0xEE, 0xFE, 0xC2)), data))
    elif kind == 3:
        segments = [(m, _frame(rng, d) if m in (0xC0, 0xC2) else d) for m, d in segments]
    else:
        turn = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0" + bytes([rng.randrange(12)]) + b"\0\0\0\0\0\0"
        segments.insert(0, (0xE1, turn))
    head = b"".join(b"\xff" + bytes([m]) + (len(d) + 2).to_bytes(2, "big") + d for m, d in segments)
    return content[:2] + head + content[place:]


def _frame(rng: Random, data: bytes) -> bytes:
    large = rng.random() < 0.05
    sizes = (0, 1, 8, 5000, 65_500, 65_535) if large else (0, 1, 7, 8, 9, 17, 300)
    size = struct.pack(">HH", rng.choice(sizes), rng.choice(sizes))
    return data[:1] + size + data[5:] if rng.random() < 0.7 else data[:5] + bytes([rng.randrange(256)]) + data[6:]


def pickled(rng: Random, content: bytes) -> bytes:
    """Write another pickle: of other values, of something that would be called, or opcodes that ask for memory."""
    bombs = (
        b"\x80\x02cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02" + b"]" + b"]a" * 1 + b"(" * 5_000 + b"l" * 5_000 + b".",
        b"\x80\x02T\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02]r\xff\xff\xff\x0f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    )
    if rng.random() < 0.5:
        return rng.choice(bombs)
    values = (None, -1, 2**70, 1e308, "a", b"a", [], {}, [0] * 4, [256] * 4, [[]], {b"data": b""}, True)
    keys = (b"data", b"labels", b"fine_labels", b"coarse_labels", "data", 1)
    return pickle.dumps({rng.choice(keys): rng.choice(values) for _ in range(3)}, protocol=rng.choice((0, 1, 2, 4, 5)))
