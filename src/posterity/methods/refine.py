"""One method after another: the second starts where the first one ended.

    q₀ = after(problem, data),    q = method(problem, data) with its mean begun at E_{q₀}[θ], and its std at q₀'s

What the second method optimises or samples is unchanged, and so is where it ends, given steps enough: a start saves steps. Mean
field from a MAP estimate is the start of Krishnan et al. 2020 (there called MOPED), without their change of the prior.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from posterity.methods import outcome
from posterity.methods.cyclical import Cyclical
from posterity.methods.full_rank import FullRank
from posterity.methods.hmc import HMC
from posterity.methods.ivon import IVON
from posterity.methods.laplace import Laplace
from posterity.methods.low_rank import LowRank
from posterity.methods.map import MAP, MLE
from posterity.methods.mc_dropout import MCDropout
from posterity.methods.mean_field import MeanField
from posterity.methods.nuts import NUTS
from posterity.methods.sghmc import SGHMC
from posterity.methods.sgld import SGLD
from posterity.methods.swag import SWAG
from posterity.model.initial import SMALLEST
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.statistics import validated
from posterity.types import Data, Engine

Stage = Annotated[
    MAP
    | MLE
    | MCDropout
    | MeanField
    | LowRank
    | FullRank
    | IVON
    | SWAG
    | Laplace
    | SGLD
    | SGHMC
    | Cyclical
    | HMC
    | NUTS,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, config=STRICT)
class Refine:
    """Infer with `after` first, then with `method` from there: `Refine(MeanField(epochs=5), after=MAP(epochs=20))`.

    The network's weights, its running statistics and the latents of prior and likelihood start at the mean of what `after`
    found; after `MLE` the prior's own latents start as they would without it. `MeanField` starts at the marginal stds of a
    Gaussian, too (`MeanField`, `IVON`, `LowRank`, `FullRank`, `SWAG`, `Laplace`), in place of its `initial`; a std is at
    least 1e-5. Other methods, and other starts, take the mean alone.

    Args:
        method: whose posterior is returned.
        after: whose posterior it starts from.
    """

    method: Stage = Field(default_factory=MeanField)
    after: Stage = Field(default_factory=MAP)
    kind: Literal["refine"] = "refine"

    @property
    def growing(self) -> tuple[str, ...]:
        """Options that may become larger when a run is resumed."""
        return tuple(f"method.{name}" for name in getattr(self.method, "growing", ()))

    def infer(self, problem: Problem, data: Data, engine: Engine) -> FunctionPosterior:
        """Infer the two one after the other; on resume a finished one is not run again."""
        start = self.after.infer(problem, data, engine.fork("stage-1"))
        own, last = started(problem, start), engine.fork("stage-2")
        if isinstance(self.method, MeanField):
            posterior: FunctionPosterior = self.method.infer(own, data, last, stds_of(start))
        else:
            posterior = self.method.infer(own, data, last)
        remarks = posterior.provenance.setdefault("remarks", [])
        seen = validated(posterior, outcome.DRAWS, data)
        remarks.extend(outcome.remarks(outcome.Outlook.of(own, data), seen, self.method))
        return posterior


def started(problem: Problem, posterior: FunctionPosterior) -> Problem:
    """Copy a problem, with its network and latents at the mean of a posterior of the same network.

    >>> from posterity import Gaussian, Normal
    >>> from posterity.posteriors.point import Point
        >>> import torch
    >>> problem = Problem(torch.nn.Linear(1, 1), Normal(0, 1), Gaussian(std=0.1), 10)
    >>> started(problem, Point(problem, torch.tensor([3.0, 4.0]))).theta()
    tensor([3., 4.])
    """
    own = problem.snapshot(dict(posterior.problem.network.named_buffers()))
    where = posterior.problem.coordinates
    found = where.layout.views(where.weights(posterior.mean))
    for name, parameter in own.params.items():
        if name in found:
            parameter.data.copy_(found[name])
    return own


def stds_of(posterior: FunctionPosterior) -> dict[str, Tensor] | None:
    """Return the marginal std of each random parameter of the network, by name; None where it is no Gaussian of weights."""
    if isinstance(posterior, Linearised):
        return stds_of(posterior.weights)
    if isinstance(posterior, DiagonalGaussian):
        std = posterior.std
    elif isinstance(posterior, LowRankGaussian | FullRankGaussian | KroneckerGaussian | LowRankPrecisionGaussian):
        std = posterior.marginal_std
    else:
        return None
    where = posterior.problem.coordinates
    return where.random_layout.changes(std[: where.network - where.start].clamp(min=SMALLEST))
