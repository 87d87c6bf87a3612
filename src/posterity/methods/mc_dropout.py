"""Monte Carlo dropout: a network trained with dropout, whose masks are drawn at prediction too (Gal & Ghahramani 2016).

θ* = argmin_θ  E_z[ mean −log p(y | f(θ, z, x)) ] − log p(θ)/N,      z ~ Bernoulli(1 − rate),      in nats per datum

q is the law of W·diag(z)/(1 − rate) with W of θ*. A prior Normal(0, s) is the L2 penalty |θ|²/(2 N s²) on the weights of
"inverted" dropout, M = θ/(1 − rate) of the paper. Its KL to a prior of std s_G (their §3, but for a constant) is
(1 − rate)|M|²/(2 s_G²): the same penalty with s = √(1 − rate) s_G. The temperature is 1. What is left out of the KL is the
entropy of q, which the rates set: they are chosen, not inferred, and so the width of q is not learnt from the data.

Departures: masks of inserted convolution layers drop channels, which is a law of W, where the paper's drop single values; at
prediction one mask is held for the whole batch, so that a draw is one function.
"""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from posterity.core.optimizer import Optimizer
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.map import PointInference
from posterity.methods.options import Descending, Epochs, Patience
from posterity.methods.watching import Watching, run
from posterity.model.dropout import FreshMasks, dropout_rates, masked, own_rates
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.dropout import Dropout
from posterity.types import Batch, Budget, Data, Engine, Info, Scores, State, Streams

USUAL_RATE = 0.1  # of networks without dropout of their own, where a command leaves the rate open


@dataclass(frozen=True, config=STRICT)
class MCDropout(Descending):
    """MAP with dropout, in training and at prediction; with a `Flat` prior, maximum likelihood with dropout.

    The network's own dropout layers are used (`nn.Dropout`, `Dropout1d` to `3d`, alpha dropout). A network without any gets
    dropout before each linear and convolution layer but the first, of those that `where` selects; neither it nor its files
    change. Dropout inside `nn.LSTM`, `nn.GRU`, `nn.MultiheadAttention` and plain calls of `functional.dropout` is active in
    training only; layers that such modules keep inside are not called, so nothing can be inserted before them.

    Args:
        rate: probability that a value is dropped, of all layers; None takes those of the network's own layers.
        epochs: passes over the training data.
        optimizer: one of torch's, with its learning-rate schedule.
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score.
    """

    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: Epochs = 20
    optimizer: Optimizer = Field(default_factory=Optimizer)
    patience: Patience = None
    monitor: Literal["nll"] = "nll"
    kind: Literal["mc_dropout"] = "mc_dropout"
    title = "Monte Carlo dropout"

    def suited(self, problem: Problem) -> "MCDropout":
        """Choose the usual rate where neither the network nor the method has one; refuse a network that drops nothing."""
        open_yet = self.rate is None and not any(own_rates(problem.network).values())
        found = replace(self, rate=USUAL_RATE) if open_yet else self
        dropout_rates(problem, found.rate)
        return found

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Dropout:
        """Train with dropout; returns the best θ by validation NLL, or the last where there is no validation.

        Raises:
            InvalidInput: for a network without dropout where no rate is given.
        """
        rates = dropout_rates(problem, self.rate)
        budget = Budget(self.epochs, data.steps_per_epoch, self.patience, self.monitor)
        inference = DropoutInference(problem, self.optimizer, budget.steps, rates)
        return run(inference, data, engine, budget)


class DropoutInference(Watching):
    """State: that of `MAP`."""

    def __init__(self, problem: Problem, optimizer: Optimizer, steps: int, rates: dict[str, float]) -> None:
        self.problem, self.rates = problem, rates
        self.point = PointInference(problem, optimizer, steps)

    def init(self, streams: Streams) -> State:
        self._masks = FreshMasks(streams("dropout"))
        return self.point.init(streams)

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        with masked(self.problem.network, self.rates, self._masks):
            return self.point.update(state, batch)

    def watched(self, state: State) -> Scores:
        return self.point.watched(state)

    def remarks(self) -> list[Remark]:
        return arrival.point(self.rows, self.best)

    def posterior(self, state: State) -> Dropout:
        point = self.point.posterior(state)
        return Dropout(point.problem, point.theta, self.rates)
