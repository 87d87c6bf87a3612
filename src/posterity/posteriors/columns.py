"""What each column of a table does to predictions: what is lost where it says nothing, and what is expected along it.

Both are asked of each function that is drawn from the posterior, so that they come with its intervals, and both are of the
model: columns that say the same share their importance, and rows may be mixed into ones that no table holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import check_inputs
from posterity.options import require, shown
from posterity.posteriors.asked import check_posterior
from posterity.posteriors.average import USUAL, Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.checks import class_labels
from posterity.predict.predictive import AnyPredictive, Classification, draw_log_probs
from posterity.train.random import derived_seed
from posterity.weighing import there

AT_ONCE = 1 << 13  # rows that are predicted in one call


@dataclass(frozen=True, eq=False)
class Importance:
    """What each of n functions loses where one column's cells are those of other rows.

    losses: (n,), nats per row: the mean of log p(y | x, θ_s) over the rows, less that of the exchanged ones.
    error: by how much the averaged prediction gets worse: RMSE in units of the target, of classes the accuracy that is lost;
        None where the likelihood has no mean.

    >>> found = Importance("age", torch.tensor([0.1, 0.2, 0.3]), error=1.5)
    >>> round(found.loss, 3), [round(end, 3) for end in found.interval(0.9)]
    (0.2, [0.11, 0.29])
    """

    name: str
    losses: Tensor
    error: float | None

    @property
    def loss(self) -> float:
        """What the middle one of the functions loses, in nats per row: a mean would be that of a few which run away."""
        return self.losses.quantile(0.5).item()

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Return the central interval over the functions, in nats per row."""
        lower, upper = _between(self.losses, level)
        return lower.item(), upper.item()


@dataclass(frozen=True, eq=False)
class Dependence:
    """What each of n functions expects, on average over the rows, where some columns have the same values in all of them.

    values: (G, K), what K columns are set to. expected: (n, G), in units of the target, or (n, G, C) probabilities.

    >>> found = Dependence(torch.zeros(2, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> found.mean, found.rescale(0.0, 10.0).interval(0.9)[0]
    (tensor([2., 3.]), tensor([11., 21.]))
    """

    values: Tensor
    expected: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean over the functions, (G,) or (G, C)."""
        return self.expected.mean(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the central interval over the functions, each end (G,) or (G, C): of their mean over rows, without noise."""
        return _between(self.expected, level)

    def rescale(self, mean: float, std: float) -> "Dependence":
        """Return it in original units, for targets that were standardised."""
        return Dependence(self.values, self.expected * std + mean)


@torch.no_grad()
def permutation_importance(
    posterior: FunctionPosterior,
    inputs: Tensor,
    targets: Tensor,
    groups: Mapping[str, Sequence[int]],
    averaging: Averaging = USUAL,
    shuffles: int = 5,
) -> tuple[Importance, ...]:
    """Say what is lost in log score where the cells of a column, or of several at once, are exchanged among the rows.

        I_s(g) = (1/B)Σ_i [log p(y_i | x_i, θ_s) − (1/R)Σ_r log p(y_i | x_i with g of row π_r(i), θ_s)]

    (Breiman 2001; Fisher, Rudin, Dominici 2019.) π_r are R of the B − 1 rotations of a random order of the rows: none keeps its
    own cells, and with `shuffles` ≥ B − 1 the mean is exactly the one over all pairs of rows, Fisher's e_switch. Every
    column, and every exchange, meets the same functions. A column that no function reads has exactly 0.

    Args:
        posterior: of a network that takes rows (B, D).
        inputs: (B, D), rows that it was not trained on; targets: as the likelihood takes them.
        groups: what is exchanged together, by name: {"age": [0], "colour": [1, 2, 3]}.
        averaging: number and seed of the functions, and of the exchanges.
        shuffles: R.

    Raises:
        InvalidInput: for fewer than two rows, other inputs than a table, columns that are not there, and likelihoods without
            a density.

    >>> from posterity import Gaussian, Normal, Problem
    >>> from posterity.posteriors.samples import Samples
    >>> problem = Problem(torch.nn.Linear(2, 1, bias=False), Normal(0, 1), Gaussian(std=1.0), num_data=3)
    >>> posterior = Samples(problem, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> x = torch.tensor([[-1.0, 5.0], [0.0, 7.0], [1.0, 9.0]])
    >>> first, second = permutation_importance(posterior, x, 1.5 * x[:, 0], {"a": [0], "b": [1]})
    >>> first.losses, second.losses  # w² Var[x] − w (w − 1.5) Var[x], Var[x] = 1
    (tensor([1.5000, 3.0000], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    _check(posterior, inputs, list(groups.items()))
    require(targets=(targets, Tensor), averaging=(averaging, Averaging), shuffles=(shuffles, int))
    rows = len(inputs)
    if rows < 2 or shuffles < 1 or len(targets) != rows:
        raise InvalidInput(
            f"Cells are exchanged among at least 2 rows with a target each, at least once; got {rows} rows, {len(targets)} "
            f"targets, shuffles={shuffles}."
        )
    donors = _donors(rows, shuffles, averaging.seed).to(inputs.device)
    whole, names = _Answer.of(posterior, inputs, targets, averaging), list(groups)
    at_once = max(1, AT_ONCE // donors.numel())
    found: list[Importance] = []
    for some in (names[start : start + at_once] for start in range(0, len(names), at_once)):
        mixed = inputs.repeat(len(some), len(donors), 1, 1)
        for own, name in zip(mixed, some, strict=True):
            columns = list(groups[name])
            own[..., columns] = inputs[:, columns][donors]
        repeated = targets.repeat(len(some) * len(donors), *[1] * (targets.dim() - 1))
        answer = _Answer.of(posterior, mixed.flatten(0, 2), repeated, averaging)
        found += [_compared(name, whole, own) for name, own in zip(some, answer.split(len(some)), strict=True)]
    return tuple(found)


@torch.no_grad()
def partial_dependence(
    posterior: FunctionPosterior,
    inputs: Tensor,
    columns: Sequence[int],
    values: Tensor,
    averaging: Averaging = USUAL,
) -> Dependence:
    """Say what is expected, on average over the rows, where some columns are set to the same values in all of them.

        f̄_s(v) = (1/B)Σ_i E[y | x_i with columns := v, θ_s]                                          (Friedman 2001)

    Args:
        posterior: of a network that takes rows (B, D).
        inputs: (B, D), rows like those that it was trained on.
        columns: K of them, that belong together.
        values: (G, K), what they are set to.
        averaging: number and seed of the functions.

    Raises:
        InvalidInput: for other inputs than a table, columns that are not there, and likelihoods without a mean.

    >>> from posterity import Gaussian, Normal, Problem
    >>> from posterity.posteriors.samples import Samples
    >>> problem = Problem(torch.nn.Linear(2, 1, bias=False), Normal(0, 1), Gaussian(std=1.0), num_data=3)
    >>> posterior = Samples(problem, torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    >>> x = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    >>> partial_dependence(posterior, x, [0], torch.tensor([[0.0], [10.0]])).expected
    tensor([[ 4., 14.],
            [ 4., 34.]], dtype=torch.float64)
    """
    _check(posterior, inputs, [("columns", columns)])
    require(values=(values, Tensor), averaging=(averaging, Averaging))
    if not len(inputs) or values.dim() != 2 or not len(values) or values.shape[1] != len(columns):
        raise InvalidInput(
            f"{len(columns)} columns are set to values of shape (G, {len(columns)}) in at least one row; got "
            f"{tuple(values.shape)} and {len(inputs)} rows."
        )
    mixed = inputs.repeat(len(values), 1)
    mixed[:, list(columns)] = values.to(inputs).repeat_interleave(len(inputs), 0)
    expected = _expected(averaging.functions(posterior, mixed))
    return Dependence(values, expected.unflatten(1, (len(values), len(inputs))).mean(2))


@dataclass(frozen=True, eq=False)
class _Answer:
    """What n functions say of rows with a target.

    log_scores: (n, B), nats; known: (B,), whether there is a target. misses: (B,), squared errors of the average, or of classes
    whether it is wrong; None where there is no average; power: of their mean that is the error.
    """

    log_scores: Tensor
    known: Tensor
    misses: Tensor | None
    power: float

    @classmethod
    def of(cls, posterior: FunctionPosterior, inputs: Tensor, targets: Tensor, averaging: Averaging) -> "_Answer":
        found = averaging.functions(posterior, inputs)
        logs = draw_log_probs(found, targets).double()
        known = there(targets).to(logs)
        if isinstance(found, Classification):
            labels = class_labels(targets, *found.mean.shape, ignored=found.ignored).to(found.mean.device)
            return cls(logs, known, (found.labels != labels).double(), 1.0)
        try:
            away = _expected(found).mean(0) - targets.to(logs)
        except InvalidInput:  # the family has no mean
            return cls(logs, known, None, 0.5)
        return cls(logs, known, away.square().nan_to_num().reshape(len(targets), -1).mean(1), 0.5)

    def split(self, count: int) -> Iterator["_Answer"]:
        """Divide it into those of equally many rows."""
        misses = [None] * count if self.misses is None else self.misses.chunk(count)
        parts = zip(self.log_scores.chunk(count, 1), self.known.chunk(count), misses, strict=True)
        return (_Answer(logs, known, own, self.power) for logs, known, own in parts)

    @property
    def error(self) -> float | None:
        if self.misses is None:
            return None
        mean: float = ((self.misses * self.known).sum() / self.known.sum()).item()
        return float(mean**self.power)


def _compared(name: str, whole: _Answer, own: _Answer) -> Importance:
    """Say what is lost, row by row, so that it is exactly 0 where nothing is."""
    rows = (whole.log_scores.unsqueeze(1) - own.log_scores.unflatten(1, (-1, len(whole.known)))).mean(1)
    error = None if whole.error is None or own.error is None else own.error - whole.error
    return Importance(name, (rows * whole.known).sum(1) / whole.known.sum(), error)


def _expected(predictive: AnyPredictive) -> Tensor:
    """Return what each function expects, (n, B), or its probabilities, (n, B, C)."""
    return (predictive.probs if isinstance(predictive, Classification) else predictive.means).double()


def _donors(rows: int, shuffles: int, seed: int) -> Tensor:
    """Return whose cells each row gets, (R, B): R rotations of a random order."""
    generator = Generator().manual_seed(derived_seed(seed, "exchange"))
    order = torch.randperm(rows, generator=generator)
    steps = 1 + torch.randperm(rows - 1, generator=generator)[:shuffles]
    donors = torch.empty(len(steps), rows, dtype=torch.long)
    donors[:, order] = torch.stack([order.roll(-int(step)) for step in steps])
    return donors


def _between(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    if not 0 < level < 1:
        raise InvalidInput(f"An interval's level is a probability strictly between 0 and 1, such as 0.9; got {level}.")
    ends = values.new_tensor([(1 - level) / 2, (1 + level) / 2])
    lower, upper = values.quantile(ends, 0)
    return lower, upper


def _check(posterior: FunctionPosterior, inputs: Tensor, groups: Sequence[tuple[str, Sequence[int]]]) -> None:
    check_posterior(posterior)
    check_inputs(inputs)
    if not isinstance(inputs, Tensor) or inputs.dim() != 2:
        raise InvalidInput(f"Columns are those of a table (B, D); got inputs {shown(inputs)}.")
    for name, columns in groups:
        if strange := [one for one in columns if not isinstance(one, int) or not 0 <= one < inputs.shape[1]]:
            raise InvalidInput(
                f"{shown(name)} has column {shown(strange[0])}; the {inputs.shape[1]} columns are numbered 0 to "
                f"{inputs.shape[1] - 1}."
            )
        if not len(columns):
            raise InvalidInput(f"{shown(name)} has no columns; give at least one, as [0].")
