"""From the bytes of a text table to a data set, with what was understood in a few sentences."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posterity.data.columns import Column, Encoding
from posterity.data.dataset import Dataset, Options, Reader
from posterity.data.doubts import doubts_of
from posterity.data.files import digest
from posterity.data.form import Input, TableForm, listed
from posterity.data.frames import read_table
from posterity.data.naming import called
from posterity.data.reading import Reading, read_kinds, thousands
from posterity.data.scale import Rows, Table, standardised
from posterity.data.sheet import Sheet, Wanted
from posterity.data.splits import Blocks, By, blocks_of
from posterity.data.summary import SOME, Inputs, of_file, of_inputs, of_target
from posterity.data.tables import Target, coded, encode_targets, target_name, target_of, uninformative
from posterity.errors import InvalidInput, unknown
from posterity.text import short, some

Split: TypeAlias = Callable[[NDArray[Any], tuple[str, ...], Blocks | None], tuple[Rows, Rows, str]]
MOST_CELLS = 1 << 30  # of what the network takes: 4 GiB


def load_table(content: bytes, path: Path, options: Options, split: Split) -> Dataset:
    """Read a text table whose columns are of any kind; what was understood is in the `notes` of the data set.

    Args:
        content: of the file; path: its name, for messages.
        options: the target, the task, and what corrects a wrong guess.
        split: chooses training and test rows by the targets, the names of classes and the rows' blocks, and says which.

    Raises:
        CorruptFile, InvalidInput: in one line that says what to do.
    """
    return standardised(*_table(content, path, options, split))


def load_tables(content: bytes, path: Path, options: Options, test: bytes, test_path: Path) -> Dataset:
    """Read a table to train on, and another one to test on, by the same form.

    Raises:
        CorruptFile, InvalidInput: as `load_table`, and for classes that the first table does not have.
    """

    def whole(targets: NDArray[Any], classes: tuple[str, ...], blocks: Blocks | None) -> tuple[Rows, Rows, str]:
        return np.arange(len(targets)), np.arange(0), ""

    own, train, _ = _table(content, path, options, whole)
    assert own.form is not None
    task = "classification" if own.classes else "regression"
    reader = replace(options.table, form=own.form, split_by=None)
    other, _, _ = _table(test, test_path, replace(options, target=own.form.target, task=task, table=reader), whole)
    targets = other.targets
    if strange := [name for name in other.classes if name not in own.classes]:
        raise InvalidInput(f"'{test_path.name}' has classes that '{path.name}' has not: {listed(strange)}.")
    if own.classes:
        targets = np.array([own.classes.index(name) for name in other.classes], np.int64)[targets]
    said = f"Tested on: the {len(targets):,} rows of {test_path.name}."
    if options.table.by is not None:
        said += f" What is held out for validation is parted by '{short(options.table.by.column)}'."
    both = [one for one in (own.indicators, other.indicators) if one is not None]
    table = replace(
        own,
        inputs=np.concatenate([own.inputs, other.inputs]),
        targets=np.concatenate([own.targets, targets]),
        source={**own.source, **other.source},
        indicators=np.concatenate(both) if both else None,
        notes=(*own.notes, *(f"Test: {note}" for note in other.notes), said),
        called=lambda row: other.called(row - len(own.targets)),
    )
    return standardised(table, train, np.arange(len(own.targets), len(table.targets)))


def _table(content: bytes, path: Path, options: Options, split: Split) -> tuple[Table, Rows, Rows]:
    """Read a table, and choose its training and test rows.

    Raises:
        CorruptFile, InvalidInput: in one line that says what to do.
    """
    form = options.table.form
    sheet, readings, doubts = _told(content, path, options) if form is None else _known(content, path, options, form)
    name = target_name(sheet.names, options.target or (form.target if form else "") or None, path)
    target = target_of(sheet, name, readings.get(name), options.task)
    blocks, gone = None, ""
    if options.table.by is not None:
        target, blocks, gone = _blocks(sheet, readings, target, options.table.by)
    if form is not None and options.task == "classification":
        targets, classes = coded(target.values)  # of another table some classes may be absent
    else:
        targets, classes = encode_targets(target.values, options.task or target.task, path.name)
    train, test, parts = split(targets, classes, blocks)
    if form is None:
        form, inputs = _formed(sheet, readings, doubts, target, train, options.table)
    else:
        inputs = Inputs({one.name: one.reading for one in form.columns}, _kept(form.cells(sheet)[0], target), {})
    encoding = form.encoding
    _check_size(path, len(targets), form)
    table = Table(
        name=path.stem,
        inputs=encoding.numbers(inputs.columns),
        targets=targets,
        features=form.features,
        classes=classes,
        source={path.name: digest(content)},
        indicators=encoding.indicators(inputs.columns) if encoding.indicator_names else None,
        form=form,
        notes=(
            of_file(sheet, path),
            of_target(sheet, target, targets, classes),
            *of_inputs(sheet, inputs, form),
            *([" ".join(doubts)] if doubts else []),
            *filter(None, [gone, parts]),
        ),
        blocks=None if blocks is None else blocks.rows(train),
        called=called(sheet, form.identifier, target.kept),
    )
    return table, train, test


def _told(content: bytes, path: Path, options: Options) -> tuple[Sheet, dict[str, Reading], list[str]]:
    """Read a table, and tell the kinds of its columns from their cells."""
    reader = options.table
    missing = frozenset(word.strip().lower() for word in reader.missing)
    unread = set(reader.drop) - {reader.by.column if reader.by else None}
    wanted = Wanted(reader.header, (), (), frozenset(reader.category), missing, lambda name: name not in unread)
    sheet = read_table(content, path, wanted).worded(reader.category)
    for flag, names in (("--drop", reader.drop), ("--keep", reader.keep), ("--data.category", reader.category)):
        if strange := next((name for name in names if name not in sheet.names), None):
            raise unknown(f"column for {flag}", strange, sheet.names)
    if (target := target_name(sheet.names, options.target, path)) in reader.drop:
        raise InvalidInput(f"--drop '{target}': it is the target. Name another one: --target NAME.")
    if target not in sheet.cells:
        raise InvalidInput(
            f"'{path.name}': the target '{target}' was not read. {sheet.notes[-1]} Another: --target NAME."
        )
    if len(sheet.cells) < 2:
        raise InvalidInput(f"'{path.name}': without {listed(reader.drop)} there is no input left.")
    readings, doubts = read_kinds(sheet, reader.category, reader.decimal, reader.dates)
    if texts := thousands(sheet, readings, reader.decimal):
        sheet = read_table(content, path, replace(wanted, texts=wanted.texts | texts))
        readings, doubts = read_kinds(sheet, reader.category, reader.decimal, reader.dates)
    return sheet, readings, doubts


def _known(
    content: bytes, path: Path, options: Options, form: TableForm
) -> tuple[Sheet, dict[str, Reading], list[str]]:
    """Read a table as a run's was, and tell its target from its cells."""
    name = options.target or form.target
    sheet = form.sheet(content, path, also=(name,) if name else ())
    readings, doubts = read_kinds(sheet, options.table.category, options.table.decimal, options.table.dates)
    return sheet, readings, [*doubts, *form.cells(sheet)[1]]


def _formed(
    sheet: Sheet, readings: Mapping[str, Reading], doubts: list[str], target: Target, train: Rows, reader: Reader
) -> tuple[TableForm, Inputs]:
    """Choose the inputs, and learn from the training rows what becomes of them; what is not certain joins the `doubts`."""
    left = dict.fromkeys(reader.drop, "dropped")
    if reader.by and reader.by.kind == "group" and reader.by.column not in reader.keep:
        left.setdefault(reader.by.column, "rows are split by it")
    names = [name for name in sheet.cells if name != target.name and name not in left]
    own = {name: readings[name] for name in names if name in readings}
    columns = _kept({name: reading.column(sheet, name) for name, reading in own.items()}, target)
    left |= {name: "empty" for name in names if name not in own}
    inputs = Inputs(own, columns, left)
    useless, notes, identifier = uninformative(sheet, own, columns, reader.keep)
    inputs = inputs.without(useless)
    training = {name: Column(one.kind, one.cells[train]) for name, one in inputs.columns.items()}
    constant = {name: "constant" for name, one in training.items() if _is_constant(one)}
    inputs = inputs.without(constant)
    if not inputs.columns:
        why = ", ".join(f"{short(name)} ({why})" for name, why in list(inputs.left.items())[:SOME])
        raise InvalidInput(
            f"'{sheet.path.name}': no input column varies over the {len(train)} training rows. Left out: {why}. "
            + " ".join(["To keep one: --keep NAME.", *doubts])
        )
    doubts += notes
    doubts += doubts_of(sheet, inputs.columns, target)
    encoding = Encoding.learnt({name: training[name] for name in inputs.columns})
    form = TableForm(
        tuple(Input(name, inputs.readings[name], code) for name, code in encoding.codes.items()),
        reader.missing,
        () if sheet.headed else sheet.names,
        target.name,
        identifier,
    )
    return form, inputs


def _blocks(sheet: Sheet, readings: Mapping[str, Reading], target: Target, by: By) -> tuple[Target, Blocks, str]:
    """Return the blocks of the rows that have a target and one; the others are left out, and said."""
    there, blocks = blocks_of(sheet, readings, target.name, by)
    both = target.kept & there
    blocks = blocks.rows(np.flatnonzero(both[there]))
    others = target.kept & ~there
    lines = sheet.lines[others]
    if not len(lines):
        return target, blocks, ""
    many = "s" * (len(lines) > 1)
    said = (
        f"{len(lines):,} row{many} without '{short(by.column)}' left out ({sheet.unit}{many} {some(lines.tolist())})."
    )
    return replace(target, values=target.values[both[target.kept]], kept=both, others=others), blocks, said


def _kept(columns: Mapping[str, Column], target: Target) -> dict[str, Column]:
    """Keep the rows that have a target."""
    if target.kept.all():
        return dict(columns)
    return {name: Column(one.kind, one.cells[target.kept]) for name, one in columns.items()}


def _is_constant(column: Column) -> bool:
    if column.kind == "category":
        return len(set(column.cells.tolist())) < 2
    return bool(np.isnan(column.cells).all() or (column.cells == column.cells[0]).all())


def _check_size(path: Path, rows: int, form: TableForm) -> None:
    if rows * len(form.features) > MOST_CELLS:
        raise InvalidInput(
            f"'{path.name}': {rows:,} rows of {len(form.features):,} inputs are more than the {MOST_CELLS:,} values that fit. "
            "Leave columns out: --drop NAME."
        )
