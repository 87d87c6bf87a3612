"""How far would a score move with other test data? The bootstrap draws new test sets from the one that is there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput, unknown

Way = Literal["percentile", "bca"]


@dataclass(frozen=True)
class Interval:
    """A score, and the interval that it would move in with other test data, at the level asked for."""

    value: float
    lower: float
    upper: float


def bootstrap(
    score: Callable[..., float],
    *tensors: Tensor,
    resamples: int = 1000,
    level: float = 0.95,
    method: Way = "percentile",
    generator: Generator | None = None,
) -> Interval:
    """Return any score of examples with its bootstrap interval (Efron, 1979).

    Each of `resamples` new test sets draws B of the B examples with replacement, the same ones of every tensor, and is
    scored anew. It says how sure a score is of itself with these predictions; what another training run would give is
    another question, for several seeds.

    Args:
        score: of the tensors, such as `nll(probs, labels)`.
        tensors: one row per example, all equally long; draws go second, `probs.movedim(0, 1)`.
        method: "percentile" takes quantiles of the new scores. "bca" (Efron, 1987) corrects them for bias and skewness,
            which errors of calibration have, for B more scores; NaN where every new score is on one side of the old one.
        generator: source of the draws; torch's global one where None.

    New test sets for which the score is NaN, such as an AUROC of one class alone, are left out.

    Raises:
        InvalidInput: for no tensors, of different lengths, or a level or number that makes no sense.

    >>> from posterity.metrics.scores import accuracy
    >>> probs, labels = torch.tensor([[0.8, 0.2]] * 100), torch.tensor([0] * 80 + [1] * 20)
    >>> found = bootstrap(accuracy, probs, labels, generator=Generator().manual_seed(0))
    >>> round(found.value, 2), found.lower < 0.75, found.upper > 0.85  # 0.8 ± 1.96 · 0.04
    (0.8, True, True)
    """
    lengths = {len(t) for t in tensors}
    if len(lengths) > 1:
        raise InvalidInput(
            f"The tensors have {sorted(lengths)} rows; give one row per example. For samples of their own, such as inside "
            "and outside of a distribution, there is bootstrap_independent."
        )

    def both(rows: Sequence[Tensor]) -> float:
        return score(*(t[rows[0]] for t in tensors))

    return _bootstrapped(both, list(lengths), resamples, level, method, generator)


def bootstrap_independent(
    score: Callable[..., float],
    *samples: Tensor,
    resamples: int = 1000,
    level: float = 0.95,
    method: Way = "percentile",
    generator: Generator | None = None,
) -> Interval:
    """Return a score of independent samples with its interval: each is drawn anew by itself; otherwise as `bootstrap`.

    >>> from posterity.metrics.ood import ood_auroc
    >>> inside, outside = torch.arange(40.0), torch.arange(20.0, 50.0)
    >>> found = bootstrap_independent(ood_auroc, inside, outside, generator=Generator().manual_seed(0))
    >>> found.lower < found.value < found.upper
    True
    """

    def each(rows: Sequence[Tensor]) -> float:
        return score(*(t[index] for t, index in zip(samples, rows, strict=True)))

    return _bootstrapped(each, [len(t) for t in samples], resamples, level, method, generator)


Scored = Callable[[Sequence[Tensor]], float]  # of the rows that are taken of each sample


def _bootstrapped(
    score: Scored, sizes: Sequence[int], resamples: int, level: float, method: str, generator: Generator | None
) -> Interval:
    if not sizes or not all(sizes):
        raise InvalidInput("There are no examples to draw from.")
    if resamples < 2 or not 0 < level < 1:
        raise InvalidInput(
            f"{resamples} resamples at level {level} were asked for; take at least 2, and a level in (0, 1)."
        )
    if method not in ("percentile", "bca"):
        raise unknown("bootstrap method", method, ("percentile", "bca"))
    value = float(score([torch.arange(size) for size in sizes]))
    drawn = torch.tensor(
        [float(score([torch.randint(size, (size,), generator=generator) for size in sizes])) for _ in range(resamples)],
        dtype=torch.float64,
    )
    drawn = drawn[~drawn.isnan()]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    if method == "bca":
        tails = _corrected(tails, drawn, value, list(_influences(score, sizes)))
    if bool(tails.isnan().any()):
        return Interval(value, float("nan"), float("nan"))
    lower, upper = torch.quantile(drawn, tails).tolist()
    return Interval(value, lower, upper)


def _influences(score: Scored, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield, for each sample of n, (n − 1)(θ̄ − θ_i)/n of the scores θ_i without its i-th example."""
    rows = [torch.arange(size) for size in sizes]
    for k, size in enumerate(sizes):
        left = [float(score([*rows[:k], rows[k][rows[k] != i], *rows[k + 1 :]])) for i in range(size)]
        values = torch.tensor(left, dtype=torch.float64)
        yield (values.mean() - values) * (size - 1) / size


def _corrected(tails: Tensor, drawn: Tensor, value: float, influences: Sequence[Tensor]) -> Tensor:
    """Return Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))) for tails Φ(z), with bias z₀ and acceleration a (Efron, 1987)."""
    below = ((drawn < value).double() + (drawn <= value).double()).mean() / 2
    bias = torch.special.ndtri(below)
    skew = sum(values.pow(3).sum() for values in influences)
    spread = sum(values.square().sum() for values in influences)
    acceleration = skew / (6 * spread**1.5)
    moved = bias + torch.special.ndtri(tails)
    corrected: Tensor = torch.special.ndtr(bias + moved / (1 - acceleration * moved))
    return corrected
