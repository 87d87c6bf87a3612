"""Predictions that are compared are made by the same functions."""

from dataclasses import dataclass

from torch import Generator, Tensor

from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.point import Point
from posterity.predict.predictive import Classification, Regression
from posterity.train.random import derived_seed


@dataclass(frozen=True)
class Averaging:
    """How many functions are averaged, and from which seed they are drawn: the same functions for all inputs."""

    draws: int = 32
    seed: int = 0

    def predict(self, posterior: FunctionPosterior, inputs: Tensor) -> Classification | Regression:
        """Predict inputs (B, ...) by these functions; a point has one."""
        generator = Generator(device=posterior.mean.device).manual_seed(derived_seed(self.seed, "predict"))
        return posterior.predict(inputs, 1 if isinstance(posterior, Point) else self.draws, generator=generator)


USUAL = Averaging()
