"""Scores of things that do not fit together are refused, never broadcast; and what a score needs of a predictive."""

from typing import Protocol, runtime_checkable

import torch
from torch import Size, Tensor

from posterity.errors import InvalidInput
from posterity.types import Predictive


@runtime_checkable
class ClassDraws(Predictive, Protocol):
    """Probabilities of n drawn functions, and what they say of uncertainty."""

    @property
    def probs(self) -> Tensor: ...
    @property
    def entropy(self) -> Tensor: ...
    @property
    def mutual_information(self) -> Tensor: ...
    @property
    def aleatoric(self) -> Tensor: ...
    @property
    def epistemic(self) -> Tensor: ...


@runtime_checkable
class GaussianDraws(Predictive, Protocol):
    """Gaussians of n drawn functions: an equal mixture for every input."""

    @property
    def means(self) -> Tensor: ...
    @property
    def variances(self) -> Tensor: ...
    @property
    def aleatoric(self) -> Tensor: ...
    @property
    def epistemic(self) -> Tensor: ...
    def cdf(self, y: Tensor) -> Tensor: ...
    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]: ...


def precise(values: Tensor) -> Tensor:
    """Return the values on the CPU in float64: a score is a sum over thousands of examples."""
    return values.detach().to("cpu", torch.float64)


def probs_and_labels(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean probabilities (B, C) in float64 and integer labels (B,) in [0, C), both on the CPU."""
    if probs.dim() != 2 or not probs.numel() or labels.shape != probs.shape[:1]:
        got = f"{tuple(probs.shape)} and {tuple(labels.shape)}"
        raise InvalidInput(f"Expected probabilities (B, C) and labels (B,) of at least one example, got {got}.")
    values, classes = precise(probs), labels.detach().cpu().long()
    if not bool(((values >= 0) & (values <= 1.02)).all()) or bool(((values.sum(-1) - 1).abs() > 0.02).any()):
        raise InvalidInput("Class probabilities must be ≥ 0 and sum to 1; NaN and logits are refused.")
    if not torch.equal(classes.to(torch.float64), precise(labels)):
        raise InvalidInput("Class labels must be whole numbers, and these hold fractions or NaN.")
    if int(classes.min()) < 0 or int(classes.max()) >= probs.shape[1]:
        raise InvalidInput(f"Class labels must lie in 0 to {probs.shape[1] - 1}; some lie outside.")
    return values, classes


def real_targets(targets: Tensor, shape: Size) -> Tensor:
    """Return regression targets of exactly this shape, finite, in float64 on the CPU."""
    if targets.shape != shape or not targets.numel():
        raise InvalidInput(
            f"Expected targets of shape {tuple(shape)}, got {tuple(targets.shape)}: reshape one of them."
        )
    if not bool(torch.isfinite(targets).all()):
        raise InvalidInput("Targets must be finite; some are NaN or infinite.")
    return precise(targets)
