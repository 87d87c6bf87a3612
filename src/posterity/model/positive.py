"""Likelihoods of positive numbers whose noise grows with them; the network gives their size by its logarithm."""

from collections.abc import Mapping
from math import pi
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch import distributions as dist

from posterity.core import families
from posterity.model.columns import Columns, Learnt, Levels
from posterity.model.noise import starting_std
from posterity.model.special import EULER
from posterity.options import STRICT, dataclass
from posterity.types import Params

POSITIVE = "numbers above 0"


@dataclass(frozen=True, config=STRICT)
class LogNormal(Columns):
    """Positive numbers whose logarithms are Gaussian: log y ~ N(log unit + f, std²), of median unit · exp f.

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D). `std`, of log y, is fixed, one number or one for each target;
    None learns it: the coordinate `likelihood.std`, of which it is the softplus, with the half-Cauchy(0, 1) prior.

    Args:
        unit: the median where f is 0, one number or one for each target; None: `fit` takes exp of the mean of log y.
        initial_std: of a learnt one; None: `fit` takes the std of log y, see `starting_std`.

    >>> import torch
    >>> LogNormal(unit=2.0, std=1.0)(torch.zeros(1, 1), {}).cdf(torch.tensor(2.0))
    tensor([0.5000])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.positive
    takes: ClassVar[str] = POSITIVE
    learnt: ClassVar[Mapping[str, Learnt]] = {"std": Learnt(0.3)}
    unit: Levels | None = None
    std: Levels | None = None
    initial_std: Levels | None = None
    kind: Literal["log_normal"] = "log_normal"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        loc = self.value("unit", outputs, latents).log() + outputs
        return dist.LogNormal(loc, self.value("std", outputs, latents).expand_as(loc), validate_args=False)

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        return self.value("std", outputs, latents).square().reciprocal()

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"unit": targets.log().mean(0).exp(), "std": starting_std(targets.log())}


@dataclass(frozen=True, config=STRICT)
class Gamma(Columns):
    """Positive numbers of mean unit · exp f and of a std that is `cv` times it, the coefficient of variation.

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D). `cv` is fixed, one number or one for each target; None learns
    it: the coordinate `likelihood.cv`, of which it is the softplus, with the half-Cauchy(0, 1) prior. The shape is 1/cv².

    Args:
        unit: the mean where f is 0, one number or one for each target; None: `fit` takes the mean of the targets.
        initial_cv: of a learnt one; None: `fit` takes the std of log y, see `starting_std`.

    >>> import torch
    >>> Gamma(unit=2.0, cv=0.5)(torch.zeros(1, 1), {}).stddev
    tensor([1.])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.positive
    takes: ClassVar[str] = POSITIVE
    learnt: ClassVar[Mapping[str, Learnt]] = {"cv": Learnt(0.3)}
    unit: Levels | None = None
    cv: Levels | None = None
    initial_cv: Levels | None = None
    kind: Literal["gamma"] = "gamma"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        mean = self.value("unit", outputs, latents) * outputs.exp()
        return families.Gamma(mean, self.value("cv", outputs, latents).expand_as(mean))

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        return self.value("cv", outputs, latents).square().reciprocal()

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"unit": targets.mean(0), "cv": starting_std(targets.log()).clamp(max=2.0)}


@dataclass(frozen=True, config=STRICT)
class Weibull(Columns):
    """Positive numbers, such as times to a failure, whose hazard goes as the power shape − 1 of time.

        P(y > t) = exp(−(t/scale)^shape),   scale = unit · exp f

    Outputs f (..., B, D), targets (B,) where D = 1, else (B, D). `shape` is fixed, one number or one for each target (1: the
    exponential distribution); None learns it: the coordinate `likelihood.shape`, of which it is the softplus, with the
    half-Cauchy(0, 1) prior. Above 1 things age, below 1 they settle.

    Args:
        unit: the scale where f is 0, one number or one for each target; None: `fit` takes that of the mean of log y.
        initial_shape: of a learnt one; None: `fit` takes π/√6 over the std of log y, see `starting_std`.

    >>> import torch
    >>> Weibull(unit=2.0, shape=1.0)(torch.zeros(1, 1), {}).mean
    tensor([2.])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.positive
    takes: ClassVar[str] = POSITIVE
    learnt: ClassVar[Mapping[str, Learnt]] = {"shape": Learnt(1.0)}
    unit: Levels | None = None
    shape: Levels | None = None
    initial_shape: Levels | None = None
    kind: Literal["weibull"] = "weibull"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        log_scale = self.value("unit", outputs, latents).log() + outputs
        return families.Weibull(log_scale, self.value("shape", outputs, latents).expand_as(log_scale))

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        return self.value("shape", outputs, latents).square()

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        logs = targets.log()
        shape = (pi / 6**0.5 / starting_std(logs)).clamp(0.3, 10.0)
        return {"unit": (logs.mean(0) + EULER / shape).exp(), "shape": shape}
