"""The likelihood of shares: numbers between 0 and 1, whose mean the network gives by its log-odds."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist
from torch.nn.functional import logsigmoid

from posterity.core import families
from posterity.model.columns import Columns, Learnt, Levels
from posterity.options import STRICT, dataclass
from posterity.types import Params

Share = Annotated[float, Field(gt=0, lt=1)]
Shares = Share | tuple[Share, ...]
SHARE = Learnt(0.2, lambda u: (logsigmoid(u) + logsigmoid(-u)).sum(), torch.sigmoid, torch.logit)


@dataclass(frozen=True, config=STRICT)
class Beta(Columns):
    """Shares in (0, 1) of mean m with m/(1 − m) = unit · exp f, and variance spread · m (1 − m) (Ferrari, Cribari-Neto 2004).

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D). `spread` is fixed, one number between 0 and 1 or one for each
    target; None learns it: the coordinate `likelihood.spread`, of which it is the sigmoid, with the uniform prior.

    Args:
        unit: the odds of the mean where f is 0, one or one for each target; None: `fit` takes those of the targets' mean.
        initial_spread: of a learnt one; None: `fit` takes that of all targets around their mean.

    >>> Beta(unit=1.0, spread=0.2)(torch.zeros(1, 1), {}).variance
    tensor([0.0500])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.interval(0.0, 1.0)
    takes: ClassVar[str] = "shares, numbers above 0 and below 1,"
    learnt: ClassVar[Mapping[str, Learnt]] = {"spread": SHARE}
    unit: Levels | None = None
    spread: Shares | None = None
    initial_spread: Shares | None = None
    kind: Literal["beta"] = "beta"

    def family(self, outputs: Tensor, latents: Params) -> families.Beta:
        log_odds = self.value("unit", outputs, latents).log() + outputs
        return families.Beta(log_odds, self.value("spread", outputs, latents).expand_as(log_odds))

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        own = self.family(outputs, latents)
        a, b = own.concentration1, own.concentration0
        bend = torch.polygamma(1, a) + torch.polygamma(1, b)
        return (a * b / (a + b)).square() * bend

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        mean = targets.mean(0)
        spread = targets.var(0, correction=0) / (mean * (1 - mean))
        return {"unit": mean / (1 - mean), "spread": spread.clamp(0.02, 0.8)}

    def fits(self, targets: Tensor) -> Tensor:
        return (targets > 0) & (targets < 1)
