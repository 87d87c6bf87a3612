"""Law 13: samplers reproduce the moments of a normal, a funnel and a banana; noise of a wrong scale fails.

The target is a prior over a network whose output is constant, so that the whole of a method is run, data and all. Hundreds
of chains are one θ; the spread between them is a standard error in which autocorrelation is counted.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import posterity
from posterity import SGHMC, SGLD, Cyclical, Engine, Gaussian, TensorData
from posterity.conformance.chains import Constant, Density, stationary
from posterity.conformance.densities import DENSITIES, PRECISION, modes, normal, products
from posterity.core import dynamics
from posterity.posteriors.samples import Samples

COPIES, NUM_DATA = 1000, 50  # a step per datum: 50 to an epoch
TARGETS = {name: DENSITIES[name] for name in ("funnel", "banana")}
SMALL = {
    "sgld": SGLD(lr=0.008 * NUM_DATA, epochs=25, draws=50, burn_in=0.2),
    "sghmc": SGHMC(lr=0.002 * NUM_DATA, epochs=20, draws=50, burn_in=0.2, friction=0.1),
}


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


@pytest.mark.parametrize("sampler", SMALL)
@pytest.mark.parametrize("name", TARGETS)
def test_funnel_and_banana(name: str, sampler: str) -> None:
    assert (from_target(name, SMALL[sampler]) < 4).all()


def normal_deviations(method: SGLD | SGHMC) -> Tensor:
    start = torch.full((COPIES, 3), 3.0, dtype=torch.float64)
    draws = chains(method, normal, start)
    covariance = stationary(method, PRECISION, NUM_DATA) * method.joint_temperature
    return deviations(products(draws), torch.cat([torch.zeros(3).double(), covariance.flatten()]))


NORMAL = {
    "sgld": SGLD(lr=0.05 * NUM_DATA, epochs=20, draws=50),
    "sgld-cold": SGLD(lr=0.05 * NUM_DATA, epochs=20, draws=50, joint_temperature=0.3),
    "sghmc": SGHMC(lr=0.02 * NUM_DATA, epochs=20, draws=50, friction=0.15),
    "sghmc-cold": SGHMC(lr=0.02 * NUM_DATA, epochs=20, draws=50, friction=0.5, joint_temperature=0.3),
}


@pytest.mark.parametrize("name", NORMAL)
def test_correlated_normal_from_afar(name: str) -> None:
    assert (normal_deviations(NORMAL[name]) < 4).all()


@pytest.mark.parametrize("factor", [1e-2, 2.0])
@pytest.mark.parametrize("sampler", SMALL)
@pytest.mark.parametrize("name", ["normal", *(pytest.param(n, marks=pytest.mark.slow) for n in TARGETS)])
def test_noise_of_a_wrong_scale_fails(name: str, sampler: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("langevin_std", "hamiltonian_std"):
        right = getattr(dynamics, function)
        monkeypatch.setattr(dynamics, function, lambda *given, right=right: factor * right(*given))
    found = normal_deviations(NORMAL[sampler]) if name == "normal" else from_target(name, SMALL[sampler])
    assert not (found < 8).all()


def test_cycles_visit_both_modes_in_the_right_proportion() -> None:
    """One chain that is started in one of two equal modes: with cycles its copies are found in both, half and half."""
    method = Cyclical(SGHMC(lr=0.3 * NUM_DATA, epochs=40, draws=80, friction=0.3), cycles=20, exploration=0.25)
    draws = chains(method, modes, torch.ones(COPIES, 1, dtype=torch.float64))[40:, :, 0]
    right = (draws > 0).double()
    share = right.mean(0)
    assert abs(share.mean() - 0.5) < 4 * share.std() / COPIES**0.5
    assert (right[1:] != right[:-1]).any(0).double().mean() > 0.5  # most copies have changed modes


def test_kept_draws_are_the_last_of_equal_parts_of_the_sampling_steps() -> None:
    """Noise-free steps on U = ½θ² shrink θ by 1 − h each: a draw's value says which step it was kept after."""
    method = SGLD(lr=0.01 * NUM_DATA, epochs=2, draws=8, burn_in=0.2, joint_temperature=0.0)
    draws = chains(method, lambda w: -0.5 * w.square().sum(-1), torch.ones(1, 1, dtype=torch.float64))
    steps = draws.flatten().log() / torch.tensor(0.99, dtype=torch.float64).log()
    torch.testing.assert_close(steps, torch.arange(30.0, 101, 10, dtype=torch.float64))
