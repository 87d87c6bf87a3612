"""Rows parted by time, and by groups that stay whole: those of the test, and those of validation."""

import datetime

import numpy as np
import pytest
import torch

from posterity import TensorData, data
from posterity.data import Options, Reader
from posterity.data.splits import held_out
from posterity.errors import InvalidInput

N = 100
RNG = np.random.default_rng(0)
DAYS = RNG.integers(0, 60, N)  # several rows of a day
GROUPS = RNG.integers(0, 8, N)
Y = RNG.normal(size=N).round(4)  # tells the rows apart


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "mine.csv"
    rows = [
        f"{_day(day)},P{group},{row % 9},{y}\n" for row, (day, group, y) in enumerate(zip(DAYS, GROUPS, Y, strict=True))
    ]
    path.write_text("day,patient,a,y\n" + "".join(rows))
    return path


def _day(number):
    return (datetime.date(2020, 1, 1) + datetime.timedelta(days=int(number))).strftime("%d/%m/%Y")


def load(path, split=0, **options):
    return data.load(str(path), split=split, options=Options(target="y", table=Reader(**options)))


def parts(found):
    """The table's rows that are trained on, held out for validation, and tested on."""
    own = TensorData(found.train_inputs, found.train_targets)
    own = held_out(own, found.blocks, 0.25, seed=0)
    raw = [found.scaling.restore_targets(one) for one in (own.targets, own.held_out[1], found.test_targets)]
    return [np.array([int(np.abs(Y - y).argmin()) for y in one.tolist()]) for one in raw]


def test_the_last_in_time_are_tested_on_and_those_before_them_validate(table):
    found = load(table, split_by="time:day")
    train, validation, test = parts(found)
    assert sorted([*train, *validation, *test]) == list(range(N))
    assert DAYS[train].max() < DAYS[validation].min() <= DAYS[validation].max() < DAYS[test].min()
    assert abs(len(test) - N / 5) <= 2
    assert abs(len(validation) - 20) <= 2
    assert found.form.names == ("day", "patient", "a")
    assert f"Tested on: {len(test)} of 100 rows, the last by 'day', from 2020-" in found.notes[-1]


def test_no_group_is_on_two_sides(table):
    found = load(table, split_by="group:patient")
    sides = [set(GROUPS[rows].tolist()) for rows in parts(found)]
    assert sorted(group for side in sides for group in side) == sorted(set(GROUPS.tolist()))
    assert found.form.names == ("day", "a")
    assert "Left out: patient (rows are split by it)." in "\n".join(found.notes)
    assert "2 of the 8 groups of 'patient', drawn with seed 0. No group" in found.notes[-1]
    assert load(table, split_by="group:patient", keep=("patient",)).form.names == ("day", "patient", "a")
    other = load(table, split=3, split_by="group:patient")
    assert not torch.equal(other.test_targets, found.test_targets)


def test_a_column_that_is_dropped_still_parts_the_rows(table):
    dropped = load(table, split_by="time:day", drop=("day",))
    assert dropped.form.names == ("patient", "a")
    assert torch.equal(dropped.test_targets, load(table, split_by="time:day").test_targets)


def test_rows_that_no_block_is_known_of_are_left_out_and_said(table, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(table.read_text().replace("P0,", ",").replace(f"{Y[-1]}\n", "\n"))
    found = load(path, split_by="group:patient")
    rows = int(((GROUPS != 0) & (np.arange(N) < N - 1)).sum())
    assert len(found.train_targets) + len(found.test_targets) == rows
    assert f"{99 - rows} rows without 'patient' left out (lines" in "\n".join(found.notes)
    assert "1 row without a target left out (line 101)." in found.notes[1]


@pytest.mark.parametrize(
    ("split_by", "said"),
    [
        ("time:dya", "Did you mean 'day'?"),
        ("time:patient", "texts, neither dates of one order nor numbers. Columns of dates: day."),
        ("time:y", "it is the target"),
        ("class", "split so anyway"),
        ("stratified", "expected time:COLUMN"),
        ("group:", "expected time:COLUMN"),
    ],
)
def test_what_cannot_part_rows_is_refused(table, split_by, said):
    with pytest.raises(InvalidInput, match=said.replace("?", r"\?")):
        load(table, split_by=split_by)


def test_one_block_cannot_be_parted(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("g,a,y\n" + "".join(f"same,{row},{y}\n" for row, y in enumerate(Y)))
    with pytest.raises(InvalidInput, match="all 100 rows are of 'same'"):
        load(path, split_by="group:g")
    two = tmp_path / "two.csv"
    two.write_text("g,a,y\n" + "".join(f"{'ab'[row % 2]},{row % 9},{y}\n" for row, y in enumerate(Y)))
    with pytest.raises(InvalidInput, match="--validation 0"):
        parts(load(two, split_by="group:g"))
