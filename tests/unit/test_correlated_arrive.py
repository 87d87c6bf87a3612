"""Families that contain mean field's reach a bound that is better, by their defaults."""

from typing import Any

import pytest
import torch

import posterity
from posterity import Engine, HeteroscedasticGaussian, LowRank, MeanField, Normal, TensorData
from posterity.bench.bound import Bounds
from posterity.data import load
from posterity.errors import DataNotFound
from posterity.zoo import MLP


def bound(method: Any, seed: int) -> float:
    """Return -ELBO in nats per row of a small network on concrete."""
    try:
        data = load("uci/concrete")
    except DataNotFound as error:
        pytest.skip(str(error))
    torch.manual_seed(seed)
    bounds = Bounds()
    posterity.fit(
        MLP((8, 50, 2)),
        TensorData(data.train_inputs, data.train_targets, batch_size=64),
        likelihood=HeteroscedasticGaussian(),
        prior=Normal(0, 1, fan_in=True),
        method=method,
        engine=Engine(seed=seed, device="cpu", progress=False, on_epoch=bounds),
    )
    return bounds.scores()["nelbo"]


@pytest.mark.slow
def test_low_rank_passes_mean_field_by_its_defaults() -> None:
    """Where half of the variance began in directions at random, it ended where mean field did (0.94 beside 0.97)."""
    seeds, epochs = (0, 1, 2), 133
    apart = [bound(MeanField("weight", epochs=epochs), seed) - bound(LowRank(epochs=epochs), seed) for seed in seeds]
    assert sum(apart) / 3 > 0.05
