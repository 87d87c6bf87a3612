"""The likelihood of real numbers of which some are far off."""

from collections.abc import Mapping
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch import distributions as dist

from posterity.core import families
from posterity.model.columns import Columns, Learnt, Levels
from posterity.model.noise import UNSCALED, starting_std
from posterity.options import STRICT, dataclass
from posterity.types import Params

KEPT = log(1.1) - 0.1  # log of the share of Gamma(2, 0.1) above 1


def _gamma_above_one(u: Tensor) -> Tensor:
    """Return Σ log p(u) of df = 1 + exp u, Gamma(2, 0.1) above 1 (Juárez and Steel 2010)."""
    df = 1 + u.exp()
    density: Tensor = 2 * log(0.1) + df.log() - 0.1 * df - KEPT + u
    return density.sum()


DF = Learnt(4.0, _gamma_above_one, lambda u: 1 + u.exp(), lambda df: (df - 1).log())


@dataclass(frozen=True, config=STRICT)
class StudentT(Columns):
    """Real numbers with heavy tails: (y − f)/scale has Student's t distribution of `df` degrees of freedom.

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D). `scale` and `df` are fixed, one number or one for each target;
    None learns them: `likelihood.scale`, a softplus, with the half-Cauchy(0, 1) prior, which takes standardised targets for
    granted; and `likelihood.df`, 1 + exp, with the prior Gamma(2, 0.1) above 1. The std is scale · √(df/(df − 2)) where
    df is above 2: below that predictions have no variance, and below 1 no mean, but quantiles.

    Args:
        initial_scale: of a learnt one; None: `fit` takes that of the targets, see `starting_std`.
        initial_df: of a learnt one; None: 4.

    >>> StudentT(scale=1.0, df=1.0)(torch.zeros(1, 1), {}).log_prob(torch.tensor([0.0]))  # −log π
    tensor([-1.1447])
    """

    learnt: ClassVar[Mapping[str, Learnt]] = {"scale": Learnt(UNSCALED), "df": DF}
    scale: Levels | None = None
    initial_scale: Levels | None = None
    df: Levels | None = None
    initial_df: Levels | None = None
    kind: Literal["student_t"] = "student_t"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        df, scale = (self.value(name, outputs, latents).expand_as(outputs) for name in ("df", "scale"))
        return families.StudentT(df, outputs, scale)

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        df, scale = (self.value(name, outputs, latents) for name in ("df", "scale"))
        return (df + 1) / (df + 3) / scale.square()

    def error_size(self, latents: Params) -> Tensor | None:
        return self.learnt["scale"].natural(latents["scale"]).min() if self.scale is None else None

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        scale = starting_std(targets) * ((DF.default - 2) / DF.default) ** 0.5
        return {"scale": scale, "df": torch.full_like(scale, DF.default)}
