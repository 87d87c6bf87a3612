"""One method after another: the second starts where the first one ended.

    q₀ = after(problem, data),    q = method(problem, data) with its mean begun at E_{q₀}[θ], and its std at q₀'s

What the second method optimises or samples is unchanged, and so is where it ends, given steps enough: a start saves steps. Mean
field from a MAP estimate is the start of Krishnan et al. 2020 (there called MOPED), without their change of the prior.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from posterity.methods import outcome
from posterity.methods.base import Method, as_method
from posterity.methods.map import MAP
from posterity.methods.mean_field import MeanField
from posterity.methods.records import AnyMethod
from posterity.model.initial import SMALLEST
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.statistics import validated
from posterity.types import Data, Engine


@dataclass(frozen=True, config=STRICT)
class Refine(Method):
    """Infer with `after` first, then with `method` from there: `Refine(MeanField(epochs=5), after=MAP(epochs=20))`.

    The network's weights, its running statistics and the latents of prior and likelihood start at the mean of what `after`
    found; after `MLE` the prior's own latents start as they would without it. `MeanField` starts at the marginal stds of a
    Gaussian, too (`MeanField`, `IVON`, `LowRank`, `FullRank`, `SWAG`, `Laplace`), in place of its `initial`; a std is at
    least 1e-5. Other methods, and other starts, take the mean alone.

    Args:
        method: whose posterior is returned.
        after: whose posterior it starts from.
    """

    method: AnyMethod = Field(default_factory=MeanField)
    after: AnyMethod = Field(default_factory=MAP)
    kind: Literal["refine"] = "refine"
    stages: ClassVar[tuple[str, ...]] = ("method", "after")

    @model_validator(mode="after")
    def _begun_by_one(self) -> "Refine":
        if not as_method(self.after).centred:
            raise ValueError(
                "after an ensemble there is no one network to start from: refine each member, Ensemble(Refine(…, after=…), n)"
            )
        if not as_method(self.method).keeps_start:
            raise ValueError(
                "the members of this ensemble draw fresh weights, and the start would be lost: Ensemble(Refine(…), n), or "
                "Ensemble(…, reinitialise=False)"
            )
        return self

    @property
    def title(self) -> str:
        return f"{as_method(self.method).title} after {as_method(self.after).title}"

    @property
    def growing(self) -> tuple[str, ...]:
        return tuple(f"method.{name}" for name in as_method(self.method).growing)

    @property
    def member(self) -> Method:
        return as_method(self.method).member

    def twin(self) -> Method:
        return as_method(self.method).twin()

    def infer(self, problem: Problem, data: Data, engine: Engine) -> FunctionPosterior:
        """Infer the two one after the other; on resume a finished one is not run again."""
        start = as_method(self.after).infer(problem, data, engine.fork("stage-1"))
        own, last = started(problem, start), engine.fork("stage-2")
        posterior: FunctionPosterior = as_method(self.method).infer_from(own, data, last, stds_of(start))
        if not isinstance(posterior, FunctionPosterior):  # of a class of one's own, of which nothing is known
            return posterior
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
    std, where = posterior.marginal_std, posterior.problem.coordinates
    if std is None:
        return None
    return where.random_layout.changes(std[: where.network - where.start].clamp(min=SMALLEST))
