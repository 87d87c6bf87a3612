"""Prior and noise from the evidence: type-II maximum likelihood by Laplace's approximation (MacKay 1992; Immer et al. 2021).

    log p(D | s, σ) ≈ log p(D | θ*, σ) + log p(θ* | s) + R/2 log 2π − ½ log|G(σ) + P(s)|

is maximised over the std s_g of each group of weights, and the noise's std σ, at a given θ*. For a linear model with Gaussian
noise, training and this step in turns end at the maximum of the exact evidence.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from posterity.core.gaussian import LOG_2PI, softplus
from posterity.errors import InvalidInput
from posterity.methods.expansion import Expansion
from posterity.model.likelihoods import Gaussian
from posterity.model.priors import Normal
from posterity.model.problem import Problem

RANGE = (
    8.0  # a std stays within a factor of e⁸ of where it was: evidence may have no maximum, for weights that are all 0
)


def tuned(found: Expansion, per: Literal["network", "layer"] | None, noise: bool) -> Problem:
    """Return the problem with the std of its prior, its noise, or both, at the maximum of the evidence at θ*.

    The network starts from θ*. Point coordinates keep their prior. Noise levels of several targets keep their ratios, as the
    training left them, and move by one factor.

    Args:
        found: the expansion at θ*.
        per: what shares one std: all random weights, or those of a module; None leaves the prior as it is.
        noise: whether the std of a Gaussian likelihood is tuned.

    Raises:
        InvalidInput: where the prior is no `Normal`, or the likelihood no `Gaussian` whose curvature is known.
    """
    problem = found.point.problem
    groups = _groups(problem, per) if per else {}
    start = _noise(problem, found) if noise else torch.ones((), dtype=torch.float64)
    member = torch.zeros(len(found.precision), dtype=torch.int64)
    for i, slices in enumerate(groups.values()):
        for a, b in slices.values():
            member[a:b] = i
    member = member.to(found.precision.device)
    first = torch.stack([found.precision[next(iter(s.values()))[0]] for s in groups.values()]) if groups else None

    def evidence(logs: Tensor) -> Tensor:
        change = RANGE * torch.tanh(logs / RANGE)
        std, ratio = change[:-1], change[-1] if noise else change[-1] * 0
        precision = found.precision if first is None else (first * (-2 * std).exp())[member]
        log_likelihood = found.log_likelihood * 0
        if noise:
            log_likelihood = _log_likelihood(found, start, ratio.exp())
        return log_likelihood + found.marginal(precision, (-2 * ratio).exp())

    best = RANGE * torch.tanh(_maximum(evidence, len(groups) + 1, found.precision) / RANGE)
    stds = {} if first is None else dict(zip(groups, (first.rsqrt() * best[:-1].exp()).tolist(), strict=True))
    named = {n: stds[g] for g, slices in groups.items() for n in slices}
    likelihood = _fixed(start * best[-1].exp()) if noise else problem.likelihood
    prior = _prior(problem, named) if per else problem.prior
    network = found.point.network()
    random = frozenset(problem.coordinates.random_names)
    return replace(problem, network=network, prior=prior, likelihood=likelihood, where=random)


def refuse_untunable(problem: Problem, per: str | None, noise: bool, curvature: str) -> None:
    """Refuse what has no std to tune.

    Raises:
        InvalidInput: for a prior that is no `Normal`, a likelihood that is no `Gaussian`, and noise beside `fisher`, which
            does not scale with it.
    """
    if per and not isinstance(problem.prior, Normal):
        raise InvalidInput(
            f"tune='{per}' fits the std of a Normal prior; this problem has {problem.prior!r}. Use Normal(0, 0.1)."
        )
    if noise and not isinstance(problem.likelihood, Gaussian):
        raise InvalidInput(
            f"tune_noise fits the std of a Gaussian likelihood, not of {type(problem.likelihood).__name__}."
        )
    if noise and curvature == "fisher":
        raise InvalidInput("tune_noise needs curvature='ggn', which scales with the noise; 'fisher' does not.")


def _maximum(objective: Callable[[Tensor], Tensor], size: int, like: Tensor) -> Tensor:
    """Climb from 0 by L-BFGS."""
    logs = torch.zeros(size, dtype=like.dtype, device=like.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logs], max_iter=100, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -objective(logs)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return logs.detach()


def _groups(problem: Problem, per: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Say where the random weights of each group lie among the network's random coordinates, by group and name."""
    start = problem.coordinates.start
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    layout = problem.layout
    for name, offset, count in zip(layout.names, layout.offsets, layout.numels, strict=True):
        if name in problem.coordinates.random_names:
            group = "" if per == "network" else name.rpartition(".")[0]
            groups.setdefault(group, {})[name] = (offset - start, offset - start + count)
    return groups


def _prior(problem: Problem, named: dict[str, float]) -> Normal:
    """Return the prior with new stds for these names; the others keep theirs."""
    own = problem.prior
    where = problem.coordinates
    assert isinstance(own, Normal)
    assert where.normal is not None
    layout = where.layout.among(where.shapes())
    before = {n: float(v.flatten()[0]) for n, v in layout.parts(where.normal[1]).items()}
    return Normal(own.mean, {**before, **named})


def _noise(problem: Problem, found: Expansion) -> Tensor:
    """Return the noise's std at present, (), or (D,) where each target has its own."""
    likelihood = problem.likelihood
    assert isinstance(likelihood, Gaussian)  # `refuse_untunable` saw to it
    if likelihood.std is not None:
        return torch.tensor(likelihood.std, dtype=torch.float64)
    own = problem.latents(problem.layout.views(found.point.theta))
    return softplus(own["std"].detach().double())


def _fixed(std: Tensor) -> Gaussian:
    return Gaussian(std=tuple(std.tolist()) if std.dim() else float(std))


def _log_likelihood(found: Expansion, before: Tensor, ratio: Tensor) -> Tensor:
    """Return Σ log N(y; f(θ*), (ratio · before)²) by way of the one at ratio 1: only it and the squared error count."""
    constant = found.num_targets * (before.log().mean() + 0.5 * LOG_2PI)
    squares = -2 * (found.log_likelihood + constant)  # Σ ((y − f)/before)²
    return -constant - found.num_targets * ratio.log() - squares / (2 * ratio.square())
