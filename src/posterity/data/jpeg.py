"""The segments of a JPEG file before its first scan: they say its size and which way up it is."""

from pathlib import Path

from posterity.data import exif
from posterity.data.files import corrupt

START = b"\xff\xd8\xff"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers that hold the size
SCAN, END, EXIF = 0xDA, 0xD9, 0xE1
ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without content
EXIF_HEAD = b"Exif\0\0"


def checked(content: bytes, path: Path, max_pixels: int) -> tuple[tuple[int, int], int, bytes]:
    """Return height and width, the orientation, and the bytes to decode. Raises `CorruptFile`."""
    place, size, turn = 2, None, exif.UPRIGHT
    while True:
        marker, start, place = _segment(content, place, path)
        data = content[start:place]
        if marker in FRAMES:
            if len(data) < 6 or size is not None:
                raise corrupt(path, "the header of its image is damaged, or there twice")
            size = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
        if marker == EXIF and data.startswith(EXIF_HEAD):
            turn = exif.orientation(data.removeprefix(EXIF_HEAD))
        if marker == SCAN:
            break
    if size is None or not size[0] * size[1]:
        raise corrupt(path, "it does not say how large its image is")
    if size[0] * size[1] > max_pixels:
        raise corrupt(path, f"it has {size[1]:,} x {size[0]:,} pixels, and at most {max_pixels:,} are read")
    return size, turn, content


def _segment(content: bytes, place: int, path: Path) -> tuple[int, int, int]:
    """Return a segment's marker, where its content begins, and where it ends."""
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] == b"\xff":
        place += 1  # any number of these may stand before a marker
    if content[place : place + 1] != b"\xff" or place + 4 > len(content):
        raise corrupt(path, "it is truncated, or a segment of it is damaged")
    marker = content[place + 1]
    if marker in ALONE:
        return marker, place + 2, place + 2
    end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    if marker == END or end < place + 4 or end > len(content):
        raise corrupt(path, "it ends before its image")
    return marker, place + 4, end
