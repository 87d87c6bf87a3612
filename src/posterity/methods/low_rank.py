"""Low-rank variational inference: q(θ) = N(μ, diag σ² + F Fᵀ), fitted by stochastic gradients of the ELBO.

    θ = μ + σ·ε + F z,   ε, z ~ N(0, 1);     with g = ∂nll/∂θ:   ∂μ = g,   ∂σ = g·ε,   ∂F = g zᵀ

F (R, K) holds K directions in which the weights move together, which mean field leaves out (Ong, Nott, Smith 2018; Miller,
Foti, Adams 2017). The entropy is exact, by Woodbury's identity and the determinant lemma in K × K (`core/covariance.py`).
Departures from Ong et al.: F is not kept lower triangular, which only fixes a rotation of z that q does not see; σ > 0
through softplus; any of torch's optimisers in place of ADADELTA.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from posterity.core.covariance import LowRankCovariance
from posterity.core.gaussian import inverse_softplus
from posterity.core.optimizer import Optimizer
from posterity.methods.options import Descending, Epochs, Patience
from posterity.methods.variational import CorrelatedInference, budget_of, flat_flaw, refuse_flat, refuse_odd
from posterity.methods.watching import run
from posterity.model.initial import initial_std
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.descent import Descent
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.types import Budget, Data, Engine, Prior, State

COUPLED = 0.1  # of a variance at the start: the share in F


@dataclass(frozen=True, config=STRICT)
class LowRank(Descending):
    """Variational inference with a low-rank covariance; all fields but `rank` are those of `MeanField`.

    Args:
        rank: K, the number of directions. Memory and the update are those of mean field times 1 + K/2, about.
        epochs: passes over the training data.
        draws: Monte-Carlo draws per step; their gradients are averaged.
        antithetic: draw the noise and its negative in pairs; needs an even number of draws.
        temperature: weight of the KL; 1 is the posterior.
        kl_schedule: how the KL's weight moves between steps. See `kl_weight`.
        warmup_epochs: length of the schedule `warmup`.
        initial_std: each weight's std at the start; a tenth of its square is in F, at random, the rest is σ².
        std_lr: learning rate of ρ and F, as a multiple of μ's.
        optimizer: one of torch's, with its learning-rate schedule.
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score: `nll` of the averaged prediction, or `nelbo`.
    """

    rank: Annotated[int, Field(ge=1)] = 10
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
    kind: Literal["low_rank"] = "low_rank"
    title = "Low-rank variational"

    @model_validator(mode="after")
    def _consistent(self) -> "LowRank":
        refuse_odd(self.antithetic, self.draws)
        return self

    def prior_flaw(self, prior: Prior) -> str | None:
        return flat_flaw(self, prior)

    def infer(self, problem: Problem, data: Data, engine: Engine) -> LowRankGaussian:
        """Maximise the ELBO; returns the best q by validation, or the last where there is no validation."""
        refuse_flat(problem, "low-rank inference")
        budget = budget_of(self, data)
        inference = low_rank_inference(problem, self, budget)
        return run(inference, data, engine, budget)


class LowRankInference(CorrelatedInference):
    """State: mean, rho, factor (in units of σ), and what every `CorrelatedInference` has."""

    coupling = "factor"

    def made(self, rho: Tensor, coupling: Tensor) -> LowRankCovariance:
        return LowRankCovariance(rho, coupling)

    def posterior(self, state: State) -> LowRankGaussian:
        covariance = self.covariance(state)
        assert isinstance(covariance, LowRankCovariance)
        q = state["mean"].clone(), covariance.std, covariance.factor
        return LowRankGaussian(self.snapshot(state), *q, descent=Descent(self.method.temperature))


def low_rank_inference(problem: Problem, method: LowRank, budget: Budget) -> LowRankInference:
    return LowRankInference(problem, method, budget, lambda generator: _initial(problem, method, generator))


def _initial(problem: Problem, method: LowRank, generator: Generator) -> LowRankCovariance:
    # At F = 0 the gradient of F is zero on average: it would never leave. Directions at random are wrong ones, which cost
    # their noise until they are forgotten.
    std = initial_std(problem.coordinates, method.initial_std)
    factor = torch.randn(len(std), method.rank, generator=generator, dtype=std.dtype, device=std.device)
    own, coupled = std * (1 - COUPLED) ** 0.5, std * (COUPLED / method.rank) ** 0.5
    return LowRankCovariance(inverse_softplus(own), factor * coupled[:, None])
