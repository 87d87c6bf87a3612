"""torch's distribution of classes, for labels as people hold them: not known, soft, smoothed, of classes that weigh more."""

from dataclasses import dataclass

from torch import Tensor
from torch import distributions as dist
from torch.nn import functional

from posterity.types import IGNORED


@dataclass(frozen=True, eq=False)
class Labels:
    """How labels are read; see `Categorical`. `first`: soft ones have the classes before the sites."""

    ignored: int = IGNORED
    weights: Tensor | None = None
    smoothing: float = 0.0
    first: bool = False


class SiteCategorical(dist.Categorical):
    """torch's, for labels of any integer type, or soft ones, which keeps the outputs (..., C) that it was made of.

    A label that is not known, −100 or another, has log p = 0.
    """

    def __init__(self, outputs: Tensor, labels: Labels | None = None) -> None:
        super().__init__(logits=outputs, validate_args=False)
        self.outputs, self.labels = outputs, labels or Labels()

    def soft(self, value: Tensor) -> bool:
        """Tell whether these are shares of each class: floats, one axis more than labels have."""
        classes = value.shape[1 if self.labels.first and value.dim() > 2 else -1 :][:1]
        return value.is_floating_point() and value.dim() > 1 and classes == self.logits.shape[-1:]

    def log_prob(self, value: Tensor) -> Tensor:
        if self.soft(value) or self.labels.weights is not None or self.labels.smoothing:
            return (self.shares(value) * self.logits).sum(-1)
        labels = value.long()
        unknown = (labels == IGNORED) | (labels == self.labels.ignored)
        each: Tensor = super().log_prob(labels.masked_fill(unknown, 0))  # type: ignore[no-untyped-call]
        return each.masked_fill(unknown, 0)

    def shares(self, value: Tensor) -> Tensor:
        """Return what log p_c is multiplied by, (..., C): 1 for the label, unless it is soft, weighted or smoothed."""
        own, classes = self.labels, self.logits.shape[-1]
        if self.soft(value):
            found = value.movedim(1, -1) if own.first and value.dim() > 2 else value
        else:
            labels = value.long()
            unknown = (labels == IGNORED) | (labels == own.ignored)
            hard = functional.one_hot(labels.masked_fill(unknown, 0), classes)
            found = hard.masked_fill(unknown.unsqueeze(-1), 0)
        found = found.to(self.logits.dtype)
        found = (1 - own.smoothing) * found + own.smoothing / classes * found.sum(-1, keepdim=True)
        return found if own.weights is None else found * own.weights
