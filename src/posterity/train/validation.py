"""Scores of a posterior on data that take no part in its training."""

from collections.abc import Iterable
from typing import Any

from torch import Generator

from posterity.train.sums import Sums, summed
from posterity.types import Batch, Scores


def scored(posterior: Any, batches: Iterable[Batch], draws: int, seed: int) -> Scores:
    """Return the headline scores over all batches, each datum once, by the same draws for every batch and every call.

    Differences between epochs are then no noise of the draws.
    """
    sums = Sums()
    for inputs, targets in batches:
        generator = Generator(device=inputs.device).manual_seed(seed)
        scores = posterior.predict(inputs, draws, generator=generator).scores(targets)
        sums.add(summed(scores, targets), len(targets))
    return sums.means()
