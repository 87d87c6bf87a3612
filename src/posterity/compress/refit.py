"""Fitting on from a pruned posterior: what was removed stays removed, and the rest makes up for it."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from posterity.compress.prune import removed, without
from posterity.core.gaussian import inverse_softplus
from posterity.errors import InvalidInput
from posterity.methods.mean_field import MeanField, MeanFieldInference
from posterity.methods.refine import started, stds_of
from posterity.methods.variational import budget_of, refuse_flat
from posterity.model.initial import SMALLEST, InitialStd
from posterity.model.problem import Problem
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.statistics import validated, with_statistics
from posterity.train.batches import as_data
from posterity.train.engine import Engine
from posterity.types import Batch, Budget, Info, State, Streams

USUAL = MeanField(epochs=2)


def refit(
    posterior: DiagonalGaussian, data: Any, method: MeanField = USUAL, engine: Engine | None = None
) -> DiagonalGaussian:
    """Go on with mean-field inference from a posterior, with the weights that it lacks held at 0.

    Network, running statistics, means and stds start where the posterior is, `method.initial` is not used; prior and
    likelihood are the posterior's. Also for what `smaller` returns, where nothing has to be held. `prune` and `refit` in turns
    remove more than one step does (iterative pruning: Han et al. 2015).

    After each step a held weight is put back to N(0, 1e-5²), so that its gradient changes nothing; in what is returned it is 0
    exactly. The log shows NLL and score, but no KL, which would count the held weights.

    Args:
        posterior: pruned, or not; it is not changed.
        data: in any form that `fit` takes.
        method: how to go on; a low learning rate and few epochs will do.
        engine: `Engine()` unless given.

    Raises:
        InvalidInput: for a method that watches the ELBO or fits the prior, which would look at held weights, and as `fit`.

    >>> from posterity import Gaussian, Normal, Optimizer, Problem
    >>> x = torch.linspace(-1, 1, 20)[:, None].expand(-1, 2)
    >>> problem = Problem(torch.nn.Linear(2, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=20)
    >>> pruned = DiagonalGaussian(problem, torch.tensor([1.0, 0.0]), torch.tensor([0.1, 0.0]))
    >>> method = MeanField(epochs=200, optimizer=Optimizer(lr=0.05))
    >>> found = refit(pruned, (x, 2 * x[:, 0]), method, Engine(progress=False))
    >>> round(found.mean[0].item(), 1), found.mean[1].item(), found.std[1].item()
    (2.0, 0.0, 0.0)
    """
    if method.monitor == "nelbo" or method.learn_prior:
        raise InvalidInput("refit holds removed weights at 0: use monitor='nll' and learn_prior=None.")
    refuse_flat(posterior.problem, "refit")
    engine = engine or Engine()
    device, gone, stds = engine.torch_device(), removed(posterior), stds_of(posterior)
    source = as_data(data).known_to(posterior.problem.likelihood).seen_by(posterior.problem.likelihood)
    assert stds is not None
    network = deepcopy(posterior.problem.network).to(device)
    problem = replace(
        posterior.problem, network=network, num_data=source.num_data, mean_batch_size=source.mean_batch_size
    )
    problem = started(problem, posterior)
    ready = source.checked(problem.check, device)
    budget = budget_of(method, ready)
    inference = _Held(problem, method, budget, stds, gone.to(device))
    state = engine.validating(partial(validated, data=ready)).run(inference, ready, budget)
    found = with_statistics(inference.posterior(state), ready)
    told = {"refit": TypeAdapter(MeanField).dump_python(method, mode="json"), "seed": engine.seed}
    found.provenance.update(posterior.provenance | told)
    assert isinstance(found, DiagonalGaussian)  # as it was: only functions are added
    return found


class _Held(MeanFieldInference):
    """Mean field in which some of the network's random weights are no unknowns."""

    def __init__(self, problem: Problem, method: MeanField, budget: Budget, initial: InitialStd, gone: Tensor) -> None:
        super().__init__(problem, method, budget, initial)
        self.gone = gone

    def init(self, streams: Streams) -> State:
        return self._hold(super().init(streams))

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        state, info = super().update(state, batch)
        return self._hold(state), {name: value for name, value in info.items() if name not in ("nelbo", "kl")}

    def posterior(self, state: State) -> DiagonalGaussian:
        return without(super().posterior(state), self.gone)

    def _hold(self, state: State) -> State:
        start = self.problem.coordinates.start
        state["mean"][start : start + len(self.gone)].masked_fill_(self.gone, 0)
        smallest = float(inverse_softplus(torch.tensor(SMALLEST)))
        state["rho"][: len(self.gone)].masked_fill_(self.gone, smallest)
        return state
