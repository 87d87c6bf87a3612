"""The one entry of EXIF that changes a picture: which way up it is."""

import struct

ORIENTATION, SHORT = 0x0112, 3
ORDERS = {b"II": "<", b"MM": ">"}
UPRIGHT = 1


def orientation(block: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block that begins with its order of bytes; 1 where it says none.

    >>> orientation(b"MM\\0*\\0\\0\\0\\x08\\0\\1" + b"\\1\\x12\\0\\3\\0\\0\\0\\1\\0\\6\\0\\0")
    6
    >>> orientation(b"damaged")
    1
    """
    order = ORDERS.get(block[:2])
    if order is None or len(block) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, place)
        if (tag, kind) == (ORIENTATION, SHORT):
            return int(value) if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
