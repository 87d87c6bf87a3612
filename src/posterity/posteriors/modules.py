"""The posterior of a module that was trained in anyone's own loop."""

from typing import Any

from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.model.adopted import as_likelihood
from posterity.model.bayesianize import bayesian_modules, deterministic
from posterity.model.likelihoods import Categorical
from posterity.model.plain import plain
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.options import shown
from posterity.posteriors.descent import Descent
from posterity.posteriors.gaussian import DiagonalGaussian


def posterior(module: nn.Module, likelihood: Any = None, *, num_data: int = 1) -> DiagonalGaussian:
    """Return q(w) = N(μ, σ²) of all Bayesian modules in a tree as one posterior, which can draw, predict and save.

    It is a copy in eval mode: further training does not change it. Its draws are whole weights, one function each, whatever
    estimator the modules were trained with: so a layer that is called several times computes with the same weights each
    time. The file that `save` writes holds q, not the prior.

    Args:
        module: maps inputs (B, ...) to outputs (B, ...); `bayesianize` made it, or layers of `posterity.nn` are in it.
        likelihood: that it was trained with; `Categorical()` unless given.
        num_data: N of the training set, for the record.

    Raises:
        InvalidInput: where there is no Bayesian module, where one has a non-centred prior (its weights are no Gaussian), or
            where the likelihood has unknowns of its own, which no module holds.

    >>> import torch
    >>> from posterity import Gaussian, bayesianize
    >>> bnn = bayesianize(nn.Linear(1, 1), init=0.1)
    >>> prediction = posterior(bnn, Gaussian(std=0.2)).predict(torch.zeros(5, 1), n=50)
    >>> prediction.mean.shape
    torch.Size([5])
    """
    module = plain(module)
    parts = bayesian_modules(module)
    if not parts:
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    if any(m.coordinates.noncentred for m in parts.values()):
        raise InvalidInput("A module under a non-centred prior has no Gaussian over its weights; use centered=True.")
    likelihood = as_likelihood(Categorical() if likelihood is None else likelihood)
    if isinstance(likelihood, type) or not callable(getattr(likelihood, "latents", None)):
        raise InvalidInput(f"likelihood={shown(likelihood)}: must be made, as Gaussian(std=0.1).")
    if unknowns := likelihood.latents():
        raise InvalidInput(
            f"{type(likelihood).__name__} has an unknown of its own, '{min(unknowns)}', which no module holds; give it a "
            "value, as Gaussian(std=0.1), or infer it with posterity.fit."
        )
    stds: dict[str, Tensor] = {}
    for name, part in parts.items():
        own = part.std
        stds |= {f"{name}.{n}" if name else n: own[n].detach() for n in part.random_names}
    problem = Problem(deterministic(module).eval(), Flat(), likelihood, num_data, frozenset(stds))
    std = problem.coordinates.random_layout.flatten(stds)
    return DiagonalGaussian(problem, problem.theta(), std, descent=Descent())
