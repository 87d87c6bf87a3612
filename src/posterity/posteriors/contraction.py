"""What the data said of each layer: how much narrower the posterior of its weights is than their prior."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from posterity.model.priors import Flat
from posterity.model.problem import Problem

DRAWS = 400  # of a distribution whose variances have no closed form: a variance is known to √(2/400) = 7 %


def contraction(problem: Problem, draw: Callable[[Generator], Tensor]) -> dict[str, float]:
    """Return 1 − Var[w | D] / Var[w], averaged over the random weights of each layer, by the layer's name.

    1: the data fixed them; 0: nothing was learnt; below 0: wider than before (Betancourt 2018 calls it the posterior
    contraction). Variances are of the weights that the network computes with. That of independent normal priors is exact,
    others' and the posterior's are of 400 draws; a prior without a variance (`Cauchy`) is always contracted to 1.

    Args:
        problem: whose prior and layers they are.
        draw: makes one θ of the posterior, (P,), on the problem's device.

    Returns:
        a number per module that has random weights; empty under a flat prior.
    """
    where = problem.coordinates
    if isinstance(problem.prior, Flat) or where.network == where.start:
        return {}
    generator = Generator(device=where.theta().device).manual_seed(0)
    part = slice(where.start, where.network)
    posterior = _variance(lambda: where.weights(draw(generator))[part])
    shapes = where.shapes()

    def from_prior() -> Tensor:
        drawn = problem.prior.sample(shapes, generator)
        return torch.cat([drawn[n].reshape(-1) for n in where.random_names])

    if where.normal is None or where.noncentred:
        prior = _variance(from_prior)
    else:
        prior = where.normal[1][where.start - where.free :].double().square()
    ratios = 1 - posterior / prior.to(posterior)
    found: dict[str, list[Tensor]] = {}
    sizes = list(where.random_layout.numels)
    for name, own in zip(where.random_names, ratios.split(sizes), strict=True):
        found.setdefault(layer_of(name), []).append(own)
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


def layer_of(parameter: str) -> str:
    """Return the module that a parameter belongs to; the network's own keep their names.

    >>> layer_of("conv.1.weight"), layer_of("scale")
    ('conv.1', 'scale')
    """
    return parameter.rpartition(".")[0] or parameter


def _variance(draw: Callable[[], Tensor]) -> Tensor:
    """Return the variance of each coordinate over draws, in float64, by running sums (Welford 1962)."""
    mean = draw().double().clone()  # a draw may be a view of the posterior itself
    squares = torch.zeros_like(mean)
    for count in range(2, DRAWS + 1):
        value = draw().double()
        change = value - mean
        mean += change / count
        squares += change * (value - mean)
    return squares / (DRAWS - 1)
