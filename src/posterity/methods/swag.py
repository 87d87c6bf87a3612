"""SWAG, stochastic weight averaging Gaussian: the moments of SGD's last iterates (Maddox et al. 2019).

    q(θ) = N(θ̄, ½ (Σ_diag + D Dᵀ/(K − 1))),     Σ_diag = mean of θ_t² − θ̄²,     D's columns: θ_t − θ̄_t, the last K

θ_t are iterates of SGD on the negative log joint of `MAP`, at a constant rate, after a burn-in; θ̄_t is their mean up to t
(Algorithm 1). It is an approximation whose width the learning rate and the batch size set: no law of the posterior holds for
it but that its mean is near the mode. Departures: iterates are spread evenly over what follows the burn-in, where the paper
has one per epoch; deviations are summed by Welford's recursion, which loses no digits. Batch normalisation's running
statistics are re-estimated by a pass over the training data: for each of `draws` functions, as in the paper, or once, at θ̄.
"""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from posterity.core.optimizer import Optimizer
from posterity.errors import InvalidInput
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.base import Method
from posterity.methods.map import PointInference
from posterity.methods.options import Epochs, pace_of
from posterity.methods.watching import Watching, run
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.statistics import estimate_statistics, estimated, spread
from posterity.types import Batch, Budget, Data, Engine, Info, Scores, State, Streams


@dataclass(frozen=True, config=STRICT)
class SWAG(Method):
    """SGD's own wandering as a posterior: the cheapest one with correlations. `Ensemble(SWAG(), 3)` is MultiSWAG.

    Args:
        rank: K, the number of last deviations kept; memory is K + 2 vectors.
        epochs: passes over the training data, burn-in included.
        burn_in: share of the steps before the first iterate is collected.
        iterates: how many are collected, at most one per step.
        statistics: where a network with batch normalisation has its running statistics from. `draw`: each function's own; a
            mixture of `draws` functions is returned, each drawn once. `mean`: those at θ̄, for all; q itself is returned.
        draws: how many functions `statistics="draw"` makes, at one pass over the training data each.
        optimizer: one of torch's, at a constant rate; high enough that SGD keeps moving.
    """

    rank: Annotated[int, Field(ge=2)] = 20
    epochs: Epochs = 20
    burn_in: Annotated[float, Field(ge=0, lt=1)] = 0.5
    iterates: Annotated[int, Field(ge=2)] = 40
    statistics: Literal["mean", "draw"] = "mean"
    draws: Annotated[int, Field(ge=1)] = 30
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer("SGD", lr=0.02, schedule="constant"))
    kind: Literal["swag"] = "swag"
    title = "SWAG"

    @model_validator(mode="after")
    def _constant(self) -> "SWAG":
        if self.optimizer.schedule != "constant":
            raise ValueError(
                f"SWAG's iterates come from a constant rate, not from the schedule '{self.optimizer.schedule}': use "
                "schedule='constant'"
            )
        return self

    @property
    def pace(self) -> str:
        return pace_of(self.optimizer)

    def infer(self, problem: Problem, data: Data, engine: Engine) -> LowRankGaussian | Mixture:
        """Collect the iterates' moments; the last state is taken, which has the most of them.

        Raises:
            InvalidInput: where fewer than two steps follow the burn-in.
        """
        # No epoch but the last one is the best: earlier ones have seen fewer iterates.
        budget = Budget(self.epochs, data.steps_per_epoch, warmup_epochs=self.epochs)
        inference = SWAGInference(problem, self, budget.steps)
        posterior = run(inference, data, engine, budget)
        if self.statistics == "draw" and problem.normalisations():
            generator = engine.streams()("draws")
            drawn = tuple(estimated(posterior.problem, posterior.sample(generator), data) for _ in range(self.draws))
            return replace(Mixture.of(drawn), provenance=posterior.provenance)
        estimate_statistics(posterior.problem, posterior.mean, spread(data))
        return posterior


class SWAGInference(Watching):
    """State: that of `MAP`, and average (P,), squares (R,), deviations (R, K), count."""

    def __init__(self, problem: Problem, method: SWAG, steps: int) -> None:
        self.problem, self.method = problem, method
        self.point = PointInference(problem, method.optimizer, steps)
        self.start = int(method.burn_in * steps)
        if steps - self.start < 2:
            raise InvalidInput(
                f"{steps - self.start} of {steps} steps follow SWAG's burn-in; a variance needs at least 2. Train for more "
                "epochs, or shorten burn_in."
            )
        self.every = max(1, (steps - self.start) // method.iterates)

    def init(self, streams: Streams) -> State:
        state = self.point.init(streams)
        theta = state["theta"]
        random = theta[self.problem.coordinates.start :]
        state["average"], state["squares"] = theta.clone(), torch.zeros_like(random)
        state["deviations"] = random.new_zeros(len(random), self.method.rank)
        state["count"] = torch.zeros((), dtype=torch.int64)
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        state, info = self.point.update(state, batch)
        past = int(state["step"]) - self.start
        if past <= 0:
            state["average"].copy_(state["theta"])
        elif past % self.every == 0 and int(state["count"]) < self.method.iterates:
            self._collect(state)
        return state, info

    def watched(self, state: State) -> Scores:
        return self.point.watched(state)

    def remarks(self) -> list[Remark]:
        return arrival.point(self.rows, None)

    def posterior(self, state: State) -> LowRankGaussian:
        """Return q; before the second iterate it is a point."""
        buffers = {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        count = int(state["count"])
        kept = max(2, min(count, self.method.rank))
        std = (0.5 * state["squares"] / max(1, count)).sqrt()
        factor = state["deviations"][:, :kept] / (2 * (kept - 1)) ** 0.5
        return LowRankGaussian(self.problem.snapshot(buffers), state["average"].clone(), std, factor)

    def _collect(self, state: State) -> None:
        start, theta, average = self.problem.coordinates.start, state["theta"], state["average"]
        index = int(state["count"])
        before = theta - average if index else torch.zeros_like(theta)
        average.lerp_(theta, 1 / (index + 1))
        after = (theta - average)[start:]
        state["squares"].addcmul_(before[start:], after)
        state["deviations"][:, index % self.method.rank] = after
        state["count"] += 1
