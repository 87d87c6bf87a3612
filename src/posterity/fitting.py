"""One call from a network and data to a posterior."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Generator, nn

from posterity.errors import InvalidInput, NotArrived, PosterityWarning, ScaleWarning
from posterity.identity import identified
from posterity.methods import MeanField, as_method, outcome
from posterity.methods.base import is_method
from posterity.methods.outcome import Outlook, gathered
from posterity.methods.records import recorded
from posterity.model import scales
from posterity.model.adopted import as_likelihood
from posterity.model.alone import computed_alone, unmoved
from posterity.model.bayesianize import Bayesian
from posterity.model.likelihoods import Categorical
from posterity.model.plain import plain
from posterity.model.priors import Normal, as_prior
from posterity.model.problem import Problem
from posterity.model.running import watched
from posterity.model.selection import Where
from posterity.model.starts import started
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.statistics import validated, with_statistics
from posterity.rehearsal import rehearse
from posterity.train.batches import TensorData, as_data
from posterity.train.engine import Engine
from posterity.train.identity import Identity
from posterity.train.loader import missing
from posterity.train.own import is_engine, place_of
from posterity.types import Batch, Likelihood

LITTLE = 0.1  # of the number of data: weights that sum to less are taken for a mistake


def fit(
    network: nn.Module,
    data: Any,
    *,
    likelihood: Likelihood | Callable[..., Any] | None = None,
    prior: Any = None,
    where: Where = None,
    method: Any = None,
    engine: Any = None,
) -> FunctionPosterior | Any:
    """Infer the posterior of a network's parameters, p(θ | D) ∝ p(θ) Π_n p(y_n | f(θ, x_n)).

    Args:
        network: any module that maps inputs (B, ...) to outputs (B, ...); it is copied, not changed. Its present weights
            are where the inference starts.
        data: a `DataLoader` of (inputs, targets), a pair of tensors, `TensorData` / `LoaderData` with batch size, weights and
            validation of their own, or what keeps the contract of `posterity.Data`. Targets that are NaN are missing, and left
            out of the sum.
        likelihood: of targets given outputs; `Categorical()` unless given, of sites where targets are label maps (B, ...).
            One of your own is called with (outputs, latents), and returns a torch Distribution.
        prior: over the parameters, or one for each name pattern, `{"*.bias": Normal(0, 1), "*": Laplace(0, 0.1)}`;
            `Normal(0, 0.3)` unless given.
        where: which parameters are random, by name, type, or predicate; see `select`. The others are trained as points.
        method: how to infer; `MeanField()` unless given. One of your own has `infer(problem, data, engine)`.
        engine: where it runs, seed, checkpoints, progress; `Engine()` unless given. One of your own has the methods of
            `posterity.types.Engine`; resuming and checkpoints are then its own affair.

    Returns:
        a posterior that can `draw`, `predict` and `save`; of a method of your own, what its `infer` returns.

    Raises:
        InvalidInput: before anything is trained, for data that do not fit the network or the likelihood.
        Diverged, Interrupted: see `Engine.run`.
        Mismatch: where the engine is to resume a fit of other data, another network, prior, likelihood, method or seed.
        Occupied: where another process or thread is writing to the engine's directory.

    Warns:
        ScaleWarning: before anything is trained, for inputs, targets, outputs or a noise level that are far from the scales
            that everything starts from, and for a last activation that the likelihood applies again.
        NotArrived: once, with all that tells that the fit ended too early, at its prior or at its start, or that a chain ran
            away; the same sentences are in `posterior.provenance["remarks"]`, in its file, and in reports.

    >>> import torch
    >>> from posterity import Engine, Gaussian, MeanField, Normal, Optimizer
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> net = nn.Linear(1, 1)
    >>> posterior = fit(net, (x, 2 * x.squeeze()), likelihood=Gaussian(std=0.1), prior=Normal(0, 1),
    ...                 method=MeanField(epochs=200, optimizer=Optimizer(lr=0.05)), engine=Engine(progress=False))
    >>> round(posterior.predict(torch.tensor([[0.5]]), n=100).mean.item(), 1)
    1.0
    """
    _check_made(network, likelihood, method, engine)
    if any(isinstance(module, Bayesian) for module in network.modules()):
        raise InvalidInput(
            "The network holds Bayesian modules, which would become Bayesian twice. Give fit the plain one, "
            "posterity.deterministic(network), or train yours with posterity.kl(network) in its loss."
        )
    engine = engine or Engine()
    device = place_of(engine, network)
    source = as_data(data)
    copied = plain(network).to(device)
    first = next(source.batches(0, Generator()))
    outputs = computed_alone(copied, first[0].to(device))
    own: Likelihood = as_likelihood(likelihood or Categorical.of(outputs, first[1][:2]))
    believed = as_prior(Normal(0, 0.3) if prior is None else prior)
    problem = Problem(copied, believed, own, source.num_data, where, source.mean_batch_size)
    method = method or MeanField()
    identity = identified(network, problem, method, source)
    ready = source.known_to(own).checked(problem.check, device).seen_by(own)
    seen = next(ready.batches(0, Generator()))
    rehearse(problem, seen, _held_out(problem, ready), ready.smallest_batch)
    sample = ready.whole if isinstance(ready, TensorData) else seen
    problem = replace(problem, num_data=ready.num_data, mean_batch_size=ready.mean_batch_size)
    problem = watched(replace(problem, likelihood=started(own, sample)), seen[0])
    for remark in scales.remarks(problem, *sample[:2]):
        warnings.warn(remark, ScaleWarning, stacklevel=2)
    _say_counts(ready)
    outlook = Outlook.of(problem, ready)
    record = recorded(method)
    with _held(engine, identity, ready) as holding:
        found = as_method(method).infer(problem, ready, holding)
    if not isinstance(found, FunctionPosterior):
        return _of_ones_own(found, method)
    posterior = with_statistics(found, ready)
    remarks = list(dict.fromkeys([*gathered(posterior), *outcome.remarks(outlook, posterior, method)]))
    seed = getattr(engine, "seed", None)
    posterior.provenance.update(method=record, seed=seed, device=str(device), remarks=remarks)
    if remarks:
        listed = "".join(f"\n- {remark}" for remark in remarks)
        warnings.warn(f"The fit may not have arrived where it should:{listed}", NotArrived, stacklevel=2)
    return posterior


def _check_made(network: Any, likelihood: Any, method: Any, engine: Any) -> None:
    """Refuse names and classes where an object is wanted."""
    wanted = {
        "network": (network, isinstance(network, nn.Module), "a module, as nn.Linear(2, 1)"),
        "likelihood": (
            likelihood,
            likelihood is None or callable(likelihood),
            "made, as Gaussian(), or of your own: called with (outputs, latents) it returns a torch Distribution",
        ),
        "method": (
            method,
            method is None or is_method(method),
            "made, as MeanField(), or of your own, with infer(problem, data, engine)",
        ),
        "engine": (engine, engine is None or is_engine(engine), "made, as Engine(device='cpu'), or have run and fork"),
    }
    for name, (given, fits, example) in wanted.items():
        if not fits or isinstance(given, type):
            shown = f"the class {given.__name__}" if isinstance(given, type) else repr(given)
            raise InvalidInput(f"{name} is {shown}; it must be {example}.")


@contextmanager
def _held(engine: Any, identity: Identity, data: Any) -> Iterator[Any]:
    """Hold the engine's directory, and give it what the fit is of; one of somebody's own is used as it is."""
    if not isinstance(engine, Engine):
        yield engine
        return
    with engine.alone() as own:
        yield own.of(identity).validating(partial(validated, data=data))


def _of_ones_own(found: Any, method: Any) -> Any:
    """Return what a method of somebody's own has made, where it is a posterior, if of no family that we know."""
    missing = [name for name in ("draw", "predict") if not callable(getattr(found, name, None))]
    if missing:
        raise InvalidInput(
            f"infer of {as_method(method).title} returned a {type(found).__name__} without {' and '.join(missing)}: a "
            "posterior draws functions and predicts."
        )
    return found


def _held_out(problem: Problem, data: Any) -> Batch | None:
    """Try all validation data, which would else end a fit after its first epoch, and return the first batch."""
    first = None
    with unmoved():  # a loader begins by drawing a seed for its workers
        for batch in data.validation() or ():
            first = batch if first is None else first
            problem.check(batch)
    return first


def _say_counts(source: Any) -> None:
    """Say how many targets are missing, and where weights leave little of the data beside the prior."""
    whole = isinstance(source, TensorData)
    count, left_out = (len(source.targets), source.left_out) if whole else (source.count.delivered, 0)
    if left_out:
        warnings.warn(missing(left_out, count + left_out, "were left out"), PosterityWarning, stacklevel=3)
    if source.num_data < LITTLE * count:
        warnings.warn(
            f"The weights of {count:,} data sum to {source.num_data:.4g}: in the posterior they count for so many data, and "
            "the prior outweighs them. Weights of mean 1, weights / weights.mean(), let them count for as many as they are.",
            PosterityWarning,
            stacklevel=3,
        )
