"""Likelihoods of classes: one label for each example, or many, of sites such as tokens or pixels.

A label of −100, or another that is named, is not known and adds nothing. See `posterity.model.likelihoods` for the conventions.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core.curvature import CategoricalCurvature
from posterity.errors import InvalidInput
from posterity.model.advice import BINARY, CLASSES, SITES, VALUES, advice
from posterity.model.advice import IGNORED as IGNORED
from posterity.model.sites import Labels
from posterity.model.sites import SiteCategorical as SiteCategorical
from posterity.options import STRICT, dataclass
from posterity.text import short
from posterity.types import Likelihood, Params

ROUNDING = 1e-3  # of the sum of the shares of a soft label
_ONE_OR_SEVERAL = "(B,) or (B, 1) for one label of each example, (B, K) for K of them"


@dataclass(frozen=True, config=STRICT)
class Categorical(Likelihood):
    """Classes: p(y | f) = softmax(f)_y, with outputs f (..., B, C) and integer targets (B,) in 0 … C − 1.

    A label of −100 (torch's `ignore_index`), such as padding, is not known and adds nothing: log p = 0.

    Where each example has many labels, of tokens or of pixels, `axes` names those of the network's outputs: B the batch,
    C the classes, right after B or last, any other letters the sites. "BTC" is a tagger's (B, T, C), "BCHW" a segmentation
    network's (B, C, H, W); targets are the outputs without C. One target is a whole label map, and its sites are
    independent given the function: log p(y | f) = Σ_site log softmax(f_site)_{y_site}.

    Targets of the outputs' own shape are soft labels, shares of each class: log p = Σ_c t_c log softmax(f)_c, what as many
    labels as there are would say on average. NaN in one of them leaves it out.

    Args:
        axes: see above.
        ignore_index: the label that is not known, beside −100.
        class_weights: one number ≥ 0 for each class: how often a label of it counts, as weights of data do. Predictions are of
            the classes as these weights make them, not as they are.
        label_smoothing: ε, as torch has it: the likelihood is that of other labels, (1 − ε) of what was seen and ε/C of each
            class. It is no prior, and no class can then be learnt to be more probable than about 1 − ε.

    Raises:
        ValueError: for axes that do not start with B, or have no C or several; weights below 0, or all 0.

    >>> import torch
    >>> Categorical()(torch.zeros(2, 10), {}).log_prob(torch.tensor([3, 7]))
    tensor([-2.3026, -2.3026])
    >>> Categorical("BTC")(torch.zeros(2, 3, 10), {}).log_prob(torch.tensor([[3, 7, 1], [0, -100, -100]]))
    tensor([-6.9078, -2.3026])
    """

    axes: str | None = None
    ignore_index: int = IGNORED
    class_weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    kind: Literal["categorical"] = "categorical"

    def __post_init__(self) -> None:
        if self.class_weights is not None and not any(self.class_weights):
            raise InvalidInput("All class_weights are 0: no label would count.")
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

    def known(self, targets: Tensor) -> Tensor:
        """Say which labels are known; of soft ones all shares or none. Labels held as floats are refused elsewhere."""
        if not targets.is_floating_point():
            return (targets.long() != IGNORED) & (targets.long() != self.ignore_index)
        if targets.dim() < 2 + self.sites:
            return torch.ones_like(targets, dtype=torch.bool)
        axis = 1 if self._first else -1
        return (~targets.isnan().any(axis, keepdim=True)).expand_as(targets)

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        outputs, weights = self._classes_last(outputs), None
        if self.class_weights is not None:
            weights = outputs.new_tensor(self.class_weights)
        base = SiteCategorical(outputs, Labels(self.ignore_index, weights, self.label_smoothing, self._first))
        return dist.Independent(base, self.sites, validate_args=False) if self.sites else base

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 + self.sites:
            raise InvalidInput(self._of_other_axes(outputs, targets))
        refuse_count(outputs, targets)
        logits = self._classes_last(outputs)
        if self.class_weights is not None and len(self.class_weights) != logits.shape[-1]:
            raise InvalidInput(f"{len(self.class_weights)} class_weights were given for {logits.shape[-1]} classes.")
        if targets.is_floating_point() and targets.shape == outputs.shape:
            return self._check_soft(self._classes_last(targets))
        if targets.shape != logits.shape[:-1] or targets.is_floating_point() or targets.is_complex():
            wanted = f"({', '.join((self.axes or 'BC').replace('C', ''))}{'' if self.sites else ','})"
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and dtype {targets.dtype} were given; Categorical needs integer "
                f"class labels of shape {wanted}. {advice(CLASSES, targets, logits.shape, self.axes)}"
            )
        labels = targets.long()
        classes, known = logits.shape[-1], labels[self.known(labels)]
        low, high = (int(known.min()), int(known.max())) if known.numel() else (0, 0)
        if low < 0 or high >= classes:
            numbered = f"so labels go from 0 to {classes - 1}" if classes > 1 else "so there is one class, 0"
            raise InvalidInput(
                f"Label {low if low < 0 else high} is out of range: the network has {classes} output{'s' * (classes > 1)}, "
                f"{numbered}. {advice(CLASSES, labels, logits.shape, self.axes)}"
            )

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> CategoricalCurvature:
        """w (diag(p) − p pᵀ), w the weight of the label; one that is not known has none."""
        labels: SiteCategorical = self(outputs, latents)  # type: ignore[assignment]  # outputs of Laplace have no sites
        return CategoricalCurvature(outputs.softmax(-1), labels.shares(targets).sum(-1, keepdim=True))

    @property
    def _first(self) -> bool:
        return self.axes is not None and self.axes[1] == "C"

    def _classes_last(self, outputs: Tensor) -> Tensor:
        return outputs.movedim(-1 - self.sites, -1) if self._first else outputs

    def _check_soft(self, shares: Tensor) -> None:
        """Refuse soft labels that are no shares of the classes."""
        fits = (shares >= 0).all(-1) & ((shares.sum(-1) - 1).abs() < ROUNDING)
        if not bool(fits.all()):
            row = int((~fits.reshape(len(fits), -1).all(1)).nonzero()[0, 0])
            shown = [round(value, 4) for value in shares[row].reshape(-1, shares.shape[-1])[0].tolist()[:6]]
            raise InvalidInput(
                "Targets of the outputs' shape are soft labels, shares of each class that are at least 0 and sum to 1; target "
                f"{row} is {shown}. {advice(CLASSES, shares, shares.shape, self.axes)}"
            )

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

    def known(self, targets: Tensor) -> Tensor:
        return (targets.double() != IGNORED) & ~targets.isnan()

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

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """p (1 − p); a label that is not known has none."""
        probability = outputs.sigmoid()
        known = (targets.to(outputs.dtype) != IGNORED).reshape(outputs.shape)
        return probability * (1 - probability) * known


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


def refuse_unlike_one(outputs: Tensor, targets: Tensor, count: int, needed: str) -> None:
    """Refuse all but `count` outputs for each of finite targets (B,); `needed` says whose outputs they are."""
    refuse_count(outputs, targets)
    one = targets.dim() == 1 and not targets.is_complex() and bool(targets.isfinite().all())
    if outputs.shape[1:] != (count,) or not one:
        raise InvalidInput(
            f"Targets of shape {tuple(targets.shape)} and outputs of shape {tuple(outputs.shape)} were given; {needed}, and "
            f"finite targets (B,). {advice(VALUES, targets, torch.Size([len(outputs), 1]), each=count)}"
        )


def _one_class_axis(axes: str) -> bool:
    return axes.isalpha() and axes.count("C") == 1 and "C" in (axes[1], axes[-1])
