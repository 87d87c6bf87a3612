"""Exact distributions of counts, and bounds on a mean of bounded losses: what the promises of this folder rest on."""

from math import e

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def beta_interval(a: int, b: int, confidence: float) -> tuple[float, float]:
    """Return the central interval of a Beta(a, b) variable.

    >>> [round(end, 4) for end in beta_interval(1, 1, 0.9)]
    [0.05, 0.95]
    """
    from scipy.special import betaincinv

    low, high = betaincinv(a, b, np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    return float(low), float(high)


def beta_binomial_pmf(trials: int, a: int, b: int) -> Vector:
    """Return P(X = 0 … trials), X | p ~ Binomial(trials, p), p ~ Beta(a, b), shape (trials + 1,).

    P(X = x) = C(trials, x) B(x + a, trials − x + b) / B(a, b)

    >>> beta_binomial_pmf(3, 1, 1).round(6).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    from scipy.special import betaln

    x = np.arange(trials + 1)
    choices = -np.log(trials + 1) - betaln(trials - x + 1, x + 1)
    pmf: Vector = np.exp(choices + betaln(x + a, trials - x + b) - betaln(a, b))
    return pmf


def beta_binomial_interval(trials: int, a: int, b: int, confidence: float) -> tuple[int, int]:
    """Return the smallest and the largest count of an interval that holds X with at least this probability, equal tails.

    >>> beta_binomial_interval(100, 90, 10, 0.99)
    (77, 98)
    """
    cdf = beta_binomial_pmf(trials, a, b).cumsum()
    low, high = np.searchsorted(cdf, [(1 - confidence) / 2, (1 + confidence) / 2])
    return int(low), int(min(high, trials))


def share_interval(count: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a probability after `count` of `trials`, exact and central (Clopper & Pearson 1934).

    >>> [round(end, 4) for end in share_interval(0, 10, 0.95)]
    [0.0, 0.3085]
    """
    low = beta_interval(count, trials - count + 1, confidence)[0] if count else 0.0
    high = beta_interval(count + 1, trials - count, confidence)[1] if count < trials else 1.0
    return low, high


def binomial_p_value(losses: Vector, counts: Vector, risk: float) -> Vector:
    """Return P(Binomial(n, risk) ≤ k) for k = `losses` of n = `counts`: small where the risk is below `risk`.

    >>> binomial_p_value(np.array([0.0]), np.array([3.0]), 0.5).tolist()
    [0.125]
    """
    from scipy.special import bdtr

    values: Vector = bdtr(losses, counts.astype(np.int64), risk)
    return values


def hoeffding_bentkus_p_value(losses: Vector, counts: Vector, risk: float) -> Vector:
    """Return a p-value for "the mean of n independent losses in [0, 1] is above `risk`", given their sum.

        p = min( exp(−n h(min(R̂, r), r)),  e · P(Binomial(n, r) ≤ ⌈n R̂⌉) ),   R̂ = losses / n,  r = `risk`
        h(a, b) = a log(a/b) + (1 − a) log((1 − a)/(1 − b))

    Of Hoeffding (1963) and Bentkus (2004), as Bates et al. (2021) join them. The losses need the same mean, not the same law.

    >>> hoeffding_bentkus_p_value(np.array([0.0]), np.array([3.0]), 0.5).round(6).tolist()
    [0.125]
    """
    from scipy.special import rel_entr

    mean = np.minimum(losses / counts, risk)
    hoeffding = np.exp(-counts * (rel_entr(mean, risk) + rel_entr(1 - mean, 1 - risk)))
    bentkus = e * binomial_p_value(np.ceil(losses), counts, risk)
    p_value: Vector = np.minimum(hoeffding, bentkus)
    return p_value
