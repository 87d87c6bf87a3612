"""Scores of a posterior on data that take no part in its training."""

from collections.abc import Iterable
from math import nan
from typing import Any

from torch import Generator

from posterity.train.sums import Sums, summed
from posterity.types import Batch, Scores
from posterity.weighing import known, of_data, size


def scored(posterior: Any, batches: Iterable[Batch], draws: int, seed: int) -> Scores:
    """Return the headline scores over all batches, each datum once, by the same draws for every batch and every call.

    Differences between epochs are then no noise of the draws.
    """
    sums = Sums()
    for batch in batches:
        inputs, targets = batch[:2]
        generator = Generator(device=inputs.device).manual_seed(seed)
        predictive = posterior.predict(inputs, draws, generator=generator)
        if (there := known(batch)) is not None:
            targets = targets.masked_fill(~there, nan)  # each number by itself
        weights = of_data(batch)
        scores = predictive.scores(targets) if weights is None else predictive.scores(targets, weights)
        sums.add(summed(scores, batch), size(batch))
    return sums.means()
