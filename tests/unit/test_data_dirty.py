"""Tables as offices and instruments write them: what is no row is left out and said, what is odd is said, or refused."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data import Options, Reader
from posterity.errors import PosterityError

N = 40
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=N).round(3), RNG.normal(size=N).round(3)
C, Y = list("abcd" * 10), RNG.normal(size=N).round(3)
BODY = "".join(f"{a},{b},{c},{y}\n" for a, b, c, y in zip(A, B, C, Y, strict=True))
PLAIN = "a,b,c,y\n" + BODY


def load(folder, content, name="mine.csv", **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    target, task = options.pop("target", None), options.pop("task", None)
    return data.load(str(path), options=Options(target=target, task=task, table=Reader(**options)))


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Sales of 2024\nfrom: us\n" + PLAIN, "Above the table, and passed over: 'Sales of 2024', 'from: us'."),
        ("Sales of 2024,,,\n,,,\n" + PLAIN, "Above the table, and passed over: 'Sales of 2024'."),
        (
            "a,b,c,y\ncm,kg,,EUR\n" + BODY,
            "Line 2 ('cm', 'kg', 'EUR') is between names and numbers, as units are: left out.",
        ),
        (PLAIN + "Total,12,,99\n", "Line 42 at the end ('Total'): a total or a note, and no row; left out."),
        (PLAIN + "Total:,12,,99\n,,,\nSource: us,,,\n", "Lines 42, 44 at the end ('Total:', 'Source: us'):"),
        (PLAIN + "Exported by X\nfrom Y\n", "Line 43, at the end, is no row ('from Y'): left out."),
        (PLAIN + "a,b,c,y\n", "1 row with the names again left out (line 42)."),
        (PLAIN.replace("\n", ",,\n"), "Each row ends with 2 separators too many."),
        ("a,b,c,y\n" + BODY.replace("\n", ",,,\n"), "Each row ends with 3 separators too many."),
        (PLAIN.encode("utf-16-le"), "The letters are UTF-16."),
        (' a , b ,"c" ,"y" \n' + BODY, "40 rows, 4 columns separated by commas."),
        ("sep=^\n" + PLAIN.replace(",", "^"), "40 rows, 4 columns separated by ^."),
        (gzip.compress(PLAIN.encode()), "40 rows"),
        (zipped(table__csv=PLAIN), "40 rows"),
    ],
)
def test_what_is_no_row_is_left_out_and_said(tmp_path, content, said):
    whole, found = load(tmp_path, PLAIN), load(tmp_path, content)
    assert torch.equal(found.train_inputs, whole.train_inputs)
    assert torch.equal(found.test_targets, whole.test_targets)
    assert found.features == whole.features
    assert said in found.notes[0]


def test_rows_that_only_look_like_totals_and_names_stay(tmp_path):
    column = ["Total", "part"] * 20
    found = load(tmp_path, "kind,x,y\n" + "".join(f"{k},{a},{y}\n" for k, a, y in zip(column, A, Y, strict=True)))
    assert len(found.train_inputs) + len(found.test_inputs) == N
    texts = "k,c\n" + "".join(f"{a},{b}\n" for a, b in zip("ka" * 20, ["cdc", "d"] * 20, strict=False))
    assert len(load(tmp_path, texts, header=True).train_inputs) == 32


@pytest.mark.parametrize("name", ["mine.csv.gz", "mine.zip", "mine.gz"])
def test_packed_tables_are_unpacked_by_any_name(tmp_path, name):
    packed = zipped(t__csv=PLAIN) if name.endswith("zip") else gzip.compress(PLAIN.encode())
    assert torch.equal(load(tmp_path, packed, name).train_inputs, load(tmp_path, PLAIN).train_inputs)


@pytest.mark.parametrize(
    ("write", "writing"),
    [
        ("{} kg", "in kg"),
        ("{} °C", "in °C"),
        ("{:.2f} EUR", "in EUR"),
        ("CHF {}", "in CHF"),
        ("US$ {}", "in US$"),
        ("₹{}", "in ₹"),
        ("{} m/s", "in m/s"),
    ],
)
def test_numbers_beside_one_unit_are_numbers(tmp_path, write, writing):
    numbers = np.arange(1, N + 1) / 4
    rows = "".join(f"{write.format(x)};{y}\n" for x, y in zip(numbers, Y, strict=True))
    found = load(tmp_path, "x;y\n" + rows)
    assert f"Written: x ({writing})" in found.notes[2]
    assert found.scaling.input_mean.item() == pytest.approx(numbers.mean(), rel=0.1)


@pytest.mark.parametrize(
    "words", [["3 kg", "4 g"], ["1st", "2nd"], ["3A", "4B"], ["Q1", "Q2"], ["10 Downing St", "11 Elm St"]]
)
def test_numbers_beside_several_words_are_texts(tmp_path, words):
    found = load(tmp_path, "x;y\n" + "".join(f"{words[row % 2]};{y}\n" for row, y in enumerate(Y)))
    assert found.form.columns[0].code.kind == "category"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            ["2020-01-02", "03/01/2020"] * 20,
            "'x': dates of several orders, as '2020-01-02' and '03/01/2020', were read as text.",
        ),
        (["Paris", "PARIS", "Rome", "Oslo"] * 10, "'x': 'PARIS', 'Paris' differ in their capitals alone"),
        ([*A[1:], 1e9], "'x': 1e+09 in line 41 is over 100 times as far from the median as 90% of the cells are."),
    ],
)
def test_what_is_odd_is_said(tmp_path, column, said):
    found = load(tmp_path, "x,y\n" + "".join(f"{x},{y}\n" for x, y in zip(column, Y, strict=True)))
    assert said in "\n".join(found.notes)


def test_truth_values_of_any_capitals_are_two_classes(tmp_path):
    found = load(tmp_path, "x,y\n" + "".join(f"{a},{('Yes', 'no', 'NO', 'yes')[row % 4]}\n" for row, a in enumerate(A)))
    assert found.classes == ("no", "yes")
    assert "'y': 'NO', 'Yes' were read in small letters." in "\n".join(found.notes)
    counted = load(tmp_path, "x,id\n" + "".join(f"{a},{row}\n" for row, a in enumerate(A)))
    assert "The target 'id' counts the rows" in "\n".join(counted.notes)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("x,y\n" + "1,5\n2,5\n" * 9, "mine.csv", "the target is '5' in all 18 rows"),
        ("x,y\n" + "".join(f"{a},{y}e-30\n" for a, y in zip(A, Y, strict=True)), "mine.csv", "Give it in another unit"),
        ("<!DOCTYPE html>\n<html>,</html>\n", "mine.csv", "a page of the web"),
        ('[{"a": 1, "b": 2}]\n', "mine.csv", "it is JSON"),
        ("a^b\n1^2\n", "mine.csv", "as sep=^"),
        ("a,y\n" + '"3" pipe",1\n' * 9, "mine.csv", "line 2 is no CSV"),
        (b"PK\x03\x04" + b"x" * 99, "mine.zip", "a damaged zip archive"),
        (zipped(a__csv=PLAIN, b__csv=PLAIN), "mine.zip", "it holds 2 files"),
        (zipped(mimetype="x", sheet="y"), "mine.zip", "a workbook"),
        (b"PK", "mine.xlsx", "save its sheet as CSV"),
        (PLAIN + "1,2\n" + BODY, "mine.csv", "line 42 has 2 cells, the header has 4"),
    ],
)
def test_what_no_table_is_made_of_is_refused_by_one_line(tmp_path, content, name, said):
    with pytest.raises(PosterityError) as caught:
        load(tmp_path, content, name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_new_tables_may_write_their_numbers_otherwise(tmp_path):
    form = load(tmp_path, PLAIN).form
    path = tmp_path / "new.csv"
    path.write_text("a;b;c\n1,5;2,25;a\n")
    columns, notes = form.cells(form.sheet(path.read_bytes(), path))
    assert (columns["a"].cells.tolist(), columns["b"].cells.tolist()) == ([1.5], [2.25])
    assert notes[0] == "'a': its numbers are written otherwise than in training (decimal commas)."
    path.write_text("a;b;c\n1,500;2,250;a\n")  # thousands, or decimals
    with pytest.raises(PosterityError, match="'1,500' is no finite number"):
        form.cells(form.sheet(path.read_bytes(), path))


def test_years_are_names_above_numbers_and_data_above_years(tmp_path):
    rows = "".join(f"Land {row},{a},{b}\n" for row, (a, b) in enumerate(zip(A, B, strict=True)))
    assert load(tmp_path, "country,1990,1991\n" + rows).form.target == "1991"
    years = "".join(f"{'pqr'[row % 3]},{1990 + row % 7},{1991 + row % 9}\n" for row in range(N))
    assert load(tmp_path, years).form.names == ("x0", "x1")


def test_no_thousands_begin_with_nought(tmp_path):
    small, large = (np.round(np.linspace(low, low + 0.9, N), 3) for low in (0.05, 1.05))
    rows = "".join(f"{i},5;{a:.3f};{y:.3f}\n" for i, a, y in zip(range(N), small, small + large, strict=True))
    found = load(tmp_path, "x;a;y\n" + rows.replace(f"{large[0]:.3f}", "1.050"))
    assert found.scaling.input_mean[1].item() == pytest.approx(small.mean(), abs=0.2)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (Options(target="y"), "--target"),
        (Options(table=Reader(drop=("a",))), "--drop"),
        (Options(table=Reader(split_by="time:a")), "--split-by"),
        (Options(table=Reader(header=True)), "--data.header"),
    ],
)
def test_what_is_said_of_columns_is_refused_where_there_are_none(tmp_path, options, flag):
    np.savez(tmp_path / "mine.npz", x=np.stack([A, B], 1), y=Y)
    for name in ("digits", str(tmp_path / "mine.npz")):
        with pytest.raises(PosterityError, match=f"{flag}: .*Leave it out"):
            data.load(name, options=options)
