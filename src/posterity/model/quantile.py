"""The loss of quantiles, as if it were a likelihood."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp, pi, sqrt
from statistics import NormalDist
from typing import Annotated, Literal, Self

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from posterity.core.families import Pinball
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.model.classes import refuse_unlike_one
from posterity.model.columns import Levels
from posterity.model.noise import UNSCALED, beside_outputs, half_cauchy_of_rho, starting_std
from posterity.options import STRICT, dataclass
from posterity.types import Latent, Likelihood, Params

Level = Annotated[float, Field(gt=0, lt=1)]


def _listed(given: object) -> object:
    """Read a flag's `0.1,0.9`, and a file's list."""
    if isinstance(given, str):
        return tuple(given.split(","))
    return tuple(given) if isinstance(given, list) else given


@dataclass(frozen=True, config=STRICT)
class Quantile(Likelihood):
    """Quantiles of real numbers, by the pinball loss (Koenker and Bassett 1978): outputs f (..., B, Q), one of each level q.

        log L(f; y) = Σ_q [log q (1 − q) − log scale_q − ρ_q((y − f_q)/scale_q)],   ρ_q(u) = max(q u, (q − 1) u)

    It is no density of the targets: each level is an asymmetric Laplace distribution of its own (Yu and Moyeed 2001), which
    finds its quantile whatever the targets are like, and says nothing of the rest. A prediction has `quantile` of these levels,
    and `interval` where both its ends are among them, but no `log_prob`, and no NLL in `evaluate`; a posterior's widths are
    those of the pretended noise, and an evidence compares nothing but priors. Targets (B,), standardised.

    Args:
        levels: rising, each between 0 and 1.
        scale: one number for all levels or one for each; None learns them: `likelihood.scale`, a softplus, with the
            half-Cauchy(0, 1) prior; it is the mean loss of its level.
        initial_scale: of learnt ones; None: `fit` takes the losses that Gaussian residuals of the targets' std would have.

    >>> Quantile((0.1, 0.9), scale=1.0)(torch.zeros(2, 2), {}).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-4.8159, -5.8159])
    """

    levels: Annotated[tuple[Level, ...], Field(min_length=1), BeforeValidator(_listed)] = (0.05, 0.25, 0.5, 0.75, 0.95)
    scale: Levels | None = None
    initial_scale: Levels | None = None
    kind: Literal["quantile"] = "quantile"

    def __post_init__(self) -> None:
        if list(self.levels) != sorted(set(self.levels)):
            raise InvalidInput(
                f"The levels {self.levels} were given to Quantile; each is above the last: (0.05, 0.5, 0.95)."
            )
        for name in ("scale", "initial_scale"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != len(self.levels):
                raise InvalidInput(f"Quantile({name}=…) has {len(given)} numbers for {len(self.levels)} levels.")

    def width(self, targets: int) -> int:
        return targets * len(self.levels)

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        if self.scale is not None or self.initial_scale is not None:
            return self
        return replace(self, initial_scale=self._losses(float(starting_std(targets))))

    def latents(self) -> Mapping[str, Latent]:
        if self.scale is not None:
            return {}
        given = self._losses(UNSCALED) if self.initial_scale is None else self.initial_scale
        start = torch.tensor(given).expand(len(self.levels)).clone()
        return {"scale": Latent(inverse_softplus(start), half_cauchy_of_rho, softplus)}

    def _losses(self, std: float) -> tuple[float, ...]:
        """Return the mean loss of each level's quantile of N(0, std²), std times the normal density there."""
        places = [NormalDist().inv_cdf(level) for level in self.levels]
        return tuple(std * exp(-place * place / 2) / sqrt(2 * pi) for place in places)

    def _scale(self, outputs: Tensor, latents: Params) -> Tensor:
        if self.scale is not None:
            return torch.as_tensor(self.scale, dtype=outputs.dtype, device=outputs.device).expand_as(outputs)
        return beside_outputs(softplus(latents["scale"]), outputs, each=True).expand_as(outputs)

    def __call__(self, outputs: Tensor, latents: Params) -> Pinball:
        return Pinball(outputs, self._scale(outputs, latents), self.levels)

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """q (1 − q)/scale², that of the pretended noise: of the loss itself there is none but at its kink."""
        levels = outputs.new_tensor(self.levels)
        return levels * (1 - levels) / self._scale(outputs, latents).square()

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        count = len(self.levels)
        needed = f"Quantile of {count} levels needs outputs (B, {count}), one for each level"
        refuse_unlike_one(outputs, targets, count, needed)
