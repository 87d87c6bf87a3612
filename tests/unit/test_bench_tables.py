"""The study of tables: its splits are those that others print of, and each row is scored on rows it has not seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from posterity.bench import tables
from posterity.bench.study import Job
from posterity.bench.table import markdown, ranks
from posterity.cli.bench import _told
from posterity.errors import DataNotFound


def test_airfoil_is_the_published_split_in_units_of_the_targets() -> None:
    try:
        data = tables.rows("airfoil", 3)
    except DataNotFound as reason:
        pytest.skip(str(reason))
    scaler = StandardScaler().fit(data.inputs)
    line = LinearRegression().fit(scaler.transform(data.inputs), data.targets)
    missed = line.predict(scaler.transform(data.new)) - data.truth
    assert np.sqrt(np.mean(missed**2)) == pytest.approx(0.659863, abs=1e-6)  # as the authors of the split have it


@pytest.mark.parametrize(("name", "classes"), [("iris", 3), ("diabetes", 0)])
def test_rows_are_parted_and_each_class_is_on_both_sides(name: str, classes: int) -> None:
    data, other = tables.rows(name, 0), tables.rows(name, 1)
    learnt = {tuple(row) for row in data.inputs}
    assert data.classes == bool(classes)
    assert not classes or len(set(data.truth)) == classes
    assert sum(tuple(row) in learnt for row in data.new) <= 1  # iris has a row twice
    assert not np.array_equal(data.new, other.new)


@pytest.mark.parametrize(
    ("name", "method", "scores"),
    [
        ("iris", "logistic", {"accuracy", "nll", "ece"}),
        ("iris", "boosting", {"accuracy", "nll", "ece"}),
        ("iris", "network", {"accuracy", "nll", "ece"}),
        ("diabetes", "boosting", {"rmse", "coverage_90"}),
        ("diabetes", "network", {"rmse", "nll", "crps", "coverage_90"}),
        ("diabetes", "mean_field", {"rmse", "nll", "crps", "coverage_90"}),
    ],
)
def test_rows_have_the_scores_of_their_columns(
    name: str, method: str, scores: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "STEPS", 40)
    record = tables.run(Job(name, method, 0), tmp_path)
    assert scores <= record["scores"].keys()
    targets = tables.rows(name, 0).targets
    assert _told(tables.TABLES, Job(name, method, 0), record).startswith(
        f"{name}, split 0, {tables.ROWS[method].title}: "
    )
    assert 0 < record["scores"].get("rmse", 1.0) < 2 * np.std(targets)  # in their own units


def test_ranks_are_of_means_and_leave_out_what_has_no_density() -> None:
    def records(*values: float | None) -> list[dict[str, object]]:
        return [{"scores": {} if value is None else {"nll": value}} for value in values]

    found = {
        "a": {"x": records(1.0, 3.0), "y": records(1.5, 1.6), "z": records(None)},
        "b": {"x": records(0.1), "y": records(0.2)},
        "c": {"x": records(0.1)},
    }
    assert ranks(found, "nll") == {"y": [1, 2], "x": [2, 1]}
    empty = dict.fromkeys(found, ())
    methods = {"x": "the x", "y": "the y", "z": "the z", "w": "the w"}
    study = replace(tables.TABLES, methods=methods, columns=empty, published=empty, by_name=frozenset())
    assert "| the x | 2 | 1.50 |" in markdown(study, found)
    columns = dict.fromkeys(study.sets, ())
    apart = replace(study, columns=columns, published=columns, by_name=frozenset({"y"}))  # takes no rank from others
    assert "| the x | 1 | 1.00 |" in markdown(apart, {"a": found["a"] | {"w": records(9.0)}})
