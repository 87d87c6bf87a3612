"""From the bytes of a text table to a data set, with what was understood in a few sentences."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posterity.data.columns import MISSING, Column, Encoding
from posterity.data.dataset import Dataset, Options, Reader
from posterity.data.files import digest
from posterity.data.form import Input, TableForm, listed
from posterity.data.frames import read_table
from posterity.data.reading import Reading, read_kinds, thousands
from posterity.data.scale import Rows, Table, standardised
from posterity.data.separated import SEPARATORS
from posterity.data.sheet import Sheet, Wanted, some
from posterity.data.tables import Target, coded, encode_targets, key, target_name, target_of, uninformative
from posterity.errors import InvalidInput, unknown
from posterity.text import short

Split: TypeAlias = Callable[[NDArray[Any], tuple[str, ...]], tuple[Rows, Rows]]
MOST_CELLS = 1 << 30  # of what the network takes: 4 GiB
SOME = 5  # examples in a sentence
KINDS = {"number": "number", "truth": "truth value", "category": "category", "date": "date"}


@dataclass(frozen=True, eq=False)
class Inputs:
    """The columns that are inputs, in the rows that have a target, and why the others are not."""

    readings: dict[str, Reading]
    columns: dict[str, Column]
    left: dict[str, str]

    def without(self, left: Mapping[str, str]) -> "Inputs":
        """Leave some out."""
        return Inputs(
            {name: one for name, one in self.readings.items() if name not in left},
            {name: one for name, one in self.columns.items() if name not in left},
            {**self.left, **left},
        )


def load_table(content: bytes, path: Path, options: Options, split: Split) -> Dataset:
    """Read a text table whose columns are of any kind; what was understood is in the `notes` of the data set.

    Args:
        content: of the file; path: its name, for messages.
        options: the target, the task, and what corrects a wrong guess.
        split: chooses training and test rows by the targets and the names of classes.

    Raises:
        CorruptFile, InvalidInput: in one line that says what to do.
    """
    return standardised(*_table(content, path, options, split))


def load_tables(content: bytes, path: Path, options: Options, test: bytes, test_path: Path) -> Dataset:
    """Read a table to train on, and another one to test on, by the same form.

    Raises:
        CorruptFile, InvalidInput: as `load_table`, and for classes that the first table does not have.
    """

    def whole(targets: NDArray[Any], classes: tuple[str, ...]) -> tuple[Rows, Rows]:
        return np.arange(len(targets)), np.arange(0)

    own, train, _ = _table(content, path, options, whole)
    assert own.form is not None
    task = "classification" if own.classes else "regression"
    reader = replace(options.table, form=own.form)
    other, _, _ = _table(test, test_path, replace(options, target=own.form.target, task=task, table=reader), whole)
    targets = other.targets
    if strange := [name for name in other.classes if name not in own.classes]:
        raise InvalidInput(f"'{test_path.name}' has classes that '{path.name}' has not: {listed(strange)}.")
    if own.classes:
        targets = np.array([own.classes.index(name) for name in other.classes], np.int64)[targets]
    both = [one for one in (own.indicators, other.indicators) if one is not None]
    table = replace(
        own,
        inputs=np.concatenate([own.inputs, other.inputs]),
        targets=np.concatenate([own.targets, targets]),
        source={**own.source, **other.source},
        indicators=np.concatenate(both) if both else None,
        notes=(*own.notes, *(f"Test: {note}" for note in other.notes)),
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
    if form is not None and options.task == "classification":
        targets, classes = coded(target.values)  # of another table some classes may be absent
    else:
        targets, classes = encode_targets(target.values, options.task or target.task, path.name)
    train, test = split(targets, classes)
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
            _of_file(sheet, path),
            _of_target(sheet, target, targets, classes),
            *_of_inputs(sheet, inputs, form),
            *([" ".join(doubts)] if doubts else []),
        ),
    )
    return table, train, test


def _told(content: bytes, path: Path, options: Options) -> tuple[Sheet, dict[str, Reading], list[str]]:
    """Read a table, and tell the kinds of its columns from their cells."""
    reader = options.table
    missing = frozenset(word.strip().lower() for word in reader.missing)
    wanted = Wanted(reader.header, (), (), frozenset(reader.category), missing, lambda name: name not in reader.drop)
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
    names = [name for name in sheet.cells if name != target.name]
    own = {name: readings[name] for name in names if name in readings}
    columns = _kept({name: reading.column(sheet, name) for name, reading in own.items()}, target)
    left = dict.fromkeys(reader.drop, "dropped")
    left |= {name: "empty" for name in names if name not in own}
    inputs = Inputs(own, columns, left)
    useless, notes = uninformative(sheet, own, columns, reader.keep)
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
    doubts += _leaks(inputs.columns, target)
    encoding = Encoding.learnt({name: training[name] for name in inputs.columns})
    form = TableForm(
        tuple(Input(name, inputs.readings[name], code) for name, code in encoding.codes.items()),
        reader.missing,
        () if sheet.headed else sheet.names,
        target.name,
    )
    return form, inputs


def _kept(columns: Mapping[str, Column], target: Target) -> dict[str, Column]:
    """Keep the rows that have a target."""
    if target.kept.all():
        return dict(columns)
    return {name: Column(one.kind, one.cells[target.kept]) for name, one in columns.items()}


def _is_constant(column: Column) -> bool:
    if column.kind == "category":
        return len(set(column.cells.tolist())) < 2
    return bool(np.isnan(column.cells).all() or (column.cells == column.cells[0]).all())


def _leaks(columns: Mapping[str, Column], target: Target) -> list[str]:
    """Say which inputs are the target itself."""
    kind = "category" if target.values.dtype.kind == "U" else "number"
    own = key(
        Column("category", target.values.astype(object)) if kind == "category" else Column("number", target.values)
    )
    same = [name for name, column in columns.items() if key(column) == own]
    return [f"{listed(same)} is equal to the target: leave it out with --drop '{same[0]}'."] if same else []


def _check_size(path: Path, rows: int, form: TableForm) -> None:
    if rows * len(form.features) > MOST_CELLS:
        raise InvalidInput(
            f"'{path.name}': {rows:,} rows of {len(form.features):,} inputs are more than the {MOST_CELLS:,} values that fit. "
            "Leave columns out: --drop NAME."
        )


def _of_file(sheet: Sheet, path: Path) -> str:
    parts = f"of {sheet.form}" if sheet.form else f"separated by {SEPARATORS[sheet.separator]}"
    said = f"{path.name}: {len(sheet.lines):,} rows, {len(sheet.names):,} columns {parts}."
    return " ".join([said, *sheet.notes[:SOME]])


def _of_target(sheet: Sheet, target: Target, targets: NDArray[Any], classes: Sequence[str]) -> str:
    if classes:
        parts = [f"{short(name)} ({rows:,})" for name, rows in zip(classes, np.bincount(targets), strict=True)]
        said = f"{len(classes)} classes, {some(parts)}"
    else:
        how = f" ({target.how})" if target.how else ""
        said = f"a quantity from {targets.min():,.6g} to {targets.max():,.6g}{how}"
    text = f"Target '{short(target.name)}': {said}."
    gone = np.flatnonzero(~target.kept)
    if len(gone):
        many = "s" * (len(gone) > 1)
        lines = some(sheet.lines[gone[: SOME + 1]].tolist())
        text += f" {len(gone):,} row{many} without a target left out ({sheet.unit}{many} {lines})."
    return text


def _of_inputs(sheet: Sheet, inputs: Inputs, form: TableForm) -> list[str]:
    parts = []
    for kind, word in KINDS.items():
        names = [name for name, one in inputs.readings.items() if one.kind == kind]
        if names:
            plural = word if len(names) == 1 else f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
            parts.append(f"{len(names):,} {plural} ({_few(names)})")
    written = {
        name: str(one.writing) for name, one in inputs.readings.items() if one.kind == "number" and str(one.writing)
    }
    wide = f"; {len(form.features):,} numbers for the network" if len(form.features) != len(inputs.columns) else ""
    lines = [f"Inputs: {', '.join(parts)}{wide}."]
    if written:
        lines[0] += f" Written: {_few([f'{name} ({how})' for name, how in written.items()])}."
    gone = {name: _missing(column) for name, column in inputs.columns.items()}
    if found := [f"{name} {count:,}" for name, count in gone.items() if count]:
        markers = sorted({word or "empty" for name in inputs.columns for word in sheet.cells[name].markers})
        said = "" if markers == ["empty"] else f" ({some(markers)})"
        lines.append(f"Missing cells{said}: {_few(found)}; the median, or a category of their own, stands for them.")
    reasons: dict[str, list[str]] = {}
    for name, why in inputs.left.items():
        reasons.setdefault(why, []).append(name)
    if reasons:
        why = "; ".join(f"{_few(names)} ({why})" for why, names in reasons.items())
        hint = " --keep NAME keeps one." if set(reasons) - {"dropped", "empty", "constant"} else ""
        lines.append(f"Left out: {why}.{hint}")
    return lines


def _missing(column: Column) -> int:
    return int((column.cells == MISSING).sum() if column.kind == "category" else np.isnan(column.cells).sum())


def _few(names: Collection[str]) -> str:
    some = ", ".join(map(short, list(names)[:SOME]))
    return f"{some}, and {len(names) - SOME:,} more" if len(names) > SOME else some
