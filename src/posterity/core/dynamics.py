"""Stochastic-gradient Markov chains on a flat vector: what one step does, and the exact variance of its noise.

The target is p(θ) ∝ exp(−U(θ)/T), U = −log p(θ, D) in nats for the whole data set, T the temperature (1: the posterior).
All here takes U as it is given: with the potential of one datum, Ū = U/N, the same target has the temperature T/N, and a
rate ε for Ū is the rate h = ε/N for U. A step writes into its first argument; its normals ξ are handed in, so that it is a
function of its arguments alone. All is element by element: leading dimensions may count chains.

Noise is (..., R) for the last R of P coordinates; those before it are points and follow the gradient without noise. With
noise None all do.
"""

from math import cos, pi, sqrt

from torch import Tensor

from posterity.errors import InvalidInput, unknown

STEP_SIZES = ("constant", "polynomial", "cosine")


def langevin_std(rate: float, temperature: float) -> float:
    """Return the std of the noise of a Langevin step, √(2 h T); a scale G multiplies its square.

    >>> round(langevin_std(0.02, 1.0), 12)
    0.2
    """
    return sqrt(2 * rate * temperature)


def langevin(
    theta: Tensor, grad: Tensor, noise: Tensor | None, rate: float, std: float, scale: Tensor | None = None
) -> None:
    """Take a Langevin step in place, θ ← θ − h G ∇U + √(2 h T G) ξ.

    Welling & Teh 2011, eq. 4, whose ε is 2 h here; with a diagonal G, Li et al. 2016, eq. 3 without Γ_i = Σ_j ∂G_ij/∂θ_j:
    that term is zero for a G that does not depend on θ, and whoever calls sees to it.

    Stationary law, for the exact gradient of U = ½ λ θ² and G = 1: N(0, (T/λ) / (1 − hλ/2)), stable where hλ < 2. The bias
    is of first order in h; no Metropolis step removes it.

    Args:
        theta: θ, (..., P), overwritten.
        grad: ∇U at θ, (..., P), or an unbiased estimate.
        noise: ξ ~ N(0, I), (..., R), or None.
        rate: h.
        std: of the noise, see `langevin_std`.
        scale: the diagonal of G, (..., P); None is 1.

    >>> import torch
    >>> theta = torch.tensor([1.0, 2.0])
    >>> langevin(theta, torch.tensor([1.0, 1.0]), torch.tensor([3.0]), 0.5, langevin_std(0.5, 1.0))
    >>> theta
    tensor([0.5000, 4.5000])
    """
    if scale is None:
        theta.add_(grad, alpha=-rate)
    else:
        theta.addcmul_(grad, scale, value=-rate)
    if noise is None:
        return
    first = theta.shape[-1] - noise.shape[-1]
    if scale is None:
        theta[..., first:].add_(noise, alpha=std)
    else:
        theta[..., first:].addcmul_(noise, scale[..., first:].sqrt(), value=std)


def hamiltonian_std(rate: float, temperature: float, friction: float, gradient_noise: float) -> float:
    """Return the std of the noise that friction needs, √(2 (α T − β̂) η); at T = 1 that of Chen et al. 2014, eq. 15.

    The total must be 2 α η T (fluctuation and dissipation). Stochastic gradients of variance V give η² V of it whatever T
    is, β̂ = η V/2 of these 2 η: so T multiplies α, not the difference, and the paper has T = 1 alone.

    Raises:
        InvalidInput: where β̂ is more than α T: the gradients alone are then hotter than T.

    >>> round(hamiltonian_std(0.01, 1.0, 0.5, 0.0), 12)
    0.1
    """
    if gradient_noise > friction * temperature:
        raise InvalidInput(
            f"gradient_noise is {gradient_noise:g}; it must be at most friction · temperature = {friction * temperature:g}. "
            "Use a smaller lr, or more friction."
        )
    return sqrt(2 * (friction * temperature - gradient_noise) * rate)


def hamiltonian(
    position: tuple[Tensor, Tensor], grad: Tensor, noise: Tensor | None, rate: float, std: float, friction: float
) -> None:
    """Take a step with friction in place, v ← (1 − α) v − η ∇U + √(2 (α T − β̂) η) ξ, then θ ← θ + v (Chen et al. 2014, eq. 15).

    Stationary law, for the exact gradient of U = ½ λ θ² and β̂ = 0: θ ~ N(0, (T/λ) / (1 − ηλ / (2 (2 − α)))), from the
    discrete Lyapunov equation of (θ, v). So α itself brings no bias to θ and nothing is corrected; v has the variance
    2 η T / (2 − α − ηλ/2). With α = 1 it is the Langevin step of rate η.

    Args:
        position: (θ, v), each (..., P), overwritten.
        grad: ∇U at θ, (..., P), or an unbiased estimate.
        noise: ξ ~ N(0, I), (..., R), or None.
        rate: η.
        std: of the noise, see `hamiltonian_std`.
        friction: α in (0, 1]; 1 − α is what SGD calls momentum.

    >>> import torch
    >>> theta, velocity = torch.zeros(2), torch.ones(2)
    >>> hamiltonian((theta, velocity), torch.tensor([1.0, 1.0]), torch.tensor([2.0]), 0.5, 1.0, 0.5)
    >>> theta
    tensor([0., 2.])
    """
    theta, velocity = position
    velocity.mul_(1 - friction).add_(grad, alpha=-rate)
    if noise is not None:
        velocity[..., velocity.shape[-1] - noise.shape[-1] :].add_(noise, alpha=std)
    theta.add_(velocity)


def rmsprop_scale(square: Tensor, count: int, smoothing: float, damping: float) -> Tensor:
    """Return the diagonal of G = 1 / (λ + √V̂), V̂ = V / (1 − a^t), after t ≥ 1 updates V ← a V + (1 − a) g² from V = 0.

    Li et al. 2016, eq. 4–5, with g the gradient of U/N where they have that of the mean log-likelihood alone. V̂, which they
    do not have, makes the first steps no larger than later ones (Kingma & Ba 2015, §3).

    >>> import torch
    >>> rmsprop_scale(torch.tensor([0.01 * 4.0]), 1, 0.99, 0.0)
    tensor([0.5000])
    """
    return (square / (1 - smoothing**count)).sqrt_().add_(damping).reciprocal_()


def step_size(schedule: str, step: int, steps: int, scale: int) -> float:
    """Return the factor of the rate at a step counted from 0.

    - `constant`: 1.
    - `polynomial`: (1 + t/b)^(−1/3): the exponent of least error (Teh, Thiéry, Vollmer 2016, §4), b = `scale` steps.
    - `cosine`: ½ (1 + cos(π t/S)), S = `steps`.

    >>> [step_size(s, 7, 14, 1) for s in STEP_SIZES]
    [1.0, 0.5, 0.5]

    Raises:
        InvalidInput: for an unknown schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "polynomial":
        return float((1 + step / scale) ** (-1 / 3))
    if schedule == "cosine":
        return 0.5 * (1 + cos(pi * step / steps))
    raise unknown("step-size schedule", schedule, STEP_SIZES)
