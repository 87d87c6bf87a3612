"""Pictures are what they seem: upright, with all their bits, of two formats alone; anything else is refused in little time."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from posterity.data import png
from posterity.data.pictures import MAX_PIXELS, picture
from posterity.errors import CorruptFile, InvalidInput

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def parts(content: bytes) -> list[tuple[bytes, bytes]]:
    return png._chunks(content, Path("x.png"))


def as_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def header(width: int, height: int, depth: int = 8, colours: int = 0, *rest: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, *(rest or (0, 0, 0)))


@pytest.mark.parametrize("form", ["o.jpg", "o.jpeg", "o.png", "O.PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(COLOURS), tmp_path / form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    assert np.array_equal(picture(path, 3).numpy(), np.asarray(upright, np.float32).transpose(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("invert", [False, True])
def test_every_mode_is_what_pillow_makes_of_it_on_its_background(tmp_path, mode, channels, invert):
    image = Image.fromarray(COLOURS).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(COLOURS[:, :, 0]))
    path = saved(image, tmp_path / "x.png")
    if mode in ("LA", "RGBA"):
        ground = Image.new("RGBA", image.size, "white" if invert else "black")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32).reshape(5, 7, -1) / 255
    found = picture(path, channels, invert=invert).numpy()
    expected = (1 - expected if invert else expected).transpose(2, 0, 1)
    assert np.abs(found - expected).max() <= (
        0.8 / 255 if mode in ("LA", "RGBA") else 0
    )  # Pillow rounds what it blends


def predicted(kind: int, left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    guess = left + above - corner
    near = [abs(guess - value) for value in (left, above, corner)]
    paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], above, corner))
    return (0 * left, left, above, (left + above) // 2, paeth)[kind]


def filtered(block: np.ndarray, source: np.random.Generator) -> bytes:
    """Filter rows of 16 bits as the standard says, each by a filter of its own."""
    rows, width = [], 2 * block.shape[2]
    above = np.zeros(block.shape[1] * width, int)
    for row in block.astype(">u2"):
        current = np.frombuffer(row.tobytes(), np.uint8).astype(int)
        left, corner = (np.concatenate([np.zeros(width, int), values[:-width]]) for values in (current, above))
        kind = int(source.integers(0, 5))
        rows.append(bytes([kind]) + ((current - predicted(kind, left, above, corner)) % 256).astype(np.uint8).tobytes())
        above = current
    return b"".join(rows)


@pytest.mark.parametrize("colours", [0, 2, 4, 6])
@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (9, 3)])
def test_sixteen_bits_are_read_as_sixteen_bits(tmp_path, colours, interlaced, size):
    source = np.random.default_rng(1)
    samples = png.SAMPLES[colours]
    values = source.integers(0, 65536, (*size, samples))
    passes = [values[t::d, left::a] for t, left, d, a in png.PASSES] if interlaced else [values]
    raw = b"".join(filtered(part, source) for part in passes if part.size)
    head = header(size[1], size[0], 16, colours, 0, 0, interlaced)
    path = tmp_path / "deep.png"
    path.write_bytes(png.written([head, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]))
    opacity = values[:, :, -1:] / 65535 if samples in (2, 4) else 1
    expected = values[:, :, : 1 if samples < 3 else 3] / 65535 * opacity
    assert np.allclose(picture(path, 3).numpy(), expected.transpose(2, 0, 1), atol=1e-6)


def test_the_colour_that_is_transparent_is_background_also_in_sixteen_bits(tmp_path):
    values = np.array([[[1000], [1001]]])
    raw = filtered(values, np.random.default_rng(0))
    key = (b"tRNS", struct.pack(">H", 1000))
    path = tmp_path / "key.png"
    path.write_bytes(png.written([header(2, 1, 16), key, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]))
    assert picture(path, 1).flatten().tolist() == [0.0, np.float32(1001 / 65535)]


def test_cmyk_and_progressive_jpegs_are_converted(tmp_path):
    image = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8))
    for name, options in (("c.jpg", {}), ("p.jpg", {"progressive": True})):
        path = saved(image.convert("CMYK") if name == "c.jpg" else image, tmp_path / name, **options)
        assert np.abs(picture(path, 3).numpy()[:, 0, 0] * 255 - (200, 100, 50)).max() < 4


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(owned) (w) file closefile\nshowpage\n"
GOOD = as_png(Image.fromarray(COLOURS))


def changed(place: int, *new: tuple[bytes, bytes]) -> bytes:
    """Return the good picture with a chunk replaced by others, checksums renewed."""
    found = parts(GOOD)
    return png.written([*found[:place], *new, *found[place + 1 :]])


def in_form(form: str, suffix: str, **options: object) -> tuple[str, bytes]:
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, form, **options)
    return f"x{suffix}", stream.getvalue()


ANIMATION = in_form("PNG", ".png", save_all=True, append_images=[Image.fromarray(COLOURS[::-1])])
REFUSED = {
    "EPS": (("x.png", EPS), "no PNG or JPEG"),
    "GIF": (in_form("GIF", ".png"), "no PNG or JPEG"),
    "TIFF": (in_form("TIFF", ".jpg"), "no PNG or JPEG"),
    "BMP": (in_form("BMP", ".png"), "no PNG or JPEG"),
    "WebP": (("x.png", b"RIFF\x24\0\0\0WEBPVP8 "), "no PNG or JPEG"),
    "JPEG named .png": (in_form("JPEG", ".png"), "it is a JPEG image; rename it"),
    "PNG named .jpg": (in_form("PNG", ".jpg"), "it is a PNG image; rename it"),
    "animation": (ANIMATION, "it is an animation"),
    "truncated PNG": (("x.png", GOOD[:-30]), "truncated"),
    "truncated JPEG": (("x.jpg", in_form("JPEG", ".jpg")[1][:400]), "ends before its image|truncated|damaged"),
    "damaged pixels": (("x.png", GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:]), "b'IDAT' is damaged: the checksum"),
    "no pixels": (("x.png", png.written([header(8, 8), (b"IEND", b"")])), "no pixels"),
    "60,000 a side": (("x.png", changed(0, header(60_000, 60_000, 8, 2))), "60,000 x 60,000 pixels"),
    "2^31 a side": (("x.png", changed(0, header(2**31 - 1, 2**31 - 1, 8, 2))), "2,147,483,647 x 2,147,483,647"),
    "very long": (("x.png", changed(0, header(10_000_000, 1, 8, 2))), "65,535 a side"),
    "no size": (("x.png", changed(0, header(0, 8, 8, 2))), "0 x 8 pixels"),
    "3 bits": (("x.png", changed(0, header(7, 5, 3, 2))), "its header is none of PNG"),
    "another size": (("x.png", changed(0, header(7, 50, 8, 2))), "990 bytes of its pixels are missing"),
    "palette missing": (("x.png", changed(0, header(7, 5, 8, 3))), "palette"),
    "two headers": (("x.png", changed(0, header(7, 5, 8, 2), header(7, 5, 8, 2))), "there twice"),
    "pixels apart": (("x.png", changed(1, *[(b"IDAT", b"a"), (b"tEXt", b"a\0b"), (b"IDAT", b"c")])), "one place"),
    "unknown and needed": (("x.png", changed(0, header(7, 5, 8, 2), (b"ABCD", b""))), "cannot be shown without"),
    "a header alone": (("x.png", GOOD[:20]), "truncated"),
    "start of a JPEG": (("x.jpg", b"\xff\xd8\xff"), "truncated|damaged"),
    "JPEG of 65,500 a side": (
        ("x.jpg", b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03" + bytes(9) + b"\xff\xda\0\x08\0\0\0\0\0\0"),
        "65,500 x 65,500 pixels",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_picture_is_refused_in_one_line(tmp_path, what, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # what would start Ghostscript
    (name, content), words = REFUSED[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=words) as caught:
        picture(tmp_path / name, 3)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_text_and_profiles_that_unpack_to_gigabytes_never_reach_the_decoder(tmp_path, name, monkeypatch):
    bomb = (name, b"a\0\0" + zlib.compress(bytes(20_000_000), 9))
    (tmp_path / "x.png").write_bytes(changed(0, header(7, 5, 8, 2), bomb))
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda stream, **known: opened.append(stream) or original(stream, **known))
    assert np.array_equal(picture(tmp_path / "x.png", 3).numpy(), COLOURS.transpose(2, 0, 1).astype(np.float32) / 255)
    assert len(opened[0].getvalue()) < 1000


def test_the_limit_of_pixels_is_a_parameter(tmp_path):
    path = saved(Image.fromarray(COLOURS), tmp_path / "x.png")
    assert MAX_PIXELS == 50_000_000
    assert picture(path, 3, max_pixels=35).shape == (3, 5, 7)
    with pytest.raises(CorruptFile, match="7 x 5 pixels, and from 1 to 34"):
        picture(path, 3, max_pixels=34)


def test_a_picture_is_fitted_one_channel_after_the_other(tmp_path):
    path = saved(Image.fromarray(COLOURS), tmp_path / "x.png")
    shapes = []
    picture(path, 3, fit=lambda plane: shapes.append(tuple(plane.shape)) or plane)
    assert shapes == [(1, 5, 7)] * 3


def test_devices_and_folders_are_no_pictures(tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/zero")
    (tmp_path / "y.png").mkdir()
    for name in ("x.png", "y.png"):
        with pytest.raises(InvalidInput, match="no regular file"):
            picture(tmp_path / name, 3)
