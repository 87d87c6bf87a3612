"""A sampled ensemble: networks trained from many starts, and a chain of the posterior from each (Sommer et al. 2025, MILE).

θ_k ≈ argmax_θ log p(θ | D)  from its own start,      θ_k,1 … θ_k,S ~ p(θ | D)  from θ_k on,      q = the mixture of all

The members find good regions, which chains from random weights take long to; the chains say how wide the regions are, which
members alone do not. Departures from the paper: chains and members run side by side as one batch; members are trained by
maximum a posteriori, in mini-batches, where validation data choose the epoch if there are any.
"""

import warnings
from math import ceil
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from posterity.core.lockstep import SideBySide
from posterity.core.optimizer import Optimizer
from posterity.errors import Diverged, PosterityWarning
from posterity.methods.base import Method
from posterity.methods.members import MembersInference
from posterity.methods.microcanonical import Microcanonical
from posterity.methods.options import Patience
from posterity.methods.whole import FullBatch
from posterity.model.problem import Problem
from posterity.options import STRICT, Count, dataclass
from posterity.posteriors.mixture import Mixture
from posterity.types import Budget, Data, Engine


def _short() -> Microcanonical:
    """Short chains, in float32: their start is where others would only have to get to."""
    return Microcanonical(warmup=120, draws=80, energy_variance=0.005, precision="float32")


@dataclass(frozen=True, config=STRICT)
class SampledEnsemble(Method):
    """Members trained side by side, then a chain from each: `fit(network, data, method=SampledEnsemble())`.

    For small networks and tables: each step of a chain is a gradient of all data.

    Args:
        members: K, networks and chains.
        training: steps of mini-batches that members are trained by; whole epochs are run.
        optimizer: of the members.
        patience: of the training, where there are validation data: epochs without a better score.
        sampler: the chains; its `chains` and `jitter` do not count.
    """

    members: Annotated[int, Field(ge=1)] = 8
    training: Count = 2000
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=0.01, schedule="cosine"))
    patience: Patience = None
    sampler: Microcanonical = Field(default_factory=_short)
    kind: Literal["sampled_ensemble"] = "sampled_ensemble"
    shared: ClassVar[tuple[str, ...]] = ("optimizer", "patience")
    augmentable: ClassVar[bool] = False
    centred: ClassVar[bool] = False

    @property
    def title(self) -> str:
        return f"Sampled ensemble of {self.members}"

    @property
    def keeps_start(self) -> bool:
        return False

    @property
    def pace(self) -> str:
        return f"{self.optimizer.rate:g}, {self.optimizer.schedule}, then {self.sampler.pace}"

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Mixture:
        """Train the members, then run the chains; on resume what is finished is not run again.

        Chains that end far above the others' nll are left out with a remark, see `methods.mixing.lost`.

        Raises:
            InvalidInput: before anything is run, for what the chains refuse; see `Microcanonical`.
            Diverged: where no member has a finite log joint after its training.

        Warns:
            PosterityWarning: for members that are left out, since their training ended nowhere.
        """
        self.sampler.refuse(problem, self.members)
        source = FullBatch.of(problem, data, self.sampler.warmup + self.sampler.draws, problem.theta().dtype)
        budget = Budget(ceil(self.training / data.steps_per_epoch), data.steps_per_epoch, self.patience)
        inference = MembersInference(problem, self.members, self.optimizer, budget.steps)
        starts = engine.fork("members").run(inference, data, budget)["theta"]
        return self.sampler.infer_at(problem, data, engine.fork("chains"), _alive(problem, starts, source))


def _alive(problem: Problem, starts: Tensor, source: FullBatch) -> Tensor:
    """Leave out members whose log joint is no finite number."""
    values, _ = SideBySide(problem.snapshot().log_joint)(starts, source.batch)
    finite = values.isfinite()
    if not finite.any():
        raise Diverged("No member has a finite log joint after its training: use a smaller learning rate.")
    if not finite.all():
        lost = [k + 1 for k, fine in enumerate(finite.tolist()) if not fine]
        warnings.warn(
            f"Members {', '.join(map(str, lost))} of {len(starts)} ended where the log joint is no finite number, and are "
            "left out.",
            PosterityWarning,
            stacklevel=2,
        )
    return starts[finite]
