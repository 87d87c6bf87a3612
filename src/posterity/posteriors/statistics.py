"""Running statistics that belong to the function that is drawn.

Batch normalisation in eval mode computes with means and variances of its inputs over the training data. They are those of one
θ: what was counted while the weights were being drawn is the statistics of no draw, and a draw that computes with them is
another function. So functions of such a network are drawn once, and each is given the statistics of the training inputs under
its own θ, as SWAG does (Maddox et al. 2019, §3.3).
"""

from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.train.batches import as_data
from posterity.types import Data

BATCHES = 32  # of the training inputs, at most: some thousand examples fix a mean to a hundredth of a std


def with_statistics(posterior: FunctionPosterior, data: Any, n: int = 32) -> FunctionPosterior:
    """Give each function of a posterior running statistics of its own.

    `fit` does it. It is for posteriors made otherwise: `posterity.posterior(module)`, pruned ones, those of earlier files.

    Args:
        posterior: any. A Gaussian gets n functions, which its predictions average from now on; of samples each gets statistics.
            Posteriors whose functions share their statistics by construction (a point, chains of HMC, which sample weights
            beside given statistics) and networks without running statistics are returned as they are.
        data: the training data, in any form that `fit` takes.
        n: how many functions, at one pass each over 32 batches of the data, or over all if there are fewer.

    Returns:
        a posterior of the same distribution over θ.

    Raises:
        InvalidInput: for n < 1, and data that do not fit the network.

    >>> from posterity import Engine, MeanField, fit
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    >>> data = torch.randn(20, 2), torch.arange(20) % 2
    >>> posterior = fit(network, data, method=MeanField(epochs=1), engine=Engine(progress=False))
    >>> with_statistics(posterior, data, n=8).functions.statistics["1.running_mean"].shape
    torch.Size([8, 4])
    """
    if n < 1:
        raise InvalidInput(f"{n} functions were asked for; ask for at least 1.")
    return _settled(posterior, as_data(data), n)


def _settled(posterior: FunctionPosterior, data: Data, n: int) -> FunctionPosterior:
    if isinstance(posterior, Mixture):
        return replace(posterior, components=tuple(_settled(part, data, n) for part in posterior.components))
    if posterior.shares_statistics or not posterior.problem.normalisations():
        return posterior
    if isinstance(posterior, Samples):
        return replace(posterior, statistics=_statistics(posterior.problem, posterior.thetas, data))
    generator = Generator(device=posterior.mean.device).manual_seed(0)
    thetas = torch.stack([posterior.sample(generator) for _ in range(n)])
    functions = Samples(posterior.problem, thetas, statistics=_statistics(posterior.problem, thetas, data))
    return replace(posterior, functions=functions)


def validated(posterior: FunctionPosterior, n: int, data: Data) -> FunctionPosterior:
    """Give n functions statistics, for a look at a posterior that is not yet done: of a chain, n of its draws."""
    if isinstance(posterior, Samples) and len(posterior.thetas) > n:
        generator = Generator(device=posterior.thetas.device).manual_seed(0)
        posterior = posterior.some(n, generator) if posterior.problem.normalisations() else posterior
    return _settled(posterior, data, n)


def estimated(problem: Problem, theta: Tensor, data: Data) -> Point:
    """Return θ as a function with running statistics of its own."""
    copied = problem.snapshot()
    estimate_statistics(copied, theta, data)
    return Point(copied, theta)


@torch.no_grad()
def estimate_statistics(problem: Problem, theta: Tensor, data: Data, most: int | None = None) -> None:
    """Set the running statistics, in place, to the mean over (at most so many) batches of the training inputs under θ."""
    layers = problem.normalisations()
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    batches = islice(data.batches(0, Generator().manual_seed(0)), most)
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        with problem.bound(theta):
            usable = (inputs.to(theta.device) for inputs, _ in batches if len(inputs) > 1)  # one alone has no variance
            for count, inputs in enumerate(usable, 1):
                for layer in layers:
                    layer.momentum = 1 / count
                problem.outputs(inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _statistics(problem: Problem, thetas: Tensor, data: Data) -> dict[str, Tensor]:
    """Estimate the running statistics of each θ (K, P): buffers by name, (K, *shape)."""
    copied = problem.snapshot()
    layers = {id(layer) for layer in copied.normalisations()}
    names = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in copied.network.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if id(module) in layers
    }
    rows: dict[str, list[Tensor]] = {name: [] for name in sorted(names)}
    for theta in thetas:
        estimate_statistics(copied, theta, data, BATCHES)
        buffers = dict(copied.network.named_buffers())
        for name, row in rows.items():
            row.append(buffers[name].clone())
    return {name: torch.stack(row) for name, row in rows.items()}
