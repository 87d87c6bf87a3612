"""What a predictive is asked must fit what it predicts: labels, values and levels are refused where they do not."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Size, Tensor

from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED
from posterity.predict.decomposition import precise
from posterity.weighing import there


def class_labels(targets: Tensor, *shape: int, ignored: int = IGNORED) -> Tensor:
    """Return the targets of probabilities of this shape, (B, ..., C), as integer labels (B, ...) in [0, C), on any device.

    Floats must be whole numbers. A label may also be −100, not known, as which another one, `ignored`, is returned. Of soft
    labels, (B, ..., C), it is the class of the largest share; NaN is not known.
    """
    *sites, classes = shape
    _refuse_other(targets)
    if soft(targets, shape):
        unknown = targets.isnan().any(-1)
        return targets.nan_to_num().argmax(-1).masked_fill(unknown, IGNORED)
    if targets.shape != tuple(sites):
        expected = "one label per input" if len(sites) == 1 else "one label per input and site"
        raise InvalidInput(f"Expected class labels of shape {tuple(sites)}, got {tuple(targets.shape)}: {expected}.")
    labels = targets.long()
    if targets.is_floating_point() and not torch.equal(labels.to(targets.dtype), targets):
        raise InvalidInput("Class labels must be whole numbers, and these hold fractions or NaN.")
    labels = labels.masked_fill(labels == ignored, IGNORED)
    known = labels[labels != IGNORED]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < classes:
        low, high = int(known.min()), int(known.max())
        raise InvalidInput(
            f"Class labels run from {low} to {high}, but {classes} classes are numbered 0 to {classes - 1}."
        )
    return labels


def finite_values(targets: Tensor, shape: Size) -> Tensor:
    """Return regression targets in float64, of exactly this shape: (B,) and (B, 1) are not broadcast. NaN is missing."""
    _refuse_other(targets)
    if targets.shape != shape:
        raise InvalidInput(
            f"Expected targets of shape {tuple(shape)}, got {tuple(targets.shape)}: reshape one of them."
        )
    if bool(torch.isinf(targets).any()):
        raise InvalidInput(f"Targets must be finite; {int(torch.isinf(targets).sum())} of them are infinite.")
    if not bool(there(targets).any()):
        raise InvalidInput("All targets are NaN, missing: there is nothing to score.")
    return precise(targets)


def soft(targets: Tensor, shape: Sequence[int]) -> bool:
    """Tell whether targets are shares of each class of probabilities of this shape, (B, ..., C)."""
    return isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape == tuple(shape)


def averaged(values: Tensor, weights: Tensor) -> float:
    """Return the mean of values (B,), each as often as it counts; NaN where none does."""
    own = weights.to(values.device, values.dtype)
    return float((values.nan_to_num() * own).sum() / own.sum())


def _refuse_other(targets: Tensor) -> None:
    if not isinstance(targets, Tensor):
        raise InvalidInput(f"Targets are a torch tensor, got {type(targets).__name__}: torch.as_tensor(targets).")


def quantile_levels(q: float | Tensor) -> list[float]:
    """Return the levels, one or a vector of them, each strictly between 0 and 1."""
    levels = torch.as_tensor(q, dtype=torch.float64, device="cpu")
    if levels.dim() > 1 or not bool(((levels > 0) & (levels < 1)).all()):
        raise InvalidInput(f"Quantile levels are one number or a vector, each strictly between 0 and 1; got {q}.")
    values: list[float] = levels.reshape(-1).tolist()
    return values


def central(level: float) -> Tensor:
    """Return the two quantile levels that enclose the central probability `level`."""
    if not 0 < level < 1:
        raise InvalidInput(f"An interval's level is a probability strictly between 0 and 1, such as 0.9; got {level}.")
    return torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)


def existing(ask: Callable[[], Tensor], like: Tensor) -> Tensor:
    """Return a moment, or NaN in the shape of `like` where the family has none."""
    try:
        return ask()
    except InvalidInput:
        return torch.full_like(like, torch.nan)


def in_words(kind: str, functions: int, shape: Sequence[int], what: str, parts: Mapping[str, Tensor]) -> str:
    """Say in one line what a predictive is of, and the means over its inputs of what it says."""
    count, *rest = shape
    sizes = f"{functions:,} function{'s' if functions > 1 else ''}, {count:,} input{'s' if count != 1 else ''}"
    each = f" × {' × '.join(map(str, rest))} {what}" if rest else ""
    means = ", ".join(f"{name} {float(value.double().mean()):.4g}" for name, value in parts.items())
    return f"{kind}({sizes}{each}; {means})"


def mean_square(mean: Tensor, targets: Tensor, weights: Tensor) -> float:
    """Return the mean squared error over the numbers (B, ...) that are known, each as often as its datum counts."""
    own = weights.to(mean.device).reshape(-1, *[1] * (targets.dim() - 1)) * ~targets.isnan()
    return averaged((mean - targets).square(), own)
