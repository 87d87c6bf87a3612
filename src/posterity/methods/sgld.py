"""Stochastic-gradient Langevin dynamics: SGD whose noise makes it a sampler of the posterior.

θ ← θ − ε G ∇Ū(θ) + √(2 ε T G / N) ξ,      Ū = mean nll − log p(θ)/N,      ξ ~ N(0, I)

Welling & Teh 2011 (their ε is 2 lr/N); preconditioned by RMSprop's G: Li et al. 2016. Departures: G is adapted during
burn-in and constant while draws are kept, so that the term Γ = ∂G/∂θ, which their experiments leave out, is exactly zero;
draws weigh the same under a decreasing rate.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from posterity.core import dynamics
from posterity.methods.chain import Chain, Moves
from posterity.options import STRICT, dataclass
from posterity.types import State


@dataclass(frozen=True, config=STRICT)
class SGLD(Chain):
    """Stochastic-gradient Langevin dynamics.

    What `where=` leaves as points, and the scales of normalisation layers, take the same steps without noise; each draw has
    them as they stood at its moment.

    The noise of gradients on batches is not corrected: it adds ε² s²/B to a step's injected 2 ε T/N, s² the variance between
    data of one datum's gradient, B the batch size. That heats the chain by the share ε N s²/(2 B T), little for a small ε or
    a large B (Welling & Teh 2011, §4).

    Args:
        epochs, lr, schedule, burn_in, draws, temperature, joint_temperature, compiled, max_bytes: see `Chain`.
        preconditioner: `rmsprop` divides each weight's rate by the root mean square of its gradients; lr is then that of
            RMSprop, 1e-3 say. It is adapted during burn-in, then constant.
        smoothing: a of V ← a V + (1 − a) g².
        damping: λ of G = 1/(λ + √V).

    Raises:
        InvalidInput: from `infer`, before the first step: for a flat prior, fewer sampling steps than draws, and draws that do
            not fit into `max_bytes`.

    >>> from posterity import Engine, Gaussian, Normal, fit
    >>> x = torch.tensor([[1.0], [1.0]])  # with w ~ N(0, 1) and noise of std 1: w | y ~ N(2, 1/3)
    >>> posterior = fit(torch.nn.Linear(1, 1, bias=False), (x, torch.tensor([3.0, 3.0])), likelihood=Gaussian(std=1.0),
    ...                 prior=Normal(0, 1), method=SGLD(epochs=1500, draws=700), engine=Engine(progress=False, device="cpu"))
    >>> round(posterior.mean.item()), round(3 * posterior.thetas.var().item())
    (2, 1)
    """

    preconditioner: Literal["rmsprop"] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.99
    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-5
    kind: Literal["sgld"] = "sgld"
    title = "SGLD"

    @model_validator(mode="after")
    def _adapted(self) -> "SGLD":
        if self.preconditioner and not self.burn_in:
            raise ValueError(
                "the preconditioner is adapted during burn-in: use burn_in above 0, or preconditioner=None"
            )
        return self

    @property
    def _limit(self) -> float | None:
        return None if self.preconditioner else 2 / self.lr

    def moves(self, num_data: int | float) -> "Langevin":
        return Langevin(self, num_data)


class Langevin(Moves):
    """Langevin steps on Ū at the temperature T/N. State: V and the number of its updates, where there is a preconditioner."""

    def __init__(self, method: SGLD, num_data: int | float) -> None:
        self.method, self.num_data = method, num_data

    def state(self, theta: Tensor) -> State:
        if self.method.preconditioner is None:
            return {}
        return {"square": torch.zeros_like(theta), "square_updates": torch.zeros((), dtype=torch.int64)}

    def move(self, state: State, grad: Tensor, noise: Tensor | None, rate: float, adapting: bool) -> None:
        scale = self._scale(state, grad, adapting) if self.method.preconditioner else None
        std = dynamics.langevin_std(rate, self.method.heat / self.num_data)
        dynamics.langevin(state["theta"], grad, noise, rate, std, scale)

    def _scale(self, state: State, grad: Tensor, adapting: bool) -> Tensor:
        smoothing = self.method.smoothing
        if adapting:
            state["square"].mul_(smoothing).addcmul_(grad, grad, value=1 - smoothing)
            state["square_updates"] += 1
        return dynamics.rmsprop_scale(state["square"], int(state["square_updates"]), smoothing, self.method.damping)
