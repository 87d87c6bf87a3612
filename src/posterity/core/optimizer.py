"""torch's optimisers on a few flat vectors, with all that they remember in live tensors that can be saved and restored."""

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from posterity.core.schedules import Plateau, learning_rates
from posterity.options import STRICT, dataclass

PLATEAU = "optimizer.plateau"  # the name of its memory in a state
SECOND, EPSILON = 0.999, 1e-8  # Adam's second beta, and what it adds to a root
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class Optimizer:
    """Which of torch's optimisers and learning-rate schedules to use.

    Args:
        name: of the optimiser.
        lr: its rate; with a schedule, at the start or the peak. None: `least`, and for Adam and AdamW more where the network
            is narrow and the steps are few, as `posterity.model.steps.paced` has it.
        schedule: how the rate moves from step to step. `plateau` waits instead: after each epoch it looks at the validation
            score (`monitor`), or at the training loss where there is no validation, and multiplies the rate by
            `plateau_factor` once the score has not improved by a ten-thousandth for more than `plateau_patience` epochs, as
            torch's `ReduceLROnPlateau` does.
        momentum: SGD's, and the first beta of Adam and AdamW.
        least: the rate where `lr` is left open.

    >>> Optimizer(lr=1e-3, schedule="plateau", plateau_patience=6).plateau_factor
    0.1
    """

    name: Literal["Adam", "AdamW", "SGD", "RMSprop", "Adagrad"] = "Adam"
    lr: Rate | None = None
    schedule: Literal["constant", "cosine", "linear", "one_cycle", "plateau"] = "cosine"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Annotated[int, Field(ge=0)] = 6  # epochs
    least: Rate = 1e-3

    @property
    def rate(self) -> float:
        return self.least if self.lr is None else self.lr

    @property
    def normalised(self) -> bool:
        """Whether a step is as long as the rate in every coordinate, whatever the size of the gradient."""
        return self.name in ("Adam", "AdamW")

    @property
    def growing(self) -> tuple[str, ...]:
        """What a method that is trained by it may have more of when a run goes on: epochs, where no rate depends on them."""
        return ("epochs",) if self.schedule in ("constant", "plateau") else ()

    def bind(
        self,
        vectors: Mapping[str, Tensor],
        steps: int,
        rates: Mapping[str, float] | None = None,
        units: Mapping[str, Tensor] | None = None,
    ) -> "BoundOptimizer":
        """Make the optimiser of these vectors, for a run of so many steps; `rates` multiply the rate of some of them.

        `units`, of some vectors' shape, are what one of each coordinate is worth: steps are those of unit · coordinate.
        """
        return BoundOptimizer(self, vectors, steps, rates or {}, units or {})


@plain_dataclass(frozen=True)
class AdamStep:
    """One step of Adam, for a kernel that takes it: θ ← θ − rate · m / (correction · √v + ε).

    Args:
        rates: of each vector, the bias of m taken out.
        correction: takes the bias out of √v.
        momentum: the first beta.
        moments: (m, v) of each vector, live, to be brought up to date by the kernel.
    """

    rates: tuple[float, ...]
    correction: float
    momentum: float
    moments: tuple[tuple[Tensor, Tensor], ...]


class BoundOptimizer:
    """An optimiser at work on named vectors; their gradients are written into `grads` before `step`."""

    def __init__(
        self,
        config: Optimizer,
        vectors: Mapping[str, Tensor],
        steps: int,
        rates: Mapping[str, float],
        units: Mapping[str, Tensor],
    ) -> None:
        self.grads = {n: torch.zeros_like(v) for n, v in vectors.items()}
        self._units = {name: _rest(unit) for name, unit in units.items()}
        self.vectors = dict(vectors)
        self._plateau = (
            Plateau(config.plateau_factor, config.plateau_patience) if config.schedule == "plateau" else None
        )
        self._rates = learning_rates("constant" if self._plateau else config.schedule, config.rate, steps)
        self._factors = {n: rates.get(n, 1.0) for n in vectors}
        # One group for all vectors of one rate: each group costs a tenth of a millisecond at every step.
        self._groups = list(dict.fromkeys(self._factors.values()))
        members = [[v for n, v in vectors.items() if self._factors[n] == factor] for factor in self._groups]
        self._torch = _build(config, members)
        for name, vector in self.vectors.items():
            vector.grad = self.grads[name]
        self._allocate()

    def step(self, index: int) -> None:
        """Take step `index` (from 0) along the gradients in `grads`."""
        rate = self._rate_at(index)
        for group, factor in zip(self._torch.param_groups, self._groups, strict=True):
            group["lr"] = rate * factor
        before = {name: self.vectors[name][..., first:].clone() for name, (first, _) in self._units.items()}
        for name, (first, unit) in self._units.items():
            self.grads[name][..., first:].div_(unit)
        self._torch.step()
        for name, (first, unit) in self._units.items():
            self.vectors[name][..., first:].sub_(before[name]).div_(unit).add_(before[name])

    def adam_step(self, index: int) -> AdamStep:
        """Count step `index` (from 0), and leave it to the caller; for Adam alone."""
        states = [self._torch.state[vector] for vector in self.vectors.values()]
        for state in states:
            state["step"] += 1
        (momentum, second), count = self._torch.param_groups[0]["betas"], int(states[0]["step"])
        rate = self._rate_at(index) / (1 - momentum**count)
        rates = tuple(rate * factor for factor in self._factors.values())
        moments = tuple((state["exp_avg"], state["exp_avg_sq"]) for state in states)
        return AdamStep(rates, (1 - second**count) ** -0.5, momentum, moments)

    def observe(self, score: float) -> None:
        """Hear an epoch's score, the lower the better: a plateau of it lowers the rate."""
        if self._plateau is not None:
            self._plateau.observe(score)

    def _rate_at(self, index: int) -> float:
        rate = self._rates[min(index, len(self._rates) - 1)]
        return rate if self._plateau is None else rate * self._plateau.rate

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's own tensors, live: copying saved ones into them restores it."""
        own = {} if self._plateau is None else {PLATEAU: self._plateau.memory}
        return own | {
            f"optimizer.{name}.{key}": value
            for name, vector in self.vectors.items()
            for key, value in self._torch.state[vector].items()
            if isinstance(value, Tensor)
        }

    def _allocate(self) -> None:
        # torch makes an optimiser's tensors in its first step; one with zero gradient and zero rate changes nothing else.
        for group in self._torch.param_groups:
            group["lr"] = 0.0
        self._torch.step()
        for name, value in self.state().items():
            if name.endswith(".step"):
                value.zero_()


def _rest(unit: Tensor) -> tuple[int, Tensor]:
    """Return where the first coordinate is that is not worth 1, and the units from there on: often those of a few latents."""
    others = (unit != 1).nonzero()[:, -1]
    first = int(others.min()) if len(others) else unit.shape[-1]
    return first, unit[..., first:]


def _build(config: Optimizer, members: list[list[Tensor]]) -> torch.optim.Optimizer:
    groups = [{"params": vectors} for vectors in members]
    if config.name == "SGD":
        return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum, fused=True)
    if config.name == "Adam":
        return torch.optim.Adam(groups, lr=config.rate, betas=(config.momentum, SECOND), fused=True)
    if config.name == "AdamW":
        return torch.optim.AdamW(groups, lr=config.rate, betas=(config.momentum, SECOND), fused=True)
    return getattr(torch.optim, config.name)(groups, lr=config.rate)  # type: ignore[no-any-return]
