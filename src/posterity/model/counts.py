"""Likelihoods of counts: whole numbers from 0 on, whose mean the network gives by its logarithm."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch import distributions as dist

from posterity.core import families
from posterity.model.columns import Columns, Learnt, Levels
from posterity.model.noise import residual_std
from posterity.options import STRICT, dataclass
from posterity.types import Params

LEAST, MOST = 0.05, 2.0  # of a dispersion that is taken from the data
COUNTS = "counts, whole numbers from 0 on,"


@dataclass(frozen=True, config=STRICT)
class Poisson(Columns):
    """Counts whose variance is their mean: y ~ Poisson(unit · exp f), outputs f (..., B, D), targets (B,), (B, D) where D > 1.

    Args:
        unit: the mean where f is 0, one number or one for each target; None: `fit` takes the mean of the targets.

    >>> Poisson(unit=2.0)(torch.zeros(2, 1), {}).log_prob(torch.tensor([0, 1]))
    tensor([-2.0000, -1.3069])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.nonnegative_integer
    takes: ClassVar[str] = COUNTS
    unit: Levels | None = None
    kind: Literal["poisson"] = "poisson"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        return families.Poisson(self.value("unit", outputs, latents) * outputs.exp())

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        return self.value("unit", outputs, latents) * outputs.exp()

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"unit": usual(targets)}


@dataclass(frozen=True, config=STRICT)
class NegativeBinomial(Columns):
    """Counts that vary more than a Poisson's: of mean μ = unit · exp f and variance μ + dispersion · μ² (Hilbe 2011, "NB2").

    `dispersion` is fixed, one number or one for each target; None learns it: the coordinate `likelihood.dispersion`, of which
    it is the softplus, with the half-Cauchy(0, 1) prior.

    Args:
        unit: the mean where f is 0, one number or one for each target; None: `fit` takes the mean of the targets.
        initial_dispersion: of a learnt one; None: `fit` takes what a linear model of log(y + ½) leaves beyond a Poisson's
            1/mean, at least 0.05 and at most 2.

    >>> NegativeBinomial(unit=2.0, dispersion=0.5)(torch.zeros(2, 1), {}).variance
    tensor([4., 4.])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.nonnegative_integer
    takes: ClassVar[str] = COUNTS
    learnt: ClassVar[Mapping[str, Learnt]] = {"dispersion": Learnt(0.3)}
    unit: Levels | None = None
    dispersion: Levels | None = None
    initial_dispersion: Levels | None = None
    kind: Literal["negative_binomial"] = "negative_binomial"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        mean = self.value("unit", outputs, latents) * outputs.exp()
        return families.NegativeBinomial(*torch.broadcast_tensors(mean, self.value("dispersion", outputs, latents)))

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        mean = self.value("unit", outputs, latents) * outputs.exp()
        return mean / (1 + self.value("dispersion", outputs, latents) * mean)

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        mean = usual(targets)
        relative = residual_std(inputs, (targets + 0.5).log()).square() - mean.reciprocal()
        return {"unit": mean, "dispersion": relative.clamp(LEAST, MOST)}


def usual(targets: Tensor) -> Tensor:
    """Return the mean of each column, (D,); 1 where it is 0."""
    mean = targets.mean(0)
    return torch.where(mean > 0, mean, 1.0)
