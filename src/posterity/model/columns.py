"""Likelihoods of numbers that are each by themselves, of a family that has a few parameters beside what the network says.

A likelihood of this kind says three things: `family`, the distribution of one number; `information`, its Fisher information
in the output; `starts`, where its parameters start by the data. Shapes, learnt and fixed parameters and checks are the same
for all.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.model.advice import VALUES, advice
from posterity.model.classes import refuse_count
from posterity.model.noise import beside_outputs, half_cauchy_of_rho
from posterity.model.suited import suited
from posterity.types import Latent, Likelihood, Params

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Levels = Positive | tuple[Positive, ...]  # one number for all targets, or one for each


@dataclass(frozen=True)
class Learnt:
    """A parameter that may be learnt: where it starts without data, its prior on the whole line, and the way there and back."""

    default: float
    log_prob: Callable[[Tensor], Tensor] = half_cauchy_of_rho
    natural: Callable[[Tensor], Tensor] = softplus
    unconstrained: Callable[[Tensor], Tensor] = inverse_softplus


class Columns(Likelihood):
    """Numbers y_d of a family, with outputs f (..., B, D), targets (B,) where D = 1, else (B, D).

    Each of `learnt` is a field, a number or one for each target, where it is fixed; None learns it, from `initial_…` on.
    """

    learnt: ClassVar[Mapping[str, Learnt]] = {}
    support: ClassVar[Any] = dist.constraints.real
    takes: ClassVar[str] = "real numbers"

    @abstractmethod
    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        """Return the distribution of each number; its batch shape is that of the outputs."""

    @abstractmethod
    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        """Return E[(∂ log p(y | f)/∂f)²] of each output, of its shape."""

    def fits(self, targets: Tensor) -> Tensor:
        """Say which targets the family can give."""
        inside: Tensor = self.support.check(targets)
        return inside & targets.isfinite()

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Say by the data (N, D), in float64, what starts where, (D,), by the names of fields or of what is learnt."""
        return {}

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        columns = targets.detach().cpu().double().reshape(len(targets), -1)
        changes: dict[str, Any] = {}
        for name, values in self.starts(inputs, columns).items():
            own = f"initial_{name}" if name in self.learnt else name
            if getattr(self, name) is None and getattr(self, own) is None:
                changes[own] = values.tolist()[0] if len(values) == 1 else tuple(values.tolist())
        return replace(self, **changes)  # type: ignore[type-var]  # every one of them is a dataclass

    def latents(self) -> Mapping[str, Latent]:
        return {
            name: Latent(own.unconstrained(torch.tensor(self._initial(name))), own.log_prob, own.natural)
            for name, own in self.learnt.items()
            if getattr(self, name) is None
        }

    def _initial(self, name: str) -> Any:
        given = getattr(self, f"initial_{name}")
        return self.learnt[name].default if given is None else given

    def value(self, name: str, outputs: Tensor, latents: Params) -> Tensor:
        """Return a parameter, fixed or learnt, in a shape that goes with that of the outputs."""
        fixed = getattr(self, name)
        if name in self.learnt and fixed is None:
            each = isinstance(self._initial(name), tuple)
            return beside_outputs(self.learnt[name].natural(latents[name]), outputs, each=each)
        return torch.as_tensor(1.0 if fixed is None else fixed, dtype=outputs.dtype, device=outputs.device)

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        if outputs.shape[-1] == 1:  # (..., B, 1) is read as (..., B), so that it never meets (B,) as a (B, B) table
            return self.family(outputs.squeeze(-1), latents)
        return dist.Independent(self.family(outputs, latents), 1, validate_args=False)

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        return self.information(outputs, latents).expand_as(outputs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        refuse_count(outputs, targets)
        name = type(self).__name__
        shape = outputs.shape[:1] if outputs.shape[1:] == (1,) else outputs.shape
        if outputs.dim() != 2 or targets.shape != shape or targets.is_complex():
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and outputs of shape {tuple(outputs.shape)} were given; {name} needs "
                f"outputs (B, D), and targets (B,) where D is 1, else (B, D). {advice(VALUES, targets, outputs.shape)}"
            )
        for field, given in vars(self).items():
            if isinstance(given, tuple) and len(given) != (outputs.shape[1] if outputs.shape[1] > 1 else 0):
                raise InvalidInput(
                    f"{name}({field}=…) has {len(given)} numbers for {outputs.shape[1]} outputs; give one for each of several, "
                    "or one for all."
                )
        fits = self.fits(targets)
        if not bool(fits.all()):
            row = int((~fits.reshape(len(targets), -1).all(1)).nonzero()[0, 0])
            raise InvalidInput(
                f"Target {row} is {targets[row].tolist()}, and {name} takes {self.takes} alone. {suited(targets)}"
            )
