"""What a predictive is asked must fit what it predicts: labels, values and levels are refused where they do not."""

import torch
from torch import Size, Tensor

from posterity.errors import InvalidInput
from posterity.predict.decomposition import precise


def class_labels(targets: Tensor, batch: int, classes: int) -> Tensor:
    """Return the targets as integer labels (B,) in [0, C), on any device; floats must be whole numbers."""
    if targets.shape != (batch,):
        raise InvalidInput(
            f"Expected class labels of shape ({batch},), got {tuple(targets.shape)}: one label per input."
        )
    labels = targets.long()
    if targets.is_floating_point() and not torch.equal(labels.to(targets.dtype), targets):
        raise InvalidInput("Class labels must be whole numbers, and these hold fractions or NaN.")
    if batch and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        low, high = int(labels.min()), int(labels.max())
        raise InvalidInput(
            f"Class labels run from {low} to {high}, but {classes} classes are numbered 0 to {classes - 1}."
        )
    return labels


def finite_values(targets: Tensor, shape: Size) -> Tensor:
    """Return regression targets in float64, of exactly this shape: (B,) and (B, 1) are not broadcast."""
    if targets.shape != shape:
        raise InvalidInput(
            f"Expected targets of shape {tuple(shape)}, got {tuple(targets.shape)}: reshape one of them."
        )
    if not bool(torch.isfinite(targets).all()):
        raise InvalidInput(
            f"Targets must be finite; {int((~torch.isfinite(targets)).sum())} of them are NaN or infinite."
        )
    return precise(targets)


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
