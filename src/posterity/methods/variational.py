"""What variational methods share; and of those with correlated weights, stochastic gradients of the ELBO for q = N(μ, Σ).

nelbo(μ, Σ) = E_q[mean nll] + temperature · KL(q‖p) / N,      in nats per datum

One step draws θ = μ + deviation(noise), takes g = ∂nll/∂θ of the unmodified network, and hands g to μ as it is and to Σ's
tensors by the chain rule (the reparameterisation trick: Kingma and Welling 2014); KL's part is exact where it can be.

What couples the weights, F (or L below its diagonal), is moved in units of each weight's σ: F = diag(σ) A, whose rows have C
numbers, with steps of A that are 1/√C of ρ's. Adam steps each number by its rate whatever its gradient; C of them in a row
would else outgrow σ within an epoch, and what is learnt of the correlations would not widen with σ.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from posterity.core.covariance import Covariance
from posterity.core.estimators import differentiate
from posterity.core.gaussian import softplus
from posterity.core.optimizer import Optimizer
from posterity.core.schedules import kl_weight
from posterity.errors import InvalidInput
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.base import Method
from posterity.methods.watching import Watching, pull_of, watched_latents, watched_stds
from posterity.model.correlated import CorrelatedDivergence
from posterity.model.likelihoods import training_score
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.model.steps import paced, units
from posterity.types import Batch, Budget, Data, Info, Prior, Scores, State, Streams

KL_EVERY = 100  # steps between two evaluations of KL's value, which only people look at


@runtime_checkable
class Settings(Protocol):
    """The fields that these methods share; `MeanField` says what they mean."""

    @property
    def epochs(self) -> int: ...
    @property
    def draws(self) -> int: ...
    @property
    def antithetic(self) -> bool: ...
    @property
    def temperature(self) -> float: ...
    @property
    def kl_schedule(self) -> str: ...
    @property
    def warmup_epochs(self) -> int: ...
    @property
    def initial_std(self) -> float: ...
    @property
    def std_lr(self) -> float: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def patience(self) -> int | None: ...
    @property
    def monitor(self) -> str: ...


def budget_of(method: Settings, data: Data) -> Budget:
    warmup = method.warmup_epochs if method.kl_schedule == "warmup" else 0
    return Budget(method.epochs, data.steps_per_epoch, method.patience, method.monitor, warmup)


def refuse_flat(problem: Problem, name: str) -> None:
    if isinstance(problem.prior, Flat):
        raise InvalidInput(f"A flat prior has no KL: {name} needs a proper prior, e.g. Normal(0, 0.1).")


def flat_flaw(method: Method, prior: Prior) -> str | None:
    """Say what of a flat prior a method cannot take that weighs a KL; None of any other."""
    if isinstance(prior, Flat):
        return f"--prior flat has no KL, which {method.kind} needs. Use --method mle, or --prior normal."
    return None


def refuse_odd(antithetic: bool, draws: int) -> None:
    if antithetic and draws % 2:
        raise ValueError("antithetic draws come in pairs: use an even number of draws")


class CorrelatedInference(Watching):
    """Descends the nelbo. State: mean, ρ, A, the KL last evaluated, step, the optimiser's tensors, buffers."""

    coupling: str  # what Σ's other tensor is called

    def __init__(
        self, problem: Problem, method: Settings, budget: Budget, initial: Callable[[Generator], Covariance]
    ) -> None:
        self.problem, self.method, self.budget, self.initial = problem, method, budget, initial
        self.divergence = CorrelatedDivergence.of(problem.coordinates)

    @abstractmethod
    def made(self, rho: Tensor, coupling: Tensor) -> Covariance:
        """Return the covariance of these tensors."""

    def init(self, streams: Streams) -> State:
        self.problem.train()
        mean = self.problem.theta()
        self._noise = streams("noise")
        first = self.initial(streams("initialisation"))
        relative = first.tensors[self.coupling] / first.std[:, None]
        vectors = {"mean": mean, "rho": first.rho, self.coupling: relative}
        rates = {"rho": self.method.std_lr, self.coupling: self.method.std_lr / relative.shape[1] ** 0.5}
        optimizer = paced(self.method.optimizer, self.problem, self.budget.steps)
        own = units(self.problem.coordinates, "mean", optimizer)
        self._optimizer = optimizer.bind(vectors, self.budget.steps, rates, own)
        state: State = {**vectors, "kl": torch.zeros((), dtype=torch.float64, device=mean.device)}
        state["step"] = torch.zeros((), dtype=torch.int64)
        state.update(self._optimizer.state())
        state.update({f"buffer.{n}": b for n, b in self.problem.network.named_buffers()})
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        mean, step, n = state["mean"], int(state["step"]), self.problem.num_data
        schedule = kl_weight(self.method.kl_schedule, step, self.budget.steps_per_epoch, self.method.warmup_epochs)
        weight = self.method.temperature * schedule / n
        grads = self._optimizer.grads
        for grad in grads.values():
            grad.zero_()
        covariance = self.covariance(state)
        nll, distribution, theta = self._draws(mean, covariance, batch, weight)
        self.divergence.add_mean_gradient(weight, mean, grads["mean"])
        precision = self.divergence.precision[self.problem.coordinates.start :]
        covariance.add_divergence_gradient(grads, weight, precision)
        grads["rho"].addcmul_((grads[self.coupling] * state[self.coupling]).sum(1), state["rho"].sigmoid())
        grads[self.coupling].mul_(covariance.std[:, None])
        if step % KL_EVERY == 0 or (step + 1) % self.budget.steps_per_epoch == 0:
            state["kl"].copy_(self.divergence.value(mean, covariance, theta))
        self._optimizer.step(step)
        state["step"] += 1
        name, score = training_score(distribution, batch)
        nll, kl = nll / self.problem.weight(batch), state["kl"] / n
        return state, {"nelbo": nll + self.method.temperature * kl, "nll": nll, "kl": kl, name: score}

    def observe(self, score: float) -> None:
        """Hear the score of the epoch that has ended."""
        self._optimizer.observe(score)

    def covariance(self, state: State) -> Covariance:
        """Return Σ at a state, whose coupling is in units of σ."""
        return self.made(state["rho"], state[self.coupling] * softplus(state["rho"])[:, None])

    def _draws(
        self, mean: Tensor, covariance: Covariance, batch: Batch, weight: float
    ) -> tuple[Tensor, Distribution, Tensor]:
        """Add the gradients of all that is drawn; return the mean nll, and the last draw with what it predicted."""
        where, draws, grads = self.problem.coordinates, self.method.draws, self._optimizer.grads
        total, noise = mean.new_zeros(()), torch.empty(0)
        for index in range(draws):
            mirrored = self.method.antithetic and index % 2
            noise = -noise if mirrored else covariance.noise(self._noise)
            theta, gradient = mean.clone(), torch.empty_like(mean)
            theta[where.start :] += covariance.deviation(noise)
            with self.problem.bound(theta):
                nll, distribution = self.problem.nll(batch)
                differentiate(nll, (self.problem.params, gradient, where.layout))
            gradient = where.pull(theta, gradient)
            score = self.divergence.score(theta)
            if score is not None:
                gradient = gradient + weight * score
            gradient = gradient / draws
            grads["mean"].add_(gradient)
            covariance.add_draw_gradient(grads, gradient[where.start :], noise)
            total = total + nll.detach() / draws
        return total, distribution, theta

    def watched(self, state: State) -> Scores:
        where = self.problem.coordinates
        pull = pull_of(state, "rho", self.method.optimizer.momentum)
        stds = watched_stds(self.covariance(state).variance().sqrt(), self.method.initial_std, pull)
        return stds | watched_latents(where.latents, where.layout.views(state["mean"]))

    def remarks(self) -> list[Remark]:
        return arrival.variational(self.rows, self.best)

    def snapshot(self, state: State) -> Problem:
        """Copy the problem, with the buffers of a state."""
        return self.problem.snapshot(
            {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        )
