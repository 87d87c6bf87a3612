"""What each column of a run's table did: its importance and its partial dependence, within a few seconds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posterity.data.columns import Array, Column
from posterity.data.dataset import Dataset
from posterity.posteriors.average import Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.columns import Dependence, Importance, partial_dependence, permutation_importance
from posterity.predict.predictive import AnyPredictive, Classification, General, Quantiles
from posterity.report.cells import Cells, places_of

ROWS, DRAWS, SHUFFLES = 500, 64, 5
LEAST_ROWS, LEAST_DRAWS = 100, 16  # however large the network is
EVALUATIONS, WORK = 3_200_000, 4e10  # of a function at a row, and times its weights: some seconds of a core
MANY = 100  # columns; of more, those are looked at that matter most by a rough look
ROUGH, ROUGHER = (60, 8), (20, 2)  # rows and functions of that look, and of a large network's
SHOWN, DRAWN = 12, 6  # columns by importance, and along which dependence is drawn
AVERAGED = 200  # rows that a dependence averages over
LEVELS, GRID = 10, 15  # categories that are drawn, the commonest; values of a number
FEW = 6  # different numbers, up to which each is drawn by itself


@dataclass(frozen=True, eq=False)
class Along:
    """The dependence on one column, at values of its cells that are in the file's units.

    cells: (G,), those values, rising, or categories by what is expected. hidden: how many further categories there are.
    marks: where a tenth, a quarter, half, … of the test rows lie, of numbers and dates.
    """

    name: str
    cells: Array
    mean: Array
    lower: Array
    upper: Array
    marks: Array
    hidden: int = 0

    @property
    def apart(self) -> bool:
        """Whether each value stands by itself, as categories do."""
        return self.cells.dtype.kind == "O" or len(self.cells) <= FEW


@dataclass(frozen=True, eq=False)
class Effects:
    """What columns did, by falling importance.

    importances: of all columns that were looked at, errors in the units of the target. along: of the first few.
    columns: how many the table has. outcome: what is expected along them, in words.
    """

    importances: tuple[Importance, ...]
    along: tuple[Along, ...]
    columns: int
    outcome: str
    rows: int
    draws: int
    shuffles: int


def effects(posterior: FunctionPosterior, dataset: Dataset, predictive: AnyPredictive, seed: int) -> Effects | None:
    """Ask a posterior what each column of the table did, on at most 500 test rows and by at most 64 functions.

    None where there is nothing to ask: the data are no table, two rows or fewer are left, or the likelihood has no density.
    """
    cells = Cells.of(dataset)
    if cells is None or isinstance(predictive, Quantiles) or len(cells.rows) < 3:
        return None
    places, most = places_of(dataset), min(EVALUATIONS, int(WORK / posterior.problem.layout.size))
    rows = _some(len(cells.rows), ROWS, seed)
    looked = _worth_a_look(posterior, dataset.test_inputs[rows], dataset.test_targets[rows], places, seed)
    count, draws, shuffles = _shares(most, len(looked), len(rows))
    rows, averaging = rows[_some(len(rows), count, seed)], Averaging(draws, seed)
    inputs, targets = dataset.test_inputs[rows], dataset.test_targets[rows]
    found = permutation_importance(posterior, inputs, targets, looked, averaging, shuffles)
    scale = 1.0 if dataset.classes or dataset.scaling is None else dataset.scaling.target_std
    ranked = tuple(sorted((_in_units(one, scale) for one in found), key=lambda one: -one.loss))
    outcome, chosen = _outcome(dataset, predictive)
    along: tuple[Along, ...] = ()
    if outcome:
        own = _some(len(rows), max(LEAST_ROWS // 5, min(AVERAGED, most // (DRAWN * GRID * draws))), seed)
        few = _Few(posterior, dataset, inputs[own], averaging, chosen)
        columns = {name: Column(one.kind, one.cells[rows.numpy()]) for name, one in cells.columns.items()}
        along = tuple(few.along(one.name, columns[one.name], inputs, places[one.name]) for one in ranked[:DRAWN])
    return Effects(ranked, along, len(places), outcome, len(rows), len(found[0].losses), shuffles)


@dataclass(frozen=True, eq=False)
class _Few:
    """What dependence is averaged over, and the class whose probability it is of; None for numbers."""

    posterior: FunctionPosterior
    dataset: Dataset
    inputs: Tensor
    averaging: Averaging
    chosen: int | None

    def along(self, name: str, column: Column, rows: Tensor, places: Sequence[int]) -> Along:
        """Set one column to cells of some of the rows, one after the other."""
        at, hidden = _grid(column)
        found = partial_dependence(self.posterior, self.inputs, places, rows[at][:, list(places)], self.averaging)
        mean, lower, upper = (part.cpu().numpy() for part in self._own(found))
        cells = column.cells[at]
        order = np.argsort(mean if column.kind == "category" else cells, kind="stable")
        marks = np.empty(0) if column.kind == "category" else np.nanquantile(column.cells, np.linspace(0.1, 0.9, 9))
        return Along(name, cells[order], mean[order], lower[order], upper[order], marks, hidden)

    def _own(self, found: Dependence) -> tuple[Tensor, Tensor, Tensor]:
        if self.chosen is not None:
            found = Dependence(found.values, found.expected[..., self.chosen])
        elif self.dataset.scaling is not None:
            found = found.rescale(self.dataset.scaling.target_mean, self.dataset.scaling.target_std)
        return (found.mean, *found.interval(0.9))


def _grid(column: Column) -> tuple[Array, int]:
    """Choose rows whose cells are looked at: the commonest categories, or quantiles; and count the categories left."""
    if column.kind == "category":
        common = [word for word, _ in Counter(column.cells.tolist()).most_common()]
        rows = [int((column.cells == word).argmax()) for word in common[:LEVELS]]
        return np.array(rows), len(common) - len(rows)
    known = np.flatnonzero(~np.isnan(column.cells))
    if not len(known):
        return np.array([0]), 0
    values, first = np.unique(column.cells[known], return_index=True)
    if len(values) <= FEW:
        return known[first], 0
    ranks = np.sort(column.cells[known])[np.linspace(0, len(known) - 1, GRID).round().astype(int)]
    return known[first[np.searchsorted(values, np.unique(ranks))]], 0


def _shares(most: int, columns: int, rows: int) -> tuple[int, int, int]:
    """Spend so many evaluations: on all rows and functions and several shuffles, or on as few as there must be.

    >>> _shares(EVALUATIONS, 10, 200), _shares(EVALUATIONS, 100, 500), _shares(60_000, 10, 500)
    ((200, 64, 5), (500, 64, 1), (375, 16, 1))
    """
    draws = min(DRAWS, max(LEAST_DRAWS, most // (columns * rows)))
    count = min(rows, max(LEAST_ROWS, most // (columns * draws)))
    return count, draws, min(SHUFFLES, max(1, most // (columns * count * draws)))


def _worth_a_look(
    posterior: FunctionPosterior, inputs: Tensor, targets: Tensor, places: Mapping[str, Sequence[int]], seed: int
) -> Mapping[str, Sequence[int]]:
    """Return all columns, or of very many those that lose most by a rough look."""
    if len(places) <= MANY:
        return places
    size = posterior.problem.layout.size
    rows, draws = ROUGH if len(places) * ROUGH[0] * ROUGH[1] * size < WORK else ROUGHER
    found = permutation_importance(posterior, inputs[:rows], targets[:rows], places, Averaging(draws, seed), 1)
    first = sorted(found, key=lambda one: -one.loss)[: 2 * SHOWN]
    return {one.name: places[one.name] for one in first}


def _outcome(dataset: Dataset, predictive: AnyPredictive) -> tuple[str, int | None]:
    """Say what is expected along a column; nothing where the likelihood has no mean."""
    target = (dataset.form.target if dataset.form is not None else "") or "target"
    if isinstance(predictive, Classification):
        counts = torch.bincount(dataset.test_targets.clamp(min=0), minlength=len(dataset.classes))
        chosen = 1 if len(dataset.classes) == 2 else int(counts.argmax())
        return f"probability of {target} = {dataset.classes[chosen]}", chosen
    if isinstance(predictive, General) and "rmse" not in predictive.scores(_original(dataset)):
        return "", None
    return f"expected {target}", None


def _original(dataset: Dataset) -> Tensor:
    scaling = dataset.scaling
    return dataset.test_targets if scaling is None else scaling.restore_targets(dataset.test_targets)


def _in_units(found: Importance, scale: float) -> Importance:
    return Importance(found.name, found.losses, None if found.error is None else found.error * scale)


def _some(count: int, most: int, seed: int) -> Tensor:
    """Choose rows, in order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:most].sort().values
