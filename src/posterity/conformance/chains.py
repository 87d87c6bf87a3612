"""Samplers as subjects of law 13, and the exact laws of their discretised chains on Gaussian densities."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Size, Tensor, nn

import posterity
from posterity.methods.cyclical import Cycles, Cyclical
from posterity.methods.hamiltonian import HamiltonianMethod
from posterity.methods.sghmc import SGHMC
from posterity.methods.sgld import SGLD
from posterity.model.likelihoods import Gaussian
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

    A stochastic-gradient chain runs from all rows of `start` at once, as one θ of independent parts. A Hamiltonian method has
    chains of its own, which begin around the first row, and adapts to one density, not to hundreds.
    """
    hamiltonian = isinstance(method, HamiltonianMethod)
    zeros = torch.zeros(1 if hamiltonian else NUM_DATA, 1, dtype=torch.float64)
    posterior = posterity.fit(
        Constant(start[:1] if hamiltonian else start),
        TensorData(zeros, zeros[:, 0], 1),
        likelihood=Gaussian(std=1.0),
        prior=Density(log_density),
        method=method,
        engine=Engine(seed=seed, progress=False, device="cpu"),
    )
    assert isinstance(posterior, Samples)
    if hamiltonian:
        return posterior.thetas.reshape(method.chains, method.draws, -1)
    return posterior.thetas.reshape(-1, *start.shape).transpose(0, 1)


def stationary(method: SGLD | SGHMC, precision: Tensor, num_data: int) -> Tensor:
    """Return the covariance of θ under a chain of constant rate h = lr/N on a Gaussian, (A − c h A²)⁻¹.

    c is ½ for SGLD and 1/(2(2 − α)) for SGHMC, from the discrete Lyapunov equation; A is the precision. It exceeds A⁻¹ by a
    share of c h λ/(1 − c h λ) at most: no Metropolis step takes that away.
    """
    share = 1 / (2 * (2 - method.friction)) if isinstance(method, SGHMC) else 0.5
    return (precision - share * method.lr / num_data * precision @ precision).inverse()


def cycled(method: Cyclical, precision: Tensor, num_data: int) -> Tensor:
    """Return the second moments about the mode of the draws of cyclical SGHMC on a Gaussian, full batches, by recursion.

    (θ, v) is linear in itself and the noise, so that its covariance after each step is known: v ← (1 − α) v − h A θ + noise,
    θ ← θ + v. Draws are kept at the ends of equal parts of the sampling steps; the start is forgotten in the first cycle.
    """
    chain = method.method
    assert isinstance(chain, SGHMC)
    steps, size = chain.epochs, len(precision)
    plan = Cycles.of(steps, method.cycles, method.exploration)
    every = plan.sampling_steps // chain.draws
    first = plan.sampling_steps - every * chain.draws + every - 1  # the last of the first part
    eye, zero = torch.eye(size, dtype=precision.dtype), torch.zeros_like(precision)
    both = torch.cat([eye, eye])
    covariance, total = torch.cat([torch.cat([zero, zero], 1)] * 2), zero.clone()
    for step in range(steps):
        rate = chain.lr * plan.factor(step) / num_data
        keep, pull = (1 - chain.friction) * eye, -rate * precision
        move = torch.cat([torch.cat([eye + pull, keep], 1), torch.cat([pull, keep], 1)])
        covariance = move @ covariance @ move.T
        if plan.noisy(step):
            covariance = covariance + 2 * chain.friction * rate * both @ both.T
        position = plan.position(step)
        if position is not None and position >= first and (position - first) % every == 0:
            total += covariance[:size, :size]
    return total / chain.draws
