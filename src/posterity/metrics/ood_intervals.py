"""How sure out-of-distribution scores are: bootstrap intervals over the inputs of both sides, all resamples at once."""

import torch
from torch import Generator, Tensor

from posterity.metrics.bootstrap import Interval
from posterity.metrics.ood import ood_aupr, ood_auroc, ood_fpr

MEASURES = {"auroc": ood_auroc, "aupr": ood_aupr, "fpr95": ood_fpr}
RESAMPLES, LEVEL = 200, 0.95
AT_ONCE = 2_000_000  # counts that are held at once


def ood_estimates(inside: Tensor, outside: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """Return `auroc`, `aupr` and `fpr95` (positive: outside), each with its 95 % bootstrap interval (Efron 1979).

    It is `bootstrap_independent` of `ood_auroc`, `ood_aupr` and `ood_fpr` with percentiles, from counts instead of resampled
    inputs: the three share their resamples, and none is sorted again, which takes a hundredth of the time.

    >>> estimate = ood_estimates(torch.arange(50.0), torch.arange(50.0) + 40)["auroc"]
    >>> round(estimate.value, 3), estimate.lower < estimate.value < estimate.upper
    (0.98, True)
    """
    values = {name: measure(inside, outside) for name, measure in MEASURES.items()}
    _, place = torch.cat([inside, outside]).detach().to("cpu", torch.float64).unique(return_inverse=True)
    generator = Generator().manual_seed(seed)
    rows = max(1, AT_ONCE // len(place))
    sides = place[: len(inside)], place[len(inside) :]
    sizes = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    parts = [scores_of_counts(*(_resampled(side, size, len(place), generator) for side in sides)) for size in sizes]
    bounds = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return {
        name: Interval(value, *torch.cat([part[name] for part in parts]).quantile(bounds).tolist())
        for name, value in values.items()
    }


def scores_of_counts(inside: Tensor, outside: Tensor) -> dict[str, Tensor]:
    """Return the scores of counts, (R, K): how often the k-th smallest uncertainty occurs on either side; each (R,).

    >>> inside, outside = torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    >>> {name: round(value.item(), 4) for name, value in scores_of_counts(inside, outside).items()}
    {'auroc': 0.75, 'aupr': 0.8333, 'fpr95': 0.5}
    """
    strangers, familiar = (counts.flip(1).cumsum(1) for counts in (outside, inside))  # at or above each threshold
    found, positives, negatives = outside.flip(1), strangers[:, -1], familiar[:, -1]
    above = strangers - found / 2
    wanted = (0.95 * positives - 1e-9).ceil()
    first = (strangers >= wanted[:, None]).int().argmax(1, keepdim=True)
    return {
        "auroc": (inside.flip(1) * above).sum(1) / (positives * negatives),
        "aupr": (found * strangers / (strangers + familiar).clamp(min=1)).sum(1) / positives,
        "fpr95": familiar.gather(1, first).squeeze(1) / negatives,
    }


def _resampled(place: Tensor, rows: int, width: int, generator: Generator) -> Tensor:
    """Count how often each place is drawn when n of n places are drawn with replacement, again and again: (rows, width)."""
    drawn = place[torch.randint(len(place), (rows, len(place)), generator=generator)]
    return torch.zeros(rows, width, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=torch.float64)
    )
