"""Hierarchical priors: weights of unknown scale, where the scales are inferred with the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from functools import partial
from math import log
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Size, Tensor

from posterity.core import gaussian
from posterity.errors import InvalidInput
from posterity.model import patterns
from posterity.model.hyperpriors import AnyScalePrior, HalfNormal, ScalePrior
from posterity.model.location_scale import laplace_noise
from posterity.model.patterns import Positive
from posterity.model.special import folded_mean
from posterity.options import STRICT, dataclass
from posterity.types import PRIOR, Latent, Params, Prior


@plain_dataclass(frozen=True)
class _Family:
    """log p(w | s) = −rate·T(w) s^(−power) − log s − constant."""

    rate: float
    power: int
    constant: float
    statistic: Callable[[Tensor], Tensor]  # T(w)
    expected: Callable[[Tensor, Tensor], Tensor]  # E[T(w)] for w ~ N(mean, std²)
    noise: Callable[[Tensor, Generator | None], Tensor]  # w/s
    std: float  # of w/s


BORROWED = 10  # weights of a row's parameter that count beside its own
UNSEEN = 0.1  # std of weights that nobody has seen, or that are all 0
_FAMILIES = {
    "normal": _Family(
        rate=0.5,
        power=2,
        constant=0.5 * gaussian.LOG_2PI,
        statistic=torch.square,
        expected=lambda mean, std: mean.square() + std.square(),
        noise=gaussian.noise_like,
        std=1.0,
    ),
    "laplace": _Family(
        rate=1.0,
        power=1,
        constant=log(2),
        statistic=torch.abs,
        expected=folded_mean,
        noise=laplace_noise,
        std=2**0.5,
    ),
}


@dataclass(frozen=True, config=STRICT)
class Hierarchical(Prior):
    """Weights of unknown scale: w | s ~ N(0, s²), or Laplace(0, s), and s ~ `scale`, one s per group of weights.

    The scales are latents of the prior, further coordinates u = log s of θ: the exponential, not softplus, since
    log s = u then is exact however small s is, and log p(w | s) is as smooth a function of u at every s.

    `centered=True`: the network's coordinates are the weights, log p(w | s) = Σ log N(w; 0, s²). `centered=False`: they
    are z = w/s ~ N(0, 1), and `weights` returns s·z. The posterior is the same; which one a method explores well differs:
    centred where the data determine the weights, non-centred where they say little (Papaspiliopoulos, Roberts & Sköld
    2007; Betancourt & Girolami 2015). Both start at the same weights, and steps mean the same change of them. The maximum
    that `MAP`, `SWAG` and explorations of `Cyclical` look for is that of z and u in either form: p(w, s) has none, as w and
    s may go to 0 together.

    Latents are called, after `prior.`:

    - per='tensor': `scale.<parameter>`, shape (), one for each parameter
    - per='layer':  `scale.<module>`, shape (), shared by the parameters of one module; `scale` for the network's own
    - per='row':    `scale.<parameter>`, shape (rows,), one for each output unit, the parameter's first dimension
    - per='network': `scale`, shape ()

    Args:
        family: of the weights given their scale: `normal`, where s is their std, or `laplace`, where √2·s is.
        scale: the prior of s; a wide one with heavy tails (HalfCauchy) allows functions far wilder than most data.
        per: what shares one s.
        centered: see above.
        initial_std: of the weights, where inference starts. None: each group starts at the scale of the weights that the
            network has, within the reach of the prior of s, so that both forms start at the same place and neither has far to
            go; 0.1 where they are all 0.
        name: of the latents, for a `Product` of two hierarchical priors that would otherwise use the same names.

    >>> prior = Hierarchical(per="layer")
    >>> list(prior.latents({"fc.weight": Size([2, 3]), "fc.bias": Size([2]), "out.weight": Size([1, 2])}))
    ['scale.fc', 'scale.out']
    >>> prior.log_prob({"fc.weight": torch.ones(2), "prior.scale.fc": torch.tensor(0.0)})
    tensor(-2.8379)
    """

    family: Literal["normal", "laplace"] = "normal"
    scale: AnyScalePrior = Field(default_factory=HalfNormal)
    per: Literal["tensor", "layer", "row", "network"] = "tensor"
    centered: bool = True
    initial_std: Positive | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "scale"
    kind: Literal["hierarchical"] = "hierarchical"

    def latents(self, shapes: Mapping[str, Size]) -> Mapping[str, Latent]:
        start = log((self.initial_std or UNSEEN) / self._family.std)
        log_prob = partial(_total_log_prob, self.scale)
        return {n: Latent(torch.full(s, start), log_prob, torch.exp) for n, s in self._groups(shapes).items()}

    def initial(self, weights: Params) -> Params:
        """Start each s where the likelihood of its group's weights is largest, (rate · power · mean T(w))^(1/power)."""
        if self.initial_std is not None:
            return {}
        family, (low, high) = self._family, self.scale.reach()
        sums: dict[str, Tensor] = {}
        counts: dict[str, float] = {}
        for name, w in weights.items():
            rows = w.shape[0] if self.per == "row" else 1
            each = family.statistic(w.detach().double()).reshape(rows, -1)
            total = each.sum(1)
            group = self._latent(name)
            sums[group] = sums.get(group, 0) + total
            counts[group] = counts.get(group, 0) + w.numel() / rows
            if (
                self.per == "row"
            ):  # one weight, a bias say, tells little of its scale: the whole parameter counts as some more
                sums[group] = sums[group] + BORROWED * each.mean()
                counts[group] += BORROWED
        shapes = self._groups(patterns.shapes_of(weights))
        found: dict[str, Tensor] = {}
        for group, total in sums.items():
            s = (family.rate * family.power * total / counts[group]).pow(1 / family.power)
            s = torch.where(s > 0, s.clamp(low, high), UNSEEN / family.std)
            found[group] = s.log().reshape(shapes[group])
        return found

    def log_prob(self, params: Params) -> Tensor:
        log_scales = self._log_scales(params)
        sums = [_summed(self._family.statistic(params[n]), u) for n, u in log_scales.items()]
        return self._density(sums, log_scales, params)

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor:
        log_scales = self._log_scales(mean)
        sums = [_summed(self._family.expected(mean[n], std[n]), u) for n, u in log_scales.items()]
        return self._density(sums, log_scales, mean)

    def volume(self, params: Params) -> Tensor | None:
        """Return log |∂w/∂z| = Σ log s of the centred form: with w and s going to 0 together its own density has no bound."""
        if not self.centered:
            return None
        log_scales = self._log_scales(params)
        return torch.stack([u.sum() * (params[n].numel() / u.numel()) for n, u in log_scales.items()]).sum()

    def weights(self, params: Params) -> Params:
        own = super().weights(params)
        if self.centered:
            return own
        return {n: _aligned(self._log_scale(n, params).exp(), z) * z for n, z in own.items()}

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        """Draw scales from their prior, then weights given the scales: weights w of the network, not z."""
        noise = patterns.split(self._family.noise(patterns.empty_like(shapes, generator), generator), shapes)
        like = next(iter(noise.values()))
        scales = {n: self.scale.sample(like.new_empty(s), generator) for n, s in self._groups(shapes).items()}
        return {n: _aligned(scales[self._latent(n)], z) * z for n, z in noise.items()}

    @property
    def _family(self) -> _Family:
        return _FAMILIES[self.family]

    def _latent(self, parameter: str) -> str:
        """Name the scale of a parameter."""
        group = {"network": "", "layer": parameter.rpartition(".")[0]}.get(self.per, parameter)
        return f"{self.name}.{group}" if group else self.name

    def _groups(self, shapes: Mapping[str, Size]) -> dict[str, Size]:
        return {self._latent(n): s[:1] if self.per == "row" else Size() for n, s in shapes.items()}

    def _log_scale(self, parameter: str, params: Params) -> Tensor:
        name = PRIOR + self._latent(parameter)
        if name not in params:
            raise InvalidInput(f"A hierarchical prior of '{parameter}' needs its log-scale, '{name}', beside it.")
        return params[name]

    def _log_scales(self, params: Params) -> dict[str, Tensor]:
        """Return u for each parameter: 0 where coordinates are non-centred, which have unit scale."""
        own = [n for n in params if not n.startswith(PRIOR)]
        return {n: self._log_scale(n, params) if self.centered else params[n].new_zeros(()) for n in own}

    def _density(self, sums: list[Tensor], log_scales: Mapping[str, Tensor], params: Params) -> Tensor:
        """Return Σ_groups −rate·sum·e^(−power·u) − count·(u + constant), given each group's Σ T(w)."""
        u = patterns.flatten(log_scales)
        counts = {n: params[n].numel() / v.numel() for n, v in log_scales.items()}
        each = patterns.expand(counts, patterns.shapes_of(log_scales), u)
        family = self._family
        total = family.rate * torch.cat(sums) * torch.exp(-family.power * u) + each * (u + family.constant)
        return -total.sum()


def _summed(values: Tensor, log_scale: Tensor) -> Tensor:
    """Sum over the coordinates that share one scale: (groups,)."""
    return values.reshape(log_scale.numel(), -1).sum(-1)


def _aligned(scale: Tensor, weights: Tensor) -> Tensor:
    """Append dimensions to a scale, () or (rows,), with leading ones where there are draws, to multiply weights with it."""
    return scale.reshape(scale.shape + (1,) * (weights.dim() - scale.dim()))


def _total_log_prob(scale: ScalePrior, log_scale: Tensor) -> Tensor:
    return scale.log_prob(log_scale).sum()
