"""Mean-field variational inference: q(θ) = N(μ, diag σ²), fitted by stochastic gradients of the ELBO.

nelbo(μ, ρ) = E_q[mean nll] + temperature · KL(q‖p) / N,      σ = softplus(ρ),      in nats per datum

The gradient of the first term is one of three estimators with the same mean (`core/estimators.py`): a weight draw (Bayes by
Backprop, Blundell et al. 2015), local reparameterisation (Kingma et al. 2015), Flipout (Wen et al. 2018). The second is
exact where the prior is Normal. Departures from the papers: σ's slope goes through softplus in all three, and the KL's
weight is 1/N at every step unless `kl_schedule` says otherwise.
"""

import warnings
from dataclasses import replace
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributions import Distribution

from posterity.core.activation import Flipout, LocalReparam
from posterity.core.estimators import Estimator, WeightDraw
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.core.optimizer import Optimizer
from posterity.core.schedules import kl_weight
from posterity.errors import PosterityWarning
from posterity.methods import arrival
from posterity.methods.arrival import Remark
from posterity.methods.options import Descending, Epochs, Patience
from posterity.methods.variational import KL_EVERY, budget_of, flat_flaw, refuse_flat, refuse_odd
from posterity.methods.watching import Watching, pull_of, run, watched_latents, watched_stds
from posterity.model.divergence import Divergence
from posterity.model.elbo import CompiledElbo, NegativeElbo
from posterity.model.empirical import LearntPrior
from posterity.model.importance import PathElbo
from posterity.model.initial import InitialStd, Relative, curvature_std, initial_std
from posterity.model.likelihoods import training_score
from posterity.model.noncentred import NonCentred
from posterity.model.priors import Flat, Normal
from posterity.model.problem import Problem
from posterity.model.steps import paced, units
from posterity.options import STRICT, dataclass
from posterity.posteriors.descent import Descent
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.types import Batch, Budget, Data, Engine, Info, Params, Prior, Scores, State, Streams

CURVATURE_BATCHES = 50  # squared gradients of so many batches are averaged


@dataclass(frozen=True, config=STRICT)
class MeanField(Descending):
    """Mean-field variational inference (Bayes by Backprop and its lower-variance relatives).

    Args:
        estimator: `weight` (cheapest, and right for any operation), `flipout` (less variance, the same objective), or
            `local_reparam` (least variance; the best where each weight meets an example once, as in an MLP. In a
            convolutional network it optimises a slightly different objective, and predicts worse for it).
        epochs: passes over the training data.
        draws: Monte-Carlo draws per step; their gradients are averaged.
        antithetic: draw ±ε in pairs; needs `estimator='weight'` and an even number of draws.
        gradient: `total`, of the nll at a draw and the KL, in closed form where it has one; or `path`, of both at the draw,
            whose noise vanishes as q nears the posterior (Roeder et al. 2017), and which needs `estimator='weight'`.
        objective: `elbo`; or `importance_weighted`, the tighter bound of Burda et al. (2016) with `draws` importance draws,
            along the path gradients of Tucker et al. (2019). It is a bound on the evidence for batches of the whole data
            alone (see `posterity.model.importance`), and a fit of others warns. The log shows it as
            `importance_nelbo`, beside the ELBO of the same q.
        compiled: draws and updates in compiled kernels: faster for wide networks of a million weights, and for local
            reparameterisation and Flipout of any, after some seconds of compilation. Needs a compiler, Adam, one draw, and
            a Normal prior on all of the network.
        temperature: weight of the KL; 1 is the posterior, less is a "cold posterior" and is said in every report.
        kl_schedule: how the KL's weight moves between steps; `constant` unless you reproduce a paper. See `kl_weight`.
        warmup_epochs: length of the schedule `warmup`.
        initial: the std at the start; the mean starts at the network's own weights. `constant`: `initial_std` for all.
            `relative`: `initial_std` · |w|, for pretrained networks (MOPED: Krishnan et al. 2020; 0.1, say). `curvature`:
            what the squared gradients at the network's weights allow, see `curvature_std`; `initial_std` is not used.
        initial_std: see `initial`.
        std_lr: learning rate of ρ, as a multiple of μ's.
        optimizer: one of torch's, with its learning-rate schedule.
        learn_prior: fit the prior's std to the data by empirical Bayes, one for each `tensor` or `layer`, or for the whole
            `network`, once per epoch; needs a Normal prior. See `LearntPrior`. The log shows them.
        patience: stop after so many epochs without a better validation score; None: never.
        monitor: that score: `nll` of the averaged prediction, or `nelbo`.
    """

    estimator: Literal["weight", "local_reparam", "flipout"] = "weight"
    epochs: Epochs = 20
    draws: Annotated[int, Field(ge=1)] = 1
    antithetic: bool = False
    gradient: Literal["total", "path"] = "total"
    objective: Literal["elbo", "importance_weighted"] = "elbo"
    compiled: bool = False
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    kl_schedule: Literal["constant", "warmup", "blundell"] = "constant"
    warmup_epochs: Annotated[int, Field(ge=1)] = 5
    initial: Literal["constant", "relative", "curvature"] = "constant"
    initial_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    std_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(least=4e-3, schedule="one_cycle"))
    learn_prior: Literal["tensor", "layer", "network"] | None = None
    patience: Patience = None
    monitor: Literal["nll", "nelbo"] = "nll"
    kind: Literal["mean_field"] = "mean_field"
    title = "Mean field"

    @property
    def along_paths(self) -> bool:
        return self.gradient == "path" or self.objective == "importance_weighted"

    @model_validator(mode="after")
    def _draws_of_weights(self) -> "MeanField":
        if self.along_paths and (self.estimator != "weight" or self.compiled or self.learn_prior):
            raise ValueError(
                "gradient='path' and objective='importance_weighted' take log p and log q at a draw of the weights: use "
                "estimator='weight', compiled=False and learn_prior=None"
            )
        if self.objective == "importance_weighted" and (self.draws < 2 or self.antithetic):
            raise ValueError(
                "objective='importance_weighted' needs 2 draws or more, which are independent: use draws=8"
            )
        if self.objective == "importance_weighted" and (self.kl_schedule != "constant" or not self.temperature):
            raise ValueError(
                "objective='importance_weighted' has one weight of prior and likelihood: use kl_schedule='constant' and a "
                "temperature above 0"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "MeanField":
        refuse_odd(self.antithetic, self.draws)
        if self.antithetic and self.estimator != "weight":
            raise ValueError("antithetic draws are draws of the weights: use estimator='weight', or antithetic=False")
        if self.compiled and self.learn_prior:
            raise ValueError("compiled=True has its prior fixed: leave learn_prior=None, or compiled=False")
        if self.compiled and (self.draws > 1 or self.optimizer.name != "Adam"):
            raise ValueError("compiled=True takes one draw per step, by Adam: use draws=1 and optimizer.name='Adam'")
        return self

    def prior_flaw(self, prior: Prior) -> str | None:
        if self.learn_prior and not isinstance(prior, Flat | Normal):
            return (
                f"--method.learn-prior {self.learn_prior} fits the std of a normal prior, not of a "
                f"{getattr(prior, 'kind', type(prior).__name__)} one. Use --prior normal; or --prior hierarchical, whose "
                "scales are inferred without it."
            )
        return flat_flaw(self, prior)

    def infer_from(self, problem: Problem, data: Data, engine: Engine, stds: Params | None) -> DiagonalGaussian:
        return self.infer(problem, data, engine, None if stds is None else dict(stds))

    def infer(
        self, problem: Problem, data: Data, engine: Engine, initial: InitialStd | None = None
    ) -> DiagonalGaussian:
        """Maximise the ELBO; returns the best q by validation, or the last where there is no validation.

        `initial`, where it is given, takes the place of the method's own.
        """
        refuse_flat(problem, "mean field")
        if self.objective == "importance_weighted" and data.steps_per_epoch > 1:
            warnings.warn(
                "objective='importance_weighted' is a bound of all data at once, and an epoch has "
                f"{data.steps_per_epoch} batches: it then depends on how they are cut, and stds come out too large where "
                f"batches differ. Give one batch of all {data.num_data:,}, or objective='elbo'.",
                PosterityWarning,
                stacklevel=3,
            )
        budget = budget_of(self, data)
        std = self.initial_stds(problem, data) if initial is None else initial
        inference = MeanFieldInference(problem, self, budget, std)
        return run(inference, data, engine, budget)

    def initial_stds(self, problem: Problem, data: Data) -> InitialStd:
        """Return the stds to start from, as `initial` says."""
        if self.initial == "constant":
            return self.initial_std
        if self.initial == "relative":
            return Relative(self.initial_std)
        return curvature_std(problem, islice(data.batches(0, torch.Generator().manual_seed(0)), CURVATURE_BATCHES))


class MeanFieldInference(Watching):
    """Descends the nelbo. State: mean, rho, the KL last evaluated, step, the optimiser's tensors, the network's buffers."""

    def __init__(self, problem: Problem, method: MeanField, budget: Budget, initial: InitialStd = 0.02) -> None:
        self.problem, self.method, self.budget, self.initial = problem, method, budget, initial
        self.learnt = LearntPrior(problem.coordinates, method.learn_prior) if method.learn_prior else None
        self.divergence = self.learnt.divergence if self.learnt else Divergence.of(problem.coordinates)

    def init(self, streams: Streams) -> State:
        self.problem.train()
        mean = self.problem.theta()
        rho = inverse_softplus(initial_std(self.problem.coordinates, self.initial))
        self._noise = streams("noise")
        self._elbo = self._make_elbo()
        rates = {"rho": self.method.std_lr}
        optimizer = paced(self.method.optimizer, self.problem, self.budget.steps)
        own = units(self.problem.coordinates, "mean", optimizer)
        self._optimizer = optimizer.bind({"mean": mean, "rho": rho}, self.budget.steps, rates, own)
        state: State = {"mean": mean, "rho": rho, "kl": torch.zeros((), dtype=torch.float64, device=mean.device)}
        state["step"] = torch.zeros((), dtype=torch.int64)
        state.update(self._optimizer.state())
        state.update(self.learnt.state() if self.learnt else {})
        state.update({f"buffer.{n}": b for n, b in self.problem.network.named_buffers()})
        return state

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        mean, rho, step = state["mean"], state["rho"], int(state["step"])
        n = self.problem.num_data
        weight = self.method.temperature * kl_weight(
            self.method.kl_schedule, step, self.budget.steps_per_epoch, self.method.warmup_epochs
        )
        seen: list[Distribution] = []

        def loss() -> Tensor:
            value, distribution = self.problem.nll(batch)
            seen.append(distribution)
            return value

        if step % KL_EVERY == 0 or (step + 1) % self.budget.steps_per_epoch == 0:
            state["kl"].copy_(self.divergence.value(mean, softplus(rho), self._noise))
        nll = self._elbo.descend(loss, weight / n, self._optimizer, step, self._noise)
        state["step"] += 1
        if self.learnt and (step + 1) % self.budget.steps_per_epoch == 0:
            self.learnt.fit(mean, softplus(rho))
        name, score = training_score(seen[-1], batch)
        nll, kl = nll / self.problem.weight(batch), state["kl"] / n
        info = {"nelbo": nll + self.method.temperature * kl, "nll": nll, "kl": kl, name: score}
        if self.method.objective == "importance_weighted" and isinstance(self._elbo, PathElbo):
            info["importance_nelbo"] = self._elbo.value
        return state, {**info, **(self.learnt.info() if self.learnt else {})}

    def observe(self, score: float) -> None:
        """Hear the score of the epoch that has ended."""
        self._optimizer.observe(score)

    def posterior(self, state: State) -> DiagonalGaussian:
        buffers = {n.removeprefix("buffer."): b for n, b in state.items() if n.startswith("buffer.")}
        problem = self.problem.snapshot(buffers)
        if self.learnt:
            problem = replace(problem, prior=self.learnt.prior(state))
        descent = Descent(self.method.temperature)
        return DiagonalGaussian(problem, state["mean"].clone(), softplus(state["rho"]), descent=descent)

    def watched(self, state: State) -> Scores:
        where = self.problem.coordinates
        guessed = isinstance(self.initial, int | float | Relative)
        pull = pull_of(state, "rho", self.method.optimizer.momentum)
        stds = watched_stds(softplus(state["rho"]), initial_std(where, self.initial), pull, guessed)
        return stds | watched_latents(where.latents, where.layout.views(state["mean"]))

    def remarks(self) -> list[Remark]:
        return arrival.variational(self.rows, self.best)

    def _make_elbo(self) -> NegativeElbo | CompiledElbo | PathElbo:
        where, method = self.problem.coordinates, self.method
        if method.along_paths:
            importance = method.objective == "importance_weighted"
            return PathElbo(where, method.draws, antithetic=method.antithetic, importance=importance)
        activation = {"local_reparam": LocalReparam, "flipout": Flipout}.get(self.method.estimator)
        draw = activation(where.params, where.start, self.problem.network, layout=where.layout) if activation else None
        if self.method.compiled:
            return CompiledElbo(where, draw)
        estimator: Estimator = draw or WeightDraw(
            where.params, where.start, self.method.antithetic, layout=where.layout
        )
        return NegativeElbo(
            NonCentred(estimator, where) if where.noncentred else estimator, self.divergence, self.method.draws
        )
