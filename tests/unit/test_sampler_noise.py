"""The noise of each step that a stochastic-gradient chain took, read back from its draws: step sizes, friction, preconditioner.

Under inputs of 0 the data say nothing, and ∇Ū = w/(N s²) is known: so each step can be solved for its normals ξ, which are
those of plain SGLD with the same seed. Nothing is left to chance.
"""

from math import ceil, cos, pi

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import SGHMC, SGLD, Cyclical, Engine, Gaussian, Normal, TensorData

NUM_DATA, PRIOR_STD, STEPS, WEIGHTS = 4, 0.7, 40, 3
LR = 0.05


def draws(method: object, held_out: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Run on data that say nothing, full batches; return the start and all draws, (1 + K, P)."""
    torch.manual_seed(1)
    network = nn.Linear(WEIGHTS, 1, bias=False).double()
    zeros = torch.zeros(NUM_DATA, WEIGHTS, dtype=torch.float64)
    posterior = posterity.fit(
        network,
        TensorData(zeros, zeros[:, 0], NUM_DATA, held_out),
        likelihood=Gaussian(std=1.0),
        prior=Normal(0, PRIOR_STD),
        method=method,
        engine=Engine(seed=3, progress=False, device="cpu"),
    )
    return torch.cat([network.weight.detach().reshape(1, -1), posterior.thetas])


def gradient(theta: Tensor) -> Tensor:
    return theta / (NUM_DATA * PRIOR_STD**2)


def langevin_noise(thetas: Tensor, rates: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Solve θ' = θ − ε G ∇Ū + √(2 ε G/N) ξ for ξ."""
    moved = thetas[1:] - thetas[:-1] + rates[:, None] * scale * gradient(thetas[:-1])
    return moved / (2 * rates[:, None] * scale / NUM_DATA).sqrt()


def hamiltonian_noise(thetas: Tensor, rates: Tensor, friction: float, gradient_noise: float = 0.0) -> Tensor:
    """Solve v' = (1 − α) v − ε ∇Ū + √(2 (α − β̂ ε/lr) ε/N) ξ, v' = θ' − θ, for ξ; v is 0 at the start."""
    moved = thetas[1:] - thetas[:-1]
    before = torch.cat([torch.zeros(1, WEIGHTS, dtype=torch.float64), moved[:-1]])
    left = moved - (1 - friction) * before + rates[:, None] * gradient(thetas[:-1])
    variance = 2 * (friction - gradient_noise * rates / LR) * rates / NUM_DATA
    return left / variance.sqrt()[:, None]


def constant() -> Tensor:
    return torch.full((STEPS,), LR, dtype=torch.float64)


def cosine() -> Tensor:
    """ε/2 (1 + cos(π t/S))."""
    return LR * torch.tensor([0.5 * (1 + cos(pi * t / STEPS)) for t in range(STEPS)], dtype=torch.float64)


def polynomial() -> Tensor:
    """(1 + epochs so far)^(−1/3), one step to an epoch."""
    return LR * (1 + torch.arange(STEPS, dtype=torch.float64)) ** (-1 / 3)


RATES = {"constant": constant, "cosine": cosine, "polynomial": polynomial}
ALL = {"epochs": STEPS, "draws": STEPS, "burn_in": 0.0, "lr": LR}


def normals() -> Tensor:
    """The normals of this seed, read off plain SGLD, which are 120 standard normals."""
    found = langevin_noise(draws(SGLD(**ALL)), constant())
    assert abs(float(found.square().mean()) - 1) < 4 * (2 / found.numel()) ** 0.5
    assert abs(float(found.mean())) < 4 / found.numel() ** 0.5
    return found


def same(found: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("schedule", RATES)
def test_langevin_steps_have_the_schedules_rate(schedule: str) -> None:
    same(langevin_noise(draws(SGLD(**ALL, schedule=schedule)), RATES[schedule]()), normals())


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize(("friction", "gradient_noise"), [(0.1, 0.0), (0.3, 0.2), (1.0, 0.4), (0.1, 0.0999)])
def test_what_gradients_heat_is_not_injected_again(schedule: str, friction: float, gradient_noise: float) -> None:
    """At most, at the rate lr; it falls with the schedule's rate."""
    method = SGHMC(**ALL, schedule=schedule, friction=friction, gradient_noise=gradient_noise)
    same(hamiltonian_noise(draws(method), RATES[schedule](), friction, gradient_noise), normals())


def rms_scale(gradients: Tensor, smoothing: float, damping: float) -> Tensor:
    """1 / (λ + √V̂), V̂ the mean of squares with the weights a^(t − k)."""
    weights = smoothing ** torch.arange(len(gradients) - 1, -1, -1, dtype=torch.float64)
    return 1 / (damping + ((weights[:, None] * gradients.square()).sum(0) / weights.sum()).sqrt())


@pytest.mark.parametrize("damping", [1e-5, 0.3])
def test_a_preconditioner_stands_still_while_draws_are_kept(damping: float) -> None:
    """One step of burn-in: G is that of the gradient at the start, in every step from which a draw is kept."""
    method = SGLD(
        epochs=STEPS, draws=STEPS - 1, burn_in=0.5 / STEPS, lr=0.01, preconditioner="rmsprop", damping=damping
    )
    thetas = draws(method)
    scale, noise = rms_scale(gradient(thetas[:1]), method.smoothing, damping), normals()
    rates = torch.full((STEPS,), method.lr, dtype=torch.float64)
    first = thetas[0] - rates[0] * scale * gradient(thetas[0]) + (2 * rates[0] * scale / NUM_DATA).sqrt() * noise[0]
    same(langevin_noise(torch.cat([first[None], thetas[1:]]), rates[1:], scale), noise[1:])


def cycle_rates(length: int) -> list[float]:
    """ε/2 (1 + cos(π t/L)) for t = 0 … L − 1 (Zhang et al. 2020, eq. 1)."""
    return [0.5 * LR * (1 + cos(pi * t / length)) for t in range(length)]


@pytest.mark.parametrize(("cycles", "exploration"), [(4, 0.3), (4, 0.0), (3, 0.4), (1, 0.75)])
@pytest.mark.parametrize("kind", ["sgld", "sgld-rmsprop", "sghmc"])
def test_cycles_explore_without_noise_and_then_sample(kind: str, cycles: int, exploration: float) -> None:
    """All steps followed: those without noise from the start on, those with it from draw to draw."""
    if kind == "sgld-rmsprop" and not exploration:
        pytest.skip("refused: nothing is explored, in which it could adapt")
    length = ceil(STEPS / cycles)
    explored = ceil(exploration * length)
    sampled = [t for t in range(STEPS) if t % length >= explored]
    own = {**ALL, "draws": len(sampled), "burn_in": 0.5}  # which cycles do not use
    chain = (
        SGHMC(**own, friction=0.2)
        if kind == "sghmc"
        else SGLD(**own, preconditioner="rmsprop" if kind == "sgld-rmsprop" else None, damping=0.3, smoothing=0.9)
    )
    thetas, noise = draws(Cyclical(chain, cycles=cycles, exploration=exploration)), iter(normals())
    theta, velocity, seen, kept, scale = thetas[0], torch.zeros(WEIGHTS).double(), [], iter(thetas[1:]), 1.0
    for step in range(STEPS):
        rate, grad = cycle_rates(length)[step % length], gradient(theta)
        if kind == "sgld-rmsprop":
            seen += [grad] if step not in sampled else []
            scale = rms_scale(torch.stack(seen), 0.9, 0.3)
        xi = next(noise) if step in sampled else torch.zeros_like(grad)
        if kind == "sghmc":
            velocity = 0.8 * velocity - rate * grad + (2 * 0.2 * rate / NUM_DATA) ** 0.5 * xi
            theta = theta + velocity
        else:
            theta = theta - rate * scale * grad + (2 * rate * scale / NUM_DATA + 0 * grad).sqrt() * xi
        if step in sampled:
            same(next(kept), theta)


@pytest.mark.parametrize("kind", ["sgld", "cyclical"])
def test_validation_data_do_not_choose_among_the_draws(kind: str) -> None:
    """No epoch of a chain is the best: every draw is returned, whatever the scores were on the way."""
    chain = SGLD(**{**ALL, "draws": 10, "burn_in": 0.5})
    method = Cyclical(chain, cycles=2, exploration=0.5) if kind == "cyclical" else chain
    inputs = torch.ones(5, WEIGHTS, dtype=torch.float64)
    held_out = inputs, inputs @ draws(method)[1].reshape(-1)[:WEIGHTS]  # which the first draw explains exactly
    assert torch.equal(draws(method, held_out), draws(method))
    assert len(draws(method, held_out)) == 11
