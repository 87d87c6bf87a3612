"""Text tables as they come: layouts, ways to write numbers and dates, kinds of columns, what is left out, and new tables."""

import json

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data import Options, Reader
from posterity.data.form import TableForm
from posterity.errors import InvalidInput, PosterityError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 2)).round(3), RNG.normal(size=40).round(3)


def load(tmp_path, content, encoding="utf-8", **options):
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    target, task = options.pop("target", None), options.pop("task", None)
    return data.load(str(path), options=Options(target=target, task=task, table=Reader(**options)))


def said(found):
    return "\n".join(found.notes)


def lines(*columns, head="", sep=","):
    """Write 40 rows."""
    return head + "".join(sep.join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


PLAIN = lines(X[:, 0], X[:, 1], Y, head="a,b,y\n")


@pytest.mark.parametrize("sep", [",", ";", "\t", "|", "  "])
def test_a_table_is_the_same_by_any_separator_and_in_any_letters(tmp_path, sep):
    whole = load(tmp_path, PLAIN)
    text = "# a study\n" + PLAIN.replace(",", sep).replace("a", "ä", 1)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        other = load(tmp_path, text, encoding)
        assert torch.equal(whole.train_inputs, other.train_inputs)
        assert other.features == ("ä", "b")
        assert "1 line of comments passed over" in said(other)
        assert ("Latin-1" in said(other)) == (encoding == "latin-1")


A, B = X.T
COLOUR, SIZE, KIND = (list(word * 20) for word in ("ab", "cd", "fe"))


@pytest.mark.parametrize(
    ("content", "names", "rows"),
    [
        (lines(A, B, Y), ["x0", "x1"], 40),
        (lines(A, COLOUR, Y), ["x0", "x1"], 40),
        (lines(COLOUR, SIZE, KIND), ["x0", "x1"], 40),
        (lines(COLOUR, SIZE, KIND, head="colour,size,kind\n"), ["colour", "size"], 40),
        (lines(A, B, Y, head=",?,0.5\n"), ["x0", "x1"], 41),
        (lines(A, B, Y, head="2019,2020,y\n"), ["2019", "2020"], 40),
        (lines(A, B, Y, head="# a,b,y\n"), ["a", "b"], 40),
        (lines(A, B, A + B, A - B, Y, head="0,1,2,3,4\n"), ["0", "1", "2", "3"], 40),
        (lines(A, B, Y, [""] * 40, head="a,b,y,\n"), ["a", "b"], 40),
        (lines(range(40), A, B, Y, head="a b y\n", sep=" "), ["a", "b"], 40),
        (lines(A, B, Y, head="a,a,y\n"), ["a", "a.2"], 40),
        (lines(A, B, Y, head="a,,y\n"), ["a", "column 2"], 40),
        ("sep=;\n" + lines(A, B, Y, head="a;b;y\n", sep=";"), ["a", "b"], 40),
        (lines(A, B, Y, head="a,b,y\n") + "0.5,", ["a", "b"], 40),
        (lines(A, B, Y, head="a,b,y\n") + ",,\n", ["a", "b"], 40),
    ],
)
def test_a_first_row_is_a_header_where_it_holds_names_and_else_is_not_lost(tmp_path, content, names, rows):
    found = load(tmp_path, content)
    assert len(found.train_inputs) + len(found.test_inputs) == rows
    assert list(found.form.names) == names
    assert ("No header" in said(found)) == (names == ["x0", "x1"])


def test_what_was_taken_for_data_can_be_called_a_header_and_the_other_way_round(tmp_path):
    texts = lines(COLOUR, SIZE, KIND)
    assert load(tmp_path, texts, header=True).form.names == ("a", "c")
    assert len(load(tmp_path, lines(COLOUR, SIZE, KIND, head="x,y,e\n"), header=False).train_inputs) == 33


WHOLE = np.arange(1000, 41000, 1000)


@pytest.mark.parametrize(
    ("write", "sep"),
    [
        (lambda n: f'"{n:,}"', ","),
        (lambda n: f'"${n:,}.00"', ","),
        (lambda n: f"{n / 1000:.2f}".replace(".", ",") + "e3", ";"),
        (lambda n: f"{n:,}".replace(",", ".") + ",0", ";"),
        (lambda n: f"{n:,}".replace(",", " "), ","),
        (lambda n: f"{n:,}".replace(",", "\u00a0") + ",0", "\t"),
        (lambda n: f"{n:,}".replace(",", "'"), ";"),
        (lambda n: f"€ {n}", ","),
        (lambda n: f"{n} %", ","),
        (lambda n: f"{n:e}", ","),
        (lambda n: f" +{n}. ", ","),
    ],
)
def test_numbers_are_read_as_they_are_written_and_are_quantities(tmp_path, write, sep):
    found = load(tmp_path, lines(map(write, WHOLE), COLOUR, map(write, WHOLE), head=sep.join("abc") + "\n", sep=sep))
    assert found.task == "regression"
    rows = (
        torch.cat([found.train_inputs, found.test_inputs])[:, 0] * found.scaling.input_std[0]
        + found.scaling.input_mean[0]
    )
    assert sorted(rows.round().tolist()) == WHOLE.tolist()
    targets = found.scaling.restore_targets(torch.cat([found.train_targets, found.test_targets]))
    assert torch.allclose(targets, rows, rtol=1e-5)


def test_parentheses_are_signs_and_one_odd_cell_makes_texts_of_a_column(tmp_path):
    found = load(tmp_path, lines([f'"({n},000)"' for n in range(1, 41)], Y, head="a,y\n"))
    assert found.scaling.input_mean < -1000
    mixed = load(tmp_path, lines(["1", "2", "3", "oops"] * 10, Y, head="a,y\n"))
    assert mixed.features == ("a = 1", "a = 2", "a = 3", "a = oops")
    assert "'oops' in line 5 is no number" in said(mixed)
    mended = load(tmp_path, lines(["1", "2", "3", "oops"] * 10, Y, head="a,y\n"), missing=("oops",))
    assert mended.features == ("a", "a is missing")
    several = load(tmp_path, lines(["$1", "€2"] * 20, Y, head="a,y\n"))
    assert "several writings" in said(several)


def test_what_may_be_decimals_or_thousands_is_decided_by_the_table_or_said(tmp_path):
    doubtful = [f"{1 + n % 9},{100 + n}" for n in range(40)]
    by_commas = load(tmp_path, lines([f'"{cell}"' for cell in doubtful], Y, head="a,y\n"))
    assert by_commas.scaling.input_mean > 1000
    alone = load(tmp_path, lines(doubtful, [1, 2] * 20, head="a;y\n", sep=";"))
    assert alone.scaling.input_mean < 10
    assert "'a': 1,100 was read as 1.1. If it is not: --data.decimal '.'" in said(alone)
    assert load(tmp_path, lines(doubtful, [1, 2] * 20, head="a;y\n", sep=";"), decimal=".").scaling.input_mean > 1000
    commas = [f"{n},5" for n in range(40)]
    points = load(tmp_path, lines([one.replace(",", ".") for one in doubtful], commas, head="a;y\n", sep=";"))
    assert points.scaling.input_mean > 1000  # as decimals have commas here


DAYS = [f"{1 + n % 28:02d}" for n in range(40)]


@pytest.mark.parametrize(
    ("write", "reader"),
    [
        (lambda d: f"2020-03-{d}", {}),
        (lambda d: f"2020/03/{d} 00:00", {}),
        (lambda d: f"{d}/03/2020", {}),
        (lambda d: f"3/{d}/2020", {}),
        (lambda d: f"{d}.3.20", {}),
        (lambda d: f"{d} March 2020", {}),
        (lambda d: f'"Mar {d}, 2020"', {}),
        (lambda d: f"2020-03-{d}T12:00:00+12:00", {}),
        (lambda d: f"2020-03-{d} 12:00 am", {}),
    ],
)
def test_dates_are_read_by_the_one_order_that_fits(tmp_path, write, reader):
    found = load(tmp_path, lines(map(write, DAYS), Y, head="when,y\n"), **reader)
    rows = torch.cat([found.train_inputs, found.test_inputs]) * found.scaling.input_std + found.scaling.input_mean
    assert "1 date (when)" in said(found)
    assert rows[:, 0].round().unique().tolist() == [18322.0 + day for day in range(28)]


def test_of_two_orders_one_is_said_and_can_be_changed(tmp_path):
    text = lines([f"{1 + n % 12}/2/2020" for n in range(40)], Y, head="when,y\n")
    assert "read as mdy. If they are not: --data.dates dmy" in said(load(tmp_path, text))
    assert load(tmp_path, text, dates="dmy").scaling.input_std[0] < 5


def test_missing_cells_truth_values_and_categories(tmp_path):
    gaps = ["", "NA", "?", "-", "1.5", "2.5", "null", "7"] * 5
    found = load(tmp_path, lines(gaps, ["yes", "No"] * 20, ["x", "y", "z", ""] * 10, Y, head="a,b,c,y\n"))
    assert found.features == ("a", "b", "a is missing", "c = (missing)", "c = x", "c = y", "c = z")
    assert "a 25, c 10" in said(found)
    rows = torch.cat([found.train_inputs, found.test_inputs])
    assert rows[:, 3:].unique().tolist() == [0.0, 1.0]
    assert (rows[:, 3:].sum(1) == 1).all()
    medians = rows[:, 0] * found.scaling.input_std[0] + found.scaling.input_mean[0]
    assert (medians.round(decimals=3) == 2.5).sum() == 30


def test_rows_without_a_target_are_left_out_by_their_lines(tmp_path):
    found = load(tmp_path, lines(A, ["male", "", "female", "male"] * 10, head="w,sex\n"))
    assert found.classes == ("female", "male")
    assert len(found.train_inputs) + len(found.test_inputs) == 30
    assert "10 rows without a target left out (lines 3, 7, 11, 15, 19, …)" in said(found)
    assert load(tmp_path, lines(A, ["none", "minor"] * 20, head="w,damage\n")).classes == ("minor", "none")


def test_what_says_nothing_is_left_out_by_name_and_can_be_kept(tmp_path):
    texts = [f"person {n}" for n in range(40)]
    text = lines(range(1, 41), texts, A, A, [7] * 40, [""] * 40, B, Y, head="PassengerId,name,a,twin,k,e,b,y\n")
    found = load(tmp_path, text)
    assert found.features == ("a", "b")
    for words in (
        "PassengerId (a number for",
        "name (40 different",
        "twin (equal to 'a')",
        "k (constant)",
        "e (empty)",
    ):
        assert words in said(found)
    assert load(tmp_path, text, keep=("PassengerId",), drop=("b",)).features == ("PassengerId", "a")
    assert len(load(tmp_path, text, keep=("name",)).form.encoding.codes["name"].words) == 29
    with pytest.raises(InvalidInput, match=r"column for --drop 'bb'.*Did you mean 'b'"):
        load(tmp_path, text, drop=("bb",))
    with pytest.raises(InvalidInput, match="it is the target"):
        load(tmp_path, text, drop=("y",))
    only = load(tmp_path, lines(range(40), Y, head="id,y\n"))
    assert only.features == ("id",)
    assert "b is equal to the target" in said(load(tmp_path, lines(A, B, B, head="a,b,y\n")))
    assert load(tmp_path, lines([10, 20] * 20, Y, head="zip,y\n"), category=("zip",)).features == (
        "zip = 10",
        "zip = 20",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines(A, [f"n{i}" for i in range(40)], head="a,y\n"), "40 classes in 40 rows, as 'n0'"),
        (lines(A, ["?"] * 40, head="a,y\n"), "the target 'y' has no cell"),
        (lines(A, [*Y[:-1], "oops"], head="a,y\n"), "line 41, column 'y': 'oops' is no number, and 39 others"),
        (lines([f"t {i}" for i in range(40)], Y, head="a,y\n"), "Left out: a .40 different texts"),
        (lines(A, B, Y, head="a,b,y\n") + "1,2\n1,2,3\n", "line 42 has 2 cells, the header has 3; complete the line"),
        (lines([f"{10**17 + i}" for i in range(40)], A, Y, head="a,b,y\n"), "above 2.53.*--drop 'a'"),
    ],
)
def test_what_cannot_be_understood_is_answered_by_what_to_do(tmp_path, content, words):
    with pytest.raises(PosterityError, match=words):
        load(tmp_path, content)


def test_only_training_rows_say_what_columns_become(tmp_path):
    found = load(tmp_path, lines(A, COLOUR, Y, head="a,b,y\n") + "900,zebra,0.5\n900,lion,0.5\n" * 4)
    train = found.train_inputs[:, 0] * found.scaling.input_std[0] + found.scaling.input_mean[0]
    code = found.form.encoding.codes["a"]
    assert code.median == pytest.approx(float(np.median(train.numpy())), abs=1e-4)


NEW = "extra,b,a\n1,zebra,0.5\n1,,NA\n1,b,-0.5\n"


def test_new_tables_go_through_the_form_that_was_written_down(tmp_path):
    found = load(tmp_path, lines(A, COLOUR, Y, head="a,b,y\n"))
    form = TableForm.from_dict(json.loads(json.dumps(found.form.to_dict())))
    assert form == found.form
    columns, notes = form.cells(form.sheet(NEW.encode(), tmp_path / "new.csv"))
    median = found.form.encoding.codes["a"].median
    assert form.encoding.numbers(columns)[:, 0].tolist() == [0.5, median, -0.5]
    assert form.encoding.indicators(columns).tolist() == [[0, 0], [0, 0], [0, 1]]
    assert any("1 cell holds a category that training did not see ('zebra')" in note for note in notes)
    assert "Missing cells: a 1, b 1." in notes
    for text, words in (
        ("a\n1\n", "lacks b; it has a"),
        ("c,d\n1,x\n", "lacks a, b; it has c, d"),
        ("1,z\n2,z\n", "2 columns without a header; the run's table has a header of names: a, b"),
        ("a,b\nhigh,a\n", "line 2, column 'a': 'high' is no finite number"),
    ):
        with pytest.raises(PosterityError, match=words):
            form.cells(form.sheet(text.encode(), tmp_path / "new.csv"))


def test_tables_without_a_header_go_by_place_and_the_target_may_be_there_or_not(tmp_path):
    form = load(tmp_path, lines(Y, COLOUR, A), target="x0").form
    for text in ("0.1,b,2.5\n", "b,2.5\n"):
        columns, _ = form.cells(form.sheet(text.encode(), tmp_path / "new.csv"))
        assert (columns["x1"].cells[0], columns["x2"].cells[0]) == ("b", 2.5)
    with pytest.raises(
        InvalidInput, match="1 columns without a header; the run's table has 2 columns, or 3 with the target"
    ):
        form.sheet(b"2.5\n", tmp_path / "new.csv")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "category"},
        {"median": float("nan")},
        {"words": "abc"},
        {"other": 1},
    ],
)
def test_a_form_that_was_tampered_with_is_refused(tmp_path, change):
    values = load(tmp_path, PLAIN).form.to_dict()
    values["columns"][0]["code"].update(change)
    with pytest.raises(ValueError, match=r"columns|median|read as|writes"):
        TableForm.from_dict(values)


def test_a_table_of_numbers_alone_has_the_numbers_that_it_always_had(tmp_path):
    found = load(tmp_path, PLAIN)
    rows = np.array([[float(cell) for cell in row.split(",")] for row in PLAIN.split()[1:]])
    train = found.train_inputs.numpy() * found.scaling.input_std.numpy() + found.scaling.input_mean.numpy()
    kept = np.array([int(np.abs(rows[:, :2] - one).sum(1).argmin()) for one in train])
    expected = (rows[kept, :2] - rows[kept, :2].mean(0)) / rows[kept, :2].std(0)
    assert np.array_equal(found.train_inputs.numpy(), expected.astype(np.float32))


def test_a_long_table_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("posterity.data.sheet.PIECE", 1)
    late = [*(str(n) for n in range(39)), "x"]  # a text after the first piece: read again, as texts
    text = lines(late, A, COLOUR, Y, head="a,b,c,y\n")
    pieces = load(tmp_path, text, keep=("a",))
    monkeypatch.undo()
    assert torch.equal(pieces.train_inputs, load(tmp_path, text, keep=("a",)).train_inputs)


def test_a_table_of_its_own_is_the_test_part_by_the_form_of_the_other(tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("y,b,a\nno,zebra,0.5\nno,b,NA\n")
    text = lines(A, COLOUR, ["yes", "no"] * 20, head="a,b,y\n")
    found = load(tmp_path, text, test=str(test))
    assert (len(found.train_inputs), found.test_inputs.shape, found.test_targets.tolist()) == (40, (2, 3), [0, 0])
    assert found.test_inputs[:, 1:].tolist() == [[0, 0], [0, 1]]
    assert abs(found.train_inputs[:, 0].mean()) < 1e-6
    assert any(note.startswith("Test: ") and "'zebra'" in note for note in found.notes)
    assert set(found.source) == {"mine.csv", "test.csv"}
    test.write_text("y,b,a\nmaybe,a,0.5\n")
    with pytest.raises(InvalidInput, match="has classes that 'mine.csv' has not: maybe"):
        load(tmp_path, text, test=str(test))
