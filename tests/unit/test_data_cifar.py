"""CIFAR: each form in which it is distributed gives the same tensors, and nothing that is damaged or malicious is read."""

import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data.cifar import unpickled
from posterity.data.sets import SETS
from posterity.data.shift import corruptions
from posterity.errors import CorruptFile, DataNotFound, InvalidInput

SIZES = {"cifar-10": (15, 4), "cifar-100": (6, 4)}  # CIFAR-10 has five training files: 3 images each
FOLDERS = {
    "cifar-10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar-100": ("cifar-100-python", "cifar-100-binary"),
}
REAL = data.describe("cifar-10").available  # before the fixture below hides it


@pytest.fixture
def empty_machine(monkeypatch, tmp_path):
    """A home and a cache with nothing in them, and sets of a few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("POSTERITY_DATA", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, sizes in SIZES.items():
        monkeypatch.setitem(SETS, name, replace(SETS[name], sizes=sizes))


def made(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images (n, 3072) and labels (n,) of each file of a set."""
    source = np.random.default_rng(0)
    files, (train, test) = SETS[name].files, SIZES[name]
    counts = [train // (len(files) - 1)] * (len(files) - 1) + [test]
    classes = len(SETS[name].classes)
    return {
        file: (source.integers(0, 256, (n, 3072), dtype=np.uint8), source.integers(0, classes, n, dtype=np.uint8))
        for file, n in zip(files, counts, strict=True)
    }


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def as_pickle(name: str, images: np.ndarray, labels: np.ndarray, dtype: bytes = b"u1") -> bytes:
    """Write, opcode by opcode, what Python 2 wrote: protocol 2, an array built by NumPy's `_reconstruct`."""
    rows, columns = images.shape
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    kind = (
        b"cnumpy\ndtype\n"
        + text(dtype)
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in (rows, columns)) + b"t"
    content = b"T" + struct.pack("<i", images.size) + images.tobytes()
    state = b"(K\x01" + shape + kind + b"\x89" + content + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    key = b"labels" if name == "cifar-10" else b"fine_labels"
    return b"\x80\x02}(" + text(b"data") + array + state + text(key) + listed + b"u."


def as_binary(name: str, images: np.ndarray, labels: np.ndarray) -> bytes:
    coarse = () if name == "cifar-10" else (np.full((len(labels), 1), 19, np.uint8),)
    return np.concatenate([*coarse, labels[:, None], images], 1).tobytes()


def write(folder: Path, name: str, *, binary: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    form, suffix = (as_binary, ".bin") if binary else (as_pickle, "")
    for file, (images, labels) in made(name).items():
        (folder / f"{file}{suffix}").write_bytes(form(name, images, labels))
    return folder


def check(name: str) -> None:
    found, values = data.load(name), list(made(name).values())
    images, labels = (np.concatenate([part[i] for part in values[:-1]]) for i in (0, 1))
    assert torch.equal((found.train_inputs * 255).round().byte(), torch.from_numpy(images).view(-1, 3, 32, 32))
    assert found.train_inputs.max() <= 1
    assert found.train_targets.tolist() == labels.tolist()
    assert torch.equal((found.test_inputs * 255).round().byte().flatten(1), torch.from_numpy(values[-1][0]))
    assert found.test_targets.tolist() == values[-1][1].tolist()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("above", ["", "{}/"])
@pytest.mark.parametrize("binary", [False, True])
def test_both_versions_give_the_same_in_every_folder(empty_machine, tmp_path, name, above, binary):
    folder = tmp_path / ".cache/posterity" / above.format(name) / FOLDERS[name][binary]
    write(folder, name, binary=binary)
    check(name)
    assert data.describe(name).location == str(folder)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("binary", [False, True])
def test_archives_are_read_as_they_were_downloaded(empty_machine, tmp_path, name, binary):
    folder = write(tmp_path / "made" / FOLDERS[name][binary], name, binary=binary)
    (folder / "readme.html").write_text("not a part of it")
    home = tmp_path / ".cache/posterity" / name
    home.mkdir(parents=True)
    archive = home / f"{name}-{'binary' if binary else 'python'}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    check(name)
    assert list(data.load(name).source) == [archive.name]
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(CorruptFile, match=r"archive is truncated or damaged.*posterity data cifar-\d+ --download"):
        data.load(name)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "readme.html", arcname="readme.html")
    with pytest.raises(CorruptFile, match="the archive lacks"):
        data.load(name)


def test_colours_are_standardised_one_by_one_and_shifted_in_their_own_range(empty_machine, tmp_path):
    write(tmp_path / "data/cifar-10-batches-py", "cifar-10")
    found = data.load("cifar-10")
    scaled = found.standardised()
    raw = found.train_inputs.double().numpy()
    assert np.allclose(scaled.scaling.input_mean.flatten(), raw.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(scaled.scaling.input_std.flatten(), raw.std((0, 2, 3)), atol=1e-6)
    restored = scaled.test_inputs * scaled.scaling.input_std + scaled.scaling.input_mean
    assert torch.allclose(restored, found.test_inputs, atol=1e-6)
    for kind in ("contrast", "occlusion"):
        corrupted, raw_corrupted = (corruptions(d)[kind](d.test_inputs, 3) for d in (scaled, found))
        assert torch.allclose(corrupted, scaled.scaling.scale_inputs(raw_corrupted), atol=1e-4)


def test_other_sizes_are_interpolated(empty_machine, tmp_path):
    write(tmp_path / "data/cifar-10-batches-py", "cifar-10")
    assert data.load("cifar-10", image_size=64).input_shape == (3, 64, 64)
    with pytest.raises(InvalidInput, match="image_size=28: expected from 32"):
        data.load("cifar-10", image_size=28)


def broken(name: str) -> dict[str, tuple[bytes, str]]:
    """Return damaged contents of a test file, and what is said of each."""
    images, labels = made(name)[SETS[name].files[-1]]
    good, flat = as_pickle(name, images, labels), as_binary(name, images, labels)
    high = np.where(np.arange(len(labels)) == 1, len(SETS[name].classes), labels).astype(np.uint8)
    return {
        "truncated pickle": (good[:-9], "its pickle cannot be read"),
        "cut in the array": (good[:2000], "its pickle cannot be read"),
        "fewer images": (as_pickle(name, images[:2], labels[:2]), "2 x 3072 values, .* has 4 x 3072"),
        "fewer labels": (as_pickle(name, images, labels[:2]), "2 labels for 4 images"),
        "wrong label": (as_pickle(name, images, high), "not all whole numbers from 0 to"),
        "floats": (as_pickle(name, images, labels, b"f4"), "does not hold bytes"),
        "another shape": (good.replace(b"M\x00\x0c", b"M\x00\x0b"), "which is not its shape"),
        "no array": (pickle.dumps({b"data": [1], b"labels": [1], b"fine_labels": [1]}, 3), "are no array"),
        "other keys": (pickle.dumps({b"pixels": 1}, 3), "it is no dictionary with 'data'"),
        "a list": (pickle.dumps([1], 3), "it is no dictionary"),
        "truncated binary": (flat[:-1], "no whole number of records"),
        "a record less": (flat[: -len(flat) // 4], "3 x 3072 values"),
        "wrong binary label": (as_binary(name, images, high), f"label {len(SETS[name].classes)} at position 1"),
        "nothing": (b"", "it is empty"),
    }


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("what", broken("cifar-10"))
def test_damaged_files_are_refused_by_name(empty_machine, tmp_path, name, what):
    content, words = broken(name)[what]
    folder = write(tmp_path / "data" / FOLDERS[name][0], name)
    (folder / SETS[name].files[-1]).write_bytes(content)
    with pytest.raises(CorruptFile, match=words) as caught:
        data.load(name)
    assert str(folder / SETS[name].files[-1]) in str(caught.value)


def test_a_test_file_that_is_a_training_file_is_refused(empty_machine, tmp_path):
    folder = write(tmp_path / "data/cifar-10-batches-bin", "cifar-10", binary=True)
    (folder / "data_batch_4.bin").write_bytes((folder / "data_batch_2.bin").read_bytes())
    with pytest.raises(CorruptFile, match=r"data_batch_4\.bin.*the same content as 'data_batch_2\.bin'"):
        data.load("cifar-10")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Malicious(), protocol=2),
        pickle.dumps({b"data": Malicious(), b"labels": [0]}, protocol=4),
        b"\x80\x02cbuiltins\neval\nU\x11os.mkdir('owned')\x85R.",
        b"\x80\x02cnumpy\nload\nU\x05owned\x85R.",  # NumPy's own names are refused too, but for three
        b"\x80\x04\x8c\x11numpy.core.numeric\x8c\x08asarray\xff\x93.",
        b"\x80\x02c__builtin__\ngetattr\n(cnumpy\nndarray\nU\x06tofiletR.",
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused_and_nothing_runs(empty_machine, tmp_path, content):
    folder = write(tmp_path / "data/cifar-10-batches-py", "cifar-10")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(CorruptFile, match="its pickle cannot be read"):
        data.load("cifar-10")
    assert not (tmp_path / "owned").exists()


def test_even_allowed_names_build_no_array_of_numpy():
    huge = b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftR."  # would be 2⁶² numbers
    assert not isinstance(unpickled(huge, Path("x")), np.ndarray)


def test_what_is_not_there_says_how_to_get_it(empty_machine):
    with pytest.raises(DataNotFound) as caught:
        data.load("cifar-10")
    said = str(caught.value)
    assert "posterity data cifar-10 --download" in said
    assert "cifar-10-binary.tar.gz or cifar-10-python.tar.gz" in said
    assert data.describe("cifar-100").location == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"


def test_the_classes_are_in_the_order_of_their_labels():
    for name, count in (("cifar-10", 10), ("cifar-100", 100)):
        classes = SETS[name].classes
        assert len(set(classes)) == count
        assert list(classes) == sorted(classes)  # both sets number their classes by the alphabet


@pytest.mark.skipif(not REAL, reason="the files of cifar-10 are not on this machine")
def test_the_real_set_has_the_published_moments():
    found = data.load("cifar-10")
    assert found.train_targets.bincount().tolist() == [5000] * 10
    assert found.test_targets.bincount().tolist() == [1000] * 10
    std, mean = torch.std_mean(found.train_inputs, (0, 2, 3), correction=0)
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert std.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
    assert found.test_targets[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
