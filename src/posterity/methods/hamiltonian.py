"""What HMC and NUTS share: their settings, the full batch, chains one after the other, warm-up, and what is kept.

The chains sample p(θ | D) exactly, up to the error of finitely many draws: each transition uses all data, and leaves

    log π(θ) = Σ_n log p(y_n | x_n, θ) + log p(θ)      invariant.

While warming up, each chain adapts its own step size and metric (`core/adaptation.py`); then both are fixed.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from math import ceil
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from posterity.core.adaptation import Scatter, StepSize, window_ends
from posterity.core.gaussian import noise_like
from posterity.core.hamiltonian import Metric, Position, System, Transition, first_step_size
from posterity.core.leapfrog import CompiledSystem, Kernel, compiled_leapfrog
from posterity.errors import InvalidInput
from posterity.methods.base import Method
from posterity.methods.mixing import hamiltonian_remarks
from posterity.methods.whole import PER_EPOCH, FullBatch, refuse_points, refuse_too_large
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.chains import Chains
from posterity.types import Batch, Budget, Data, Engine, Info, State, Streams

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class HamiltonianMethod(Method, ABC):
    """The settings that HMC and NUTS share; see each for its own.

    Args:
        chains: C, run one after the other within each transition; four or more let R-hat tell whether they agree.
        warmup: transitions that adapt step size and metric, and are not kept.
        draws: S, transitions kept, of each chain.
        target_accept: the mean acceptance that the step size aims at; raise it (0.9, 0.95) where there are divergences.
        mass: the metric's shape: `diag`, or `dense` for strong correlations of up to a few thousand parameters.
        jitter: each chain starts at the network's weights plus jitter · N(0, I); latents likewise.
        precision: of the sampling; draws are kept in the network's own.
        compiled: make each leapfrog step in one compiled kernel: several times faster for small networks, after half a
            minute of compiling. Needs a compiler, and a network whose operations do not depend on values.
        max_bytes: bound on the draws kept, C · S · P · bytes per number; what does not fit is refused at once.
    """

    chains: Count = 4
    warmup: Annotated[int, Field(ge=0)] = 500
    draws: Annotated[int, Field(ge=4)] = 500
    target_accept: Annotated[float, Field(gt=0, lt=1)] = 0.8
    mass: Literal["diag", "dense"] = "diag"
    jitter: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    precision: Literal["float64", "float32"] = "float64"
    compiled: bool = False
    max_bytes: Count = 2**30

    augmentable: ClassVar[bool] = False

    @property
    def pace(self) -> str:
        return f"adapted to an acceptance of {self.target_accept:g}"

    @abstractmethod
    def transition(
        self, system: System, start: Position, step_size: float, generator: Generator | None = None
    ) -> Transition:
        """Make one transition that keeps the system's density."""

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Chains:
        """Run all chains; validation data are not used, since there is nothing to stop early.

        The network runs in eval mode: without dropout, and with the running statistics that it has.

        Raises:
            InvalidInput: before anything is run, for parameters that are points (`where=`, or normalisation layers), and
                for data or draws that do not fit into memory.
        """
        refuse_points(problem, type(self).__name__)
        refuse_too_large(problem, self.chains, self.draws, self.max_bytes)
        source = FullBatch.of(problem, data, self.warmup + self.draws, getattr(torch, self.precision))
        inference = HamiltonianInference(problem, self)
        budget = Budget(ceil(source.transitions / PER_EPOCH), source.steps_per_epoch)
        posterior = inference.posterior(engine.run(inference, source, budget))
        posterior.provenance["remarks"] = hamiltonian_remarks(posterior.energies, posterior.divergent)
        return posterior


class HamiltonianInference:
    """One transition of every chain per update. State, one row per chain:

    theta, gradient (C, P) and log_density (C,); step_size (C, 5), see `StepSize`; inverse_mass (C, P) or (C, P, P);
    count, mean, sums, see `Scatter`; thetas (C·S, P), energies and divergent (C, S), what is kept; divergences (), step ().
    """

    def __init__(self, problem: Problem, method: HamiltonianMethod) -> None:
        self.problem, self.method = problem, method
        own = problem.snapshot()
        self.working = replace(own, network=own.network.to(getattr(torch, method.precision)))
        self.windows = window_ends(method.warmup)
        self._kernel: Kernel | None = None

    def init(self, streams: Streams) -> State:
        method, start = self.method, self.problem.theta()
        chains, size, kept = method.chains, start.numel(), (method.chains, method.draws)
        self._generators = [streams(f"chain-{c + 1}") for c in range(chains)]
        self._metrics: dict[int, Metric] = {}
        theta = start.to(getattr(torch, method.precision)).expand(chains, size)
        noise = torch.stack([noise_like(row, g) for row, g in zip(theta, self._generators, strict=True)])
        shape = (chains, size) if method.mass == "diag" else (chains, size, size)
        unit = torch.ones(size) if method.mass == "diag" else torch.eye(size)
        return {
            "theta": theta + method.jitter * noise,
            "gradient": torch.zeros_like(noise),
            "log_density": torch.zeros(chains, dtype=torch.float64),
            "step_size": torch.zeros(chains, 5, dtype=torch.float64),
            "inverse_mass": unit.to(noise).expand(shape).clone(),
            "count": torch.zeros(chains, dtype=torch.float64),
            "mean": torch.zeros_like(noise),
            "sums": noise.new_zeros(shape),
            "thetas": start.new_zeros(chains * method.draws, size),
            "energies": torch.zeros(kept, dtype=torch.float64),
            "divergent": torch.zeros(kept, dtype=torch.int64),
            "divergences": torch.zeros((), dtype=torch.int64),
            "step": torch.zeros((), dtype=torch.int64),
        }

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        step = int(state["step"])
        with torch.autocast(
            state["theta"].device.type, enabled=False
        ):  # a step may not be rounded otherwise than its energy
            moves = [self._advance(state, batch, c, step) for c in range(self.method.chains)]
        if step >= self.method.warmup:
            state["divergences"] += sum(move.diverged for move in moves)
        state["step"] += 1
        log_likelihood = state["log_density"] - torch.stack([self._log_prior(theta) for theta in state["theta"]])
        return state, {
            "nll": -log_likelihood.mean() / self.problem.num_data,
            "acceptance": torch.tensor(sum(move.acceptance for move in moves) / len(moves)),
            "step_size": state["step_size"][:, int(step >= self.method.warmup)].exp().mean(),
            "divergences": state["divergences"].clone(),
        }

    def posterior(self, state: State) -> Chains:
        kept = {k: state[k].clone() for k in ("thetas", "energies", "divergent")}
        return Chains.from_tensors(self.problem.snapshot(), kept)

    def _advance(self, state: State, batch: Batch, chain: int, step: int) -> Transition:
        """Make one transition of one chain; learn from it, or keep it."""
        system = self._system(state, batch, chain)
        own = StepSize(state["step_size"][chain])
        if step == 0:
            self._begin(state, system, chain, own)
        here = Position(
            state["theta"][chain].clone(), float(state["log_density"][chain]), state["gradient"][chain].clone()
        )
        warm = step < self.method.warmup
        step_size = own.current if warm else own.average
        move = self.method.transition(system, here, step_size, self._generators[chain])
        position = move.point.position
        state["theta"][chain], state["gradient"][chain] = position.theta, position.gradient
        state["log_density"][chain] = position.log_density
        if warm:
            own.learn(move.acceptance, self.method.target_accept)
            self._learn_metric(state, system, chain, step + 1, own)
        else:
            row = step - self.method.warmup
            state["thetas"][chain * self.method.draws + row] = position.theta
            state["energies"][chain, row], state["divergent"][chain, row] = move.point.energy, int(move.diverged)
        return move

    def _system(self, state: State, batch: Batch, chain: int) -> System:
        metric, log_joint = self._metric(state, chain), self.working.log_joint
        if not self.method.compiled:
            return System(lambda theta: log_joint(theta, batch), metric)
        if self._kernel is None:
            self._kernel = compiled_leapfrog(log_joint, state["theta"][chain].clone(), metric.inverse_mass, batch)
        return CompiledSystem(lambda theta: log_joint(theta, batch), metric, self._kernel, batch)

    def _begin(self, state: State, system: System, chain: int, own: StepSize) -> None:
        start = system.position(state["theta"][chain])
        if start.log_density == -torch.inf:
            raise InvalidInput(
                f"The log joint of chain {chain + 1} is no finite number where it starts. Check the scale of inputs and "
                "targets, or start from trained weights with a smaller jitter."
            )
        state["gradient"][chain], state["log_density"][chain] = start.gradient, start.log_density
        own.restart(first_step_size(system, start, self._generators[chain]))

    def _learn_metric(self, state: State, system: System, chain: int, done: int, own: StepSize) -> None:
        """Add the draw to the window; at its end take its covariance as metric, and begin with the step size anew."""
        if not self.windows or not self.windows[0] < done <= self.windows[-1]:
            return
        scatter = Scatter(*(state[k][chain] for k in ("count", "mean", "sums")))
        scatter.add(state["theta"][chain])
        if done in self.windows:
            state["inverse_mass"][chain] = scatter.covariance()
            scatter.clear()
            self._metrics.pop(chain, None)
            system = replace(system, metric=self._metric(state, chain))
            position = Position(state["theta"][chain], float(state["log_density"][chain]), state["gradient"][chain])
            own.restart(first_step_size(system, position, self._generators[chain], own.current))

    def _metric(self, state: State, chain: int) -> Metric:
        """Return a chain's metric, whose Cholesky factor is computed once."""
        if chain not in self._metrics:
            self._metrics[chain] = Metric(state["inverse_mass"][chain].clone())
        return self._metrics[chain]

    @torch.no_grad()
    def _log_prior(self, theta: Tensor) -> Tensor:
        return self.working.log_prior(theta).double()
