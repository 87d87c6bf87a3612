"""Have the chains converged, and what are their draws worth: R-hat, effective sample sizes, Monte-Carlo errors, E-BFMI.

Draws are (C, S, ...): C chains of S draws of any quantities; each function returns one number per quantity, of shape (...).
All computation is in float64. Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, "Rank-normalization, folding, and
localization: an improved R-hat"; Geyer 1992; Betancourt 2016 for E-BFMI.
"""

from collections.abc import Callable
from math import log10

import torch
from torch import Tensor

from posterity.errors import InvalidInput

ENOUGH = 4  # draws per chain: a half needs two to have a variance
CHUNK = 2**22  # numbers at work at a time: a network has many weights


def rhat(draws: Tensor) -> Tensor:
    """Return the rank-normalised split R-hat, (...): near 1 where all halves of chains tell the same; below 1.01 is good.

    R̂ = √(((S − 1)/S · W + B/S) / W),      W the mean variance within halves, B/S the variance of their means

    of z = Φ⁻¹((rank − 3/8)/(n + 1/4)) over all n draws, and of the same for |x − median|, which tells chains of different
    spread; the larger is returned (Vehtari et al. 2021, eq. 1–4 and 14). NaN for a quantity that never moves.

    >>> noise = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    >>> shifted = noise + torch.tensor([0.0, 0.0, 0.0, 3.0])[:, None]
    >>> round(rhat(noise).item(), 2), rhat(shifted) > 1.2
    (1.0, tensor(True))
    """

    def both(whole: Tensor) -> Tensor:
        halves = _halves(whole)
        folded = (halves - halves.flatten(-2).quantile(0.5, dim=-1)[:, None, None]).abs()
        return torch.maximum(_rhat(_normalised(halves)), _rhat(_normalised(folded)))

    return _each(draws, both)


def ess_bulk(draws: Tensor) -> Tensor:
    """Return the effective sample size for the centre, (...): of rank-normalised draws; 400 or more is good.

    C·S/τ,      τ = −1 + 2 Σ_t P_t,      P_t = ρ_2t + ρ_2t+1 while positive, made to fall (Geyer 1992)

    ρ_t is the autocorrelation over all chains, lower where they disagree (Vehtari et al. 2021, eq. 10–13).

    >>> noise = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    >>> 1500 < ess_bulk(noise) < 2700
    tensor(True)
    """
    return _each(draws, lambda whole: _ess(_normalised(_halves(whole))))


def ess_tail(draws: Tensor) -> Tensor:
    """Return the effective sample size for the 5 % and 95 % quantiles, the smaller, (...) (Vehtari et al. 2021, §4.3)."""

    def tail(whole: Tensor) -> Tensor:
        ends = whole.flatten(-2).quantile(whole.new_tensor([0.05, 0.95]), dim=-1)
        low, high = (_ess(_halves((whole <= end[:, None, None]).to(whole.dtype))) for end in ends)
        return torch.minimum(low, high)

    return _each(draws, tail)


def ess_mean(draws: Tensor) -> Tensor:
    """Return the effective sample size for the mean, (...): of the draws themselves, which must have a variance."""
    return _each(draws, lambda whole: _ess(_halves(whole)))


def mcse(draws: Tensor) -> Tensor:
    """Return the Monte-Carlo standard error of the mean, std/√ESS, (...), in the draws' own units."""
    own = draws.double()
    return own.flatten(0, 1).std(0) / ess_mean(draws).sqrt()


def e_bfmi(energies: Tensor) -> Tensor:
    """Return each chain's estimated Bayesian fraction of missing information, (C,), from energies H, (C, S), in nats.

    Σ_s (H_s − H_(s−1))² / Σ_s (H_s − H̄)²: below 0.3 fresh momenta move the energy too little to reach the tails
    (Betancourt 2016).

    >>> e_bfmi(torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
    tensor([3.], dtype=torch.float64)
    """
    own = energies.double()
    return own.diff(dim=1).square().sum(1) / (own - own.mean(1, keepdim=True)).square().sum(1)


def _each(draws: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a statistic of (K, C, S) to K quantities at a time."""
    if draws.dim() < 2 or draws.shape[1] < ENOUGH:
        raise InvalidInput(
            f"Draws of shape {tuple(draws.shape)} were given; diagnostics need (chains, draws, ...) with at least {ENOUGH} "
            "draws per chain."
        )
    chains, count = draws.shape[:2]
    flat = draws.detach().reshape(chains, count, -1)
    parts = flat.split(max(1, CHUNK // (chains * count)), dim=2)
    return torch.cat([statistic(p.permute(2, 0, 1).cpu().double()) for p in parts]).reshape(draws.shape[2:])


def _halves(whole: Tensor) -> Tensor:
    """Split each chain in two, (K, 2C, S/2), so that one which drifts disagrees with itself; an odd draw is left out."""
    half = whole.shape[-1] // 2
    return torch.cat([whole[..., :half], whole[..., whole.shape[-1] - half :]], -2)


def _normalised(halves: Tensor) -> Tensor:
    """Replace draws by normal quantiles of their ranks over all chains; equal draws share their mean rank."""
    flat = halves.flatten(-2).contiguous()
    ordered = flat.sort(-1).values
    below = torch.searchsorted(ordered, flat)
    up_to = torch.searchsorted(ordered, flat, right=True)
    rank = (below + up_to + 1) / 2
    quantiles: Tensor = torch.special.ndtri((rank.double() - 0.375) / (flat.shape[-1] + 0.25))
    return quantiles.reshape(halves.shape)


def _rhat(halves: Tensor) -> Tensor:
    count = halves.shape[-1]
    within = halves.var(-1).mean(-1)
    between = halves.mean(-1).var(-1)
    return ((count - 1) / count + between / within).sqrt()


def _ess(halves: Tensor) -> Tensor:
    """Return the effective sample size of (K, C, S), (K,); NaN for quantities that never move."""
    chains, count = halves.shape[-2:]
    covariance = _autocovariance(halves).mean(-2)
    within = covariance[..., :1] * count / (count - 1)
    variance = covariance[..., :1] + (halves.mean(-1).var(-1)[..., None] if chains > 1 else 0)
    rho = 1 - (within - covariance) / variance
    rho[..., 0] = 1
    number = max(1, (count - 1) // 2)
    even, odd = rho[..., 0 : 2 * number : 2], rho[..., 1 : 2 * number : 2]
    pairs = even + odd
    kept = (pairs > 0).to(pairs.dtype).cumprod(-1)
    kept[..., -1] = 0  # at the longest lags hardly any draws are left to tell; ArviZ and Stan stop there, too
    falling = pairs.cummin(-1).values * kept
    # The first pair that is left out still gives its even half, where that is positive: less bias for antithetic chains.
    first_out = kept.sum(-1).long()
    rest = even.gather(-1, first_out[..., None])[..., 0].clamp(min=0)
    tau = -1 + 2 * falling.sum(-1) + rest
    total = chains * count
    sizes = total / tau.clamp(min=1 / log10(total))
    return torch.where(variance[..., 0] > 0, sizes, torch.nan)


def _autocovariance(halves: Tensor) -> Tensor:
    """Return the autocovariances at all lags, (K, C, S), divided by S, through the Fourier transform."""
    count = halves.shape[-1]
    centred = halves - halves.mean(-1, keepdim=True)
    length = 2 ** (2 * count - 1).bit_length()  # zeros beyond the end, so that it does not wrap around
    power = torch.fft.rfft(centred, length).abs().square()
    lags: Tensor = torch.fft.irfft(power, length)
    return lags[..., :count] / count
