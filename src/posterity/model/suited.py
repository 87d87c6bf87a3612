"""Which likelihood suits targets, told from their values: one sentence, of the first row that holds.

All that are named are in `posterity.likelihoods`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from posterity.model.held import Held

GRADES = 7  # whole numbers from 0 or 1 on, so many at most and none left out, may be grades
ZEROS = 0.1  # a share of zeros beyond that of a negative binomial of the same mean and variance
OVERDISPERSED = 1.5  # variance / mean of counts, from which on they are no Poisson's of one rate

ROWS: Sequence[tuple[Callable[[Held], bool], str]] = (
    (lambda t: t.missing, "Some are NaN or infinite: leave these out."),
    (lambda t: t.only(0, 1), "Labels 0 and 1: likelihood=Bernoulli()."),
    (
        lambda t: t.whole and t.low == 0 and zeros_beyond(t.targets) > ZEROS,
        "Whole numbers from 0 on with more zeros than counts of one rate have: likelihood=NegativeBinomial(), or "
        "ZeroInflated(NegativeBinomial()) where some rows can have no other; as values, Gaussian().",
    ),
    (
        lambda t: t.whole and t.low >= 0 and dispersed(t.targets) > OVERDISPERSED,
        "Whole numbers from 0 on that vary more than their mean, as counts do: likelihood=NegativeBinomial(); as values, "
        "Gaussian().",
    ),
    (
        lambda t: t.whole and t.low >= 0,
        "Whole numbers from 0 on: of counts likelihood=Poisson() or NegativeBinomial(), of grades Ordinal({grades}), of "
        "successes among n trials Binomial(n).",
    ),
    (
        lambda t: t.low > 0 and t.high < 1,
        "Numbers between 0 and 1: of shares likelihood=Beta(), of which the variance ends at the ends; as values, Gaussian().",
    ),
    (
        lambda t: t.low >= 0 and t.high <= 1,
        "Shares with 0 or 1 among them: likelihood=Beta() takes what lies between, as (targets * (N - 1) + 0.5) / N does of N "
        "data (Smithson and Verkuilen 2006); as values, Gaussian().",
    ),
    (
        lambda t: t.low > 0,
        "Positive numbers: likelihood=LogNormal() or Gamma() where the noise grows with the value, Weibull() of times to a "
        "failure; else Gaussian(), or StudentT() where some are far off.",
    ),
    (
        lambda t: t.low == 0,
        "Numbers from 0 on, and 0 among them, which LogNormal() and Gamma() cannot give: likelihood=Gaussian(), or StudentT() "
        "where some are far off.",
    ),
    (lambda t: True, "Numbers of either sign: likelihood=Gaussian(), or StudentT() where some are far off."),
)


def suited(targets: Tensor) -> str:
    """Say which likelihood suits targets (N,) or (N, D).

    >>> suited(torch.tensor([0, 3, 1, 17, 0, 2]))[:78]
    'Whole numbers from 0 on that vary more than their mean, as counts do: likeliho'
    """
    held = Held(targets, torch.Size([len(targets), 1]))
    text = next(text for holds, text in ROWS if holds(held))
    return text.format(grades="" if held.missing else f"{int(held.high) + 1}")


def zeros_beyond(targets: Tensor) -> float:
    """Return the share of zeros beyond what a negative binomial of these mean and variance has; the largest of columns."""
    columns = targets.double().reshape(len(targets), -1)
    mean, variance = columns.mean(0).clamp(min=1e-300), columns.var(0, correction=0)
    dispersion = ((variance - mean) / mean.square()).clamp(min=1e-9)
    return float(((columns == 0).double().mean(0) - (-(dispersion * mean).log1p() / dispersion).exp()).max())


def dispersed(targets: Tensor) -> float:
    """Return variance / mean, 1 of a Poisson's counts with one rate; the largest of several columns."""
    columns = targets.double().reshape(len(targets), -1)
    return float((columns.var(0, correction=0) / columns.mean(0).clamp(min=1e-300)).max())
