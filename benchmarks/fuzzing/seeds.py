"""Small good files of every kind, made by the library where it writes them."""

import io
import struct
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import posterity
from posterity import MAP, SGLD, Categorical, Engine, Ensemble, Laplace, MCDropout, MeanField, TensorData
from posterity.cli.config import DataConfig, RunConfig, write
from posterity.cli.promises import Promises
from posterity.decide import Abstention, ConformalSets, Temperature
from posterity.decide.nonconformity import APS
from posterity.methods import AnyMethod, FullRank, LowRank
from posterity.posteriors.files import save

QUIET = Engine(progress=False)


def network() -> nn.Module:
    """Build the network of all posteriors here."""
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout(0.1), nn.BatchNorm1d(3), nn.Linear(3, 2))


def _fitted(method: AnyMethod, engine: Engine = QUIET):
    torch.manual_seed(0)
    data = TensorData(torch.randn(16, 2), torch.arange(16) % 2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return posterity.fit(network(), data, likelihood=Categorical(), method=method, engine=engine)


@cache
def posteriors() -> tuple[bytes, ...]:
    """One file of each family that a few steps can make."""
    methods = (
        *(MAP(epochs=1), MeanField(epochs=1), LowRank(epochs=1, rank=2), FullRank(epochs=1), MCDropout(epochs=1)),
        *(Laplace(MAP(epochs=1)), Ensemble(MAP(epochs=1), 2), SGLD(draws=3, epochs=2)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        found = []
        for method in methods:
            save(_fitted(method), path)
            found.append(path.read_bytes())
    return tuple(found)


@cache
def checkpoints() -> tuple[bytes, ...]:
    """The last state of a run of each kind."""
    found = []
    for method in (MeanField(epochs=2), MAP(epochs=1)):
        with tempfile.TemporaryDirectory() as folder:
            _fitted(method, Engine(progress=False, directory=folder))
            found += [file.read_bytes() for file in Path(folder).rglob("last*.safetensors")]
    return tuple(found)


@cache
def configurations() -> tuple[bytes, ...]:
    """What runs of several methods write."""
    methods: tuple[AnyMethod, ...] = (MeanField(), Ensemble(MAP(), 2), Laplace(MAP()), SGLD())
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        for method in methods:
            write(RunConfig(data=DataConfig(name="digits"), method=method), path)
            found.append(path.read_bytes())
    return tuple(found)


@cache
def calibration() -> tuple[bytes, ...]:
    """What `posterity calibrate` writes about a run whose posterior's file is nine bytes."""
    import json
    from hashlib import sha256

    promises = Promises(
        posterior=sha256(b"posterior").hexdigest(),
        draws=8,
        temperature=Temperature(1.5, "classification"),
        conformal=ConformalSets(0.9, (0.7,), (100,), APS()),
        abstention=Abstention(0.3, "entropy", 0.05, 0.9, 0.8, 0.04, 100),
        measure="entropy",
        usual=(0.1, 0.2, 0.3),
    )
    return (json.dumps({"promises": promises.to_dict(), "date": "2026-01-01"}).encode(),)


@cache
def idx_files() -> tuple[bytes, bytes]:
    """Two images of 28 × 28, and their labels."""
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    images[:, :24] = 0
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
    return head + images.tobytes(), bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes([3, 7])


@cache
def cifar_files() -> tuple[bytes, ...]:
    """A training file of CIFAR-100, and a test file as a pickle of Python 2, a newer one, and in the binary version."""
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (2, 2, 3072), dtype=np.uint8)
    images[:, :, 100:] = 0
    labels = np.array([[19, 3], [19, 98]], np.uint8)
    train, test = (np.concatenate([labels, part], axis=1).tobytes() for part in images)
    return train, test, _pickled(images[1], b"U"), _pickled(images[1], b"C")


def _pickled(images: np.ndarray, code: bytes) -> bytes:
    """Write, opcode by opcode, the pickle of Python 2, or the same with bytes for strings (`code` C)."""

    def text(value: bytes) -> bytes:
        return code + bytes([len(value)]) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(b"M" + struct.pack("<H", size) for size in images.shape) + b"t"
    content = b"T" + struct.pack("<i", images.size) + images.tobytes()
    state = b"(K\x01" + shape + kind + b"\x89" + content + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"fine_labels") + b"](K\x03K\x62eu."


@cache
def archives() -> tuple[bytes, ...]:
    """A table, images with parts of their own, and a packed table."""
    source = np.random.default_rng(0)
    x, y = source.normal(size=(10, 2)), source.normal(size=10)
    images = source.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    parts = {"x_train": images, "y_train": np.arange(4) % 2, "x_test": images, "y_test": np.arange(4) % 2}
    found = []
    for writer, arrays in ((np.savez, {"x": x, "y": y}), (np.savez, parts), (np.savez_compressed, {"x": x, "y": y})):
        stream = io.BytesIO()
        writer(stream, **arrays)
        found.append(stream.getvalue())
    return tuple(found)


@cache
def numpy_files() -> tuple[bytes, ...]:
    """Rows of two numbers of several kinds, in both orders."""
    rows = np.arange(8.0).reshape(4, 2)
    found = []
    for values in (rows, rows.astype(np.float32), np.asfortranarray(rows), rows.astype(np.int64), rows.astype(">f8")):
        stream = io.BytesIO()
        np.save(stream, values)
        found.append(stream.getvalue())
    return tuple(found)


@cache
def tables() -> tuple[bytes, ...]:
    """Tables with a quantity and with classes, by several separators."""
    rows = [(n, (n * 7) % 5 + 0.5, ("yes", "no")[n % 2]) for n in range(10)]
    text = "a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows)
    values = "a;b;y\r\n" + "".join(f"{a};{b};{a * 0.3 + b}\r\n" for a, b, _ in rows)
    return text.encode(), values.encode(), text.replace(",", "\t").replace("yes", '"y, ""e"" s"').encode()


@cache
def pngs() -> tuple[bytes, ...]:
    """Grey, colours, transparency, a palette, 1 bit and 16 bits."""
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    images = [Image.fromarray(grey).convert(mode) for mode in ("L", "RGB", "RGBA", "LA", "P", "1")]
    images.append(Image.fromarray(grey.astype(np.uint16) * 257))
    return tuple(_written(image, "PNG") for image in images)


@cache
def jpegs() -> tuple[bytes, ...]:
    """Grey, colours and a progressive one."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    colours = grey.convert("RGB")
    return _written(grey, "JPEG"), _written(colours, "JPEG"), _written(colours, "JPEG", progressive=True)


def _written(image: Image.Image, form: str, **options: bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
