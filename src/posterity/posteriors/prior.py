"""The prior as a distribution over functions: what a network predicts before it has seen data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.options import require
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import AnyPredictive
from posterity.types import Prior


@dataclass(frozen=True, eq=False, repr=False)
class PriorDraws(FunctionPosterior, stored=False):
    """p(θ): the random weights are drawn from their prior; everything else is as the network has it.

    That is: points, normalisation layers, and the likelihood's latents, which stand at their initial values.
    """

    source: Prior  # the problem's own is flat: θ then is the weights, whatever coordinates the source would have used
    kind: ClassVar[str] = "prior"

    @classmethod
    def of(cls, problem: Problem) -> Self:
        return cls(replace(problem.snapshot(), prior=Flat()), problem.prior)

    def sample(self, generator: Generator | None = None) -> Tensor:
        where = self.problem.coordinates
        views = where.layout.views(where.theta())
        drawn = self.source.sample(where.shapes(), generator)
        own = where.random_layout.whole({n: drawn[n].to(views[n]) for n in where.random_names})
        return where.layout.flatten({**views, **own})

    @property
    def mean(self) -> Tensor:
        return self.problem.theta()

    def tensors(self) -> dict[str, Tensor]:
        raise InvalidInput("Draws from a prior are not saved: make them again from the problem.")

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls.of(problem)


def prior_predictive(
    problem: Problem, inputs: Tensor, n: int = 100, *, generator: Generator | None = None
) -> AnyPredictive:
    """Predict from the prior alone, p(y | x) = ∫ p(y | f(θ, x)) p(θ) dθ: n functions, their weights drawn from the prior.

    Look at it before inference: a prior whose functions are all saturated, flat or wild says something that you may not mean.

    Args:
        problem: its network is not changed; its present weights do not matter, but for those that are not random.
        inputs: (B, ...).
        n: number of functions.
        generator: source of the draws; torch's global one where None.

    Raises:
        InvalidInput: for an improper prior, and inputs that do not fit the network.
    """
    require(problem=(problem, Problem))
    return PriorDraws.of(problem).predict(inputs, n, generator=generator)
