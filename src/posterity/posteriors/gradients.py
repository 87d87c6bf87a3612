"""Signal and noise of the stochastic gradients at the end of a fit, layer by layer: has it converged?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from math import sqrt

import torch
from torch import Generator, Tensor

from posterity.core.estimators import WeightDraw
from posterity.core.gaussian import inverse_softplus
from posterity.model.divergence import Divergence
from posterity.model.elbo import NegativeElbo
from posterity.model.noncentred import NonCentred
from posterity.posteriors.contraction import layer_of
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.types import Batch, Data
from posterity.weighing import on

GRADIENTS = 100
CONVERGED = 0.6745  # the median of |N(0, 1)|


@dataclass(frozen=True)
class GradientSignal:
    """|E g| / std g of the gradients of one layer: the median over its coordinates.

    Args:
        layer: its name.
        mean: of ∂nelbo/∂μ.
        rho: of ∂nelbo/∂ρ.
        gradients: n, so many were drawn. Where E g = 0 the medians are about 0.67/√n.
    """

    layer: str
    mean: float
    rho: float
    gradients: int

    @property
    def pull(self) -> float:
        """The larger of both, in units of what chance alone would show: near 1 the fit is at its optimum."""
        return max(self.mean, self.rho) * sqrt(self.gradients) / CONVERGED


@torch.no_grad()
def gradient_signal(
    posterior: DiagonalGaussian,
    data: Data,
    gradients: int = GRADIENTS,
    temperature: float = 1.0,
    generator: Generator | None = None,
) -> tuple[GradientSignal, ...]:
    """Estimate nelbo's gradient at q on batch after batch, one weight draw each, and compare its mean with its noise.

        nelbo(μ, ρ) = E_q[mean nll of a batch] + temperature · KL(q‖p)/N

    A signal-to-noise ratio far below 1 is usual (Rainforth et al. 2018 judge estimators by it); where the mean stands out of
    its own error the fit still moves.

    Args:
        posterior: where they are taken; the network runs in eval mode. Its problem knows the mean size of these batches.
        data: the training data, in batches of the size that it was trained with.
        gradients: n, at least 2.
        temperature: that it was trained with.

    Returns:
        one row per layer with random weights, in the network's order.
    """
    problem, where = posterior.problem, posterior.problem.coordinates
    estimator = WeightDraw(where.params, where.start, layout=where.layout)
    elbo = NegativeElbo(NonCentred(estimator, where) if where.noncentred else estimator, Divergence.of(where))
    q = posterior.loc, inverse_softplus(posterior.std)
    out = torch.empty_like(q[0]), torch.empty_like(q[1])
    rows = torch.zeros(2, 2, where.network - where.start, dtype=torch.float64, device=q[0].device)
    for batch in islice(_endless(data, q[0].device), gradients):

        def loss(batch: Batch = batch) -> Tensor:
            return problem.nll(batch)[0]

        with torch.enable_grad():
            elbo.gradient(loss, q, temperature / problem.num_data, out, generator)
        own = torch.stack([out[0][where.start : where.network], out[1][: rows.shape[-1]]]).double()
        rows[0] += own
        rows[1] += own.square()
    mean = rows[0] / gradients
    noise = (rows[1] / gradients - mean.square()).clamp_min(0).mul(gradients / (gradients - 1)).sqrt()
    ratios = torch.where(noise > 0, mean.abs() / noise, 0.0)
    sizes = list(where.random_layout.numels)
    layers: dict[str, list[Tensor]] = {}
    for name, part in zip(where.random_names, ratios.split(sizes, 1), strict=True):
        layers.setdefault(layer_of(name), []).append(part)
    medians = {name: torch.cat(parts, 1).median(1).values.tolist() for name, parts in layers.items()}
    return tuple(GradientSignal(name, own[0], own[1], gradients) for name, own in medians.items())


def _endless(data: Data, device: torch.device) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    for epoch in count():
        for batch in data.batches(epoch, generator):
            yield on(batch, device)
