"""Data made to hurt: refused by one line, in little time and memory, or read as exactly what they say."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data import archive, npy, separated, sheet
from posterity.data.files import read, text, unpack
from posterity.data.opcodes import unpickled
from posterity.data.published import remark
from posterity.data.scale import Scaling
from posterity.data.sets import IDX_FILES, SETS
from posterity.data.sheet import MAX_COLUMNS
from posterity.documents import content
from posterity.errors import CorruptFile, InvalidInput, PosterityError

PATH = Path("given")
MEGABYTE = 2**20


@pytest.fixture
def little_memory():
    """A test that may take 100 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * MEGABYTE


def npy_file(header: str, values: bytes = b"", version: int = 1) -> bytes:
    content = header.encode()
    form = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(content)) + content + values


def described(kind: str, shape: str) -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(4, dtype=">i2"),
        np.array([True, False]),
        np.array(["yes", "né"]),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
    ],
)
def test_arrays_are_read_as_numpy_reads_them(values):
    stream = io.BytesIO()
    np.save(stream, values)
    found = npy.array(stream.getvalue(), PATH)
    assert np.array_equal(found, values)
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.flags.writeable


@pytest.mark.parametrize(
    "content",
    [
        npy_file(described("'<f8'", "(1000000000000, 8)")),  # 58 TiB
        npy_file(described("'<f8'", f"({2**62}, 4)")),  # more than 64 bits count
        npy_file(described("'<f8'", f"({2**70},)")),
        npy_file(described("'<f8'", f"(0, {2**70})")),
        npy_file(described("'<U0'", "(1000000000000,)")),  # no bytes at all
        npy_file(described("'<U100000000'", "(1,)")),
        npy_file(described("'<f8'", "(" + "1, " * 100 + ")"), bytes(8)),
        npy_file(described("'|O'", "(1,)"), bytes(8)),
        npy_file(described("[('a', '<f8')]", "(1,)"), bytes(8)),
        npy_file(described("'<f8'", "(1.0,)"), bytes(8)),
        npy_file(described("'<f8'", "(-1,)"), bytes(8)),
        npy_file(described("'<f8'", "(" + "(" * 5000)),
        npy_file(described("'<f8'", "(9" + "*9" * 2000 + ",)")),
        npy_file("{" * 9000),
        npy_file(described("'<f8'", "(1,)") + " " * 20_000, bytes(8), version=2),
        npy_file(described("'<f8'", "(1,)").replace("False", "0"), bytes(8)),
        npy_file(described("'<f8'", "(1,)").replace("}", "'a': 1}"), bytes(8)),
        npy_file(described("'<f8'", "(1,)"), bytes(7)),
        npy_file(described("'<f8'", "(1,)"), bytes(9)),
        npy_file(described("'|b1'", "(1,)"), b"\x02"),
        npy_file(described("'<U1'", "(1,)"), b"\xff\xff\xff\xff"),
        npy_file(described("'<U1'", "(1,)"), b"\x00\xd8\x00\x00"),
        npy_file(described("'<f16'", "(1,)"), bytes(16)),
        npy_file(described("'<M8[s]'", "(1,)"), bytes(8)),
        npy_file(described("'<f8'", "(1,)"), bytes(8), version=3)[:11],
        b"\x93NUMPY",
        b"\x93NUMPY\x09\0" + bytes(100),
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_headers_that_promise_what_is_not_there_are_refused(content):
    with pytest.raises(CorruptFile) as caught:
        npy.array(content, PATH)
    assert len(str(caught.value)) < 500


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        for name, content in members:
            made.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


ONE = npy_file(described("'<f8'", "(1,)"), bytes(8))


@pytest.mark.usefixtures("little_memory")
def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused_before_it_is_unpacked():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(MEGABYTE))
    with pytest.raises(CorruptFile, match="unpack to 314,572,800, and at most 268,435,456"):
        archive.arrays(stream.getvalue(), PATH)


def lying(content: bytes, offset: int, value: int) -> bytes:
    place = content.index(b"PK\1\2") + offset
    return content[:place] + struct.pack("<I", value) + content[place + 4 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(("x", ONE)), "no .npy array"),
        (zipped(("x.npy", ONE), ("y.npy", ONE)).replace(b"y.npy", b"x.npy"), "twice"),
        (zipped(("x.npy", ONE), method=zipfile.ZIP_LZMA), "packed as numpy.savez packs nothing"),
        (zipped(*((f"{n}.npy", b"") for n in range(1001))), "more than 1,000 arrays"),
        (lying(zipped(("x.npy", ONE)), 24, 2**32 - 1), "unpack to 4,294,967,295"),
        (lying(zipped(("x.npy", ONE)), 24, 10), "damaged|truncated"),
        (lying(zipped(("x.npy", ONE)), 24, 1000), "damaged|truncated"),
        (lying(zipped(("x.npy", ONE)), 42, 10**6), "damaged|truncated"),
        (lying(zipped(("x.npy", ONE)), 16, 1), "Bad CRC"),
        (b"PK", "damaged"),
    ],
)
def test_archives_that_numpy_would_not_write_are_refused(content, words):
    with pytest.raises(CorruptFile, match=words):
        archive.arrays(content, PATH)


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(size)) + packer.flush()


@pytest.mark.usefixtures("little_memory")
def test_a_gzip_bomb_is_opened_no_further_than_it_may_be():
    assert unpack(gzip.compress(b"ab") + gzip.compress(b"cd"), PATH) == b"abcd"
    with pytest.raises(CorruptFile, match="more than the 1,000 bytes"):
        unpack(bomb(200), PATH, most=1000)
    with pytest.raises(CorruptFile, match="more than the"):
        unpack(gzip.compress(b"") * 1000, PATH, most=1000)
    with pytest.raises(CorruptFile, match="truncated"):
        unpack(gzip.compress(b"a" * 100)[:-4], PATH)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """An MNIST of two images each, and its folder."""
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], sizes=(2, 2)))
    folder = tmp_path / "mnist"
    folder.mkdir()
    for number, name in enumerate(IDX_FILES):
        images = "images" in name
        shape = (2, 28, 28) if images else (2,)
        values = np.full(shape, number, np.uint8)
        head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / name).write_bytes(head + values.tobytes())
    return folder


@pytest.mark.parametrize(
    "content",
    [
        bomb(50),
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2) + bytes(10),  # 7 EiB
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 28, 28) + bytes(3 * 784),
        bytes([0, 0, 0x0D, 3]) + struct.pack(">3I", 2, 28, 28) + bytes(2 * 784),
        bytes([0, 0, 8, 255]),
    ],
)
def test_idx_files_hold_what_the_set_has(mnist, content):
    (mnist / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(CorruptFile):
        data.load("mnist", root=mnist.parent)


def test_files_that_are_not_the_published_ones_are_named(mnist):
    (note,) = data.load("mnist", root=mnist.parent).notes
    assert note.startswith("Not the published file: train-images-idx3-ubyte, train-labels-idx1-ubyte, ")
    arrays = {
        f"{a}_{part}": np.zeros((2, 28, 28)[: 3 if a == "x" else 1], np.uint8)
        for a in "xy"
        for part in ("train", "test")
    }
    for file in mnist.iterdir():
        file.unlink()
    np.savez(mnist / "mnist.npz", **arrays)
    assert data.load("mnist", root=mnist.parent).notes[0].startswith("Not the published file: train-images")


def test_a_form_that_has_no_known_checksum_says_so():
    assert "none gives its checksum" in remark(SETS["cifar-10"], {"test_batch.bin": b""})[0]
    assert remark(replace(SETS["cifar-10"], md5={"a": "d41d8cd98f00b204e9800998ecf8427e"}), {"a": b""}) == ()


@pytest.mark.parametrize(
    "program",
    [
        b"r\xff\xff\xff\x7f.",  # a place in memory whose number is 2^31
        b"T\xff\xff\xff\x7f.",  # a string of 2 GiB
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"(" * 20_000,
        b"]" * 20_000,
        b"}" + b")" + b"2\x86" * 60 + b"Ns.",  # a key of 2^60 parts, whose hash would never end
        b"}\x85q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0Ns.",
        b"cos\nsystem\n(U\x04true" + b"tR.",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x81.",
        b"}(K\x01u.",
        b"}}\x93.",  # a name that is two dictionaries
        b"t.",
        b"h\x05.",
        b"e.",
        b"R.",
        b"b.",
        b".",
        b"c" + b"a" * 10_000,
        b"X\x01\0\0\0\xff.",
        b"\x8a\xff" + b"\xff" * 255 + b".",
        b"",
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_programs_that_no_data_set_needs_are_refused(program):
    with pytest.raises(CorruptFile, match="its pickle cannot be read"):
        unpickled(b"\x80\x02" + program, PATH, most=10_000)


@pytest.mark.usefixtures("little_memory")
def test_a_reader_takes_memory_for_what_is_there_and_not_for_what_could_be(tmp_path):
    (tmp_path / "log").write_bytes(b"abc")
    assert content(tmp_path / "log", 2**40) == b"abc"


def test_archives_of_cifar_are_opened_no_further_than_the_set_is_large(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "cifar-10", replace(SETS["cifar-10"], sizes=(5, 1)))
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as made:
        made.addfile(info := tarfile.TarInfo("data_batch_1.bin"), io.BytesIO(b""))
        info.size = 10 * MEGABYTE
        made.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(CorruptFile, match="more than the"):
        data.load("cifar-10", root=tmp_path)


def csv(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "mine.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


ROWS = "".join(f"{n},{n % 3},{n * 0.5}\n" for n in range(9))
TABLE = "a,b,y\n" + ROWS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TABLE + f"{2**70},1,1\n", r"line 11, column 'a': 1180591620717411303424 is above 2\^53"),
        (TABLE + f"1,1,-{2**60 + 1}\n", r"column 'y': -1152921504606846977 is above 2\^53"),
        (TABLE + "1e308,1,1\n" + "-1e308,1,1\n" * 9, "column 'a' has values from -1e\\+308 to 1e\\+308, which float32"),
        (TABLE + "1,1,1e300\n1,1,-1e300\n" * 9, "the target has values from -1e\\+300 to 1e\\+300"),
        ("a,b,y\n" + "".join(f"{n}e-320,{n},{n}.5\n" for n in range(9)), "column 'a' has values"),
        (TABLE + "1" * 200_000 + ",1,1\n", "line 11 is no CSV"),
        (TABLE + "1," + "9" * 5000 + ",1\n", "is no finite number"),
        (TABLE + '"1,1,1\n' * 3, "is no CSV"),
        (TABLE + "1,\0,1\n", "is NUL"),
        (TABLE.encode("utf-16-le") + b"1", "is NUL"),
        (TABLE.replace("a", "é\x01").encode("latin-1"), "not UTF-8"),
        (TABLE.encode("utf-16")[:-1], "not UTF-16"),
        ("a,b," + "y" * 1000 + "\n" + ROWS, "the name of a column has 1,000 characters"),
        (",".join(f"c{n}" for n in range(MAX_COLUMNS + 1)) + "\n" + "1," * MAX_COLUMNS + "1\n", "100,001 columns"),
        ("a,y\n" + "1,no\n" * 20 + f"1,{'x' * 1000}\n", "a cell of 1,000 characters, no class name"),
        ("\r" * 100_000, "no rows"),
        ("," * 200_000 + "\n", "no rows"),
    ],
)
def test_tables_made_to_hurt_are_refused_by_the_line_and_the_column(tmp_path, content, words):
    with pytest.raises(PosterityError, match=words) as caught:
        data.load(str(csv(tmp_path, content)))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\r"), lambda t: "\ufeff" + t]
)
def test_other_ends_of_lines_and_a_mark_of_order_are_no_matter(tmp_path, change):
    plain, other = (data.load(str(csv(tmp_path, content))) for content in (TABLE, change(TABLE)))
    assert torch.equal(plain.train_inputs, other.train_inputs)
    assert plain.features == other.features


def test_large_and_small_columns_that_float32_holds_are_standardised_as_others_are(tmp_path):
    scaled = "a,b,y\n" + "".join(f"{n}e37,{n % 3}e-36,{n * 0.5}\n" for n in range(9))
    assert torch.allclose(
        data.load(str(csv(tmp_path, scaled))).train_inputs, data.load(str(csv(tmp_path, TABLE))).train_inputs, atol=1e-5
    )


def test_classes_that_are_numbers_keep_names_of_their_own(tmp_path):
    rows = "".join(f"{n},{1_000_001 + n % 2}\n" for n in range(10))
    assert data.load(str(csv(tmp_path, "a,y\n" + rows))).classes == ("1000001", "1000002")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.array([[2**60 + 1]] * 9), "y": np.arange(9.0)}, r"x holds whole numbers above 2\^53"),
        ({"x": np.arange(9.0)[:, None] * 1e307, "y": np.arange(9.0)}, "'x0' has values from 0 to 8e\\+307"),
        ({"x": np.full((9, 2, 2), 1e300), "y": np.arange(9.0)}, "x reaches 1e\\+300"),
        ({"x": np.zeros((9, 2, 2)), "y": np.arange(9.0) * 1e300}, "y reaches 8e\\+300"),
        ({f"{n}" * 300: np.arange(9) for n in range(9)}, "expected x, y"),
    ],
)
def test_archives_of_numbers_that_float32_does_not_hold_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(PosterityError, match=words) as caught:
        data.load(str(tmp_path / "mine.npz"))
    assert len(str(caught.value)) < 600


def test_files_without_an_end_and_files_beyond_memory_are_refused(tmp_path):
    (tmp_path / "x.csv").symlink_to("/dev/zero")
    with pytest.raises(InvalidInput, match="no regular file"):
        read(tmp_path / "x.csv")
    with (tmp_path / "y.csv").open("wb") as stream:
        stream.truncate(2**42)  # a hole of 4 TiB
    with pytest.raises(CorruptFile, match="4,398,046,511,104 bytes"):
        read(tmp_path / "y.csv")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read(Path("a\0b"))
    with pytest.raises(CorruptFile, match="byte 1 is NUL"):
        text(b"a\0", PATH)


def test_inputs_too_far_from_the_training_data_are_refused(tmp_path):
    from posterity.cli.inputs import _scaled
    from posterity.cli.saved import Saved

    scaling = Scaling(torch.tensor([0.0]), torch.tensor([1e-30]))
    values = {"input_mean": [0.0], "input_std": [1e-30], "target_mean": 0.0, "target_std": 1.0}
    saved = object.__new__(Saved)
    object.__setattr__(saved, "data", {"features": ["a"], "scaling": values})
    assert saved.scaling is not None
    assert saved.scaling.input_std == scaling.input_std
    with pytest.raises(InvalidInput, match="'a' of input 2 is 1e\\+10, too far from the training data"):
        _scaled(torch.tensor([[0.0], [1e10]]), saved, PATH)


def test_a_table_of_too_many_columns_is_not_taken_apart(tmp_path, monkeypatch):
    """Neither into cells, where it has ten times too many, nor to tell its header by them, where it has some too many."""
    monkeypatch.setattr(separated, "_is_header", lambda *rows: pytest.fail("its header was looked for"))
    path = tmp_path / "wide.csv"
    path.write_bytes(b"1," * MAX_COLUMNS + b"1\n" + b"1," * MAX_COLUMNS + b"1\n")
    with pytest.raises(CorruptFile, match=f"it has {MAX_COLUMNS + 1:,} columns"):
        data.load(str(path))
    monkeypatch.setattr(sheet, "layout", lambda *rows: pytest.fail("it was taken apart"))
    path.write_bytes(b"a,b\n" + b"," * (10 * MAX_COLUMNS + 1))
    with pytest.raises(CorruptFile, match="one of its first lines has 1,000,001 commas"):
        data.load(str(path))
