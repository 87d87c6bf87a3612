"""Adapters to libraries of Bayesian layers, bayesian-torch and blitz: those of them that are installed.

    posterity conformance --adapter benchmarks/peers/variational_layers.py

Each library is trained as its own documentation has it: the mean loss of the batch + its KL divided by the number of data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from posterity.conformance import Inferred, Subject, Task
from posterity.conformance.subject import independent
from posterity.core.gaussian import inverse_softplus

STEPS, BRIEF, RATE = 600, 3, 0.02
Make = Callable[[nn.Linear, float], Any]  # a plain layer, whose weights are the means, and the prior's std


@dataclass(frozen=True)
class Layers(Inferred):
    """A network of the library's layers: one forward pass is one draw."""

    network: nn.Module

    def draw(self, inputs: Tensor, n: int, seed: int) -> Tensor:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.stack([self.network(inputs) for _ in range(n)])


def converted(network: nn.Module, make: Make, prior_std: float) -> nn.Module:
    """Replace each linear layer of a plain one or of a sequence."""
    if isinstance(network, nn.Linear):
        return make(network, prior_std).to(network.weight.dtype)
    return (
        nn.Sequential(*(converted(m, make, prior_std) for m in network)) if len(list(network.children())) else network
    )


def infer(task: Task, size: int | None = None, *, make: Make, kl: Callable[[nn.Module], Tensor]) -> Layers:
    """Train by Adam, with a rate that falls to 0, on all data at once or on batches of so many, in their order."""
    torch.manual_seed(task.seed)
    network = converted(task.network, make, task.prior_std)
    steps = BRIEF if task.brief else STEPS
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    cut = size or len(task.x)
    for _ in range(steps):
        for x, y in zip(task.x.split(cut), task.y.split(cut), strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=task.autocast):
                outputs = network(x)
            loss = _nll(outputs.to(x.dtype), y, task.noise_std) + kl(network) / len(task.x)
            loss.backward()
            optimizer.step()
        schedule.step()
    return Layers(network)


def _nll(outputs: Tensor, targets: Tensor, noise_std: float | None) -> Tensor:
    if noise_std is None:
        return nn.functional.cross_entropy(outputs, targets)
    return (outputs[:, 0] - targets).square().mean() / (2 * noise_std**2)


def outputs_of(make: Make, names: tuple[str, str], q: tuple[Tensor, Tensor], x: Tensor, n: int, seed: int) -> Tensor:
    """Return n outputs of one layer whose mean and std are given, in float32: without a bias blitz takes no other."""
    module = of_vector(make, names, q[0].float(), q[1].float(), prior_std=1.0)
    return Layers(module).draw(x.float(), n, seed)


def of_vector(make: Make, names: tuple[str, str], mean: Tensor, std: Tensor, prior_std: float) -> Any:
    """Make a layer of one output without bias."""
    module = make(nn.Linear(len(mean), 1, bias=False).to(mean.dtype), prior_std).to(mean.dtype)
    with torch.no_grad():
        getattr(module, names[0]).copy_(mean[None])
        getattr(module, names[1]).copy_(inverse_softplus(std)[None])
    return module


def of_bayesian_torch() -> list[Subject]:
    """Two estimators of bayesian-torch."""
    from bayesian_torch.layers import LinearFlipout, LinearReparameterization
    from bayesian_torch.models.dnn_to_bnn import get_kl_loss

    def make(kind: Any, plain: nn.Linear, prior_std: float) -> Any:
        bias = plain.bias is not None
        layer = kind(plain.in_features, plain.out_features, prior_variance=prior_std**2, bias=bias)
        layer.mu_weight.data.copy_(plain.weight.data)
        layer.dnn_to_bnn_flag = True  # forward returns a tensor
        return layer

    names = "mu_weight", "rho_weight"
    subjects = []
    for name, kind in (("weight", LinearReparameterization), ("flipout", LinearFlipout)):
        own = partial(make, kind)
        subjects.append(
            Subject(
                f"bayesian_torch-{name}",
                partial(infer, make=own, kl=get_kl_loss),
                batched=partial(infer, make=own, kl=get_kl_loss),
                covariance=independent,
                kl=lambda mean, std, prior, own=own: of_vector(own, names, mean, std, prior).kl_loss().item(),
                layer=partial(outputs_of, own, names),
                module=lambda network, own=own: converted(network, own, 1.0),
                not_applicable={13: "not a sampler"},
            )
        )
    return subjects


def of_blitz() -> list[Subject]:
    """The linear layer of blitz; its KL is known at one draw only, so that law 2 cannot be asked."""
    from blitz.losses import kl_divergence_from_nn
    from blitz.modules import BayesianLinear

    def make(plain: nn.Linear, prior_std: float) -> Any:
        bias = plain.bias is not None
        layer = BayesianLinear(
            plain.in_features,
            plain.out_features,
            bias=bias,
            prior_sigma_1=prior_std,
            prior_pi=1,
            posterior_rho_init=-3.0,
        )
        layer.weight_mu.data.copy_(plain.weight.data)
        return layer

    return [
        Subject(
            "blitz-weight",
            partial(infer, make=make, kl=kl_divergence_from_nn),
            batched=partial(infer, make=make, kl=kl_divergence_from_nn),
            covariance=independent,
            layer=partial(outputs_of, make, ("weight_mu", "weight_rho")),
            module=lambda network: converted(network, make, 1.0),
            not_applicable={13: "not a sampler"},
        )
    ]


INSTALLED = [
    subjects for name, subjects in (("bayesian_torch", of_bayesian_torch), ("blitz", of_blitz)) if find_spec(name)
]
if not INSTALLED:
    raise ImportError("neither bayesian_torch nor blitz is installed")
SUBJECTS = tuple(subject for subjects in INSTALLED for subject in subjects())
