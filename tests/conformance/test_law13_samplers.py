"""Law 13: samplers reproduce the moments of a normal, a funnel and a banana; noise of a wrong scale fails.

The target is a prior over a network whose output is constant, so that the whole of a method is run, data and all. Hundreds
of chains are one θ; the spread between them is a standard error in which autocorrelation is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import SGHMC, SGLD, Cyclical, Engine, Gaussian, Prior, TensorData
from posterity.core import dynamics
from posterity.posteriors.samples import Samples

COPIES, NUM_DATA = 1000, 50  # a step per datum: 50 to an epoch
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)
BEND = 0.4


@dataclass(frozen=True)
class Target:
    """A density over R^d, independent draws of it, and moments E[f(w)] that are known."""

    log_prob: Callable[[Tensor], Tensor]  # (..., d) -> (...)
    draw: Callable[[Tensor], Tensor]  # standard normals (..., d) -> (..., d)
    moments: Callable[[Tensor], Tensor]  # (..., d) -> (..., m)
    exact: tuple[float, ...]
    dimensions: int


def normal_moments(w: Tensor) -> Tensor:
    products = w[..., :, None] * w[..., None, :]
    return torch.cat([w, products.flatten(-2)], -1)


def funnel(w: Tensor) -> Tensor:
    """v ~ N(0, 1), x | v ~ N(0, e^v)."""
    return -0.5 * (w[..., 0].square() + w[..., 1].square() * (-w[..., 0]).exp() + w[..., 0])


def banana(w: Tensor) -> Tensor:
    """a ~ N(0, 1), b | a ~ N(BEND (a² − 1), ½²)."""
    return -0.5 * w[..., 0].square() - 2 * (w[..., 1] - BEND * (w[..., 0].square() - 1)).square()


TARGETS = {
    "funnel": Target(
        funnel,
        lambda z: torch.stack([z[..., 0], z[..., 1] * (z[..., 0] / 2).exp()], -1),
        # x²e^(−v) is a χ² of one degree, independent of v; E|x| = √(2/π) E e^(v/2) = √(2/π) e^(1/8).
        lambda w: torch.stack(
            [
                w[..., 0],
                w[..., 0].square(),
                w[..., 1],
                w[..., 1].square() * (-w[..., 0]).exp(),
                w[..., 0] * w[..., 1].square() * (-w[..., 0]).exp(),
                w[..., 1].abs(),
            ],
            -1,
        ),
        (0.0, 1.0, 0.0, 1.0, 0.0, (2 / torch.pi) ** 0.5 * float(torch.tensor(0.125).exp())),
        2,
    ),
    "banana": Target(
        banana,
        lambda z: torch.stack([z[..., 0], BEND * (z[..., 0].square() - 1) + 0.5 * z[..., 1]], -1),
        lambda w: torch.stack(
            [
                w[..., 0],
                w[..., 0].square(),
                w[..., 1],
                w[..., 1].square(),
                w[..., 0].square() * w[..., 1],
                w[..., 0] * w[..., 1],
            ],
            -1,
        ),
        (0.0, 1.0, 0.0, 2 * BEND**2 + 0.25, 2 * BEND, 0.0),
        2,
    ),
}
SMALL = {
    "sgld": SGLD(lr=0.008 * NUM_DATA, epochs=25, draws=50, burn_in=0.2),
    "sghmc": SGHMC(lr=0.002 * NUM_DATA, epochs=20, draws=50, burn_in=0.2, friction=0.1),
}


class Density(Prior):
    """A target as a prior, of each copy independently."""

    def __init__(self, log_prob: Callable[[Tensor], Tensor]) -> None:
        self.of_one = log_prob

    def log_prob(self, params: Mapping[str, Tensor]) -> Tensor:
        return self.of_one(params["w"]).sum()

    def sample(self, shapes: Mapping[str, torch.Size], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        raise NotImplementedError


class Constant(nn.Module):
    """A network whose parameters do nothing."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.w[0, 0] * x


def chains(method: object, log_prob: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Run the copies from `start`, (copies, d); return their draws (K, copies, d)."""
    zeros = torch.zeros(NUM_DATA, 1, dtype=torch.float64)
    posterior = posterity.fit(
        Constant(start),
        TensorData(zeros, zeros[:, 0], 1),
        likelihood=Gaussian(std=1.0),
        prior=Density(log_prob),
        method=method,
        engine=Engine(progress=False, device="cpu"),
    )
    assert isinstance(posterior, Samples)
    return posterior.problem.layout.views(posterior.thetas)["w"]


def deviations(moments: Tensor, exact: Tensor) -> Tensor:
    """How many standard errors the mean over draws and copies, (K, copies, m), is from the exact moments (m,)."""
    means = moments.mean(0)
    return (means.mean(0) - exact).abs() / (means.std(0) / len(means) ** 0.5)


def from_target(name: str, method: object) -> Tensor:
    """Start in the target itself: a sampler that leaves it invariant stays in it."""
    target = TARGETS[name]
    noise = torch.randn(COPIES, target.dimensions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = chains(method, target.log_prob, target.draw(noise))
    return deviations(target.moments(draws), torch.tensor(target.exact, dtype=torch.float64))


@pytest.mark.parametrize("name", TARGETS)
def test_the_moments_of_a_target_are_what_its_draws_say(name: str) -> None:
    """Guards the tests below: density, draws and moments speak of one distribution."""
    target = TARGETS[name]
    noise = torch.randn(200_000, target.dimensions, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = target.moments(target.draw(noise))
    assert ((drawn.mean(0) - torch.tensor(target.exact)).abs() < 4 * drawn.std(0) / len(drawn) ** 0.5).all()
    # E[∇ log p] = 0 and E[w·∇ log p] = −d for the density that the draws are of (Stein).
    w = target.draw(noise).requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(w).sum(), [w])
    stein = torch.cat([score, (w * score).sum(1, keepdim=True) + target.dimensions], 1).detach()
    assert (stein.mean(0).abs() < 4 * stein.std(0) / len(stein) ** 0.5).all()


@pytest.mark.parametrize("sampler", SMALL)
@pytest.mark.parametrize("name", TARGETS)
def test_funnel_and_banana(name: str, sampler: str) -> None:
    assert (from_target(name, SMALL[sampler]) < 4).all()


def stationary(method: SGLD | SGHMC) -> Tensor:
    """Covariance of θ under the discretised chain: (A − c h A²)⁻¹ T, c = ½ or 1/(2(2 − α))."""
    share = 1 / (2 * (2 - method.friction)) if isinstance(method, SGHMC) else 0.5
    curved = share * method.lr / NUM_DATA * PRECISION @ PRECISION
    return torch.linalg.inv(PRECISION - curved) * method.temperature


def normal_deviations(method: SGLD | SGHMC) -> Tensor:
    start = torch.full((COPIES, 3), 3.0, dtype=torch.float64)
    draws = chains(method, lambda w: -0.5 * ((w @ PRECISION) * w).sum(-1), start)
    return deviations(normal_moments(draws), torch.cat([torch.zeros(3).double(), stationary(method).flatten()]))


NORMAL = {
    "sgld": SGLD(lr=0.05 * NUM_DATA, epochs=20, draws=50),
    "sgld-cold": SGLD(lr=0.05 * NUM_DATA, epochs=20, draws=50, temperature=0.3),
    "sghmc": SGHMC(lr=0.02 * NUM_DATA, epochs=20, draws=50, friction=0.15),
    "sghmc-cold": SGHMC(lr=0.02 * NUM_DATA, epochs=20, draws=50, friction=0.5, temperature=0.3),
}


@pytest.mark.parametrize("name", NORMAL)
def test_correlated_normal_from_afar(name: str) -> None:
    assert (normal_deviations(NORMAL[name]) < 4).all()


@pytest.mark.parametrize("factor", [1e-2, 2.0])
@pytest.mark.parametrize("sampler", SMALL)
@pytest.mark.parametrize("name", ["normal", *TARGETS])
def test_noise_of_a_wrong_scale_fails(name: str, sampler: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("langevin_std", "hamiltonian_std"):
        right = getattr(dynamics, function)
        monkeypatch.setattr(dynamics, function, lambda *given, right=right: factor * right(*given))
    found = normal_deviations(NORMAL[sampler]) if name == "normal" else from_target(name, SMALL[sampler])
    assert not (found < 8).all()


def test_cycles_visit_both_modes_in_the_right_proportion() -> None:
    """One chain that is started in one of two equal modes: with cycles its copies are found in both, half and half."""

    def two_modes(w: Tensor) -> Tensor:
        return torch.logaddexp(-2 * (w[..., 0] - 1).square(), -2 * (w[..., 0] + 1).square())

    method = Cyclical(SGHMC(lr=0.3 * NUM_DATA, epochs=40, draws=80, friction=0.3), cycles=20, exploration=0.25)
    draws = chains(method, two_modes, torch.ones(COPIES, 1, dtype=torch.float64))[40:, :, 0]
    right = (draws > 0).double()
    share = right.mean(0)
    assert abs(share.mean() - 0.5) < 4 * share.std() / COPIES**0.5
    assert (right[1:] != right[:-1]).any(0).double().mean() > 0.5  # most copies have changed modes


def test_kept_draws_are_the_last_of_equal_parts_of_the_sampling_steps() -> None:
    """Noise-free steps on U = ½θ² shrink θ by 1 − h each: a draw's value says which step it was kept after."""
    method = SGLD(lr=0.01 * NUM_DATA, epochs=2, draws=8, burn_in=0.2, temperature=0.0)
    draws = chains(method, lambda w: -0.5 * w.square().sum(-1), torch.ones(1, 1, dtype=torch.float64))
    steps = draws.flatten().log() / torch.tensor(0.99, dtype=torch.float64).log()
    torch.testing.assert_close(steps, torch.arange(30.0, 101, 10, dtype=torch.float64))
