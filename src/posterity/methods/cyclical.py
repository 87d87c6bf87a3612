"""Cyclical stochastic-gradient MCMC: one chain that explores with large steps and samples with small ones, again and again.

ε_t = ε/2 (1 + cos(π r)),      r = (t mod L)/L,      L = ⌈steps/cycles⌉

While r < β the steps have no noise (exploration: SGD to the next mode), after that they have (sampling), and draws are kept
of the sampling parts alone. Zhang et al. 2020, eq. 1 and algorithm 1. Departures: none in the steps; a cycle that the run
ends in the middle of, where cycles do not divide the steps, is shorter.
"""

from dataclasses import dataclass as plain_dataclass
from math import ceil
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posterity.core import dynamics
from posterity.methods.base import Method
from posterity.methods.chain import Chain, run
from posterity.methods.records import MethodOption
from posterity.methods.sghmc import SGHMC
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.samples import Samples
from posterity.types import Data, Engine


@dataclass(frozen=True, config=STRICT)
class Cyclical(Method):
    """A sampler whose step size goes through cycles, each ending in another mode.

    Args:
        method: the sampler; its lr is the largest, `draws` are those of all cycles together. The exploration takes the place
            of its `burn_in`, which is not used; a preconditioner is adapted in explorations. Unless given, 24 draws: the
            sampling parts of a small table are short.
        cycles: how many.
        exploration: β, the share of each cycle without noise and without draws.

    Raises:
        InvalidInput: from `infer`, as for `SGLD`.

    >>> import torch
    >>> from posterity import SGLD, Engine, fit
    >>> data = torch.randn(32, 3), torch.arange(32) % 2
    >>> method = Cyclical(SGLD(epochs=20, draws=8), cycles=2, exploration=0.5)
    >>> len(fit(torch.nn.Linear(3, 2), data, method=method, engine=Engine(progress=False)).thetas)
    8
    """

    method: Annotated[Chain, MethodOption(Chain)] = Field(default_factory=lambda: SGHMC(lr=0.03, draws=24))
    cycles: Annotated[int, Field(ge=1)] = 4
    exploration: Annotated[float, Field(ge=0, lt=1)] = 0.8
    kind: Literal["cyclical"] = "cyclical"
    stages: ClassVar[tuple[str, ...]] = ("method",)
    small_batches: ClassVar[bool] = False

    @model_validator(mode="after")
    def _one_schedule(self) -> "Cyclical":
        if self.method.schedule != "constant":
            raise ValueError(f"the cycles are the schedule: leave schedule='constant', not '{self.method.schedule}'")
        if getattr(self.method, "preconditioner", None) and not self.exploration:
            raise ValueError("the preconditioner is adapted in explorations: use exploration above 0")
        return self

    @property
    def title(self) -> str:
        return f"Cyclical {self.method.title}, {self.cycles} cycles"

    @property
    def pace(self) -> str:
        return f"{self.method.lr:g}, {self.cycles} cycles"

    @property
    def epochs(self) -> int:
        """Passes over the training data, as the sampler has them."""
        return self.method.epochs

    @property
    def temperature(self) -> float:
        """T of the likelihood, as the sampler has it."""
        return self.method.temperature

    @property
    def joint_temperature(self) -> float:
        """T of the joint density, as the sampler has it."""
        return self.method.joint_temperature

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Samples:
        """Run all cycles and return the draws kept."""
        plan = Cycles.of(self.method.epochs * data.steps_per_epoch, self.cycles, self.exploration)
        return run(self.method, plan, problem, data, engine)


@plain_dataclass(frozen=True)
class Cycles:
    """The plan: which steps of which rate have noise.

    >>> plan = Cycles.of(steps=10, cycles=2, exploration=0.5)
    >>> [plan.position(step) for step in range(10)]
    [None, None, None, 0, 1, None, None, None, 2, 3]
    >>> [round(plan.factor(step), 2) for step in range(5)]
    [1.0, 0.9, 0.65, 0.35, 0.1]
    """

    steps: int
    length: int  # L
    explored: int  # steps of each cycle with r < β

    @classmethod
    def of(cls, steps: int, cycles: int, exploration: float) -> "Cycles":
        length = ceil(steps / cycles)
        return cls(steps, length, ceil(exploration * length))

    @property
    def sampling_steps(self) -> int:
        whole, rest = divmod(self.steps, self.length)
        return whole * (self.length - self.explored) + max(0, rest - self.explored)

    def factor(self, step: int) -> float:
        return dynamics.step_size("cosine", step % self.length, self.length, 1)

    def noisy(self, step: int) -> bool:
        return step % self.length >= self.explored

    def position(self, step: int) -> int | None:
        cycle, within = divmod(step, self.length)
        return cycle * (self.length - self.explored) + within - self.explored if within >= self.explored else None
