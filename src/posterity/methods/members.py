"""Many networks trained side by side: the members of an ensemble, each a row of one matrix, by the same batches.

Row k descends the negative log joint of `MAP` from weights of its own; nothing couples the rows but the batches' order.
"""

from dataclasses import replace

import torch
from torch import Tensor

from posterity.core.lockstep import SideBySide
from posterity.core.optimizer import Optimizer
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.ensemble import reinitialise
from posterity.methods.watching import Watching
from posterity.model.problem import Problem
from posterity.model.steps import paced, units
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.types import Batch, Info, Scores, State, Streams


class MembersInference(Watching):
    """State: theta (K, P), step, and the optimiser's tensors.

    The networks run in eval mode, without dropout, and with the running statistics that they have: as they are sampled.
    """

    def __init__(self, problem: Problem, members: int, optimizer: Optimizer, steps: int) -> None:
        self.problem, self.members, self.steps = problem, members, steps
        self.optimizer = paced(optimizer, problem, steps)
        self.working, self._kept = problem.snapshot(), problem.snapshot()
        self._densities = SideBySide(self._log_joint)
        self._priors = SideBySide(lambda theta, batch: self.working.coordinates.bounded_log_prior(theta))

    def init(self, streams: Streams) -> State:
        theta = torch.stack([self._fresh(streams, k) for k in range(self.members)])
        own = units(self.problem.coordinates, "theta", self.optimizer)
        worth = {name: unit.expand_as(theta) for name, unit in own.items()}
        self._optimizer = self.optimizer.bind({"theta": theta}, self.steps, units=worth)
        return {"theta": theta, "step": torch.zeros((), dtype=torch.int64), **self._optimizer.state()}

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        log_joint, gradient = self._densities(state["theta"], batch)
        log_prior, of_prior = self._priors(state["theta"], batch)
        # As in `MAP`: the data of a batch count for as many as they are, and the prior once in each step.
        data = (gradient - of_prior) * self.problem.weight(batch)
        torch.mul(data + of_prior, -1 / self.problem.num_data, out=self._optimizer.grads["theta"])
        self._optimizer.step(int(state["step"]))
        state["step"] += 1
        alive = log_joint.isfinite()  # a member that is lost stands still, and is left out at the end
        nll, prior = (log_prior - log_joint)[alive].mean(), log_prior[alive].mean()
        return state, {"nll": nll / self.problem.num_data, "log_prior": prior / self.problem.num_data}

    def posterior(self, state: State) -> Mixture:
        return Mixture.of(Point(self._kept, theta.clone()) for theta in state["theta"])

    def watched(self, state: State) -> Scores:
        return {}

    def remarks(self) -> list[Remark]:
        return arrival.point(self.rows, self.best)

    def _fresh(self, streams: Streams, member: int) -> Tensor:
        """Return the weights that a member starts at, and its latents."""
        own = self.problem.snapshot()
        generator = streams(f"member-{member + 1}")
        reinitialise(own, int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        return replace(own).theta()

    def _log_joint(self, theta: Tensor, batch: Batch) -> Tensor:
        """The log joint, in a form that has a maximum."""
        where = self.working.coordinates
        return self.working.log_joint(theta, batch) - where.log_prior(theta) + where.bounded_log_prior(theta)
