"""An adapter to Pyro's NUTS, given the potential of a network.

posterity conformance --adapter benchmarks/peers/pyro_nuts.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer.mcmc import MCMC, NUTS
from torch import Tensor, nn

from posterity.conformance import Inferred, Subject, Task
from posterity.conformance.subject import full


@dataclass(frozen=True)
class Draws(Inferred):
    """Draws of θ, (S, P), and the network that they are of."""

    network: nn.Module
    thetas: Tensor

    def draw(self, inputs: Tensor, n: int, seed: int) -> Tensor:
        start = int(torch.randint(len(self.thetas), (), generator=torch.Generator().manual_seed(seed)))
        chosen = (torch.arange(n) * len(self.thetas) + start) // n
        with torch.no_grad():
            return torch.stack([outputs(self.network, self.thetas[k], inputs) for k in chosen])


def outputs(network: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    """Evaluate the network at θ."""
    named = dict(network.named_parameters())
    parts = theta.split([p.numel() for p in named.values()])
    views = {n: part.view_as(p) for (n, p), part in zip(named.items(), parts, strict=True)}
    return torch.func.functional_call(network, views, (x,))


def run(log_density: Callable[[Tensor], Tensor], start: Tensor, seed: int, warmup: int, draws: int) -> Tensor:
    """Run one chain; return (S, P)."""
    pyro.set_rng_seed(seed)
    kernel = NUTS(potential_fn=lambda given: -log_density(given["theta"]))
    chain = MCMC(kernel, draws, warmup, initial_params={"theta": start}, disable_progbar=True)
    chain.run()
    return chain.get_samples()["theta"]


def infer(task: Task) -> Draws:
    """Sample the posterior of a network's weights."""

    def log_joint(theta: Tensor) -> Tensor:
        found = outputs(task.network, theta, task.x)
        prior = torch.distributions.Normal(0.0, task.prior_std).log_prob(theta).sum()
        if task.noise_std is None:
            return prior - nn.functional.cross_entropy(found, task.y, reduction="sum")
        return prior + torch.distributions.Normal(found[:, 0], task.noise_std).log_prob(task.y).sum()

    start = torch.cat([p.detach().reshape(-1) for p in task.network.parameters()])
    warmup, draws = (10, 10) if task.brief else (80, 150)
    return Draws(task.network, run(log_joint, start, task.seed, warmup, draws))


def sample(log_density: Callable[[Tensor], Tensor], start: Tensor, seed: int) -> Tensor:
    """Run two chains on a density."""
    return torch.stack([run(log_density, start[k], seed + k, 100, 200) for k in range(2)])


SUBJECTS = (
    Subject(
        "pyro-nuts",
        infer,
        covariance=full,
        sample=sample,
        draws=150,
        not_applicable={2: "no KL in its objective", 4: "no layers of its own", 10: "no layers of its own"},
    ),
)
