"""Microcanonical Langevin Monte Carlo (Robnik, De Luca, Silverstein & Seljak 2023), all chains side by side.

The chains move at constant speed and turn towards where the posterior is denser (`core/microcanonical.py`); no step is
rejected. The step size is what an error of energy allows: v, the variance of its change in a step, per dimension. What
is averaged over the draws has a bias that falls with v, so that a small one buys exactness with gradients.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.core.lockstep import Densities, SideBySide
from posterity.core.microcanonical import RUNAWAY, Moving, StepLengths, advance, begin
from posterity.errors import InvalidInput
from posterity.methods.arrival import Remark
from posterity.methods.base import Method
from posterity.methods.mixing import chain_remarks, drifting, energy_remarks, lost, lost_remarks
from posterity.methods.watching import Watching, run
from posterity.methods.whole import PER_EPOCH, FullBatch, refuse_points, refuse_too_large
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.options import STRICT, Count, dataclass
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.samples import Samples
from posterity.types import Batch, Budget, Data, Engine, Info, Scores, State, Streams

FIRST_VARIANCE = 0.5  # of the energy's error, per dimension, where the warm-up begins: coarse steps find the way
FIRST_STEP = 0.005  # ε of the first step, beside √P
STRETCHES = 20  # that the draws' nll is averaged over, to see whether it goes one way
SMALLEST = 0.03  # scale of a parameter, beside the usual one of its chain


@dataclass(frozen=True, config=STRICT)
class Microcanonical(Method):
    """Unadjusted microcanonical Langevin chains; `SampledEnsemble` begins them at networks that are trained.

    A transition is `steps` steps, each one gradient of all data. The first third of the warm-up adapts the step size, the
    second learns the scale of each parameter, the last adapts the step size to them; then all is fixed.

    Args:
        chains: K, run side by side: small networks cost together little more than one.
        warmup: transitions that adapt, and are not kept.
        draws: S, transitions kept, of each chain.
        steps: of a transition.
        energy_variance: v, of the change of energy in a step, per dimension; the smaller, the less bias, and the more steps.
        decoherence: ℓ/√P: after a way of ℓ a chain has forgotten its direction. 1 is best where the posterior is round once the
            scales are learnt; chains that have far to go get on faster with some more.
        jitter: each chain starts at the network's weights plus jitter · N(0, I); latents likewise.
        precision: of the sampling; draws are kept in the network's own.
        max_bytes: bound on the draws kept, K · S · P · bytes per number; what does not fit is refused at once.

    >>> Microcanonical(draws=100).steps
    20
    """

    chains: Count = 4
    warmup: Annotated[int, Field(ge=3)] = 150
    draws: Annotated[int, Field(ge=4)] = 250
    steps: Count = 20
    energy_variance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-4
    decoherence: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    jitter: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    precision: Literal["float64", "float32"] = "float64"
    max_bytes: Count = 2**30
    kind: Literal["microcanonical"] = "microcanonical"
    title = "Microcanonical Langevin"
    augmentable: ClassVar[bool] = False

    @property
    def pace(self) -> str:
        return f"adapted to an energy variance of {self.energy_variance:g} per dimension"

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Mixture:
        """Run all chains; validation data are not used, since there is nothing to stop early.

        The network runs in eval mode: without dropout, and with the running statistics that it has.

        Raises:
            InvalidInput: before anything is run, for parameters that are points (`where=`, or normalisation layers), a flat
                prior, and for data or draws that do not fit into memory.
        """
        return self.infer_at(problem, data, engine, None)

    def refuse(self, problem: Problem, chains: int) -> None:
        """Raise `InvalidInput` for what so many chains cannot sample, or hold."""
        refuse_points(problem, type(self).__name__)
        if isinstance(problem.prior, Flat):
            raise InvalidInput("A flat prior may leave no posterior to sample: use a proper prior, e.g. Normal(0, 1).")
        refuse_too_large(problem, chains, self.draws, self.max_bytes)

    def infer_at(self, problem: Problem, data: Data, engine: Engine, starts: Tensor | None) -> Mixture:
        """Run a chain from each of `starts` (K, P), or all from the network's weights, a little apart."""
        self.refuse(problem, self.chains if starts is None else len(starts))
        source = FullBatch.of(problem, data, self.warmup + self.draws, getattr(torch, self.precision))
        budget = Budget(ceil(source.transitions / PER_EPOCH), source.steps_per_epoch)
        return run(MicrocanonicalInference(problem, self, starts), source, engine, budget)


class MicrocanonicalInference(Watching):
    """One transition of all chains per update. State, one row per chain:

    theta, direction, gradient (K, P), log_density (K,), see `Moving`; tuning (4, K), see `StepLengths`; scale, mean and
    sums (K, P), of the draws seen in the middle third of the warm-up; draws (K, S, P), what is kept; levels (K, S), their nll
    per datum; step ().
    """

    def __init__(self, problem: Problem, method: Microcanonical, starts: Tensor | None = None) -> None:
        self.problem, self.method, self.starts = problem, method, starts
        own = problem.snapshot()
        self.working = replace(own, network=own.network.to(getattr(torch, method.precision)))
        self._densities = SideBySide(self._log_joint)
        self._size = self.problem.layout.size
        self._learning = method.warmup // 3, 2 * method.warmup // 3
        self._lost: list[int] = []

    def init(self, streams: Streams) -> State:
        method, start = self.method, self.problem.theta()
        chains = method.chains if self.starts is None else len(self.starts)
        self._generators = [streams(f"chain-{c + 1}") for c in range(chains)]
        theta = start.repeat(chains, 1) if self.starts is None else self.starts
        theta = theta.to(getattr(torch, method.precision)).clone()
        if self.starts is None:
            theta += method.jitter * _noise(theta, self._generators)
        if self._size == 1:  # a line has two directions, and no way to turn: it becomes one of a plane's
            theta = torch.cat([theta, _noise(theta, self._generators)], 1)
        step = torch.full((chains,), FIRST_STEP * theta.shape[1] ** 0.5, dtype=torch.float64)
        return {
            **{name: torch.zeros_like(theta) for name in ("direction", "gradient", "mean", "sums")},
            "theta": theta,
            "log_density": torch.zeros_like(theta[:, 0]),
            "scale": torch.ones_like(theta),
            "tuning": StepLengths.begun(step),
            "draws": start.new_zeros(chains, method.draws, len(start)),
            "levels": start.new_zeros(chains, method.draws),
            **{name: torch.zeros((), dtype=torch.int64) for name in ("seen", "step")},
        }

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        transition = int(state["step"])
        densities = self._densities.of(batch)
        here = self._begun(state, densities) if transition == 0 else Moving.of(state)
        warm, tuning = transition < self.method.warmup, StepLengths(state["tuning"])
        variance, size, errors = self._variance(transition), state["theta"].shape[1], []
        length = state["log_density"].new_full((len(state["theta"]),), self.method.decoherence * size**0.5)
        for _ in range(self.method.steps):
            steps = tuning.steps.to(length)
            here, change, stood = advance(densities, here, steps, length, state["scale"], self._generators)
            errors.append(torch.where(stood, RUNAWAY, change).double())
            if warm:
                tuning.learn(change, stood, variance, size)
                self._learn_scale(state, here, transition)
        here.keep(state)
        if transition + 1 == self._learning[1]:
            self._take_scale(state, tuning)
        besides = torch.stack([self._besides(theta) for theta in here.theta])
        nll = (besides - here.log_density) / self.problem.num_data
        if not warm:
            state["draws"][:, transition - self.method.warmup] = here.theta[:, : self._size]
            state["levels"][:, transition - self.method.warmup] = nll
        state["step"] += 1
        return state, {
            "nll": nll.mean(),
            "energy_variance": torch.stack(errors).square().mean(0).median() / size,
            "step_size": tuning.steps.mean(),
        }

    def posterior(self, state: State) -> Mixture:
        """Return the draws so far, a component for each chain; before the first one, where the chains stand.

        Of chains that begin at trained networks the lost are left out: they would weigh as much as the others.
        """
        kept = int(state["step"]) - self.method.warmup
        own, self._levels = self.problem.snapshot(), state["levels"][:, : max(kept, 0)].double()
        draws = state["draws"][:, :kept] if kept > 0 else state["theta"][:, None, : self._size].to(state["draws"])
        self._lost = lost(self._levels, float(self.problem.num_data)) if kept > 0 and self.starts is not None else []
        return Mixture.of(Samples(own, thetas.clone()) for c, thetas in enumerate(draws) if c not in self._lost)

    def watched(self, state: State) -> Scores:
        where = self.problem.coordinates
        return {"weights": float(state["theta"][:, where.start : where.network].double().square().mean().sqrt())}

    def remarks(self) -> list[Remark]:
        kept = [(epoch + 1) * PER_EPOCH > self.method.warmup for epoch in range(len(self.rows))]
        excess = len(self.problem.theta()) / (2 * self.problem.num_data)
        errors = [row["energy_variance"] for row, k in zip(self.rows, kept, strict=True) if k]
        said = chain_remarks(self.rows, kept, excess, False) or drifting(self._stretches(), 1.0, "Warm up longer.")
        return [*lost_remarks(self._levels, self._lost), *said, *energy_remarks(errors, self.method.energy_variance)]

    def _stretches(self) -> list[float]:
        """Return the nll of the draws, averaged over stretches that are long enough to be nearly independent."""
        parts = self._levels.mean(0).chunk(STRETCHES)
        return [float(part.mean()) for part in parts]

    def _log_joint(self, theta: Tensor, batch: Batch) -> Tensor:
        """log p(y, θ), and beside θ a coordinate of a standard normal, where there is one."""
        return self.working.log_joint(theta[: self._size], batch) - 0.5 * theta[self._size :].square().sum()

    @torch.no_grad()
    def _besides(self, theta: Tensor) -> Tensor:
        """Return what is not likelihood of the log joint."""
        return self.working.log_prior(theta[: self._size]) - 0.5 * theta[self._size :].square().sum()

    def _begun(self, state: State, densities: Densities) -> Moving:
        here = begin(densities, state["theta"], self._generators)
        if lost := [c + 1 for c, value in enumerate(here.log_density.tolist()) if value == -torch.inf]:
            raise InvalidInput(
                f"The log joint of chain {lost[0]} is no finite number where it starts. Check the scale of inputs and "
                "targets, or start from trained weights with a smaller jitter."
            )
        return here

    def _variance(self, transition: int) -> float:
        """Return v while warming up: from coarse steps to those that are asked for, within the first two thirds.

        Chains that begin at trained networks are where coarse steps lead, and would be heated by them.
        """
        asked = self.method.energy_variance
        if self.starts is not None:
            return asked
        share = min(1.0, transition / max(1, self._learning[1]))
        return float(max(asked, FIRST_VARIANCE) ** (1 - share) * asked**share)

    def _learn_scale(self, state: State, here: Moving, transition: int) -> None:
        """Add positions to the mean and the sums of squares of the middle third (Welford 1962)."""
        first, last = self._learning
        if first <= transition < last:
            state["seen"] += 1
            before = here.theta - state["mean"]
            state["mean"] += before / state["seen"]
            state["sums"] += before * (here.theta - state["mean"])

    def _take_scale(self, state: State, tuning: StepLengths) -> None:
        """Measure each parameter by its std from now on; steps keep their length."""
        std = (state["sums"] / state["seen"]).sqrt()
        usual = std.square().mean(1, keepdim=True).sqrt()
        state["scale"].copy_(std.clamp(min=SMALLEST * usual))
        tuning.restart(tuning.steps / usual[:, 0])


def _noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    return torch.stack([noise_like(row, generator) for row, generator in zip(like, generators, strict=True)])
