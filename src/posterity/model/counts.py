"""Likelihoods of counts: whole numbers from 0 on, whose mean the network gives by its logarithm, or by log-odds."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core import families
from posterity.model.columns import Columns, Learnt, Levels
from posterity.model.noise import starting_std
from posterity.options import STRICT, dataclass
from posterity.types import Params

LEAST, MOST = 0.05, 2.0  # of a dispersion that is taken from the data
COUNTS = "counts, whole numbers from 0 on,"
Trials = Annotated[int, Field(ge=1)]


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
        initial_dispersion: of a learnt one; None: `fit` takes what log(y + ½) varies by beyond a Poisson's
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
        relative = starting_std((targets + 0.5).log()).square() - mean.reciprocal()
        return {"unit": mean, "dispersion": relative.clamp(LEAST, MOST)}


@dataclass(frozen=True, config=STRICT)
class Binomial(Columns):
    """Successes among so many trials of one probability p with p/(1 − p) = unit · exp f: y ~ Binomial(trials, p).

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D): how many of the trials succeeded, not the share.

    Args:
        trials: how many there are in each target, one number or one for each target.
        unit: the odds where f is 0, one or one for each target; None: `fit` takes those of the targets' mean.

    >>> Binomial(2, unit=1.0)(torch.zeros(3, 1), {}).log_prob(torch.tensor([0, 1, 2])).exp()
    tensor([0.2500, 0.5000, 0.2500])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.nonnegative_integer
    takes: ClassVar[str] = "successes, whole numbers from 0 to its `trials`,"
    trials: Trials | Annotated[tuple[Trials, ...], Field(min_length=1)]
    unit: Levels | None = None
    kind: Literal["binomial"] = "binomial"

    def family(self, outputs: Tensor, latents: Params) -> families.Binomial:
        log_odds = self.value("unit", outputs, latents).log() + outputs
        return families.Binomial(self.value("trials", outputs, latents).expand_as(log_odds), log_odds)

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        information: Tensor = self.family(outputs, latents).variance
        return information

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        share = (targets.sum(0) + 0.5) / (len(targets) * torch.as_tensor(self.trials) + 1)
        return {"unit": share / (1 - share)}

    def fits(self, targets: Tensor) -> Tensor:
        return super().fits(targets) & (targets <= torch.as_tensor(self.trials, device=targets.device))


def usual(targets: Tensor) -> Tensor:
    """Return the mean of each column, (D,); 1 where it is 0."""
    mean = targets.mean(0)
    return torch.where(mean > 0, mean, 1.0)
