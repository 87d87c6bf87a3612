"""Scores of things that do not fit together are refused, never broadcast."""

from torch import Size, Tensor, float64

from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED
from posterity.predict.checks import class_labels, finite_values


def precise(values: Tensor) -> Tensor:
    """Return the values on the CPU in float64: a score is a sum over thousands of examples."""
    return values.detach().to("cpu", float64)


def probs_and_labels(probs: Tensor, labels: Tensor, ignored: int = IGNORED) -> tuple[Tensor, Tensor]:
    """Return mean probabilities (B, C) in float64 and integer labels (B,) in [0, C), both on the CPU.

    Sites, (B, ..., C) and (B, ...), become examples of their own; what has the label −100, not known, is left out.
    """
    if probs.dim() < 2 or not probs.numel():
        raise InvalidInput(f"Expected probabilities (B, C) of at least one example, got {tuple(probs.shape)}.")
    values = precise(probs)
    if not bool(((values >= 0) & (values <= 1.02)).all()) or bool(((values.sum(-1) - 1).abs() > 0.02).any()):
        raise InvalidInput("Class probabilities must be ≥ 0 and sum to 1; NaN and logits are refused.")
    classes = class_labels(labels.detach().cpu(), *values.shape, ignored=ignored)
    known = classes != IGNORED
    if not bool(known.any()):
        raise InvalidInput(f"All labels are {IGNORED}, not known: there is nothing to score.")
    return values[known], classes[known]


def real_targets(targets: Tensor, shape: Size) -> Tensor:
    """Return regression targets of exactly this shape, finite or missing (NaN), in float64 on the CPU."""
    if not targets.numel():
        raise InvalidInput("There are no targets to score.")
    return finite_values(targets.detach().cpu(), shape)
