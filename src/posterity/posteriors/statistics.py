"""Running statistics that belong to the function that is drawn.

Batch normalisation in eval mode computes with means and variances of its inputs over the training data. They are those of one
θ: what was counted while the weights were being drawn is the statistics of no draw, and a draw that computes with them is
another function. So functions of such a network are drawn once, and each is given the statistics of the training inputs under
its own θ, as SWAG does (Maddox et al. 2019, §3.3).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from posterity.model.problem import Problem, call
from posterity.model.running import watched
from posterity.posteriors.asked import check_posterior, check_request
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.train.batches import as_data
from posterity.types import Data

EXAMPLES = 4096  # of the training data, at least, where there are more: they fix a mean to a hundredth of a std
UPDATES = 100  # of a running mean in a module of another class than torch's: 0.9¹⁰⁰ of its start is left


def with_statistics(posterior: FunctionPosterior, data: Any, n: int = 32) -> FunctionPosterior:
    """Give each function of a posterior running statistics of its own.

    `fit` does it. It is for posteriors made otherwise: `posterity.posterior(module)`, pruned ones, those of earlier files.

    Args:
        posterior: any. A Gaussian gets n functions, which its predictions average from now on; of samples each gets statistics.
            Posteriors whose functions share their statistics by construction (a point, chains of HMC, which sample weights
            beside given statistics) and networks without running statistics are returned as they are.
        data: the training data, in any form that `fit` takes.
        n: how many functions, at one pass each over the data, or over some thousand of them if there are more.

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
    check_posterior(posterior)
    check_request(n, "functions")
    source = as_data(data)
    posterior = _with_movers(posterior, next(source.batches(1, Generator().manual_seed(0)))[0])
    return _settled(posterior, spread(source), n) if _lacks_statistics(posterior) else posterior


def _settled(posterior: FunctionPosterior, batches: Sequence[Tensor], n: int) -> FunctionPosterior:
    return posterior.each_leaf(lambda part: _settled_part(part, batches, n))


def _settled_part(posterior: FunctionPosterior, batches: Sequence[Tensor], n: int) -> FunctionPosterior:
    if not _lacks_statistics(posterior):
        return posterior
    if isinstance(posterior, Samples):
        return replace(posterior, statistics=_statistics(posterior.problem, posterior.thetas, batches))
    generator = Generator(device=posterior.mean.device).manual_seed(0)
    thetas = torch.stack([posterior.sample(generator) for _ in range(n)])
    functions = Samples(posterior.problem, thetas, statistics=_statistics(posterior.problem, thetas, batches))
    return posterior.having(functions=functions)


def _with_movers(posterior: FunctionPosterior, inputs: Tensor) -> FunctionPosterior:
    """Ask the network itself which of its modules hold running statistics."""

    def asked(part: FunctionPosterior) -> FunctionPosterior:
        problem = watched(part.problem, inputs.to(part.device))
        return part if problem is part.problem else part.having(problem=problem)

    return posterior.each_leaf(asked)


def _lacks_statistics(posterior: FunctionPosterior) -> bool:
    return any(not part.shares_statistics and bool(part.problem.normalisations()) for part in posterior.leaves)


def validated(posterior: Any, n: int, data: Data) -> Any:
    """Give n functions statistics, for a look at a posterior that is not yet done: of a chain, n of its draws."""
    if not isinstance(posterior, FunctionPosterior):  # of a class of one's own, of which nothing is known
        return posterior
    if isinstance(posterior, Samples) and len(posterior.thetas) > n:
        generator = Generator(device=posterior.thetas.device).manual_seed(0)
        posterior = posterior.some(n, generator) if posterior.problem.normalisations() else posterior
    return _settled(posterior, spread(data), n) if _lacks_statistics(posterior) else posterior


def estimated(problem: Problem, theta: Tensor, data: Data) -> Point:
    """Return θ as a function with running statistics of its own."""
    copied = problem.snapshot()
    estimate_statistics(copied, theta, spread(data))
    return Point(copied, theta)


def spread(data: Data) -> list[Tensor]:
    """Take batches of inputs evenly over an epoch, in whatever order it comes: all of them, or some thousand examples."""
    kept: list[Tensor] = []
    every = 1
    for index, (inputs, *_) in enumerate(data.batches(1, Generator().manual_seed(0))):
        if index == 0:
            every = max(1, data.steps_per_epoch * len(inputs) // EXAMPLES)
        if index % every == 0:
            kept.append(inputs)
    return [inputs for inputs in kept if len(inputs) > 1] or kept  # one alone has no variance


@torch.no_grad()
def estimate_statistics(problem: Problem, theta: Tensor, batches: Sequence[Tensor]) -> None:
    """Set the running statistics, in place, to those of these inputs under θ.

    Normalisation of torch gets the mean over the batches, each weighed by how many numbers it holds. Modules of other classes
    run their own updates from where they stand, `UPDATES` of them at least.
    """
    layers = problem.normalisations()
    if not layers:
        return
    own = any(not isinstance(layer, _NormBase) for layer in layers)
    rounds = -(-UPDATES // len(batches)) if own else 1
    with problem.bound(theta), _averaging(layers):
        for inputs in chain.from_iterable(repeat(batches, rounds)):
            call(problem, inputs.to(theta.device))


@contextmanager
def _averaging(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let these layers count in the block: each batch moves the mean by its share of all numbers so far."""
    standard = [layer for layer in layers if isinstance(layer, _NormBase)]
    momenta = [layer.momentum for layer in standard]
    counts = dict.fromkeys(standard, 0)

    def weigh(layer: _NormBase, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        size = next(iter((*args, *kwargs.values()))).numel()
        counts[layer] += size
        layer.momentum = size / counts[layer]

    for norm in standard:
        norm.reset_running_stats()
    hooks = [layer.register_forward_pre_hook(weigh, with_kwargs=True) for layer in standard]
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for norm, momentum in zip(standard, momenta, strict=True):
            norm.momentum = momentum
        for layer in layers:
            layer.training = False
        for hook in hooks:
            hook.remove()


def _statistics(problem: Problem, thetas: Tensor, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Estimate the running statistics of each θ (K, P): buffers by name, (K, *shape)."""
    copied = problem.snapshot()
    layers = copied.normalisations()
    names = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in copied.network.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if any(module is layer for layer in layers)
    }
    start = {n: b.clone() for n, b in copied.network.named_buffers() if n in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in sorted(names)}
    for theta in thetas:
        estimate_statistics(copied, theta, batches)
        for name, row in rows.items():
            buffer = copied.network.get_buffer(name)
            row.append(buffer.clone())
            buffer.copy_(start[name])
    return {name: torch.stack(row) for name, row in rows.items()}
