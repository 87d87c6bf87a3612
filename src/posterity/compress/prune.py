"""Posteriors with weights removed, and what that costs.

A removed weight has μ = 0 and σ = 0: it is exactly 0 in every draw and in the mean network, its prior has become a point mass
at 0, and a file keeps it as any other number. `sparsity` counts such weights; nothing else remembers them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from posterity.compress.ranking import importance, moments, share_of
from posterity.errors import InvalidInput
from posterity.options import require
from posterity.posteriors.asked import check_posterior
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.contraction import layer_of
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.types import Scores

P = TypeVar("P", bound=FunctionPosterior)
SPARSITIES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)


def prune(posterior: P, sparsity: float, by: str = "signal_to_noise", *, per_layer: bool = False) -> P:
    """Remove the weights that matter least, so that a share `sparsity` of the network's random weights is 0 in every draw.

    ⌊sparsity · R⌋ of the R random weights go, biases among them, ties in θ's order; points (`where=`, scales of
    normalisation layers) and latents stay. Members of a mixture are pruned one by one. Weights that were removed before
    stay removed, whatever the share.

    Args:
        posterior: a `DiagonalGaussian`, a `Point` (by magnitude), or a `Mixture` of these; it is not changed.
        sparsity: share of the weights to be 0, in [0, 1).
        by: `signal_to_noise`, `kl` or `magnitude`; see `importance`.
        per_layer: remove that share of each layer; else one threshold serves them all, and layers that matter keep more.

    Raises:
        InvalidInput: for a share outside [0, 1), and as `importance`.

    >>> from posterity import Gaussian, Normal, Problem
    >>> problem = Problem(torch.nn.Linear(4, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> posterior = DiagonalGaussian(problem, torch.tensor([0.5, -0.1, 0.2, 2.0]), torch.tensor([0.1, 0.1, 0.01, 5.0]))
    >>> pruned = prune(posterior, 0.5)
    >>> pruned.mean, pruned.std
    (tensor([0.5000, 0.0000, 0.2000, 0.0000]), tensor([0.1000, 0.0000, 0.0100, 0.0000]))
    """
    check_posterior(posterior)
    require(sparsity=(sparsity, float), by=(by, str), per_layer=(per_layer, bool))
    if not 0 <= sparsity < 1:
        raise InvalidInput(
            f"sparsity is {sparsity:g}; expected a share of the weights of at least 0 and below 1, as 0.9."
        )
    if isinstance(posterior, Mixture):
        parts = tuple(prune(part, sparsity, by, per_layer=per_layer) for part in posterior.components)
        return replace(posterior, components=parts)
    values = importance(posterior, by)
    groups = _layers(posterior, values) if per_layer else [torch.arange(len(values), device=values.device)]
    gone = torch.zeros_like(values, dtype=torch.bool)
    for group in groups:
        gone[group[values[group].argsort(stable=True)[: share_of(sparsity, len(group))]]] = True
    told = {"sparsity": sparsity, "by": by, "per_layer": per_layer}
    return without(posterior, gone | removed(posterior), told)


def without(posterior: P, gone: Tensor, told: dict[str, Any] | None = None) -> P:
    """Remove the random weights that `gone`, (R,), marks; `told` is kept in the provenance as `pruned`."""
    start, end = posterior.problem.coordinates.start, posterior.problem.coordinates.network
    mean = posterior.mean.clone()
    mean[start:end].masked_fill_(gone, 0)
    provenance = dict(posterior.provenance) | ({"pruned": told} if told else {})
    if isinstance(posterior, DiagonalGaussian):
        std = posterior.std.clone()
        std[: end - start].masked_fill_(gone, 0)
        return replace(posterior, loc=mean, std=std, provenance=provenance, functions=None)
    assert isinstance(posterior, Point)  # `importance` and `moments` refuse all others
    return replace(posterior, theta=mean, provenance=provenance)


def removed(posterior: FunctionPosterior) -> Tensor:
    """Mark the random weights that are 0 in every draw, (R,), in θ's order.

    Raises:
        InvalidInput: as `moments`.
    """
    mean, std = moments(posterior)
    return (mean == 0) & (std == 0)


def sparsity(posterior: FunctionPosterior) -> float:
    """Return the share of the network's random weights that are 0 in every draw; of a mixture, the mean of its members."""
    parts = posterior.leaves
    return sum(float(removed(part).double().mean()) for part in parts) / len(parts)


@dataclass(frozen=True)
class SparsityPoint:
    """How well a pruned posterior predicts: averaged over draws, and by the mean network alone."""

    sparsity: float
    draws: Scores
    mean: Scores


@dataclass(frozen=True)
class SparsityCurve:
    """What pruning by one criterion costs, from the posterior as it is on; sparsities rise."""

    by: str
    points: tuple[SparsityPoint, ...]

    def largest(self, tolerance: float) -> float:
        """Return the largest sparsity of the curve at which predictions by draws are worse by `tolerance` at most.

        Worse than the curve's first point: in accuracy, as a fraction (0.003 are 0.3 points), or in RMSE, relative to it.
        """
        first = self.points[0].draws
        if "accuracy" in first:
            within = [p.sparsity for p in self.points if first["accuracy"] - p.draws["accuracy"] <= tolerance + 1e-12]
        else:
            within = [p.sparsity for p in self.points if p.draws["rmse"] / first["rmse"] - 1 <= tolerance + 1e-12]
        return max(within)


def sparsity_curve(
    posterior: FunctionPosterior,
    inputs: Tensor,
    targets: Tensor,
    sparsities: Sequence[float] = SPARSITIES,
    by: str = "signal_to_noise",
    draws: int = 16,
) -> SparsityCurve:
    """Score a posterior at rising sparsities: accuracy and NLL, or RMSE and NLL (nats per datum), and `expected_nll`.

    All points use the same random numbers, so that differences between them are not noise of the draws. The mean network of
    a mixture is the average of its members' predictions.

    Args:
        posterior: as `prune` takes it.
        inputs, targets: to score on, (B, ...) and (B,); choose a sparsity on other ones than those that you report.
        sparsities: shares in [0, 1); 0 is added where it is missing.
        by: criterion, one threshold for all layers.
        draws: functions averaged.

    Raises:
        InvalidInput: as `prune` and `predict`.
    """
    rows = []
    for share in sorted({0.0, *sparsities}):
        pruned = prune(posterior, share, by)
        generator = Generator(device=posterior.device).manual_seed(0)
        averaged = pruned.predict(inputs, draws, generator=generator)
        middle = mean_network(pruned).predict(inputs, 1)
        rows.append(SparsityPoint(share, averaged.scores(targets), middle.scores(targets)))
    return SparsityCurve(by, tuple(rows))


def mean_network(posterior: FunctionPosterior) -> FunctionPosterior:
    """Return the posterior with all of its mass at E[θ]; of a mixture, at the mean of each member."""
    return posterior.each_leaf(lambda part: Point(part.problem, part.mean, provenance=dict(part.provenance)))


def _layers(posterior: FunctionPosterior, values: Tensor) -> list[Tensor]:
    """Return for each layer the places of its random weights."""
    where = posterior.problem.coordinates
    found: dict[str, list[Tensor]] = {}
    places = torch.arange(len(values), device=values.device).split(list(where.random_layout.numels))
    for name, own in zip(where.random_names, places, strict=True):
        found.setdefault(layer_of(name), []).append(own)
    return [torch.cat(parts) for parts in found.values()]
