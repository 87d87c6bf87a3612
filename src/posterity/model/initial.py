"""Standard deviations to start from: a number, a fraction of each weight, or what the curvature of the loss allows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from posterity.core.estimators import differentiate
from posterity.errors import InvalidInput, suggest
from posterity.model.coordinates import Coordinates
from posterity.model.problem import Problem
from posterity.options import convert, shown
from posterity.types import Batch

SMALLEST = 1e-5  # a std of 0 has no rho


@dataclass(frozen=True)
class Relative:
    """σ = fraction · |w|, at least 1e-5 (MOPED: Krishnan, Subedar, Tickoo 2020, with their δ as the fraction)."""

    fraction: float = 0.1

    def __post_init__(self) -> None:
        convert(self, fraction=float)
        if not 0 < self.fraction < float("inf"):
            raise InvalidInput(f"Relative({self.fraction}): the fraction must be positive and finite, e.g. 0.1.")


InitialStd: TypeAlias = float | Relative | Mapping[str, Tensor]


def initial_std(coordinates: Coordinates, init: InitialStd) -> Tensor:
    """Return σ of each random coordinate, (P − start,); latents that `init` does not name get 0.1 unless it is a number.

    σ is that of the weights: a non-centred coordinate z = w/s gets σ/s, so that both forms start from the same distribution.

    Raises:
        InvalidInput: for a number that is not positive, and tensors whose names or shapes are not those of the network.
    """
    theta = coordinates.theta()[coordinates.start :]
    weights = coordinates.network - coordinates.start
    if isinstance(init, int | float):
        if not 0 < init < float("inf"):
            raise InvalidInput(f"An initial std of {init} was given; it must be positive and finite, e.g. 0.02.")
        return init / coordinates.unit()[coordinates.start :]
    if not isinstance(init, Relative | Mapping):
        raise InvalidInput(f"init={shown(init)}: must be a number, Relative(…), or a tensor for each name.")
    std = torch.full_like(theta, 0.1)
    if isinstance(init, Relative):
        std[:weights] = (init.fraction * theta[:weights].abs()).clamp(min=SMALLEST)
        return std
    layout = coordinates.random_layout
    shapes = layout.named_shapes()
    latents = {n: coordinates.params[n].shape for n in coordinates.latents}
    if unknown := sorted(init.keys() - shapes.keys() - latents.keys()):
        raise InvalidInput(f"init: '{unknown[0]}' is not a random parameter.{suggest(unknown[0], shapes)}")
    if missing := sorted(shapes.keys() - init.keys()):
        raise InvalidInput(f"init: '{missing[0]}' has no initial std; give one for each random parameter.")
    for name, value in init.items():
        shape = {**shapes, **latents}[name]
        if value.shape != shape or not ((layout.part(name, value) if name in shapes else value) > 0).all():
            raise InvalidInput(
                f"init: the std of '{name}' has shape {tuple(value.shape)}; positive values of {tuple(shape)} are needed."
            )
    std[:weights] = layout.flatten({n: init[n].to(theta) for n in shapes})
    for name, part in zip(latents, std[weights:].split([s.numel() for s in latents.values()]), strict=True):
        if name in init:
            part.copy_(init[name].reshape(-1))
    return std / coordinates.unit()[coordinates.start :]


def curvature_std(problem: Problem, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the std of a diagonal Gaussian at the network's present weights, for each random parameter, by name.

    It is 0 in constant rows (of padding).

    σ = (N·F + 1/s²)^(−½), F = E[(∂ log p(y|x,θ)/∂θ)²] per datum with y drawn from the network's own prediction (the Fisher
    information's diagonal), s the prior's std (none: 0 is added where the prior is not normal). With such y the examples'
    gradients are independent with mean 0, so B · (gradient of a batch's mean)² is an unbiased estimate of F.

    Args:
        problem: its network is at the weights to start from.
        batches: (inputs, targets); targets are not looked at.
    """
    where = problem.coordinates
    fisher, count = torch.zeros_like(where.theta()), 0
    own = torch.empty_like(fisher)
    for batch in batches:
        inputs = batch[0]
        distribution = problem.predict(inputs)
        loss = -distribution.log_prob(distribution.sample()).mean()
        differentiate(loss, (where.params, own, where.layout))
        fisher.addcmul_(own, own, value=len(inputs))
        count += 1
    if not count:
        raise InvalidInput("curvature_std was given no batch; give it at least one.")
    precision = fisher[where.start : where.network] * (problem.num_data / count)
    if where.normal is not None:
        precision = precision + where.normal[1][where.start - where.free :].square().reciprocal()
    std = precision.rsqrt().clamp(SMALLEST, 1.0)
    return where.random_layout.changes(std)
