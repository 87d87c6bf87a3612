"""Maximum a posteriori, and maximum likelihood: the deterministic twins of every Bayesian network.

θ* = argmax_θ  Σ_n log p(y_n | x_n, θ) + log p(θ)

In nats per datum a step descends  mean nll − log p(θ)/N  (Bishop 2006, §5.7; a Normal prior is weight decay 1/(N s²)).
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from posterity.core.estimators import differentiate
from posterity.core.optimizer import Optimizer
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.options import Descending, Epochs, Patience
from posterity.methods.watching import Watching, run, watched_latents
from posterity.model.likelihoods import training_score
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.model.steps import paced, scale, units
from posterity.options import STRICT, dataclass
from posterity.posteriors.point import Point
from posterity.types import Batch, Budget, Data, Engine, Info, Scores, State, Streams


@dataclass(frozen=True, config=STRICT)
class MAP(Descending):
    """Maximum a posteriori: one network, at the mode of the posterior.

    Args:
        epochs: passes over the training data.
        optimizer: one of torch's, with its learning-rate schedule.
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score; a point has one NLL only, so `nelbo` is not offered.
    """

    epochs: Epochs = 20
    optimizer: Optimizer = Field(default_factory=Optimizer)
    patience: Patience = None
    monitor: Literal["nll"] = "nll"
    kind: Literal["map"] = "map"
    title = "MAP"

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Point:
        """Maximise the joint density; returns the best θ by validation NLL, or the last where there is no validation."""
        budget = Budget(self.epochs, data.steps_per_epoch, self.patience, self.monitor)
        inference = PointInference(problem, self.optimizer, budget.steps)
        return run(inference, data, engine, budget)


@dataclass(frozen=True, config=STRICT)
class MLE(Descending):
    """Maximum likelihood: MAP with a flat prior, the frequentist twin. The problem's own prior is left out.

    Arguments are those of `MAP`.
    """

    epochs: Epochs = 20
    optimizer: Optimizer = Field(default_factory=Optimizer)
    patience: Patience = None
    monitor: Literal["nll"] = "nll"
    kind: Literal["mle"] = "mle"
    title = "Maximum likelihood"

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Point:
        """Maximise the likelihood."""
        return MAP(self.epochs, self.optimizer, self.patience).infer(replace(problem, prior=Flat()), data, engine)


class PointInference(Watching):
    """Descends the negative log joint of one θ. State: theta, step, the optimiser's tensors, the network's buffers."""

    def __init__(self, problem: Problem, optimizer: Optimizer, steps: int) -> None:
        self.problem, self.optimizer, self.steps = problem, paced(optimizer, problem, steps), steps

    def init(self, streams: Streams) -> State:
        self.problem.train()
        theta = self.problem.theta()
        own = units(self.problem.coordinates, "theta", self.optimizer)
        self._optimizer = self.optimizer.bind({"theta": theta}, self.steps, units=own)
        state: State = {"theta": theta, "step": torch.zeros((), dtype=torch.int64), **self._optimizer.state()}
        state.update({f"buffer.{n}": b for n, b in self.problem.network.named_buffers()})
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        theta, grad = state["theta"], self._optimizer.grads["theta"]
        with self.problem.bound(theta):
            nll, distribution = self.problem.nll(batch)
            differentiate(nll, (self.problem.params, grad, self.problem.layout))
        if self.problem.coordinates.noncentred:
            grad.copy_(self.problem.coordinates.pull(theta, grad))
        log_prior = self._add_prior_gradient(theta, grad)
        size = scale(self.problem, theta) if self.optimizer.name == "SGD" else None
        if size is not None:
            grad[: self.problem.coordinates.network].mul_(size.square())
        self._optimizer.step(int(state["step"]))
        state["step"] += 1
        name, score = training_score(distribution, batch)
        nll = nll.detach() / self.problem.weight(batch)
        return state, {"nll": nll, "log_prior": log_prior / self.problem.num_data, name: score}

    def observe(self, score: float) -> None:
        """Hear the score of the epoch that has ended."""
        self._optimizer.observe(score)

    def posterior(self, state: State) -> Point:
        buffers = {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        return Point(self.problem.snapshot(buffers), state["theta"].clone())

    def watched(self, state: State) -> Scores:
        where = self.problem.coordinates
        return watched_latents(where.latents, where.layout.views(state["theta"]))

    def remarks(self) -> list[Remark]:
        return arrival.point(self.rows, self.best)

    def _add_prior_gradient(self, theta: Tensor, grad: Tensor) -> Tensor:
        if isinstance(self.problem.prior, Flat) and not self.problem.coordinates.latents:
            return theta.new_zeros(())
        leaf = theta.detach().requires_grad_()
        log_prior = self.problem.coordinates.bounded_log_prior(leaf)
        if log_prior.requires_grad:
            (score,) = torch.autograd.grad(log_prior, [leaf])
            grad.sub_(score, alpha=1 / self.problem.num_data)
        return log_prior.detach()
