"""One step of each sampler: its drift, the variance of its noise, and the stationary law of the discretised linear chain."""

import math

import pytest
import torch
from torch import Tensor

from posterity import InvalidInput
from posterity.core import dynamics
from posterity.core.dynamics import (
    hamiltonian,
    hamiltonian_std,
    langevin,
    langevin_std,
    rmsprop_scale,
    step_size,
)

CHAINS = 40_000


def normals(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variance_and_error(draws: Tensor) -> tuple[float, float]:
    """The second moment about 0 of independent draws, and its standard error."""
    squares = draws.square()
    return float(squares.mean()), float(squares.std()) / len(draws) ** 0.5


@pytest.mark.parametrize(("rate", "curvature", "temperature"), [(0.02, 1.0, 1.0), (0.3, 4.0, 1.0), (0.5, 2.0, 0.3)])
def test_langevin_has_its_discretised_stationary_law(rate: float, curvature: float, temperature: float) -> None:
    theta, std = 3 * normals(0, CHAINS), langevin_std(rate, temperature)
    for step in range(math.ceil(8 / (rate * curvature))):
        langevin(theta, curvature * theta, normals(step + 1, CHAINS), rate, std)
    exact = temperature / curvature / (1 - rate * curvature / 2)
    found, error = variance_and_error(theta)
    assert abs(found - exact) < 4 * error


@pytest.mark.parametrize("friction", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_hamiltonian_has_its_discretised_stationary_law(friction: float, temperature: float) -> None:
    rate, curvature = 0.2, 2.0
    theta, velocity = 2 * normals(0, CHAINS), torch.zeros(CHAINS, dtype=torch.float64)
    std = hamiltonian_std(rate, temperature, friction, 0.0)
    for step in range(200):
        hamiltonian((theta, velocity), curvature * theta, normals(step + 1, CHAINS), rate, std, friction)
    found, error = variance_and_error(theta)
    assert abs(found - temperature / curvature / (1 - rate * curvature / (2 * (2 - friction)))) < 4 * error
    found, error = variance_and_error(velocity)
    assert abs(found - 2 * rate * temperature / (2 - friction - rate * curvature / 2)) < 4 * error


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_noise_of_the_gradient_takes_the_place_of_injected_noise(temperature: float) -> None:
    """With β̂ = η V/2 known exactly, the law is that of the exact gradient, at any temperature."""
    rate, curvature, friction, variance = 0.1, 1.0, 0.3, 2.0
    exact = temperature / curvature / (1 - rate * curvature / (2 * (2 - friction)))
    hot = []
    for correction in (rate * variance / 2, 0.0):
        theta, velocity = normals(0, CHAINS), torch.zeros(CHAINS, dtype=torch.float64)
        std = hamiltonian_std(rate, temperature, friction, correction)
        for step in range(150):
            grad = curvature * theta + variance**0.5 * normals(10_000 + step, CHAINS)
            hamiltonian((theta, velocity), grad, normals(step + 1, CHAINS), rate, std, friction)
        found, error = variance_and_error(theta)
        hot.append((found - exact) / error)
    assert abs(hot[0]) < 4
    assert hot[1] > 10  # the test can tell a correction from none


def test_full_friction_is_a_langevin_step() -> None:
    start, grad, noise = normals(0, 5), normals(1, 5), normals(2, 5)
    theta = start.clone()
    hamiltonian((theta, normals(3, 5)), grad, noise, 0.1, hamiltonian_std(0.1, 0.7, 1.0, 0.0), 1.0)
    langevin(start, grad, noise, 0.1, langevin_std(0.1, 0.7))
    torch.testing.assert_close(theta, start, rtol=1e-14, atol=1e-14)


def test_a_scale_is_a_change_of_coordinates() -> None:
    """Langevin in φ = θ/√g, where ∂U/∂φ = √g ∂U/∂θ, is the preconditioned step in θ."""
    theta, grad, noise, scale = normals(0, 6), normals(1, 6), normals(2, 6), normals(3, 6).exp()
    rescaled = theta / scale.sqrt()
    langevin(rescaled, grad * scale.sqrt(), noise, 0.05, langevin_std(0.05, 1.3))
    langevin(theta, grad, noise, 0.05, langevin_std(0.05, 1.3), scale)
    torch.testing.assert_close(theta, rescaled * scale.sqrt(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [None, torch.tensor([1.0, 2.0, 3.0, 4.0]).double()])
def test_points_come_first_and_have_no_noise(scale: Tensor | None) -> None:
    start, grad, noise = normals(0, 4), normals(1, 4), normals(2, 2)
    theta = start.clone()
    langevin(theta, grad, noise, 0.1, 0.5, scale)
    own = torch.ones(4).double() if scale is None else scale
    expected = start - 0.1 * own * grad + 0.5 * own.sqrt() * torch.cat([torch.zeros(2), noise])
    torch.testing.assert_close(theta, expected)
    theta, velocity = start.clone(), torch.ones(4).double()
    hamiltonian((theta, velocity), grad, noise, 0.1, 0.5, 0.25)
    torch.testing.assert_close(velocity, 0.75 - 0.1 * grad + 0.5 * torch.cat([torch.zeros(2), noise]))
    torch.testing.assert_close(theta, start + velocity)


def test_rmsprop_scale_equals_a_weighted_mean_of_squares() -> None:
    grads, square, smoothing = normals(0, 7, 3), torch.zeros(3, dtype=torch.float64), 0.9
    for grad in grads:
        square.mul_(smoothing).addcmul_(grad, grad, value=1 - smoothing)
    weights = smoothing ** torch.arange(6, -1, -1, dtype=torch.float64)
    mean = (weights[:, None] * grads.square()).sum(0) / weights.sum()
    torch.testing.assert_close(rmsprop_scale(square, 7, smoothing, 0.01), 1 / (0.01 + mean.sqrt()))


def test_step_sizes() -> None:
    assert [step_size("constant", t, 8, 3) for t in (0, 7)] == [1.0, 1.0]
    assert [step_size("polynomial", t, 8, 3) for t in (0, 21)] == pytest.approx([1.0, 0.5])
    assert [step_size("cosine", t, 8, 3) for t in (0, 2, 4, 8)] == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0])
    with pytest.raises(InvalidInput, match="Did you mean 'cosine'"):
        step_size("cosin", 0, 8, 3)


def test_more_gradient_noise_than_friction_is_refused() -> None:
    assert dynamics.hamiltonian_std(0.1, 1.0, 0.2, 0.2) == 0
    with pytest.raises(InvalidInput, match=r"gradient_noise is 0.3; .* = 0.2"):
        hamiltonian_std(0.1, 1.0, 0.2, 0.3)
