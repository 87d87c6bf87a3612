"""Nonconformity scores: how badly a target fits what was predicted of it. A conformal set holds the targets that fit.

Scores of classes return a value for every class, (B, C); sets are the classes whose score is at most a threshold. Scores of
values say how far a target is outside, and which interval has the targets that are outside by at most a threshold. All are
in float64, and fixed functions of one prediction: calibrate and use them with the same drawn functions (equal seeds).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from posterity.options import STRICT, dataclass
from posterity.predict.decomposition import precise
from posterity.predict.predictive import Classification, Regression


@dataclass(frozen=True, config=STRICT)
class THR:
    """s(x, y) = 1 − p̄_y: sets {y: p̄_y ≥ 1 − q}, the smallest on average at their coverage (Sadinle et al. 2019).

    Hard inputs get too few classes rather than too many: sets are empty where no class is probable enough, which is for at
    least as many inputs as the level is below the accuracy. Coverage is exact where no two calibration scores are equal.
    """

    kind: Literal["thr"] = "thr"

    def scores(self, predictive: Classification, generator: Generator | None = None) -> Tensor:
        """Return s(x, y) for every class, (B, C), in [0, 1]."""
        return 1 - precise(predictive.mean)


@dataclass(frozen=True, config=STRICT)
class RAPS:
    """s(x, y) = Σ_{k before y} p̄_k + u p̄_y + penalty · max(0, rank(y) − free): large sets cost (Angelopoulos et al. 2021).

    Classes are ordered from the most probable (rank 1) to the least; `before` means of lower rank. With penalty 0 it is the
    `APS` of Romano et al. (2020), whose sets are larger for harder inputs.

    randomised: u ~ Uniform(0, 1), a new one for every input. No two scores are then equal, so coverage is exact; sets may be
    empty, and depend on a coin. Otherwise u = 0: a set holds a class where those before it have less than the threshold
    together, so it always holds the most probable one. Coverage is then at least the level: all predictions that are right
    score 0, so it is at least the accuracy (of the calibration data), and exact where that is below the level.

    Args:
        randomised: see above.
        penalty: of each further class in a set, in units of probability.
        free: classes that cost nothing.
    """

    randomised: bool = False
    penalty: Annotated[float, Field(ge=0)] = 0.1
    free: Annotated[int, Field(ge=0)] = 1
    kind: Literal["raps"] = "raps"

    def scores(self, predictive: Classification, generator: Generator | None = None) -> Tensor:
        """Return s(x, y) for every class, (B, C); `generator` is the coin's."""
        return _cumulative(precise(predictive.mean), self.penalty, self.free, _coins(predictive, self, generator))


@dataclass(frozen=True, config=STRICT)
class APS:
    """s(x, y) = Σ_{k before y} p̄_k + u p̄_y: sets of the most probable classes (Romano et al. 2020); see `RAPS` for u."""

    randomised: bool = False
    kind: Literal["aps"] = "aps"

    def scores(self, predictive: Classification, generator: Generator | None = None) -> Tensor:
        """Return s(x, y) for every class, (B, C); `generator` is the coin's."""
        return _cumulative(precise(predictive.mean), 0.0, 0, _coins(predictive, self, generator))


@dataclass(frozen=True, config=STRICT)
class AbsoluteResidual:
    """s(x, y) = |y − μ̄(x)|: intervals μ̄ ± q, equally wide for all inputs."""

    kind: Literal["absolute"] = "absolute"

    def scores(self, predictive: Regression, targets: Tensor, level: float) -> Tensor:
        """Return the scores of targets (B,), shape (1, B)."""
        return (targets - precise(predictive.mean)).abs()[None]

    def interval(self, predictive: Regression, thresholds: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the targets with a score of at most the threshold (1,): lower and upper ends, each (B,)."""
        centre = precise(predictive.mean)
        return centre - thresholds[0], centre + thresholds[0]


@dataclass(frozen=True, config=STRICT)
class ScaledResidual:
    """s(x, y) = |y − μ̄(x)| / σ̄(x): intervals μ̄ ± q σ̄, σ̄ the predictive std; its width is right up to one factor q."""

    kind: Literal["scaled"] = "scaled"

    def scores(self, predictive: Regression, targets: Tensor, level: float) -> Tensor:
        """Return the scores of targets (B,), shape (1, B)."""
        return ((targets - precise(predictive.mean)).abs() / precise(predictive.variance).sqrt())[None]

    def interval(self, predictive: Regression, thresholds: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the targets with a score of at most the threshold (1,): lower and upper ends, each (B,)."""
        centre, half = precise(predictive.mean), thresholds[0] * precise(predictive.variance).sqrt()
        return centre - half, centre + half


@dataclass(frozen=True, config=STRICT)
class QuantileResidual:
    """s(x, y) = max(l(x) − y, y − u(x)), [l, u] the posterior's own central interval of the level: [l − q, u + q].

    It is the conformalised quantile regression of Romano et al. (2019), with quantiles of the predictive mixture for learnt
    ones. A negative q narrows intervals; one that would be narrowed to less than nothing is its middle.

    asymmetric: the two ends get a threshold each, with half of the misses allowed on either side. Coverage is then at least
    the level, and not exact: of the two ends, not of the whole.
    """

    asymmetric: bool = False
    kind: Literal["quantile"] = "quantile"

    def scores(self, predictive: Regression, targets: Tensor, level: float) -> Tensor:
        """Return how far targets (B,) are below and above, shape (2, B); or the larger of the two, (1, B)."""
        lower, upper = (precise(end) for end in predictive.interval(level))
        outside = torch.stack([lower - targets, targets - upper])
        return outside if self.asymmetric else outside.amax(0, keepdim=True)

    def interval(self, predictive: Regression, thresholds: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the targets with scores of at most the thresholds (1,) or (2,): lower and upper ends, each (B,)."""
        lower, upper = (precise(end) for end in predictive.interval(level))
        lower, upper = lower - thresholds[0], upper + thresholds[-1]
        middle = (lower + upper) / 2
        return torch.minimum(lower, middle), torch.maximum(upper, middle)


ClassScore = THR | APS | RAPS
ValueScore = AbsoluteResidual | ScaledResidual | QuantileResidual
CLASS_SCORES: dict[str, type[ClassScore]] = {"thr": THR, "aps": APS, "raps": RAPS}
VALUE_SCORES: dict[str, type[ValueScore]] = {
    "absolute": AbsoluteResidual,
    "scaled": ScaledResidual,
    "quantile": QuantileResidual,
}


def _coins(predictive: Classification, score: APS | RAPS, generator: Generator | None) -> Tensor:
    """Return u, (B, 1): drawn on the CPU, for a generator of the user's to be of any use on every device."""
    shape = (predictive.probs.shape[1], 1)
    if not score.randomised:
        return torch.zeros(shape, dtype=torch.float64)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def _cumulative(probs: Tensor, penalty: float, free: int, coins: Tensor) -> Tensor:
    """Return Σ_{k before y} p_k + u p_y + penalty · max(0, rank(y) − free) for every class y, (B, C)."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(1, probs.shape[1] + 1, device=probs.device, dtype=probs.dtype)
    scores = before + coins.to(ordered) * ordered + penalty * (rank - free).clamp(min=0)
    return torch.empty_like(scores).scatter_(-1, order, scores)
