"""Are importance ratios of one distribution to another usable: Pareto smoothing, and the tail's shape k̂.

For draws θ_s ~ q the ratios r_s = p(θ_s)/q(θ_s) tell how p differs from q. Their largest follow a generalised Pareto law,
whose shape k says how many moments r has, about 1/k: with k < 1/2 a variance, with k ≥ 1 not even a mean (Vehtari, Simpson,
Gelman, Yao & Gabry 2024, "Pareto smoothed importance sampling"; Yao, Vehtari, Simpson & Gelman 2018, "Yes, but did it work?:
evaluating variational inference"). All computation is in float64.
"""

from dataclasses import dataclass
from math import isfinite, log10, sqrt

import torch
from torch import Tensor

from posterity.errors import InvalidInput

ENOUGH = 25  # ratios: a tail of the largest fifth then has five
PRIOR_WEIGHT, PRIOR_SHAPE = 10, 0.5  # of k̂: as if so many more draws of the tail had said so


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Pareto-smoothed importance weights.

    Args:
        log_weights: log w_s, (S,), normalised: Σ_s w_s = 1.
        khat: k̂ of the ratios' tail; infinite where a ratio is.
    """

    log_weights: Tensor
    khat: float


def smooth(log_ratios: Tensor) -> Smoothed:
    """Replace the largest of the importance ratios r_s by what a generalised Pareto law expects of them.

    The M = ⌊min(S/5, 3√S)⌋ largest excesses over the next smaller ratio u are fitted; the z-th smallest of them becomes
    u + σ̂/k̂ ((1 − (z − ½)/M)^(−k̂) − 1), but no larger than the largest ratio. Draws are taken to be independent.

    Args:
        log_ratios: log p(θ_s) − log q(θ_s) up to a constant, (S,), S ≥ 25, in nats.

    Raises:
        InvalidInput: for fewer ratios, NaN, +∞, or no ratio above 0.

    >>> normal = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> narrow = smooth(-0.5 * normal**2 / 0.81 + 0.5 * normal**2)  # p = N(0, 0.9²), q = N(0, 1): ratios are bounded
    >>> wide = smooth(-0.5 * normal**2 / 4 + 0.5 * normal**2)  # p = N(0, 2²): k = 3/4
    >>> narrow.khat < 0.5 < wide.khat
    True
    """
    own = log_ratios.detach().cpu().double()
    _check(own)
    count = len(own)
    size = int(min(count / 5, 3 * sqrt(count)))
    shifted = own - own.max()
    order = shifted.argsort()
    tail = order[-size:]
    bound = shifted[order[-size - 1]].exp()
    excess = shifted[tail].exp() - bound
    if not excess[-1] > 0:  # the largest are all equal: there is no tail
        return Smoothed(shifted - shifted.logsumexp(0), -torch.inf)
    shape, scale = fit(excess.clamp_min(torch.finfo(torch.float64).tiny))
    if isfinite(shape):
        expected = bound + quantiles(shape, scale, (torch.arange(size, dtype=torch.float64) + 0.5) / size)
        shifted[tail] = expected.log().clamp_max(0)
    return Smoothed(shifted - shifted.logsumexp(0), shape)


def fit(excess: Tensor) -> tuple[float, float]:
    """Fit p(x) = 1/σ (1 + k x/σ)^(−1/k − 1) to excesses x > 0, sorted, (M,); return (k̂, σ̂).

    With b = −k/σ, k(b) = mean log(1 − b x) maximises the likelihood, whose profile is ℓ(b) = M (log(−b/k(b)) − k(b) − 1).
    b is averaged, with weights e^ℓ(b), over a grid of 30 + ⌊√M⌋ values spread by its prior (Zhang & Stephens 2009, eq. 2–6,
    with the sign of k that is usual today). k̂ then is drawn towards ½ as by 10 more excesses (Vehtari et al. 2024, app. C).
    """
    count = len(excess)
    number = 30 + int(sqrt(count))
    quartile, largest = excess[int(count / 4 + 0.5) - 1], excess[-1]
    grid = torch.arange(1, number + 1, dtype=torch.float64) - 0.5
    b = 1 / largest + (1 - (number / grid).sqrt()) / (3 * quartile)
    k = torch.log1p(-b[:, None] * excess).mean(1)
    profile = count * ((-b / k).log() - k - 1)
    mean = (b * profile.softmax(0)).sum()
    shape = torch.log1p(-mean * excess).mean()
    scale = -shape / mean
    shrunk = (count * shape + PRIOR_WEIGHT * PRIOR_SHAPE) / (count + PRIOR_WEIGHT)
    return float(shrunk), float(scale)


def quantiles(shape: float, scale: float, levels: Tensor) -> Tensor:
    """Return σ/k ((1 − p)^(−k) − 1), or −σ log(1 − p) for k = 0, at each level p."""
    if shape == 0:
        return -scale * torch.log1p(-levels)
    return scale * torch.expm1(-shape * torch.log1p(-levels)) / shape


def reliable_below(draws: int) -> float:
    """Return the k̂ below which estimates by so many draws can be relied on: min(1 − 1/log10 S, 0.7) (Vehtari et al. 2024).

    >>> reliable_below(100), reliable_below(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / log10(draws), 0.7)


def _check(ratios: Tensor) -> None:
    if ratios.dim() != 1 or len(ratios) < ENOUGH:
        raise InvalidInput(
            f"Importance ratios of shape {tuple(ratios.shape)} were given; at least {ENOUGH} are needed."
        )
    if ratios.isnan().any() or ratios.max() == torch.inf or ratios.max() == -torch.inf:
        raise InvalidInput("The importance ratios hold NaN, or +∞, or nothing but −∞: the log joint is not finite.")
