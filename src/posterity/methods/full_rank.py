"""Full-rank variational inference: q(θ) = N(μ, L Lᵀ), fitted by stochastic gradients of the ELBO.

    θ = μ + L ε,   ε ~ N(0, 1);     with g = ∂nll/∂θ:   ∂μ = g,   ∂L = tril(g εᵀ)

All correlations of all random coordinates (Titsias and Lázaro-Gredilla 2014; Kucukelbir et al. 2017, §2.4). For networks of
some thousand weights, or for a last layer by `where=`: memory and time grow with their number squared. Departure from
Kucukelbir et al.: L's diagonal is positive, through softplus, so that q has one L.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor

from posterity.core.covariance import CholeskyCovariance
from posterity.core.gaussian import inverse_softplus
from posterity.core.optimizer import Optimizer
from posterity.errors import InvalidInput
from posterity.methods.options import Descending, Epochs, Patience
from posterity.methods.variational import CorrelatedInference, budget_of, flat_flaw, refuse_flat, refuse_odd
from posterity.methods.watching import run
from posterity.model.initial import initial_std
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.descent import Descent
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.types import Data, Engine, Prior, State

COPIES = 7  # of L: in units of σ, itself, its gradient, two moments of Adam, one at work in a step, the best so far


@dataclass(frozen=True, config=STRICT)
class FullRank(Descending):
    """Variational inference with a full covariance; all fields but `max_bytes` are those of `MeanField`.

    Args:
        epochs: passes over the training data.
        draws: Monte-Carlo draws per step; their gradients are averaged.
        antithetic: draw the noise and its negative in pairs; needs an even number of draws.
        temperature: weight of the KL; 1 is the posterior.
        kl_schedule: how the KL's weight moves between steps. See `kl_weight`.
        warmup_epochs: length of the schedule `warmup`.
        initial_std: each weight's std at the start, without correlations.
        std_lr: learning rate of L, as a multiple of μ's.
        optimizer: one of torch's, with its learning-rate schedule.
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score: `nll` of the averaged prediction, or `nelbo`.
        max_bytes: refuse a problem whose covariance would take more memory than this during the fit.
    """

    epochs: Epochs = 50
    draws: Annotated[int, Field(ge=1)] = 1
    antithetic: bool = False
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    kl_schedule: Literal["constant", "warmup", "blundell"] = "constant"
    warmup_epochs: Annotated[int, Field(ge=1)] = 5
    initial_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    std_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(schedule="one_cycle", least=0.01))
    patience: Patience = None
    monitor: Literal["nll", "nelbo"] = "nll"
    max_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30
    kind: Literal["full_rank"] = "full_rank"
    title = "Full-rank variational"

    @model_validator(mode="after")
    def _consistent(self) -> "FullRank":
        refuse_odd(self.antithetic, self.draws)
        return self

    def prior_flaw(self, prior: Prior) -> str | None:
        return flat_flaw(self, prior)

    def infer(self, problem: Problem, data: Data, engine: Engine) -> FullRankGaussian:
        """Maximise the ELBO; returns the best q by validation, or the last where there is no validation.

        Raises:
            InvalidInput: for a flat prior, and where the covariance would take more than `max_bytes`.
        """
        refuse_flat(problem, "full-rank inference")
        _refuse_large(problem, self.max_bytes)
        budget = budget_of(self, data)
        inference = FullRankInference(problem, self, budget, lambda _: _initial(problem, self))
        return run(inference, data, engine, budget)


class FullRankInference(CorrelatedInference):
    """State: mean, rho, lower (in units of σ), and what every `CorrelatedInference` has."""

    coupling = "lower"

    def made(self, rho: Tensor, coupling: Tensor) -> CholeskyCovariance:
        return CholeskyCovariance(rho, coupling)

    def posterior(self, state: State) -> FullRankGaussian:
        covariance = self.covariance(state)
        assert isinstance(covariance, CholeskyCovariance)
        descent = Descent(self.method.temperature)
        return FullRankGaussian(self.snapshot(state), state["mean"].clone(), covariance.cholesky, descent=descent)


def _initial(problem: Problem, method: FullRank) -> CholeskyCovariance:
    std = initial_std(problem.coordinates, method.initial_std)
    return CholeskyCovariance(inverse_softplus(std), std.new_zeros(len(std), len(std)))


def _refuse_large(problem: Problem, max_bytes: int) -> None:
    theta = problem.theta()
    count = len(theta) - problem.coordinates.start
    needed = COPIES * count**2 * theta.element_size()
    if needed > max_bytes:
        raise InvalidInput(
            f"The covariance of {count:,} random coordinates takes {needed / 2**30:,.1f} GiB during the fit; the limit is "
            f"max_bytes = {max_bytes / 2**30:,.1f} GiB. Use LowRank(rank=10), or fewer of them: where='last_layer'."
        )
