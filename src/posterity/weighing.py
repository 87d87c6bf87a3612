"""How much each datum counts, and each number of its target: the one place that knows.

    log p(D | θ) = Σ_n w_n Σ_d m_nd log p(y_nd | x_n, θ)

w_n ≥ 0 is the weight of a datum, a power of its likelihood: a whole number is that of as many equal data, 0 that of none. m_nd
is 0 where a number of a target is missing, else 1. N = Σ_n w_n. A batch of data that are not all alike has a third tensor:
their weights, (B,), or, where numbers of targets are missing, (B, 1 + D): w_n, then w_n m_nd for each number of a target.
What is missing has been filled in by then, by a number that its density can be asked for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from posterity.types import IGNORED, Batch

SOME = 4096  # data that stand for all of a weighted sample


def size(batch: Batch) -> Tensor | int:
    """Return Σ_b w_b: how many data a batch counts for.

    >>> size((torch.zeros(3, 1), torch.zeros(3))), size((torch.zeros(3, 1), torch.zeros(3), torch.tensor([1.0, 0.5, 0.0])))
    (3, tensor(1.5000, dtype=torch.float64))
    """
    own = of_data(batch)
    return len(batch[1]) if own is None else own.sum(dtype=torch.float64)


def of_data(batch: Batch) -> Tensor | None:
    """Return w_b, (B,); None where every datum counts once."""
    if len(batch) < 3:
        return None
    weights: Tensor = batch[2]
    return weights if weights.dim() == 1 else weights[:, 0]


def of_numbers(batch: Batch) -> Tensor | None:
    """Return w_b m_bd of each number, (B, D) where it can be another than that of the datum; else None."""
    return batch[2][:, 1:] if len(batch) == 3 and batch[2].dim() == 2 else None


def known(batch: Batch) -> Tensor | None:
    """Return which numbers of the targets are known, of their shape; None where all are."""
    numbers = of_numbers(batch)
    return None if numbers is None else (numbers > 0).reshape(batch[1].shape)


def each_weight(batch: Batch) -> Tensor:
    """Return what each number of the targets counts for, float64, of their shape or one that goes with it."""
    own, each, targets = of_data(batch), of_numbers(batch), batch[1]
    if own is None:
        return torch.ones(targets.shape, dtype=torch.float64, device=targets.device)
    if each is not None:
        return each.double().reshape(targets.shape)
    return own.double().reshape(-1, *[1] * (targets.dim() - 1)).expand(targets.shape)


def numbers(batch: Batch) -> float:
    """Return how many numbers of targets a batch counts for, as `size` does data."""
    own, each = of_data(batch), of_numbers(batch)
    if own is None:
        return float(batch[1].numel())
    return float(own.double().sum() * batch[1][0].numel() if each is None else each.double().sum())


def log_probs(distribution: Distribution, batch: Batch) -> Tensor:
    """Return w_b log p(y_b) of each datum, (..., B), where what is missing adds nothing.

    >>> normal = torch.distributions.Normal(torch.zeros(2), 1.0)
    >>> log_probs(normal, (torch.zeros(2, 1), torch.zeros(2), torch.tensor([2.0, 0.5])))
    tensor([-1.8379, -0.4595])
    """
    found = known_log_probs(distribution, batch[1], known(batch))
    own = of_data(batch)
    return found if own is None else found * own.to(found.dtype)


def known_log_probs(distribution: Distribution, targets: Tensor, known: Tensor | None) -> Tensor:
    """Return log p(y_b) of the numbers that are known, bool, of the targets' shape; None: all of them are."""
    if known is None:
        plain: Tensor = distribution.log_prob(targets)
        return plain
    if not separate(distribution, targets):
        whole: Tensor = distribution.log_prob(targets)
        return whole * (known.flatten(whole.dim()).all(-1) if known.dim() > whole.dim() else known)
    base, dims = _each(distribution)
    each: Tensor = base.log_prob(targets) * known
    return each.flatten(-dims).sum(-1) if dims else each


def separate(distribution: Distribution, targets: Tensor) -> bool:
    """Tell whether a target's numbers have densities of their own, whose product is the target's."""
    base, dims = _each(distribution)
    return (
        not base.event_shape and len(base.batch_shape) - dims == len(distribution.batch_shape) and dims <= targets.dim()
    )


def _each(distribution: Distribution) -> tuple[Any, int]:
    dims = 0
    while isinstance(distribution, Independent):
        dims += distribution.reinterpreted_batch_ndims
        distribution = distribution.base_dist
    return distribution, dims


def told_apart(batch: Batch, known: Tensor) -> tuple[Batch, int]:
    """Fill in what is missing (NaN), give it no weight, and say of how many data all is missing.

    A number is filled in by the median of its column, and a whole target by one of those that are known: its family can give
    them. Labels that are ignored become −100.

    Args:
        known: of the targets' shape.

    >>> batch, count = told_apart((torch.zeros(2, 1), torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])),
    ...                           torch.tensor([[True, False], [False, False]]))
    >>> batch[1].tolist(), batch[2].tolist(), count
    ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], 1)
    """
    targets = batch[1]
    if not targets.is_floating_point():
        if bool(((targets.long() != IGNORED) & ~known).any()):
            batch = (batch[0], targets.long().masked_fill(~known, IGNORED), *batch[2:])
        return batch, 0
    missing = targets.isnan() & ~known  # where a likelihood has a use for NaN, it stays
    if not bool(missing.any()):
        return batch, 0
    gone = missing.reshape(len(targets), -1)
    column = targets.nanmedian(0).values
    usual = targets.nanmedian().nan_to_num(0.5)
    filled = torch.where(missing, torch.where(column.isnan(), usual, column), targets)
    if bool((whole := ~gone.any(1)).any()):
        filled[gone.all(1)] = targets[whole][0]
    own = of_data(batch)
    own = targets.new_ones(len(targets)) if own is None else own
    return (batch[0], filled, torch.cat([own[:, None], own[:, None] * ~gone], 1)), int(gone.all(1).sum())


def simplified(batch: Batch) -> Batch:
    """Leave out weights of numbers where none is missing, and those of data that all count once."""
    numbers, own = of_numbers(batch), of_data(batch)
    if own is None or (numbers is not None and not bool((numbers == own[:, None]).all())):
        return batch
    return (batch[0], batch[1]) if bool((own == 1).all()) else (batch[0], batch[1], own)


def there(targets: Tensor) -> Tensor:
    """Say which data have a target of which anything is known, (B,): a number that is not NaN, a label that is not −100."""
    known = ~targets.isnan() if targets.is_floating_point() else targets != IGNORED
    return known if known.dim() == 1 else known.flatten(1).any(1)


def of_seen(batch: Batch, known: Tensor) -> Tensor:
    """Say which data count for anything, (B,): their weight is not 0, and something of their target is known.

    Args:
        known: of the targets' shape, for labels; what has been filled in has no weight.
    """
    own = of_numbers(batch)
    own = of_data(batch) if own is None else own.any(1)
    seen = known.flatten(1).any(1) if known.dim() > 1 else known
    return seen if own is None else seen & (own > 0)


def on(batch: Batch, device: torch.device | None) -> Batch:
    """Bring a batch to a device."""
    return tuple(part.to(device) for part in batch)  # type: ignore[return-value]  # as many parts as it had


def rows(batch: Batch, index: Tensor | slice) -> Batch:
    """Take some data of a batch."""
    return tuple(part[index] for part in batch)  # type: ignore[return-value]  # as many parts as it had


def joined(parts: list[Batch]) -> Batch:
    """Put batches one behind the other; where one has weights, all get them."""
    widest = max((part[2] for part in parts if len(part) == 3), key=lambda weights: weights.dim(), default=None)
    if widest is None:
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    width = widest[0].numel()
    full = [_widened(part, width) if widest.dim() == 2 else _widened(part, 1)[:, 0] for part in parts]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), torch.cat(full)


def _widened(batch: Batch, width: int) -> Tensor:
    if len(batch) == 3 and batch[2].dim() == 2:
        return batch[2]
    own = of_data(batch)
    own = torch.ones(len(batch[1]), dtype=torch.float64, device=batch[1].device) if own is None else own
    return own[:, None].expand(-1, width)


def complete(batch: Batch) -> Batch:
    """Return (inputs, targets) of the data of which nothing is missing, each as often as it counts, some thousand at most.

    Where weights are no whole numbers, so many of the data are taken as there are, evenly in the sum of the weights.

    >>> complete((torch.arange(3.0)[:, None], torch.arange(3.0), torch.tensor([0.0, 2.0, 1.0])))[1]
    tensor([1., 1., 2.])
    """
    own, numbers = of_data(batch), of_numbers(batch)
    if own is None:
        return batch[0], batch[1]
    own = (own if numbers is None else torch.where((numbers > 0).all(1), own, 0.0)).double().cpu()
    total = float(own.sum())
    if not total:
        return batch[0][:0], batch[1][:0]
    count = round(total) if total <= SOME and torch.equal(own, own.round()) else min(SOME, len(own))
    places = (torch.arange(count, dtype=torch.float64) + 0.5) * (total / count)
    index = torch.searchsorted(own.cumsum(0), places, right=True).clamp(max=len(own) - 1).to(batch[1].device)
    return batch[0][index], batch[1][index]
