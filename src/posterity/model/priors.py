"""Priors over the network's parameters: exact log-densities, exact draws, no floors.

A prior names no network; `Normal` and `ScaleMixture` take a number, or numbers per name pattern. Densities are in nats.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import log, prod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Size, Tensor

from posterity.core import gaussian
from posterity.errors import InvalidInput, suggest
from posterity.types import Params, Prior

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PerPattern = Finite | dict[str, Finite]


@dataclass(frozen=True)
class Normal(Prior):
    """Independent normals, p(w) = N(w; mean, std²).

    Args:
        mean: a number, or `{pattern: number}`; patterns are globs over parameter names, the first that matches counts.
        std: likewise, positive.
        fan_in: divide each std by √(fan-in), the number of inputs that one output sums over, so that a layer's outputs
            keep the scale of its inputs whatever its width (Neal 1996). See `fan_in`.

    >>> Normal(0, 0.1).log_prob({"w": torch.zeros(2)})
    tensor(2.7673)
    >>> Normal(0, {"*.bias": 1.0, "*": 0.1}).resolve({"fc.weight": Size([2, 3]), "fc.bias": Size([2])})[1]
    tensor([0.1000, 0.1000, 0.1000, 0.1000, 0.1000, 0.1000, 1.0000, 1.0000])
    """

    mean: PerPattern = 0.0
    std: Positive | dict[str, Positive] = 0.1
    fan_in: bool = False
    kind: Literal["normal"] = "normal"

    def resolve(self, shapes: Mapping[str, Size], like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and std of each coordinate of the flat vector, both (P,).

        Raises:
            InvalidInput: where a pattern matches nothing, or a name is matched by no pattern.
        """
        means, stds = per_name(self.mean, shapes, "mean"), per_name(self.std, shapes, "std")
        if self.fan_in:
            stds = {n: s / fan_in(n, shapes) ** 0.5 for n, s in stds.items()}
        return expand(means, shapes, like), expand(stds, shapes, like)

    def log_prob(self, params: Params) -> Tensor:
        mean, std = self.resolve(_shapes(params), next(iter(params.values())))
        return gaussian.log_prob(_flat(params), mean, std).sum(-1)

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        mean, std = self.resolve(shapes)
        return _split(mean + std * gaussian.noise_like(std, generator), shapes)


@dataclass(frozen=True)
class ScaleMixture(Prior):
    """Two zero-mean normals, p(w) = π N(w; 0, σ₁²) + (1 − π) N(w; 0, σ₂²) (Blundell et al. 2015, eq. 7).

    The log-density is a log-sum-exp, exact however far w lies in the tails; there is no floor under the density.

    >>> ScaleMixture(0.5, 1.0, 0.0025).log_prob({"w": torch.tensor([40.0])})
    tensor(-801.6121)
    """

    pi: Annotated[float, Field(gt=0, lt=1)] = 0.5
    std1: Positive = 1.0
    std2: Positive = 0.0025
    kind: Literal["scale_mixture"] = "scale_mixture"

    def log_prob(self, params: Params) -> Tensor:
        w = _flat(params)
        wide = gaussian.log_prob(w, 0.0, self.std1) + log(self.pi)
        narrow = gaussian.log_prob(w, 0.0, self.std2) + log(1 - self.pi)
        return torch.logaddexp(wide, narrow).sum(-1)

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        size = sum(prod(s) for s in shapes.values())
        wide = torch.rand(size, generator=generator) < self.pi
        std = torch.where(wide, self.std1, self.std2)
        return _split(std * gaussian.noise_like(std, generator), shapes)


@dataclass(frozen=True)
class Flat(Prior):
    """No preference: p(w) ∝ 1, an improper prior, for maximum likelihood alone. It cannot be drawn from.

    >>> Flat().log_prob({"w": torch.ones(3)})
    tensor(0.)
    """

    kind: Literal["flat"] = "flat"

    def log_prob(self, params: Params) -> Tensor:
        return _flat(params).new_zeros(()) if params else torch.zeros(())

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        raise InvalidInput("A flat prior is improper: nothing can be drawn from it. Use Normal(0, std).")


AnyPrior = Annotated[Normal | ScaleMixture | Flat, Field(discriminator="kind")]


def normal_form(prior: Prior, shapes: Mapping[str, Size], like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the mean and std of each coordinate, both (P,), where a prior is independent normals; else None."""
    return prior.resolve(shapes, like) if isinstance(prior, Normal) else None


def fan_in(name: str, shapes: Mapping[str, Size]) -> int:
    """Count the inputs that one output sums over: Π shape[1:] of a weight, as torch's initialisers count it.

    A vector `x.bias` takes the fan-in of the `x.weight` beside it; any other vector (a norm layer's scale, say) has 1.

    >>> fan_in("conv.bias", {"conv.weight": Size([6, 1, 5, 5]), "conv.bias": Size([6])})
    25
    """
    shape = shapes[name]
    if len(shape) < 2 and "bias" in name:
        shape = shapes.get(name.replace("bias", "weight"), shape)
    return max(1, prod(shape[1:])) if len(shape) > 1 else 1


def per_name(value: float | Mapping[str, float], shapes: Mapping[str, Size], what: str) -> dict[str, float]:
    """Give every name its number: the number itself, or that of the first pattern that matches."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(shapes, value)
    unused = [pattern for pattern in value if not any(fnmatchcase(n, pattern) for n in shapes)]
    if unused:
        raise InvalidInput(
            f"The prior's {what} pattern '{unused[0]}' matches no parameter.{suggest(unused[0], shapes)}"
        )
    chosen = {n: next((v for p, v in value.items() if fnmatchcase(n, p)), None) for n in shapes}
    missing = [n for n, v in chosen.items() if v is None]
    if missing:
        raise InvalidInput(f"No {what} pattern of the prior matches '{missing[0]}'. Add '*' as the last pattern.")
    return {n: v for n, v in chosen.items() if v is not None}


def expand(numbers: Mapping[str, float], shapes: Mapping[str, Size], like: Tensor | None = None) -> Tensor:
    """Repeat one number per name over that name's coordinates: a vector (P,)."""
    options: dict[str, Any] = {} if like is None else {"dtype": like.dtype, "device": like.device}
    values = torch.tensor([numbers[n] for n in shapes], **options)
    counts = torch.tensor([prod(s) for s in shapes.values()], device=values.device)
    return values.repeat_interleave(counts)


def _shapes(params: Params) -> dict[str, Size]:
    return {n: p.shape for n, p in params.items()}


def _flat(params: Params) -> Tensor:
    return torch.cat([p.reshape(-1) for p in params.values()])


def _split(vector: Tensor, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    parts = vector.split([prod(s) for s in shapes.values()])
    return {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}
