"""The report of a table: what its columns did, in the file's units and by its names, and its worst rows, by theirs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from posterity import Categorical, Gaussian, Normal, Problem
from posterity.data import Dataset, load
from posterity.data.columns import MISSING, RARE, Column, Encoding
from posterity.metrics.scores import evaluate
from posterity.posteriors.samples import Samples
from posterity.report import Model, ReportData, render
from posterity.report.cells import Cells, moment, places_of
from posterity.report.effects import Effects, effects
from posterity.report.figures_columns import plot_along, plot_importance
from posterity.report.style import Figure
from tests.drawings import empty

LONG = "area of the dwelling with cellar and attic in square metres as the owner declared it"


@pytest.fixture(autouse=True)
def drawings_of_pages_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    empty(Figure, monkeypatch.setattr)


def write(path: Path, target: str = "price", gaps: bool = True) -> Path:
    rng = np.random.default_rng(0)
    lines = [f"{LONG},garden,built,rooms,kind,{target}"]
    for row in range(120):
        area, rooms, kind = 50 + row, "" if gaps and row % 10 == 3 else str(row % 5), rng.choice(["<b>flat</b>", "hut"])
        garden, built = rng.choice(["yes", "no"]), f"{1990 + row % 30}-0{1 + row % 9}-17"
        price = 1000 * area + 20000 * (garden == "yes") if target == "price" else ("dear" if area > 109 else "cheap")
        lines.append(f"{area},{garden},{built},{rooms},{kind},{price}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(str(write(tmp_path_factory.mktemp("houses") / "houses.csv")))


def linear(dataset: Dataset, weights: dict[str, float], spread: float = 0.0, draws: int = 5) -> Samples:
    """Functions that are linear in some of the network's inputs, alike but for the spread of these weights."""
    count = max(dataset.num_classes, 1)
    network = nn.Linear(len(dataset.features), count, bias=False)
    one = torch.zeros(count, len(dataset.features))
    for name, weight in weights.items():
        one[-1, dataset.features.index(name)] = weight
    factors = 1 + spread * torch.linspace(-1, 1, draws).unsqueeze(1)
    likelihood = Categorical() if dataset.classes else Gaussian(std=0.2)
    return Samples(Problem(network, Normal(0, 1), likelihood, num_data=96), factors * one.flatten())


def asked(posterior: Samples, dataset: Dataset) -> Effects:
    found = effects(posterior, dataset, posterior.predict(dataset.test_inputs, 5), seed=0)
    assert found is not None
    return found


def page(posterior: Samples, dataset: Dataset, found: Effects | None) -> str:
    predictive, targets = posterior.predict(dataset.test_inputs, 5), dataset.test_targets
    if not dataset.classes:
        predictive = predictive.rescale(dataset.scaling.target_mean, dataset.scaling.target_std)
        targets = dataset.scaling.restore_targets(targets)
    model = Model("Bayes", predictive, evaluate(predictive, targets), [], 9, 1.0, 5)
    data = ReportData(
        "T",
        dataset.task,
        dataset.test_inputs,
        targets,
        model,
        classes=dataset.classes,
        cells=Cells.of(dataset),
        effects=found,
    )
    return render(data)


def test_inputs_are_written_as_the_file_has_them(houses, tmp_path):
    cells = Cells.of(houses)
    rows = [
        line.split(",") for line in write(tmp_path / "again.csv").read_text().replace(LONG, "area").splitlines()[1:]
    ]
    for i in (0, 5, 11, 23):
        number = int(cells.rows[i].removeprefix("line ").split(":")[0])
        area, garden, built, rooms, kind = (cells.text(name, i) for name in (LONG, "garden", "built", "rooms", "kind"))
        assert [area, garden, built, rooms.replace(MISSING, ""), kind] == rows[number - 2][0:1] + rows[number - 2][
            -5:-1
        ]
    assert len(cells.rows) == 24 == len(houses.test_inputs)
    assert MISSING in {cells.text("rooms", i) for i in range(24)}
    assert moment(19723.4368, True) == "2024-01-01 10:30"


def test_columns_that_share_or_lack_an_indicator_come_back_as_rare():
    words = np.array(["a"] * 5 + ["b"] * 4 + ["c", "d"], object)
    encoding = Encoding.learnt({"w": Column("category", words)}, min_frequency=2)
    back = encoding.decoded(encoding.indicators({"w": Column("category", words)}).astype(np.float64))
    assert back["w"].cells.tolist() == ["a"] * 5 + ["b"] * 4 + [RARE] * 2


def test_a_column_of_the_file_is_one_whatever_it_became(houses):
    places = places_of(houses)
    assert list(places) == [LONG, "garden", "built", "rooms", "kind"]
    assert sorted(place for one in places.values() for place in one) == list(range(len(houses.features)))
    assert len(places["built"]) == 5  # days, and two waves of two
    assert [houses.features[place] for place in places["rooms"]] == ["rooms", "rooms is missing"]
    found = asked(
        linear(houses, {"kind = hut": 1.0, "kind = <b>flat</b>": -1.0, "cosine of the year of built": 0.3}), houses
    )
    losses = {one.name: one.loss for one in found.importances}
    assert losses["kind"] != 0 != losses["built"]
    assert losses[LONG] == losses["rooms"] == losses["garden"] == pytest.approx(0, abs=1e-6)


def test_what_is_expected_is_in_the_units_of_the_file(houses):
    weight = 34785 / houses.scaling.target_std  # of price, for a standard deviation of the area
    posterior = linear(houses, {LONG: weight}, spread=0.1)
    found = asked(posterior, houses)
    first = found.along[0]
    assert first.name == LONG == found.importances[0].name
    assert found.outcome == "expected price"
    slope = 34785 / houses.scaling.input_std[houses.features.index(LONG)].item()
    assert np.allclose(np.diff(first.mean) / np.diff(first.cells), slope, rtol=1e-3)
    assert (first.lower <= first.mean).all()
    assert (first.upper - first.lower)[[0, -1]].min() > 0
    error = found.importances[0].error
    assert error is not None
    assert 10_000 < error < 60_000  # dollars, not standard deviations


def test_of_two_classes_it_is_the_probability_of_the_second(tmp_path):
    dataset = load(str(write(tmp_path / "dear.csv", target="dear", gaps=False)))
    found = asked(linear(dataset, {LONG: 3.0, "garden": 0.5}), dataset)
    assert found.outcome == "probability of dear = dear"
    along = {one.name: one for one in found.along}
    assert along[LONG].mean[0] < 0.1 < 0.9 < along[LONG].mean[-1]
    assert not along[LONG].apart
    assert along["garden"].apart
    assert along["kind"].cells.tolist() == ["<b>flat</b>", "hut"] or along["kind"].cells.tolist() == [
        "hut",
        "<b>flat</b>",
    ]


def test_the_page_names_rows_and_columns_and_hides_no_mark(houses):
    posterior = linear(houses, {LONG: 1.0}, spread=0.1)
    html = page(posterior, houses, asked(posterior, houses))
    part = html[html.index("<h2>The worst predicted rows") :]
    named = re.findall(r"<td>(line \d+)</td>", part)
    predictive = posterior.predict(houses.test_inputs, 5)
    worst = predictive.log_prob(houses.test_targets).argsort()[:10].tolist()
    assert named == [houses.test_names[i] for i in worst]
    assert "What each column did" in html
    assert "Along each column" in html
    assert "<b>flat</b>" not in html
    assert "&lt;b&gt;flat&lt;/b&gt;" in html
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.S)
    silent = page(posterior, houses, None)
    assert "What each column did" not in silent
    assert "The worst predicted rows" in silent


def test_of_many_columns_twelve_are_shown_and_the_others_counted(tmp_path):
    rng = np.random.default_rng(0)
    for count in (1, 40, 150):
        x = rng.normal(size=(60, count))
        names = [f"sensor {i}" for i in range(count)]
        table = "\n".join(",".join(map(str, (*row, 3 * row[-1]))) for row in x)
        (tmp_path / "wide.csv").write_text(",".join([*names, "y"]) + "\n" + table)
        dataset = load(str(tmp_path / "wide.csv"))
        posterior = linear(dataset, {names[-1]: 1.0})
        found = asked(posterior, dataset)
        assert found.importances[0].name == names[-1]
        assert found.columns == count
        html = page(posterior, dataset, found)
        text = html[html.index("What each column did") : html.index("Along each column")]
        assert len(re.findall(r"<td>sensor", text)) == min(count, 12)
        assert ("Not shown: 28 columns" in text) == (count == 40)
        assert ("a rough look" in text) == (count == 150)


def test_figures_show_the_numbers(houses):
    found = asked(linear(houses, {LONG: 1.0}, spread=0.2), houses)
    (ax,) = plot_importance(found).axes
    assert ax.lines[1].get_xdata()[0] == found.importances[0].loss
    assert ax.yaxis.get_ticklabels()[0].get_text() == f"{LONG[:23]}…"
    cells = Cells.of(houses)
    along = {one.name: one for one in found.along}
    line = plot_along(along[LONG], found.outcome, cells).axes[0].lines[0]
    assert np.array_equal(line.get_ydata(), along[LONG].mean)
    labels = [text.get_text() for text in plot_along(along["garden"], found.outcome, cells).axes[0].get_yticklabels()]
    assert labels == ["no", "yes"]


def test_nothing_is_asked_of_images_and_of_two_rows(houses):
    assert Cells.of(replace(houses, test_inputs=torch.zeros(9, 1, 8, 8))) is None
    few = replace(houses, test_inputs=houses.test_inputs[:2], test_targets=houses.test_targets[:2])
    posterior = linear(houses, {LONG: 1.0})
    assert effects(posterior, few, posterior.predict(few.test_inputs, 5), 0) is None
