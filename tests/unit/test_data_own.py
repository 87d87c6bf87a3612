"""The user's own files: CSV and NumPy archives."""

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data import Options
from posterity.errors import CorruptFile, DataNotFound, InvalidInput


def csv(tmp_path, content, name="mine.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows(count, target):
    return "a,b,y\n" + "".join(f"{row},{row * row},{target(row)}\n" for row in range(count))


def test_a_quantity_becomes_a_standardised_regression(tmp_path):
    found = data.load(csv(tmp_path, rows(50, lambda row: row * 0.25)))
    assert (found.task, found.name, found.features) == ("regression", "mine", ("a", "b"))
    assert (len(found.train_inputs), len(found.test_inputs)) == (40, 10)
    assert found.train_inputs.mean(0).abs().max() < 1e-6
    assert (found.train_inputs.std(0, correction=0) - 1).abs().max() < 1e-6
    assert found.scaling is not None
    inputs = torch.cat([found.train_inputs, found.test_inputs]) * found.scaling.input_std + found.scaling.input_mean
    targets = found.scaling.restore_targets(torch.cat([found.train_targets, found.test_targets]))
    assert torch.allclose(targets, inputs[:, 0] * 0.25, atol=1e-4)  # rows stay together
    assert sorted(inputs[:, 0].round().tolist()) == list(range(50))


def test_text_and_few_whole_numbers_become_classes(tmp_path):
    found = data.load(csv(tmp_path, rows(50, lambda row: "high" if row > 24 else "low")))
    assert found.classes == ("high", "low")
    assert torch.bincount(found.test_targets).tolist() == [5, 5]
    inputs = found.test_inputs[:, 0] * found.scaling.input_std[0] + found.scaling.input_mean[0]
    assert ((inputs > 24.5).long() == 1 - found.test_targets).all()
    whole = data.load(csv(tmp_path, rows(60, lambda row: 10 * (row % 3) - 10)))
    assert whole.classes == ("-10", "0", "10")
    assert torch.bincount(whole.train_targets).tolist() == [16, 16, 16]


def test_the_task_can_be_told(tmp_path):
    path = csv(tmp_path, rows(60, lambda row: row % 3))
    assert data.load(path).task == "classification"
    assert data.load(path, options=Options(task="regression")).task == "regression"
    assert data.load(csv(tmp_path, rows(60, lambda row: row)), options=Options(task=None)).task == "regression"
    with pytest.raises(InvalidInput, match="Did you mean 'regression'"):
        data.load(path, options=Options(task="regresion"))


def test_the_target_can_be_named(tmp_path):
    path = csv(tmp_path, rows(30, lambda row: row * 0.5))
    found = data.load(path, options=Options(target="b"))
    assert found.features == ("a", "y")
    assert found.scaling.restore_targets(found.train_targets).max() <= 29**2
    with pytest.raises(InvalidInput, match=r"column of .*'target'.*Choices: a, b, y"):
        data.load(path, options=Options(target="target"))


def test_the_split_is_the_seed(tmp_path):
    path = csv(tmp_path, rows(50, lambda row: row * 0.25))
    assert torch.equal(data.load(path).test_inputs, data.load(path).test_inputs)
    assert data.load(path, split=1).scaling.target_mean != data.load(path).scaling.target_mean


def test_separators_marks_and_constant_columns(tmp_path):
    text = "a;k;y\r\n" + "".join(f"{row};7;{row / 4}\r\n\r\n" for row in range(20))
    found = data.load(csv(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert found.features == ("a",)
    assert "Left out: k (constant)." in " ".join(found.notes)
    quoted = "\t".join(['"a\tb"', "y"]) + "\n" + "".join(f"{row}\t{row / 4}\n" for row in range(20))
    assert data.load(csv(tmp_path, quoted, "mine.tsv")).features == ("a\tb",)


GOOD = rows(20, lambda row: row * 0.25)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", CorruptFile, "is empty"),
        ("a,b,y\n", CorruptFile, "no rows below"),
        ("\n \n", CorruptFile, "no rows below"),
        (GOOD.replace("3,9,", "3,inf,"), CorruptFile, "line 5, column 'b': 'inf' is no finite"),
        (GOOD.replace("3,9,0.75", "3,9"), CorruptFile, "line 5 has 2 cells, the header has 3"),
        (GOOD.replace("3,9,0.75", "3,9,0.75,1"), CorruptFile, "line 5 has 4 cells"),
        (GOOD.replace("3,9,", '3,"9,'), CorruptFile, "no CSV"),
        (GOOD.encode() + b"\x81\xfe,1,2\n", CorruptFile, "is not UTF-8"),
        ("y\n1\n2\n", InvalidInput, "has one column"),
        (rows(4, lambda row: row / 4), InvalidInput, "at least 5"),
        (rows(20, lambda row: f"id{row}"), InvalidInput, "20 classes in 20 rows"),
        (rows(20, lambda row: "same"), InvalidInput, "is 'same' in all 20 rows"),
        (rows(20, lambda row: 0.5), InvalidInput, "the target is 0.5 in all"),
        ("a,y\n" + "".join(f"1,{row / 4}\n" for row in range(20)), InvalidInput, "no input column varies"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, content, error, message):
    with pytest.raises(error, match=message) as caught:
        data.load(csv(tmp_path, content))
    assert "mine" in str(caught.value)


def test_regression_on_text_names_the_cell(tmp_path):
    path = csv(tmp_path, GOOD.replace("3,9,0.75", "3,9,many"))
    with pytest.raises(CorruptFile, match="line 5, column 'y': 'many'"):
        data.load(path, options=Options(task="regression"))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataNotFound, match=r"no file .*nothing\.csv"):
        data.load(str(tmp_path / "nothing.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataNotFound, match=r"folder\.csv.*no pictures"):
        data.load(str(tmp_path / "folder.csv"))
    with pytest.raises(InvalidInput, match=r"Or the path of a \.csv"):
        data.load(str(tmp_path / "mine.bin"))
    with pytest.raises(InvalidInput, match="is a table"):
        data.load(csv(tmp_path, GOOD), image_size=32)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return str(tmp_path / "mine.npz")


SOURCE = np.random.default_rng(0)
X, Y = SOURCE.normal(3, 2, (50, 4)), SOURCE.normal(size=50)


def test_an_archive_keeps_its_own_parts(tmp_path):
    found = data.load(npz(tmp_path, x_train=X[:35], y_train=Y[:35], x_test=X[35:], y_test=Y[35:, None]))
    assert (len(found.train_inputs), len(found.test_inputs)) == (35, 15)
    expected = (X[35:] - X[:35].mean(0)) / X[:35].std(0)
    assert np.abs(found.test_inputs.numpy() - expected).max() < 1e-5
    assert np.abs(found.scaling.restore_targets(found.test_targets).numpy() - Y[35:]).max() < 1e-5


def test_an_archive_without_parts_is_split(tmp_path):
    found = data.load(npz(tmp_path, x=X, y=np.repeat(["no", "yes"], 25)))
    assert found.classes == ("no", "yes")
    assert torch.bincount(found.test_targets).tolist() == [5, 5]


def test_an_archive_of_images_comes_to_the_unit_interval(tmp_path):
    images = SOURCE.integers(0, 256, (20, 16, 16), dtype=np.uint8)
    path = npz(tmp_path, x_train=images[:15], y_train=np.arange(15) % 3, x_test=images[15:], y_test=np.arange(5) % 3)
    found = data.load(path)
    assert found.test_inputs.shape == (5, 1, 16, 16)
    assert np.abs(found.test_inputs[:, 0].numpy() - images[15:] / 255).max() < 1e-6
    assert found.classes == ("0", "1", "2")
    assert data.load(path, image_size=32).input_shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": X, "z": Y}, InvalidInput, "holds x, z; expected x, y"),
        ({"x": X, "y": Y[:-1]}, CorruptFile, r"\(50, 4\), y \(49,\)"),
        ({"x": X, "y": X[:, :2]}, CorruptFile, r"y \(50, 2\)"),
        ({"x": X, "y": np.where(np.arange(50) == 7, np.nan, Y)}, CorruptFile, r"y\[7\] is nan"),
        ({"x": np.where(np.eye(50, 4) * X == X[2, 2], np.inf, X), "y": Y}, CorruptFile, r"x\[2, 2\] is inf"),
        ({"x": X, "y": np.array([{}] * 50, dtype=object)}, CorruptFile, "need a pickle"),
        ({"x": X.astype(complex), "y": Y}, CorruptFile, "x is complex128"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y}, CorruptFile, "differ in shape"),
        ({"x": X[:0], "y": Y[:0]}, CorruptFile, "N > 0"),
    ],
)
def test_wrong_archives_are_refused_by_name(tmp_path, arrays, error, message):
    with pytest.raises(error, match=message) as caught:
        data.load(npz(tmp_path, **arrays))
    assert "mine.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04 nothing", b"\x80\x04N.", b"\x93NUMPY", b""])
def test_what_is_no_archive_is_refused_by_name(tmp_path, content):
    with pytest.raises(CorruptFile, match=r"mine\.npz"):
        data.load(csv(tmp_path, content, "mine.npz"))


def test_a_truncated_archive_is_refused_by_name(tmp_path):
    path = npz(tmp_path, x=X, y=Y)
    content = (tmp_path / "mine.npz").read_bytes()
    for kept in (len(content) // 2, len(content) - 10):
        (tmp_path / "mine.npz").write_bytes(content[:kept])
        with pytest.raises(CorruptFile, match=r"mine\.npz"):
            data.load(path)
