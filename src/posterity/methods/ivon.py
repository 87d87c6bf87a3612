"""IVON, the improved variational online Newton method: a natural-gradient step of mean-field inference (Shen et al. 2024).

q(θ) = N(μ, diag σ²) with σ² = 1 / (λ (h + δ)), λ = N / temperature, δ = 1/(λ s²) for the prior N(m, s²). With θ = μ + σ·ε,
ĝ = ∂nll/∂θ and ĥ = ĝ·ε/σ (a Hessian's diagonal by reparameterisation, no second derivative), step t = 1, 2, … (Algorithm 1):

    g ← β₁ g + (1 − β₁) ĝ
    h ← h + (1 − β₂)(ĥ − h) + ½ (1 − β₂)² (h − ĥ)² / (h + δ)
    μ ← μ − α_t (h₀ + δ) (g / (1 − β₁ᵗ) + δ (μ − m)) / (h + δ)

The last term of h's step keeps h + δ > 0 (Lin et al. 2020), and its bias is of order 1 − β₂. The fixed point is mean field's:
1/σ² = N E_q[∂²nll/∂θ²] / temperature + 1/s². Departures: a δ for each coordinate; the prior's mean m; coordinates that
are not random have no noise and h = h₀, which makes their step SGD with momentum; a latent's own prior is part of the loss.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributions import Distribution

from posterity.core import newton
from posterity.core.estimators import differentiate
from posterity.core.gaussian import noise_like
from posterity.core.newton import CompiledNewton
from posterity.core.schedules import learning_rates
from posterity.errors import InvalidInput
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.base import Method
from posterity.methods.options import Epochs, Patience
from posterity.methods.variational import KL_EVERY, flat_flaw
from posterity.methods.watching import Watching, run, watched_latents, watched_stds
from posterity.model.divergence import Divergence
from posterity.model.likelihoods import training_score
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.descent import Descent
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.types import Batch, Budget, Data, Engine, Info, Prior, Scores, State, Streams


@dataclass(frozen=True, config=STRICT)
class IVON(Method):
    """Mean-field inference at the cost of a step of SGD with momentum; needs a Normal prior, which is its weight decay.

    Args:
        epochs: passes over the training data.
        lr: α; the first step of a coordinate is α times its gradient, since h = h₀ then.
        schedule: of the learning rate.
        momentum: β₁, of the gradient.
        hessian_momentum: β₂, of the Hessian's diagonal; 1/(1 − β₂) steps are its memory. The paper has 0.99999 for long
            runs; one of some thousand steps needs a shorter one.
        initial_hessian: h₀, which sets the std at the start, σ = 1/√(N (h₀ + δ)).
        draws: Monte-Carlo draws per step; their ĝ and ĥ are averaged.
        compiled: draw and update in compiled kernels: faster for networks of a million weights. Needs a compiler, one draw
            per step, and a network that is random as a whole.
        temperature: weight of the KL; 1 is the posterior, less is a "cold posterior".
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score: `nll` of the averaged prediction, or `nelbo`.
    """

    epochs: Epochs = 20
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    schedule: Literal["constant", "cosine", "linear", "one_cycle"] = "cosine"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    hessian_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    initial_hessian: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    draws: Annotated[int, Field(ge=1)] = 1
    compiled: bool = False
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    patience: Patience = None
    monitor: Literal["nll", "nelbo"] = "nll"
    kind: Literal["ivon"] = "ivon"
    title = "IVON"

    @model_validator(mode="after")
    def _consistent(self) -> "IVON":
        if self.compiled and self.draws > 1:
            raise ValueError("compiled=True takes one draw per step: use draws=1, or compiled=False")
        return self

    @property
    def growing(self) -> tuple[str, ...]:
        return ("epochs",) if self.schedule == "constant" else ()

    @property
    def pace(self) -> str:
        return f"{self.lr:g}, {self.schedule}"

    def prior_flaw(self, prior: Prior) -> str | None:
        return flat_flaw(self, prior)

    def infer(self, problem: Problem, data: Data, engine: Engine) -> DiagonalGaussian:
        """Maximise the ELBO; returns the best q by validation, or the last where there is no validation.

        Raises:
            InvalidInput: for a prior that is not Normal with independent weights.
        """
        if problem.coordinates.normal is None:
            raise InvalidInput(
                f"IVON takes the prior for a weight decay, which {type(problem.prior).__name__} is not: it needs independent "
                "Normal weights, as Normal(0, 0.3). MeanField() takes any proper prior."
            )
        budget = Budget(self.epochs, data.steps_per_epoch, self.patience, self.monitor)
        inference = IVONInference(problem, self, budget)
        return run(inference, data, engine, budget)


class IVONInference(Watching):
    """State: mean, hessian (h), gradient (g), the KL last evaluated, step, the network's buffers."""

    def __init__(self, problem: Problem, method: IVON, budget: Budget) -> None:
        where = problem.coordinates
        if method.compiled and (where.start or where.latents):
            raise InvalidInput(
                "compiled=True fits networks that are random as a whole, without latents; this problem has point coordinates "
                "or a learnt noise. Leave compiled=False."
            )
        self.problem, self.method, self.budget = problem, method, budget
        self.divergence = Divergence.of(where)

    def init(self, streams: Streams) -> State:
        self.problem.train()
        where, mean = self.problem.coordinates, self.problem.theta()
        self._noise = streams("noise")
        self._rates = learning_rates(self.method.schedule, self.method.lr, self.budget.steps)
        self._scale = self.problem.num_data / self.method.temperature  # λ
        self._decay, self._center = torch.zeros_like(mean), torch.zeros_like(mean)
        if where.normal is not None:
            part = slice(where.free, where.network)
            self._center[part], std = where.normal
            self._decay[part] = 1 / (self._scale * std.square())
        if self.method.compiled:
            self._kernels = CompiledNewton((self._decay, self._center), self._scale)
            self._gradient = torch.empty_like(mean)
        state: State = {"mean": mean, "hessian": torch.full_like(mean, self.method.initial_hessian)}
        state["gradient"] = torch.zeros_like(mean)
        state["kl"] = torch.zeros((), dtype=torch.float64, device=mean.device)
        state["step"] = torch.zeros((), dtype=torch.int64)
        state.update({f"buffer.{n}": b for n, b in self.problem.network.named_buffers()})
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        step, n = int(state["step"]), self.problem.num_data
        if step % KL_EVERY == 0 or (step + 1) % self.budget.steps_per_epoch == 0:
            state["kl"].copy_(self.divergence.value(state["mean"], self._std(state), self._noise))
        if self.method.compiled:
            nll, distribution = self._compiled(state, batch)
        else:
            nll, distribution, gradient, hessian = self._estimates(state["mean"], self._std(state), batch)
            prior = self._decay, self._center
            newton.move(self._vectors(state), (gradient, hessian), prior, self._rates_at(step))
        state["step"] += 1
        name, score = training_score(distribution, batch)
        nll, kl = nll / self.problem.weight(batch), state["kl"] / n
        return state, {"nelbo": nll + self.method.temperature * kl, "nll": nll, "kl": kl, name: score}

    def posterior(self, state: State) -> DiagonalGaussian:
        buffers = {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        problem, descent = self.problem.snapshot(buffers), Descent(self.method.temperature)
        return DiagonalGaussian(problem, state["mean"].clone(), self._std(state), descent=descent)

    def watched(self, state: State) -> Scores:
        where = self.problem.coordinates
        start = newton.std(torch.full_like(state["hessian"], self.method.initial_hessian), self._decay, self._scale)
        remembered = int(state["step"]) * (1 - self.method.hessian_momentum)  # in memories of h
        stds = watched_stds(self._std(state), start[where.start :], float(remembered < 1))
        return stds | watched_latents(where.latents, where.layout.views(state["mean"]))

    def remarks(self) -> list[Remark]:
        return arrival.variational(self.rows, self.best, "a smaller hessian_momentum")

    def _std(self, state: State) -> Tensor:
        start = self.problem.coordinates.start
        return newton.std(state["hessian"][start:], self._decay[start:], self._scale)

    def _compiled(self, state: State, batch: Batch) -> tuple[Tensor, Distribution]:
        """Take a step by two kernels; return the nll and the prediction."""
        kernels, gradient = self._kernels, self._gradient
        with self.problem.bound(kernels.draw(state["mean"], state["hessian"], self._noise)):
            nll, distribution = self.problem.nll(batch)
            differentiate(nll, (self.problem.params, gradient, self.problem.layout))
        kernels.move(self._vectors(state), gradient, self._rates_at(int(state["step"])))
        return nll.detach(), distribution

    def _estimates(self, mean: Tensor, std: Tensor, batch: Batch) -> tuple[Tensor, Distribution, Tensor, Tensor]:
        """Return the mean nll, the last prediction, ĝ (P,), and ĥ of the random coordinates."""
        where, draws = self.problem.coordinates, self.method.draws
        total, gradients, hessians = mean.new_zeros(()), torch.zeros_like(mean), torch.zeros_like(std)
        for _ in range(draws):
            noise = noise_like(std, self._noise)
            theta, gradient = mean.clone(), torch.empty_like(mean)
            theta[where.start :].addcmul_(std, noise)
            with self.problem.bound(theta):
                nll, distribution = self.problem.nll(batch)
                differentiate(nll, (self.problem.params, gradient, self.problem.layout))
            if where.latents:
                gradient.add_(self._latent_score(theta), alpha=1 / self._scale)
            gradients.add_(gradient, alpha=1 / draws)
            hessians.addcdiv_(gradient[where.start :] * noise, std, value=1 / draws)
            total = total + nll.detach() / draws
        return total, distribution, gradients, hessians

    def _latent_score(self, theta: Tensor) -> Tensor:
        """Return −∂ log p/∂θ of the latents' own priors, (P,)."""
        where = self.problem.coordinates
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            (found,) = torch.autograd.grad(-where.log_prob_of_latents(where.layout.views(leaf)), [leaf])
        return found

    def _vectors(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        return state["mean"], state["hessian"], state["gradient"]

    def _rates_at(self, step: int) -> Tensor:
        method, rate = self.method, self._rates[min(step, len(self._rates) - 1)]
        bias = 1 - method.momentum ** (step + 1)
        numbers = [rate, 1 - method.momentum, bias, 1 - method.hessian_momentum, method.initial_hessian]
        return torch.tensor(numbers, dtype=self._decay.dtype, device=self._decay.device)
