"""Law 1 for samplers: on conjugate regression a chain has exactly the law of its discretised linear dynamics.

A gradient chain on a Gaussian posterior is linear in θ and its noise, so that mean and covariance of each draw follow from
recursions that are written out here, schedules and cycles included. Hundreds of chains run at once, as one network with many
copies of a regression: the spread between independent chains is a standard error in which autocorrelation is counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, cos, pi

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import SGHMC, SGLD, Cyclical, Engine, Gaussian, Normal, TensorData
from posterity.posteriors.samples import Samples
from tests.conformance.table import Conjugate

COPIES, STEPS = 100, 600
CASE = Conjugate.make()
CHAINS = {
    "sgld": SGLD(lr=0.02, epochs=STEPS, draws=50, burn_in=0.5),
    "sgld-large_steps": SGLD(lr=0.15, epochs=200, draws=20, burn_in=0.5),
    "sgld-cold": SGLD(lr=0.05, epochs=300, draws=25, burn_in=0.5, temperature=0.2),
    "sgld-cold-joint": SGLD(lr=0.05, epochs=300, draws=25, burn_in=0.5, joint_temperature=0.2),
    "sgld-hot-and-cold": SGLD(lr=0.05, epochs=300, draws=25, burn_in=0.5, temperature=4.0, joint_temperature=0.5),
    "sgld-polynomial": SGLD(lr=0.1, epochs=300, draws=25, burn_in=0.5, schedule="polynomial"),
    "sgld-cosine": SGLD(lr=0.1, epochs=300, draws=15, burn_in=0.5, schedule="cosine"),
    "sghmc": SGHMC(lr=0.01, epochs=STEPS, draws=50, burn_in=0.5, friction=0.1),
    "sghmc-cold": SGHMC(lr=0.05, epochs=300, draws=25, burn_in=0.5, friction=0.3, temperature=0.2),
    "sghmc-cold-joint": SGHMC(lr=0.05, epochs=300, draws=25, burn_in=0.5, friction=0.3, joint_temperature=0.2),
    "cyclical-sghmc": Cyclical(SGHMC(lr=0.02, epochs=STEPS, draws=50), cycles=3, exploration=0.5),
    "cyclical-sgld": Cyclical(SGLD(lr=0.05, epochs=STEPS, draws=50), cycles=3, exploration=0.25),
}


class Copies(nn.Module):
    """Independent linear regressions in one network; an input is (which of them, x)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start[:2].repeat(COPIES, 1))
        self.bias = nn.Parameter(start[2:].repeat(COPIES))

    def forward(self, inputs: Tensor) -> Tensor:
        which = inputs[:, 0].long()
        return (self.weight[which] * inputs[:, 1:]).sum(1) + self.bias[which]


START = torch.tensor([-0.5, 1.0, 2.0], dtype=torch.float64)


def draws_of(
    method: SGLD | SGHMC | Cyclical, where: object = None, start: Tensor = START, steps_per_epoch: int = 1
) -> Tensor:
    """Run all copies, with full batches unless told; return their draws (K, copies, 3), in the order weights, bias."""
    chain = method.method if isinstance(method, Cyclical) else method
    chain = replace(
        chain, lr=chain.lr * COPIES
    )  # N is that of all copies together; each has the rate lr/24 on its own U
    which = torch.arange(COPIES).repeat_interleave(len(CASE.x))[:, None]
    data = TensorData(
        torch.cat([which, CASE.x.repeat(COPIES, 1)], 1), CASE.y.repeat(COPIES), len(which) // steps_per_epoch
    )
    posterior = posterity.fit(
        Copies(start),
        data,
        likelihood=Gaussian(std=CASE.noise),
        prior=Normal(0, CASE.prior_std),
        where=where,
        method=replace(method, method=chain) if isinstance(method, Cyclical) else chain,
        engine=Engine(progress=False, device="cpu"),
    )
    assert isinstance(posterior, Samples)
    views = posterior.problem.layout.views(posterior.thetas)
    return torch.cat([views["weight"], views["bias"][..., None]], 2)


@dataclass(frozen=True)
class Step:
    rate: float  # on U
    noisy: bool
    kept: bool


def plan(method: SGLD | SGHMC | Cyclical) -> Iterator[Step]:
    """What each step does, from the papers' formulas."""
    chain, steps = (method.method if isinstance(method, Cyclical) else method), method.epochs
    length = ceil(steps / method.cycles) if isinstance(method, Cyclical) else steps
    share = method.exploration if isinstance(method, Cyclical) else method.burn_in
    sampling = [t for t in range(steps) if t % length >= share * length]
    every = len(sampling) // chain.draws
    assert every * chain.draws == len(sampling)
    kept = set(sampling[every - 1 :: every])
    for t in range(steps):
        factor = 1.0
        if isinstance(method, Cyclical) or chain.schedule == "cosine":
            factor = (1 + cos(pi * (t % length) / length)) / 2
        elif chain.schedule == "polynomial":
            factor = (1 + t) ** (-1 / 3)  # an epoch is one step here
        yield Step(chain.lr * factor / 24, not isinstance(method, Cyclical) or t in sampling, t in kept)


def exact_moments(method: SGLD | SGHMC | Cyclical, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """E[θ], (3,), and E[(θ − m)(θ − m)ᵀ], (3, 3), over the kept draws; m is the posterior mean, `noisy` a mask of θ.

    U's precision is that of the likelihood and T times the prior's: at the temperature T/N of Ū that leaves the prior as it is.
    """
    chain = method.method if isinstance(method, Cyclical) else method
    friction = chain.friction if isinstance(chain, SGHMC) else 1.0  # SGLD is v = −h∇U + noise, θ + v
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    precision = CASE.precision + (chain.temperature - 1) * eye / CASE.prior_std**2
    center = torch.linalg.solve(precision, CASE.precision @ CASE.mean)  # the prior's mean is 0
    away = torch.cat([START - center, torch.zeros(3, dtype=torch.float64)])
    covariance, firsts, seconds = torch.zeros(6, 6, dtype=torch.float64), [], []
    both = torch.cat([eye, eye]) * noisy
    for step in plan(method):
        pull, keep = -step.rate * precision, (1 - friction) * eye
        move = torch.cat([torch.cat([eye + pull, keep], 1), torch.cat([zero + pull, keep], 1)])
        variance = 2 * friction * chain.temperature * chain.joint_temperature * step.rate * step.noisy
        away, covariance = move @ away, move @ covariance @ move.T + variance * both @ both.T
        if step.kept:
            firsts.append(center + away[:3])
            from_mean = center + away[:3] - CASE.mean
            seconds.append(covariance[:3, :3] + torch.outer(from_mean, from_mean))
    return torch.stack(firsts).mean(0), torch.stack(seconds).mean(0)


def deviations(draws: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How many standard errors the moments of draws (K, copies, 3) are from the exact ones."""
    away = draws - CASE.mean
    found = torch.cat([draws.mean(0), (away[..., None] * away[..., None, :]).mean(0).flatten(1)], 1)  # (copies, 3 + 9)
    error = found.std(0) / COPIES**0.5
    return (found.mean(0) - torch.cat([first, second.flatten()])).abs() / error


@pytest.mark.parametrize("name", CHAINS)
def test_draws_have_the_exact_law_of_the_chain(name: str) -> None:
    exact = exact_moments(CHAINS[name], torch.ones(3, dtype=torch.float64))
    assert (deviations(draws_of(CHAINS[name]), *exact) < 4).all()


@pytest.mark.parametrize(("name", "bias"), [("sgld", 0.11), ("sghmc", 0.03)])
def test_the_law_of_the_chain_is_the_posterior_but_for_the_step(name: str, bias: float) -> None:
    """The stationary variances exceed the posterior's by the factor 1/(1 − hλ/2), or 1/(1 − hλ/(2(2 − α))), at most."""
    chain, largest = CHAINS[name], float(torch.linalg.eigvalsh(CASE.precision)[-1])
    relative = chain.lr / 24 * largest / (2 * (2 - chain.friction) if isinstance(chain, SGHMC) else 2)
    assert relative / (1 - relative) < bias
    first, second = exact_moments(chain, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(first, CASE.mean, rtol=0, atol=2e-3)
    ratio = torch.linalg.eigvals(torch.linalg.solve(torch.linalg.inv(CASE.precision), second)).real
    assert ((ratio > 0.99) & (ratio < 1 + bias)).all()


def test_a_preconditioned_chain_has_the_posterior() -> None:
    """G differs between copies; at this rate the bias of the step is a third of a standard error at most."""
    method = SGLD(lr=0.004 / COPIES, epochs=1200, draws=50, burn_in=0.4, preconditioner="rmsprop")
    draws = draws_of(method, start=CASE.mean)
    assert (deviations(draws, CASE.mean, torch.linalg.inv(CASE.precision)) < 4).all()


@pytest.mark.parametrize("name", ["sgld", "sghmc"])
def test_points_move_without_noise(name: str) -> None:
    """A point bias is driven by the weights alone; draws have it as it stood, and their joint law is still known."""
    mask = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    draws = draws_of(CHAINS[name], where="weight")
    assert (deviations(draws, *exact_moments(CHAINS[name], mask)) < 4).all()
    assert (deviations(draws, *exact_moments(CHAINS[name], torch.ones(3).double())) > 8).any()  # the test can tell


@pytest.mark.parametrize(
    "method",
    [SGLD(lr=0.002, epochs=100, draws=50), SGHMC(lr=0.001, epochs=60, draws=50)],
    ids=["sgld", "sghmc"],
)
def test_batches_do_not_move_the_mean(method: SGLD | SGHMC) -> None:
    """Law 5: a batch is a quarter of the data of all copies, rows at random: its gradient is unbiased."""
    draws = draws_of(method, start=CASE.mean, steps_per_epoch=4)
    assert (deviations(draws, CASE.mean, torch.linalg.inv(CASE.precision))[:3] < 4).all()


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("sgld", 0.5**0.5),
        ("sghmc", 2.0),
        pytest.param("sgld", 2.0, marks=pytest.mark.slow),
        pytest.param("sghmc", 0.5**0.5, marks=pytest.mark.slow),
    ],
)
def test_wrong_noise_fails(name: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from posterity.core import dynamics

    for function in ("langevin_std", "hamiltonian_std"):
        right = getattr(dynamics, function)
        monkeypatch.setattr(dynamics, function, lambda *given, right=right: factor * right(*given))
    exact = exact_moments(CHAINS[name], torch.ones(3, dtype=torch.float64))
    assert (deviations(draws_of(CHAINS[name]), *exact) > 8).any()
