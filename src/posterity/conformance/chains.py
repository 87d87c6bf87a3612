"""Samplers as subjects of law 13, and the exact laws of their discretised chains on Gaussian densities."""

from collections.abc import Callable, Mapping
from math import ceil, cos, pi
from typing import Any

import torch
from torch import Generator, Size, Tensor, nn

import posterity
from posterity.methods.cyclical import Cyclical
from posterity.methods.sghmc import SGHMC
from posterity.methods.sgld import SGLD
from posterity.model.likelihoods import Gaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.samples import Samples
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.types import Params, Prior

NUM_DATA = 50  # one to a batch: so many steps to an epoch


class Density(Prior):
    """Independent copies of a density as the prior of a parameter `w`, (C, D)."""

    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density

    def log_prob(self, params: Params) -> Tensor:
        return self.log_density(params["w"]).sum()

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        raise NotImplementedError  # no law draws from it


class Constant(nn.Module):
    """A network whose parameters do nothing: the posterior is then the prior."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.w[0, 0] * x


def sample(method: Any, log_density: Callable[[Tensor], Tensor], start: Tensor, seed: int) -> Tensor:
    """Run a sampler on a density; return (C, S, D).

    A stochastic-gradient chain runs from all rows of `start` at once, as one θ of independent parts. A method of several
    chains has its own, which begin around the first row, and adapts to one density, not to hundreds.
    """
    several = hasattr(method, "chains")
    zeros = torch.zeros(1 if several else NUM_DATA, 1, dtype=torch.float64)
    posterior = posterity.fit(
        Constant(start[:1] if several else start),
        TensorData(zeros, zeros[:, 0], 1),
        likelihood=Gaussian(std=1.0),
        prior=Density(log_density),
        method=method,
        engine=Engine(seed=seed, progress=False, device="cpu"),
    )
    if isinstance(posterior, Mixture):  # of a chain each
        return torch.stack([part.thetas for part in posterior.components if isinstance(part, Samples)])
    assert isinstance(posterior, Samples)
    if several:
        return posterior.thetas.reshape(method.chains, method.draws, -1)
    return posterior.thetas.reshape(-1, *start.shape).transpose(0, 1)


def stationary(method: SGLD | SGHMC, precision: Tensor, num_data: int) -> Tensor:
    """Return the covariance of θ under a chain of constant rate h = lr/N on a Gaussian, (A − c h A²)⁻¹.

    c is ½ for SGLD and 1/(2(2 − α)) for SGHMC, from the discrete Lyapunov equation; A is the precision. It exceeds A⁻¹ by a
    share of c h λ/(1 − c h λ) at most: no Metropolis step takes that away.
    """
    share = 1 / (2 * (2 - method.friction)) if isinstance(method, SGHMC) else 0.5
    return (precision - share * method.lr / num_data * precision @ precision).inverse()


def cycled(
    method: Cyclical, precision: Tensor, num_data: int, steps_per_epoch: int = 1, start: Tensor | None = None
) -> Tensor:
    """Return the second moments about the mode of the draws of cyclical SGHMC on a Gaussian, exact gradients, by recursion.

    (θ, v) is linear in itself and the noise, so that its covariance after each step is known: v ← (1 − α) v − h A θ + noise,
    θ ← θ + v. Draws are kept at the ends of K equal parts of the sampling steps. `start` is the covariance that θ begins
    with; where None, it begins at a point, which the first cycle forgets.
    """
    chain = method.method
    assert isinstance(chain, SGHMC)
    plan = cycle_steps(chain.epochs * steps_per_epoch, method.cycles, method.exploration)
    eye, zero = torch.eye(len(precision), dtype=precision.dtype), torch.zeros_like(precision)
    covariance, total = torch.block_diag(zero if start is None else start, zero), zero.clone()
    both = torch.cat([eye, eye])  # the noise of v is in θ, too
    sampling, sampled = sum(noisy for _, noisy in plan), 0
    for factor, noisy in plan:
        rate = chain.lr * factor / num_data
        keep, pull = (1 - chain.friction) * eye, -rate * precision
        move = torch.cat([torch.cat([eye + pull, keep], 1), torch.cat([pull, keep], 1)])
        covariance = move @ covariance @ move.T
        if noisy:
            covariance = covariance + 2 * chain.friction * rate * both @ both.T
            if (sampled + 1) * chain.draws // sampling > sampled * chain.draws // sampling:
                total += covariance[: len(eye), : len(eye)]
            sampled += 1
    return total / chain.draws


def cycle_steps(steps: int, cycles: int, exploration: float) -> list[tuple[float, bool]]:
    """Return each step's share of the largest rate, ½ (1 + cos(π r)), and whether it has noise, r ≥ β.

    r = (t mod L)/L, L = ⌈steps/cycles⌉ (Zhang et al. 2020, eq. 1 and algorithm 1). Written out here: an oracle that asked the
    method for its schedule would follow it into every mistake.

    >>> [(round(factor, 2), noisy) for factor, noisy in cycle_steps(4, 1, 0.5)]
    [(1.0, False), (0.85, False), (0.5, True), (0.15, True)]
    """
    length = ceil(steps / cycles)
    shares = [(step % length) / length for step in range(steps)]
    return [((1 + cos(pi * r)) / 2, r >= exploration) for r in shares]
