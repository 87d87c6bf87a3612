"""The likelihood of grades: classes with an order."""

from collections.abc import Mapping
from dataclasses import replace
from math import lgamma
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from posterity.core.families import Ordered
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.model.classes import refuse_count
from posterity.model.suited import suited
from posterity.options import STRICT, dataclass
from posterity.types import Latent, Likelihood, Params


def cuts_of(u: Tensor) -> Tensor:
    """Return rising cuts (..., K − 1) of coordinates on the whole line: the first, then the softplus of each step."""
    return torch.cat([u[..., :1], softplus(u[..., 1:])], -1).cumsum(-1)


def _even(u: Tensor) -> Tensor:
    """Return log p(u) where all shares of the grades at f = 0 are equally probable, Dirichlet(1, …, 1) (Betancourt 2019)."""
    cuts = cuts_of(u)
    slopes = logsigmoid(cuts) + logsigmoid(-cuts)
    return slopes.sum() + logsigmoid(u[..., 1:]).sum() + lgamma(len(u) + 1)


@dataclass(frozen=True, config=STRICT)
class Ordinal(Likelihood):
    """Grades 0 … K − 1, K = `grades`, by cumulative logits: P(y ≤ k | f) = sigmoid(cut_k − f) (McCullagh 1980).

    Outputs f (..., B, 1), one number that all cuts share; targets (B,) of whole numbers. The K − 1 rising cuts are learnt: the
    coordinates `likelihood.cuts`, with the prior that holds all shares of the grades at f = 0 for equally probable.

    A prediction's mean, variance, quantiles and CRPS (the ranked probability score) are of the grade as a number; `probs` are
    the grades' probabilities.

    Args:
        initial_cuts: None: `fit` takes those that give each grade its share of the targets.

    >>> Ordinal(3, (0.0, 2.0))(torch.zeros(1, 1), {"cuts": Ordinal(3, (0.0, 2.0)).latents()["cuts"].initial}).probs
    tensor([[0.5000, 0.3808, 0.1192]])
    """

    own_units: ClassVar[bool] = True
    grades: Annotated[int, Field(ge=2)]
    initial_cuts: tuple[float, ...] | None = None
    kind: Literal["ordinal"] = "ordinal"

    def __post_init__(self) -> None:
        cuts = self.initial_cuts
        if cuts is not None and (len(cuts) != self.grades - 1 or list(cuts) != sorted(set(cuts))):
            raise InvalidInput(
                f"initial_cuts are {cuts}; {self.grades} grades have {self.grades - 1} cuts, each above the last."
            )

    def started(self, inputs: Tensor, targets: Tensor) -> "Ordinal":
        if self.initial_cuts is not None:
            return self
        counts = torch.bincount(targets.detach().cpu().long(), minlength=self.grades).double() + 0.5
        return replace(self, initial_cuts=tuple((counts.cumsum(0) / counts.sum())[:-1].logit().tolist()))

    def latents(self) -> Mapping[str, Latent]:
        even = (torch.arange(1, self.grades) / self.grades).logit()
        cuts = even if self.initial_cuts is None else torch.tensor(self.initial_cuts)
        return {"cuts": Latent(torch.cat([cuts[:1], inverse_softplus(cuts.diff())]), _even, cuts_of)}

    def __call__(self, outputs: Tensor, latents: Params) -> Ordered:
        return Ordered(outputs.squeeze(-1), cuts_of(latents["cuts"]).unsqueeze(-2))

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """Σ_k (∂p_k/∂f)²/p_k; of the cuts see `latent_curvature`, which leaves out their cross terms with f."""
        own = self(outputs, latents)
        slopes = -(own.away.sigmoid() * (-own.away).sigmoid())
        ends = torch.zeros_like(slopes[..., :1])
        changes = torch.cat([slopes, ends], -1) - torch.cat([ends, slopes], -1)
        return (changes.square() / own.probs.clamp(min=1e-30)).sum(-1, keepdim=True)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        refuse_count(outputs, targets)
        if outputs.shape[1:] != (1,) or targets.dim() != 1 or targets.is_complex():
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and outputs of shape {tuple(outputs.shape)} were given; Ordinal "
                "needs one output for each example, (B, 1), and grades (B,)."
            )
        fits = (targets >= 0) & (targets < self.grades) & (targets == targets.round())
        if not bool(fits.all()):
            row = int((~fits).nonzero()[0, 0])
            raise InvalidInput(
                f"Target {row} is {targets[row].item()}, and Ordinal({self.grades}) takes grades from 0 to {self.grades - 1} "
                f"alone: number them from 0, targets - targets.min(). {suited(targets)}"
            )
