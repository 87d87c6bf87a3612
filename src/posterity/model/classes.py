"""Likelihoods of classes: one label for each example, or many, of sites such as tokens or pixels.

A label of −100 is not known and adds nothing. See `posterity.model.likelihoods` for the conventions.
"""

from typing import Literal

from torch import Tensor
from torch import distributions as dist

from posterity.errors import InvalidInput
from posterity.model.advice import BINARY, CLASSES, SITES, advice
from posterity.model.advice import IGNORED as IGNORED
from posterity.options import STRICT, dataclass
from posterity.text import short
from posterity.types import Likelihood, Params

_ONE_OR_SEVERAL = "(B,) or (B, 1) for one label of each example, (B, K) for K of them"


@dataclass(frozen=True, config=STRICT)
class Categorical(Likelihood):
    """Classes: p(y | f) = softmax(f)_y, with outputs f (..., B, C) and integer targets (B,) in 0 … C − 1.

    A label of −100 (torch's `ignore_index`), such as padding, is not known and adds nothing: log p = 0.

    Where each example has many labels, of tokens or of pixels, `axes` names those of the network's outputs: B the batch,
    C the classes, right after B or last, any other letters the sites. "BTC" is a tagger's (B, T, C), "BCHW" a segmentation
    network's (B, C, H, W); targets are the outputs without C. One target is a whole label map, and its sites are
    independent given the function: log p(y | f) = Σ_site log softmax(f_site)_{y_site}.

    Raises:
        ValueError: for axes that do not start with B, or have no C or several.

    >>> import torch
    >>> Categorical()(torch.zeros(2, 10), {}).log_prob(torch.tensor([3, 7]))
    tensor([-2.3026, -2.3026])
    >>> Categorical("BTC")(torch.zeros(2, 3, 10), {}).log_prob(torch.tensor([[3, 7, 1], [0, -100, -100]]))
    tensor([-6.9078, -2.3026])
    """

    axes: str | None = None
    kind: Literal["categorical"] = "categorical"

    def __post_init__(self) -> None:
        if self.axes is not None and (not self.axes.startswith("B") or not _one_class_axis(self.axes)):
            raise InvalidInput(
                f"The axes '{short(self.axes)}' were given to Categorical; they start with B, the batch, and have one C, the "
                "classes, next to it or last: such as BTC for tokens, BCHW for pixels."
            )

    @classmethod
    def of(cls, outputs: Tensor, targets: Tensor) -> "Categorical":
        """Name the axes of a network's outputs by the shape of its targets.

        Raises:
            InvalidInput: where the classes could as well be the second axis as the last.

        >>> import torch
        >>> Categorical.of(torch.zeros(2, 5, 8, 8), torch.zeros(2, 8, 8)).axes
        'BCHW'
        """
        sites = {2: "T", 3: "HW", 4: "DHW"}.get(targets.dim(), "")
        if not sites or outputs.dim() != targets.dim() + 1:
            return cls()
        last, first = outputs.shape[:-1] == targets.shape, outputs.shape[:1] + outputs.shape[2:] == targets.shape
        if last and first:
            raise InvalidInput(
                f"The network's outputs have shape {tuple(outputs.shape)}, whose classes could be the second axis or the "
                f"last: give likelihood=Categorical('BC{sites}') or Categorical('B{sites}C')."
            )
        return cls(f"B{sites}C" if last else f"BC{sites}" if first else None)

    @property
    def sites(self) -> int:
        """The number of axes between batch and classes: 0 for one label per example."""
        return len(self.axes or "BC") - 2

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        if not self.sites:
            return SiteCategorical(outputs)
        return dist.Independent(SiteCategorical(self._classes_last(outputs)), self.sites, validate_args=False)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 + self.sites:
            raise InvalidInput(self._of_other_axes(outputs, targets))
        refuse_count(outputs, targets)
        logits = self._classes_last(outputs)
        if targets.shape != logits.shape[:-1] or targets.is_floating_point() or targets.is_complex():
            wanted = f"({', '.join((self.axes or 'BC').replace('C', ''))}{'' if self.sites else ','})"
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and dtype {targets.dtype} were given; Categorical needs integer "
                f"class labels of shape {wanted}. {advice(CLASSES, targets, logits.shape, self.axes)}"
            )
        labels = targets.long()
        classes, known = logits.shape[-1], labels[labels != IGNORED]
        low, high = (int(known.min()), int(known.max())) if known.numel() else (0, 0)
        if low < 0 or high >= classes:
            numbered = f"so labels go from 0 to {classes - 1}" if classes > 1 else "so there is one class, 0"
            raise InvalidInput(
                f"Label {low if low < 0 else high} is out of range: the network has {classes} output{'s' * (classes > 1)}, "
                f"{numbered}. {advice(CLASSES, labels, logits.shape, self.axes)}"
            )

    def _classes_last(self, outputs: Tensor) -> Tensor:
        first = self.axes is not None and self.axes[1] == "C"
        return outputs.movedim(-1 - self.sites, -1) if first else outputs

    def _of_other_axes(self, outputs: Tensor, targets: Tensor) -> str:
        said = f"The network's outputs have shape {tuple(outputs.shape)}; "
        if self.sites:
            return f"{said}the axes {self.axes} are {2 + self.sites}."
        found = Categorical.of(outputs, targets).axes
        hint = (
            f"For one label per token or pixel, give likelihood=Categorical('{found}')."
            if found
            else advice(SITES, targets, outputs.shape)
        )
        return f"{said}Categorical needs (B, classes): one row of logits per example. {hint}"


class SiteCategorical(dist.Categorical):
    """torch's, for labels of any integer type, which keeps the outputs (..., C) that it was made of; −100 has log p = 0."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__(logits=outputs, validate_args=False)
        self.outputs = outputs

    def log_prob(self, value: Tensor) -> Tensor:
        labels = value.long()
        each: Tensor = super().log_prob(labels.clamp(min=0))  # type: ignore[no-untyped-call]
        return each.masked_fill(labels == IGNORED, 0)


@dataclass(frozen=True, config=STRICT)
class Bernoulli(Likelihood):
    """Two classes: p(y = 1 | f) = sigmoid(f), with outputs f (..., B, 1) and targets (B,) of 0 and 1.

    Several labels for each example, each 0 or 1, have outputs (..., B, K) and targets (B, K). Masks and the like are named
    by `axes`, those of outputs and targets alike: "BCHW" for (B, 1, H, W). One target is all labels of an example, which are
    independent given the function: log p(y | f) = Σ_k log p(y_k | f_k). A label of −100 is not known and adds nothing.

    Raises:
        ValueError: for axes that do not start with B, or are B alone.

    >>> import torch
    >>> Bernoulli()(torch.zeros(2, 1), {}).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-0.6931, -0.6931])
    >>> Bernoulli()(torch.zeros(2, 3), {}).log_prob(torch.tensor([[0, 1, 1], [0, -100, -100]]))
    tensor([-2.0794, -0.6931])
    """

    axes: str | None = None
    kind: Literal["bernoulli"] = "bernoulli"

    def __post_init__(self) -> None:
        if self.axes is not None and not (self.axes.isalpha() and self.axes.startswith("B") and len(self.axes) > 1):
            raise InvalidInput(
                f"The axes '{short(self.axes)}' were given to Bernoulli; they start with B, the batch, and name those "
                "of the outputs: such as BK for several labels, BCHW for masks (B, 1, H, W)."
            )

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        if self.axes is None and outputs.shape[-1] == 1:
            return SiteBernoulli(outputs.squeeze(-1))
        sites = len(self.axes or "BK") - 1
        return dist.Independent(SiteBernoulli(outputs), sites, validate_args=False)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        refuse_count(outputs, targets)
        said = f"The network's outputs have shape {tuple(outputs.shape)}; Bernoulli needs "
        if outputs.dim() != len(self.axes or "BK"):
            axes = {3: "BTC", 4: "BCHW", 5: "BCDHW"}.get(outputs.dim())
            masks = (
                f"; for a label at each place likelihood=Bernoulli('{axes}'), targets of the outputs' shape"
                if axes
                else ""
            )
            raise InvalidInput(f"{said}{f'the axes {self.axes}' if self.axes else _ONE_OR_SEVERAL}{masks}.")
        shape = outputs.shape[:1] if self.axes is None and outputs.shape[1] == 1 else outputs.shape
        known = targets[targets.double() != IGNORED]
        if targets.shape != shape or not ((known == 0) | (known == 1)).all():
            raise InvalidInput(
                f"{said}{_ONE_OR_SEVERAL}. Targets of shape {tuple(targets.shape)} were given; here they have shape "
                f"{tuple(shape)} and values that are 0 or 1. {advice(BINARY, targets, outputs.shape)}"
            )


class SiteBernoulli(dist.Bernoulli):
    """torch's, for targets of any type; −100 has log p = 0."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__(logits=outputs, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        labels = value.to(self.logits.dtype)
        unknown = labels == IGNORED
        each: Tensor = super().log_prob(labels.masked_fill(unknown, 0))  # type: ignore[no-untyped-call]
        return each.masked_fill(unknown, 0)


def refuse_count(outputs: Tensor, targets: Tensor) -> None:
    if len(outputs) != len(targets):
        raise InvalidInput(
            f"The network returned {len(outputs)} outputs for {len(targets)} targets; it needs one row each."
        )


def _one_class_axis(axes: str) -> bool:
    return axes.isalpha() and axes.count("C") == 1 and "C" in (axes[1], axes[-1])
