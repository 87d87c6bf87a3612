"""Pictures from files: PNG and JPEG alone, each behind its own name, upright, with as many bits as they have, in [0, 1].

No other decoder is reached, whatever a file calls itself. What takes memory is bounded before it is taken: the size is read
from the header, and of a PNG no chunk but those that make up the picture reaches the decoder.
"""

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posterity.data import jpeg, png
from posterity.data.files import corrupt, read

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 50_000_000
MAX_BYTES = 1 << 30  # of a file
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow has it
Numbers = NDArray[Any]  # (H, W, samples) of 8 or 16 bits: grey or red, green, blue, and opacity where there is one
TURNS: Mapping[int, Callable[[Numbers], Numbers]] = {  # EXIF's orientation -> what brings a picture upright
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


def whole(plane: Tensor) -> Tensor:
    """Leave a picture as large as it is."""
    return plane


def below(folder: Path) -> list[Path]:
    """Return the PNG and JPEG files in a folder and those within it, in order of their paths; hidden ones are not seen."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in found if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)]


def padded(image: Tensor, size: tuple[int, int], inner: int) -> Tensor:
    """Bring images (..., H, W) to a size: the longer side is resized to `inner`, the rest of `size` filled with black."""
    if tuple(image.shape[-2:]) == size:
        return image
    scale = inner / max(image.shape[-2:])
    shrunk = tuple(max(1, round(side * scale)) for side in image.shape[-2:])
    batch = image.reshape(-1, 1, *image.shape[-2:])
    if shrunk != tuple(image.shape[-2:]):
        batch = functional.interpolate(batch, size=shrunk, mode="bilinear", align_corners=False, antialias=True)
    down, along = size[0] - shrunk[0], size[1] - shrunk[1]
    batch = functional.pad(batch, [along // 2, along - along // 2, down // 2, down - down // 2])
    return batch.reshape(*image.shape[:-2], *size)


def picture(
    path: Path,
    channels: int,
    *,
    invert: bool = False,
    max_pixels: int = MAX_PIXELS,
    fit: Callable[[Tensor], Tensor] = whole,
) -> Tensor:
    """Read a picture as float32 (C, H, W) in [0, 1], with 1 channel (grey) or 3 (red, green, blue).

    It is turned upright as its EXIF entry says. Palettes, CMYK, and 1, 8 and 16 bits are converted. What is transparent is
    background: black, or white before it is inverted. Animations are refused. Profiles of colours are not applied.
    `fit` is given one channel after the other, (1, H, W), so that a large picture is never whole in float32.

    Raises `CorruptFile`: a damaged file, content that is not what its name promises, more than `max_pixels`, an animation;
    `DataNotFound` and `InvalidInput` as `read` does.
    """
    content = read(path, MAX_BYTES)
    expected = SUFFIXES[path.suffix.lower()]
    found = "PNG" if content.startswith(png.SIGNATURE) else "JPEG" if content.startswith(jpeg.START) else None
    if found is None:
        raise corrupt(path, f"it is no image that can be read, no PNG or JPEG (it begins {content[:8].hex(' ')})")
    if found != expected:
        raise corrupt(path, f"it is a {found} image; rename it, so that its name says so")
    shape, orientation, content = (png if found == "PNG" else jpeg).checked(content, path, max_pixels)
    try:
        deep = png.sixteen(content) if found == "PNG" else None
        numbers = _shallow(content, channels) if deep is None else deep
    except Exception as error:  # a decoder can raise anything
        raise corrupt(path, f"its image is damaged ({error})") from error
    if numbers.shape[:2] != shape:
        raise corrupt(path, f"its image has another size than its header promises, {shape[1]} x {shape[0]}")
    return torch.cat([fit(torch.from_numpy(p)[None]) for p in _planes(TURNS[orientation](numbers), channels, invert)])


def _shallow(content: bytes, channels: int) -> Numbers:
    """Decode 8 bits or fewer; colours become the grey that a network of one channel takes, where nothing is transparent."""
    from PIL import Image  # imported here: only pictures need it

    with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as found:
        found.load()
        transparent = found.mode in ("LA", "RGBA", "PA") or "transparency" in found.info
        mode = "RGBA" if transparent else "L" if channels == 1 else "RGB"
        numbers = np.asarray(found if found.mode == mode else found.convert(mode), np.uint8)
    return numbers.reshape(*numbers.shape[:2], -1)


def _planes(numbers: Numbers, channels: int, invert: bool) -> Iterator[NDArray[np.float32]]:
    """Give each channel (H, W) in [0, 1]: on its background, as grey where one channel is wanted, inverted where that is."""
    top, samples = np.iinfo(numbers.dtype).max, numbers.shape[2]
    opacity = np.divide(numbers[:, :, -1], top, dtype=np.float32, order="C") if samples in (2, 4) else None

    def colour(place: int) -> NDArray[np.float32]:
        plane = np.divide(numbers[:, :, place], top, dtype=np.float32, order="C")
        if opacity is not None:
            plane *= opacity
            if invert:
                plane += 1 - opacity
        return plane

    if channels == 1 and samples > 2:
        grey = np.zeros(numbers.shape[:2], np.float32)
        for place, weight in enumerate(GREY):
            grey += np.float32(weight) * colour(place)
        planes = iter((grey,))
    else:
        planes = (colour(place if samples > 2 else 0) for place in range(channels))
    for plane in planes:
        yield 1 - plane if invert else plane
