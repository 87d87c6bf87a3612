"""Parquet and Arrow: the same tables as in CSV, with the types of the file; and what is damaged, or strange."""

import datetime
import sys

import numpy as np
import polars
import pytest
import torch

from posterity import data
from posterity.data import Options, Reader
from posterity.data.frames import FRAMES
from posterity.errors import CorruptFile, InvalidInput

RNG = np.random.default_rng(0)
N = 40
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(day)) for day in RNG.integers(0, 700, N)]
COLUMNS = {
    "age": [None if row % 7 == 0 else row * 1.5 for row in range(N)],
    "sex": polars.Series(["m", "f", None, "f"] * 10, dtype=polars.Categorical),
    "smokes": [None if row % 11 == 0 else row % 2 == 0 for row in range(N)],
    "day": DAYS,
    "at": [datetime.datetime.combine(day, datetime.time(row % 24, 30)) for row, day in enumerate(DAYS)],
    "price": [f"{1000 + 7 * row:,}.5" for row in range(N)],
    "y": RNG.normal(size=N),
}
WRITE = {
    ".csv": lambda frame, path: frame.write_csv(path),
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".feather": lambda frame, path: frame.write_ipc(path, compression="zstd"),
    ".arrow": lambda frame, path: frame.write_ipc_stream(path),
}


def load(folder, columns, suffix=".parquet", target=None, **options):
    path = folder / f"mine{suffix}"
    WRITE[suffix](polars.DataFrame(columns), path)
    return data.load(str(path), options=Options(target=target, table=Reader(**options)))


def test_a_table_is_the_same_as_in_csv(tmp_path):
    text = load(tmp_path, COLUMNS, ".csv")
    for suffix, form in ((".parquet", "Parquet"), (".feather", "Arrow"), (".arrow", "Arrow")):
        found = load(tmp_path, COLUMNS, suffix)
        assert found.features == text.features
        assert torch.equal(found.train_inputs, text.train_inputs)
        assert torch.equal(found.test_targets, text.test_targets)
        assert found.notes[0] == f"mine{suffix}: 40 rows, 7 columns of {form}."
        assert found.notes[1:4] == text.notes[1:4]


@pytest.mark.parametrize("target", ["smokes", "sex"])
def test_targets_are_the_classes_that_they_are_in_csv(tmp_path, target):
    text, found = (load(tmp_path, COLUMNS, suffix, target) for suffix in (".csv", ".parquet"))
    assert found.classes == text.classes
    assert torch.equal(found.train_targets, text.train_targets)
    assert found.notes[1].startswith(text.notes[1].partition("(line")[0] + "(rows ")


def test_a_run_reads_both_by_what_it_learnt_of_either(tmp_path):
    own = {suffix: load(tmp_path, COLUMNS, suffix, drop=("price",)) for suffix in (".csv", ".parquet")}
    for mine, other in ((".csv", ".parquet"), (".parquet", ".csv")):
        form = own[mine].form
        path = tmp_path / f"mine{other}"
        columns, said = form.cells(form.sheet(path.read_bytes(), path))
        theirs = own[other].form
        again, _ = theirs.cells(theirs.sheet(path.read_bytes(), path))
        assert np.array_equal(form.encoding.numbers(columns), theirs.encoding.numbers(again))
        assert np.array_equal(form.encoding.indicators(columns), theirs.encoding.indicators(again))
        assert len(said) == 1


def test_types_are_the_files_own(tmp_path):
    zips = polars.Series(["01", "2", "NA", None] * 10, dtype=polars.Categorical)
    found = load(tmp_path, {"zip": zips, "when": [None, *DAYS[1:]], "list": [[1]] * N, "y": COLUMNS["y"]})
    assert [one.code.kind for one in found.form.columns] == ["category", "date"]
    assert found.form.columns[0].code.words == ("(missing)", "01", "2", "NA")
    assert "Not read, as neither numbers, texts nor dates: list (List(Int64))." in found.notes[0]
    numbers = load(tmp_path, {"a": range(N), "b": [1, 2] * 20, "y": COLUMNS["y"]}, category=("b",))
    assert numbers.form.columns[1].code.words == ("1", "2")


def test_the_index_that_pandas_writes_last_is_no_target(tmp_path):
    metadata = {"pandas": '{"index_columns": ["day"]}'}
    polars.DataFrame(
        {"a": RNG.normal(size=N), "y": COLUMNS["y"], "day": DAYS, "__index_level_0__": range(N)}
    ).write_parquet(tmp_path / "mine.parquet", metadata=metadata)
    found = data.load(str(tmp_path / "mine.parquet"))
    assert (found.form.target, found.form.names) == ("y", ("day", "a"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [2**53 + 1] * N, "y": COLUMNS["y"]}, "column 'a': 9007199254740993 is above 2^53"),
        ({"a": [1.0, np.inf] * 20, "y": COLUMNS["y"]}, "row 2, column 'a': 'inf' is no finite number"),
        ({"a": [1.0, 2.0] * 20, "y": [[1]] * N}, "the target 'y' was not read"),
        ({"a": [1.0]}, "one column"),
        ({"a": [], "b": []}, "no rows"),
    ],
)
def test_what_no_network_takes_is_refused_by_its_place(tmp_path, columns, said):
    with pytest.raises((CorruptFile, InvalidInput), match=said.replace("^", r"\^")):
        load(tmp_path, columns)


@pytest.mark.parametrize("suffix", FRAMES)
def test_what_is_damaged_is_refused(tmp_path, suffix, capfd):
    path = tmp_path / f"mine{suffix}"
    form = {".parquet": ".parquet", ".pq": ".parquet", ".ipc": ".arrow"}.get(suffix, ".feather")
    WRITE[form](polars.DataFrame(COLUMNS), path)
    whole = path.read_bytes()
    middle = bytes(255 - byte for byte in whole[100:])
    for content in (whole[: len(whole) // 2], whole[:100] + middle, b"a,b\n1,2\n" * 9, b"FEA1" + whole, whole[:8]):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match="mine") as caught:
            data.load(str(path))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_without_polars_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    WRITE[".parquet"](polars.DataFrame(COLUMNS), tmp_path / "mine.parquet")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(InvalidInput, match=r"pip install 'posterity\[tables\]'"):
        data.load(str(tmp_path / "mine.parquet"))
