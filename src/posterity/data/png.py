"""The chunks of a PNG file: their order, sizes and checksums, and pictures of 16 bits, which Pillow would halve."""

import struct
import zlib
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posterity.data import exif
from posterity.data.files import corrupt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (
    b"IHDR",
    b"PLTE",
    b"tRNS",
    b"IDAT",
    b"IEND",
)  # what makes up the picture: text and profiles could unpack to anything
ONCE = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # kind of colours -> bits
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # kind of colours -> numbers a pixel
MAX_SIDE, CHUNK = 65_535, 1 << 20
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # of Adam7


class Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    depth: int
    colours: int
    packing: int
    filtering: int
    interlaced: int


def checked(content: bytes, path: Path, max_pixels: int) -> tuple[tuple[int, int], int, bytes]:
    """Return height and width, the orientation, and the bytes to decode: only the chunks of the picture itself.

    Raises `CorruptFile` where a chunk is cut off, damaged, missing or out of order, and for animations.
    """
    chunks = _chunks(content, path)
    header = _header(chunks, path, max_pixels)
    names = [name for name, _ in chunks]
    if b"acTL" in names:
        raise corrupt(path, "it is an animation; give one of its frames as a picture")
    pixels = [place for place, name in enumerate(names) if name == b"IDAT"]
    if not pixels or any(second != first + 1 for first, second in pairwise(pixels)):
        raise corrupt(path, "it has no pixels, or not all in one place")
    if any(names.count(name) > 1 for name in ONCE):
        raise corrupt(path, "a part of it is there twice")
    if (b"PLTE" not in names and header.colours == 3) or any(n in (b"PLTE", b"tRNS") for n in names[pixels[0] :]):
        raise corrupt(path, "its palette is missing, or comes after its pixels")
    if strange := next((name for name in names if name not in KEPT and not name[0] & 32), None):
        raise corrupt(path, f"it cannot be shown without its part {strange!r}, which is unknown")
    _refuse_short(chunks, header, path)
    turn = next((exif.orientation(data) for name, data in chunks if name == b"eXIf"), exif.UPRIGHT)
    return (header.height, header.width), turn, written([chunk for chunk in chunks if chunk[0] in KEPT])


def _refuse_short(chunks: list[tuple[bytes, bytes]], header: Header, path: Path) -> None:
    """Refuse a picture with fewer rows than promised, which Pillow would fill with black; nothing unpacked is kept."""
    missing = sum(1 + width for width in _rows(header))
    stream = zlib.decompressobj()
    try:
        for name, data in chunks:
            left = data if name == b"IDAT" else b""
            while left and missing > 0:
                missing -= len(stream.decompress(left, min(missing, CHUNK)))
                left = stream.unconsumed_tail
    except zlib.error as error:
        raise corrupt(path, f"its pixels are damaged ({error})") from error
    if missing > 0:
        raise corrupt(path, f"{missing:,} bytes of its pixels are missing")


def written(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Write a PNG file of chunks."""
    parts = [SIGNATURE]
    for name, data in chunks:
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))]
    return b"".join(parts)


def sixteen(content: bytes) -> NDArray[np.uint16] | None:
    """Return the numbers of a checked picture of 16 bits, (H, W, samples), transparency last; None for fewer bits.

    Filters work on bytes, each with the same byte of its neighbours. So the upper bytes alone are a picture of 8 bits, and
    the lower ones another; each is decoded as such.
    """
    chunks = _chunks(content, Path())
    header = Header(*struct.unpack(">IIBBBBB", chunks[0][1]))
    if header.depth != 16:
        return None
    rows = _rows(header)
    pixels = b"".join(data for name, data in chunks if name == b"IDAT")
    raw = zlib.decompressobj().decompress(pixels, sum(1 + width for width in rows))
    upper, lower = (_decoded(_halved(raw, rows, half), header) for half in (0, 1))
    numbers: NDArray[np.uint16] = np.left_shift(upper, 8, dtype=np.uint16) | lower
    key = next((data for name, data in chunks if name == b"tRNS"), None)
    if key is not None:
        colour = np.frombuffer(key, ">u2")
        opaque = (numbers != colour).any(2, keepdims=True)
        numbers = np.concatenate([numbers, np.where(opaque, np.uint16(65535), np.uint16(0))], axis=2)
    return numbers


def _rows(header: Header) -> list[int]:
    """Return how many bytes each row has, its filter's apart, pass by pass."""
    bits = SAMPLES[header.colours] * header.depth
    rows: list[int] = []
    for top, left, down, along in PASSES if header.interlaced else ((0, 0, 1, 1),):
        width = -(-max(0, header.width - left) // along)
        height = -(-max(0, header.height - top) // down)
        rows += [-(-width * bits // 8)] * (height if width else 0)
    return rows


def _halved(raw: bytes, rows: list[int], half: int) -> bytes:
    """Leave of each number of two bytes the upper (0) or the lower one (1), and each row's filter as it is."""
    parts, place = [], 0
    for width in rows:
        parts += [raw[place : place + 1], raw[place + 1 + half : place + 1 + width : 2]]
        place += 1 + width
    return b"".join(parts)


def _decoded(raw: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode filtered rows of 8 bits."""
    from PIL import Image  # imported here: only pictures need it

    shallow = struct.pack(">IIBBBBB", *header._replace(depth=8))
    chunks = [(b"IHDR", shallow), (b"IDAT", zlib.compress(raw, 0)), (b"IEND", b"")]
    with Image.open(BytesIO(written(chunks)), formats=("PNG",)) as image:
        image.load()
        return np.asarray(image, np.uint8).reshape(header.height, header.width, SAMPLES[header.colours])


def _chunks(content: bytes, path: Path) -> list[tuple[bytes, bytes]]:
    chunks: list[tuple[bytes, bytes]] = []
    place = len(SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        (length,) = struct.unpack(">I", content[place : place + 4].ljust(4, b"\xff"))
        end = place + 12 + length
        if end > len(content):
            raise corrupt(path, "it is truncated")
        name, data = content[place + 4 : place + 8], content[place + 8 : end - 4]
        if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(content[end - 4 : end], "big"):
            raise corrupt(path, f"its part {name!r} is damaged: the checksum is another")
        chunks.append((name, data))
        place = end
    return chunks


def _header(chunks: list[tuple[bytes, bytes]], path: Path, max_pixels: int) -> Header:
    name, data = chunks[0]
    if name != b"IHDR" or len(data) != 13:
        raise corrupt(path, "it does not begin with a header of 13 bytes")
    header = Header(*struct.unpack(">IIBBBBB", data))
    if (
        header.depth not in DEPTHS.get(header.colours, ())
        or header.packing
        or header.filtering
        or header.interlaced > 1
    ):
        raise corrupt(path, f"its header is none of PNG ({data.hex(' ')})")
    width, height = header.width, header.height
    if not width * height or width * height > max_pixels or max(width, height) > MAX_SIDE:
        allowed = f"{max_pixels:,}, {MAX_SIDE:,} a side"
        raise corrupt(path, f"it has {width:,} x {height:,} pixels, and from 1 to {allowed} are read")
    return header
