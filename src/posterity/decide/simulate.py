"""Active learning with labels that are there already: learning curves, to compare ways to choose by."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from posterity.decide.acquire import Predicts, choose
from posterity.errors import InvalidInput
from posterity.train.random import derived_seed
from posterity.types import Scores

Pair: TypeAlias = tuple[Tensor, Tensor]  # inputs, targets
Fit: TypeAlias = Callable[[Tensor, Tensor, int], Predicts]


@dataclass(frozen=True)
class Plan:
    """How many labels are bought, when, and by what.

    Args:
        score: see `choose`.
        start: labels of inputs that are drawn at random, to begin with: the same ones for all scores of one seed.
        batch: labels between two fits.
        labels: at the end.
        draws: functions averaged, for scores and predictions.
        candidates: inputs of the pool that are looked at before each choice, drawn at random; None: all of them.
        seed: of all that is random here; fits have seeds of their own.

    Raises:
        InvalidInput: for counts below 1, and fewer labels at the end than at the start.

    >>> Plan("bald", start=20, batch=20, labels=70).rounds
    (20, 40, 60, 70)
    """

    score: str
    start: int = 20
    batch: int = 10
    labels: int = 200
    draws: int = 32
    candidates: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"start": self.start, "batch": self.batch, "draws": self.draws, "candidates": self.candidates or 1}
        for name, value in counts.items():
            if value < 1:
                raise InvalidInput(f"{name} is {value}; it must be at least 1.")
        if self.labels < self.start:
            raise InvalidInput(f"labels is {self.labels}; it must be at least start, {self.start}.")
        if self.candidates is not None and self.candidates < self.batch:
            raise InvalidInput(f"candidates is {self.candidates}; a batch of {self.batch} is chosen from them.")

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many labels each fit has."""
        return (*range(self.start, self.labels, self.batch), self.labels)


@dataclass(frozen=True)
class Round:
    """One fit: with so many labels, those of `chosen` new; how well it predicts the test data."""

    labels: int
    chosen: tuple[int, ...]
    scores: Scores


def simulate(fit: Fit, pool: Pair, test: Pair, plan: Plan, done: Sequence[Round] = ()) -> Iterator[Round]:
    """Buy labels batch by batch, and yield each fit's test scores: draws with the same seed make the same curve.

    1. The first `start` labels are of inputs drawn at random.
    2. Fit with all labels so far; score on the test data.
    3. Choose the next batch among the inputs without a label, by that fit; go on with 2.

    Args:
        fit: (inputs, targets, number of the round from 0) → what can predict. It should start from fresh weights each time:
            weights that were trained with fewer labels make the next fit worse (Ash & Adams 2020).
        pool: inputs (B, ...) and their targets (B, ...), which are looked at only once they are bought.
        test: inputs and targets to score on.
        plan: see `Plan`.
        done: rounds of an earlier, interrupted call with the same arguments, to go on from; they are not yielded again.

    Raises:
        InvalidInput: where the pool is smaller than the plan needs, and as `choose`.
    """
    if plan.labels > len(pool[0]):
        raise InvalidInput(f"The plan needs {plan.labels:,} labels, and the pool has {len(pool[0]):,} inputs.")
    order = torch.randperm(len(pool[0]), generator=_generator(plan, "start")).tolist()
    labelled = [place for entry in done for place in entry.chosen]
    posterior: Predicts | None = None
    for index, count in enumerate(plan.rounds):
        if index < len(done):
            continue
        if index == 0:
            new = order[:count]
        else:
            before = posterior or fit(*_labelled(pool, labelled), index - 1)
            new = _chosen(before, pool[0], labelled, plan, index)
        labelled = [*labelled, *new]
        posterior = fit(*_labelled(pool, labelled), index)
        generator = _generator(plan, "test", index)
        scores = posterior.predict(test[0], plan.draws, generator=generator).scores(test[1])
        yield Round(count, tuple(new), scores)


def labels_needed(rounds: Sequence[Round], target: float, score: str = "accuracy") -> int | None:
    """Return the labels of the first fit that reaches a score on the test data, None if none does.

    A score of accuracy has to be at least the target, any other at most.

    >>> curve = [Round(20, (), {"accuracy": 0.8}), Round(40, (), {"accuracy": 0.96})]
    >>> labels_needed(curve, 0.95), labels_needed(curve, 0.99)
    (40, None)
    """
    reached = (
        r.labels for r in rounds if (r.scores[score] >= target if score == "accuracy" else r.scores[score] <= target)
    )
    return next(reached, None)


def _chosen(posterior: Predicts, inputs: Tensor, labelled: Sequence[int], plan: Plan, index: int) -> list[int]:
    """Choose the batch that comes next, as places in the pool."""
    free = torch.ones(len(inputs), dtype=torch.bool)
    free[list(labelled)] = False
    places = free.nonzero().flatten()
    if plan.candidates is not None:
        some = torch.randperm(len(places), generator=_generator(plan, "candidates", index))[: plan.candidates]
        places = places[some.sort().values]
    count = plan.rounds[index] - plan.rounds[index - 1]
    generator = _generator(plan, "choice", index)
    found = choose(posterior, inputs[places], count, plan.score, draws=plan.draws, generator=generator)
    chosen: list[int] = places[found].tolist()
    return chosen


def _labelled(pool: Pair, places: Sequence[int]) -> Pair:
    return pool[0][list(places)], pool[1][list(places)]


def _generator(plan: Plan, *purpose: object) -> Generator:
    return Generator().manual_seed(derived_seed(plan.seed, *purpose))
