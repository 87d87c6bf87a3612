"""What stochastic-gradient samplers share: their settings, when a draw is kept, and where, and the loop over batches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from math import ceil
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from posterity.core import dynamics
from posterity.core.compiled import CompiledNormals
from posterity.core.gaussian import noise_like
from posterity.errors import CorruptFile, InvalidInput
from posterity.methods import watching
from posterity.methods.arrival import Remark
from posterity.methods.base import Method
from posterity.methods.mixing import chain_remarks
from posterity.methods.options import Epochs
from posterity.methods.watching import Watching, watched_latents
from posterity.model.likelihoods import training_score
from posterity.model.potential import Potential
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.model.steps import unit_of
from posterity.options import STRICT, dataclass
from posterity.posteriors.samples import Samples
from posterity.train.digest import seal
from posterity.types import Batch, Budget, Data, Engine, Info, Scores, State, Streams


@runtime_checkable
class Plan(Protocol):
    """What the steps of a run do, each a function of the step's number (from 0) alone, so that resuming needs no more."""

    @property
    def steps(self) -> int:
        """How many there are in all."""

    @property
    def sampling_steps(self) -> int:
        """How many steps belong to the part that draws are kept from."""

    def factor(self, step: int) -> float:
        """What the rate is multiplied by."""

    def noisy(self, step: int) -> bool:
        """Whether noise is injected."""

    def position(self, step: int) -> int | None:
        """Which of the sampling steps this is, or None."""


@plain_dataclass(frozen=True)
class SingleChain:
    """Burn-in, then sampling; noise all along."""

    steps: int
    burn_in: int  # steps
    schedule: str
    scale: int  # steps; see `step_size`

    @property
    def sampling_steps(self) -> int:
        return self.steps - self.burn_in

    def factor(self, step: int) -> float:
        return dynamics.step_size(self.schedule, step, self.steps, self.scale)

    def noisy(self, step: int) -> bool:
        return True

    def position(self, step: int) -> int | None:
        return step - self.burn_in if step >= self.burn_in else None


class Moves(ABC):
    """One sampler's step, with what it remembers beside θ in the run's State."""

    @abstractmethod
    def state(self, theta: Tensor) -> State:
        """Make the tensors that it remembers, at the start."""

    @abstractmethod
    def move(self, state: State, grad: Tensor, noise: Tensor | None, rate: float, adapting: bool) -> None:
        """Move `state["theta"]` by the gradient of Ū; `adapting` where no draw will be kept of this part of the chain."""


@dataclass(frozen=True, config=STRICT)
class Chain(Method, ABC):
    """The settings of all stochastic-gradient samplers; see `SGLD` and `SGHMC` for each one's own.

    Args:
        epochs: passes over the training data.
        lr: ε, the rate of a step on the potential of one datum, U/N: the drift is that of SGD with this learning rate on
            mean nll − log p(θ)/N, whatever N is. On U itself the rate is lr/N.
        schedule: of the rate: `constant`; `polynomial`, (1 + epochs so far)^(−1/3); `cosine`, to 0. Draws are weighted
            equally under all of them.
        burn_in: share of the steps before the first draw is kept.
        draws: K, how many are kept, evenly spaced over the steps after burn-in.
        temperature: T of p(D|θ)^(1/T) p(θ), the likelihood's, as in `MeanField`; 1 is the posterior, less is a "cold
            posterior" and is said in every report.
        joint_temperature: T of (p(D|θ) p(θ))^(1/T), which makes the prior narrower, too (Wenzel et al. 2020). With both, the
            density is (p(D|θ)^(1/temperature) p(θ))^(1/joint_temperature).
        compiled: make the noise in a compiled kernel: faster for networks of a million weights. Needs a compiler.
        max_bytes: bound on the draws kept, K · P · bytes per number. What does not fit is refused before the first step. The
            chain is held once; at its last epoch, where there are validation data, twice.
        on_disk: keep the draws in a file, `draws.safetensors` in the engine's directory, that is mapped into memory: the
            system holds as much of it as it has room for, and checkpoints do not copy it. The posterior reads from this
            file. On a processor alone.
    """

    epochs: Epochs = 50
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    schedule: Literal["constant", "polynomial", "cosine"] = "constant"
    burn_in: Annotated[float, Field(ge=0, lt=1)] = 0.5
    draws: Annotated[int, Field(ge=1)] = 50
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    joint_temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    compiled: bool = False
    max_bytes: Annotated[int, Field(ge=1)] = 2**30
    on_disk: bool = False

    small_batches: ClassVar[bool] = False

    @property
    def pace(self) -> str:
        return f"{self.lr:g}, {self.schedule}"

    @classmethod
    def renewed(cls, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A file of before there were two temperatures has that of the joint density."""
        if "joint_temperature" in record:
            return record
        return {**record, "temperature": 1.0, "joint_temperature": record.get("temperature", 1.0)}

    @property
    def heat(self) -> float:
        """The temperature of the chain in N Ū, where Ū has `temperature` times the prior (see `Potential`)."""
        return self.temperature * self.joint_temperature

    @property
    def stable_curvature(self) -> float | None:
        """The curvature of the mean nll at which steps are stable no more; None where that is not one number."""
        return self._limit if self.schedule == "constant" and self.heat > 0 else None

    @property
    @abstractmethod
    def _limit(self) -> float | None:
        """The `stable_curvature` of a step at the rate lr."""

    @abstractmethod
    def moves(self, num_data: int | float) -> Moves:
        """Return what a step does, for so many data."""

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Samples:
        """Run the chain and return the draws kept."""
        steps = self.epochs * data.steps_per_epoch
        plan = SingleChain(steps, ceil(self.burn_in * steps), self.schedule, data.steps_per_epoch)
        return run(self, plan, problem, data, engine)


def run(chain: Chain, plan: Plan, problem: Problem, data: Data, engine: Engine) -> Samples:
    """Run a chain by a plan.

    Raises:
        InvalidInput: for a flat prior, fewer sampling steps than draws, draws that do not fit into `max_bytes`, and `on_disk`
            without a directory or the space, or on an accelerator.
        CorruptFile: where a run on disk goes on, and its draws are not there any more.
    """
    if isinstance(problem.prior, Flat):
        raise InvalidInput("A flat prior may leave no posterior to sample: use a proper prior, e.g. Normal(0, 0.3).")
    if plan.sampling_steps < chain.draws:
        raise InvalidInput(
            f"{chain.draws} draws were asked of {plan.sampling_steps} sampling steps; at most one is kept of each. Use "
            f"more epochs than {chain.epochs}, {_enough(chain.epochs * chain.draws / max(1, plan.sampling_steps))} say, fewer "
            "draws, smaller batches, or less burn-in."
        )
    _refuse_too_large(chain, problem.theta())
    # Every epoch before the last has a part of the chain only: none of them is the best, whatever its score.
    budget = Budget(chain.epochs, data.steps_per_epoch, warmup_epochs=chain.epochs)
    on_disk = engine.mapped("draws", problem.theta(), chain.draws) if chain.on_disk else None
    inference = ChainInference(problem, chain, plan, on_disk)
    return watching.run(inference, data, engine, budget)


def _enough(epochs: float) -> int:
    """Round up to tens, with room for cycles of which the last is cut short."""
    return ceil(1.05 * epochs / 10) * 10


def _refuse_too_large(chain: Chain, theta: Tensor) -> None:
    needed = chain.draws * theta.nbytes
    if needed > chain.max_bytes:
        raise InvalidInput(
            f"{chain.draws} draws of {len(theta):,} numbers need {needed:,} bytes; max_bytes is {chain.max_bytes:,}, which "
            f"holds {chain.max_bytes // theta.nbytes}. Keep fewer draws, or allow more bytes."
        )


class ChainInference(Watching):
    """Runs one chain. State: theta, the draws (of those on disk a seal each), their number, step, and what the sampler and the
    network remember.
    """

    def __init__(self, problem: Problem, chain: Chain, plan: Plan, on_disk: Tensor | None = None) -> None:
        self.problem, self.chain, self.plan, self.on_disk = problem, chain, plan, on_disk
        self._moves = chain.moves(problem.num_data)
        self._potential = Potential(problem, chain.temperature)

    def init(self, streams: Streams) -> State:
        self.problem.train()
        theta = self.problem.theta()
        self._generator = streams("noise")
        self._grad = torch.zeros_like(theta)
        self._random = theta[self.problem.coordinates.start :]
        self._unit = self.problem.coordinates.units("theta").get("theta")
        self._normals = CompiledNormals() if self.chain.compiled else noise_like
        state: State = {"theta": theta, **self._moves.state(theta)}
        if self.on_disk is None:
            self._draws = state["draws"] = theta.new_zeros(self.chain.draws, len(theta))
        else:
            self._draws = self.on_disk
            state["seals"] = torch.zeros(self.chain.draws, dtype=torch.int64)
        self._looked = False
        state["kept"], state["step"] = (torch.zeros((), dtype=torch.int64) for _ in range(2))
        state.update({f"buffer.{n}": b for n, b in self.problem.network.named_buffers()})
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        self._look(state)
        theta, step = state["theta"], int(state["step"])
        noisy = self.plan.noisy(step)
        nll, distribution = self._potential.gradient(theta, batch, self._grad, exploring=not noisy)
        noise = self._normals(self._random, self._generator) if noisy else None
        position = self.plan.position(step)
        self._move(state, noise, self.chain.lr * self.plan.factor(step), adapting=position is None)
        state["step"] += 1
        if position is not None and self._keeps(position):
            self._keep(state)
        name, score = training_score(distribution, batch)
        return state, {"nll": nll / self.problem.weight(batch), name: score}

    def _move(self, state: State, noise: Tensor | None, rate: float, adapting: bool) -> None:
        """Move, where coordinates have units as if θ were unit · θ: the same posterior, and steps that fit the weights."""
        unit = unit_of(self.problem, state["theta"], self._unit)
        if unit is None:
            return self._moves.move(state, self._grad, noise, rate, adapting)
        before = state["theta"].clone()
        self._moves.move(state, self._grad.div_(unit), noise, rate, adapting)
        state["theta"].sub_(before).div_(unit).add_(before)

    def posterior(self, state: State) -> Samples:
        """Return the draws so far; before the first one, where the chain stands."""
        buffers = {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        kept = int(state["kept"])
        self._look(state)
        # A draw is never overwritten, so that it is not copied; where the chain stands is.
        return Samples(self.problem.snapshot(buffers), self._draws[:kept] if kept else state["theta"][None].clone())

    def watched(self, state: State) -> Scores:
        where, theta = self.problem.coordinates, state["theta"]
        size = float(theta[where.start : where.network].double().square().mean().sqrt())
        return {"weights": size} | watched_latents(where.latents, where.layout.views(theta))

    def remarks(self) -> list[Remark]:
        per_epoch = self.plan.steps // self.chain.epochs
        kept = [self.plan.position((epoch + 1) * per_epoch - 1) is not None for epoch in range(len(self.rows))]
        excess = self.chain.temperature * len(self.problem.theta()) / (2 * self.problem.num_data)
        return chain_remarks(self.rows, kept, excess, not isinstance(self.plan, SingleChain))

    def _keep(self, state: State) -> None:
        kept = int(state["kept"])
        self._draws[kept].copy_(state["theta"])
        if "seals" in state:
            state["seals"][kept] = seal(state["theta"])
        state["kept"] += 1

    def _look(self, state: State) -> None:
        """See, once, that the draws that a checkpoint counts are on disk as they were kept: it holds the seal of each."""
        kept = int(state["kept"])
        if (
            not self._looked
            and "seals" in state
            and [seal(draw) for draw in self._draws[:kept]] != state["seals"][:kept].tolist()
        ):
            raise CorruptFile(
                f"The checkpoint counts {kept} draws, and draws.safetensors beside it does not hold them. Put it back, or "
                "remove the checkpoint to start afresh."
            )
        self._looked = True

    def _keeps(self, position: int) -> bool:
        """Whether this sampling step is the last of one of K equal parts."""
        total, k = self.plan.sampling_steps, self.chain.draws
        return (position + 1) * k // total > position * k // total
