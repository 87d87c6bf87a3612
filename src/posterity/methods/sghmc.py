"""Stochastic-gradient Hamiltonian Monte Carlo: SGD with momentum whose noise makes it a sampler of the posterior.

v ← (1 − α) v − ε ∇Ū(θ) + √(2 (α T − β̂) ε / N) ξ,      θ ← θ + v,      Ū = mean nll − log p(θ)/N,      ξ ~ N(0, I)

Chen, Fox, Guestrin 2014, eq. 15, with η = ε/N. Departures: the temperature multiplies α alone (see `hamiltonian_std`), and
the velocity starts at 0 and is never drawn anew.
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
class SGHMC(Chain):
    """Stochastic-gradient Hamiltonian Monte Carlo.

    What `where=` leaves as points, and the scales of normalisation layers, take the same steps without noise; each draw has
    them as they stood at its moment.

    Args:
        epochs, lr, schedule, burn_in, draws, temperature, joint_temperature, compiled, max_bytes: see `Chain`. The lr is
            that of SGD with momentum: the same drift as without takes lr · friction.
        friction: α; 1 − α is the momentum. 1 is SGLD.
        gradient_noise: β̂ = ε N V/2, for gradients of Ū whose variance over batches is V: what they heat already, and what
            is not injected again; at most friction · temperature. It is that at the rate lr, and falls with the schedule's
            rate. 0, the paper's own choice, is right for small rates.

    Raises:
        InvalidInput: from `infer`, as for `SGLD`.

    >>> from posterity import Engine, Gaussian, Normal, fit
    >>> x = torch.tensor([[1.0], [1.0]])  # with w ~ N(0, 1) and noise of std 1: w | y ~ N(2, 1/3)
    >>> posterior = fit(torch.nn.Linear(1, 1, bias=False), (x, torch.tensor([3.0, 3.0])), likelihood=Gaussian(std=1.0),
    ...                 prior=Normal(0, 1), method=SGHMC(epochs=1500, draws=700), engine=Engine(progress=False, device="cpu"))
    >>> round(posterior.mean.item()), round(3 * posterior.thetas.var().item())
    (2, 1)
    """

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    friction: Annotated[float, Field(gt=0, le=1)] = 0.1
    gradient_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    kind: Literal["sghmc"] = "sghmc"
    title = "SGHMC"

    @model_validator(mode="after")
    def _noise_left(self) -> "SGHMC":
        dynamics.hamiltonian_std(self.lr, self.heat, self.friction, self.gradient_noise)
        return self

    @property
    def _limit(self) -> float | None:
        return 2 * (2 - self.friction) / self.lr

    def moves(self, num_data: int | float) -> "Hamiltonian":
        return Hamiltonian(self, num_data)


class Hamiltonian(Moves):
    """Steps with friction on Ū at the temperature T/N. State: the velocity."""

    def __init__(self, method: SGHMC, num_data: int | float) -> None:
        self.method, self.num_data = method, num_data

    def state(self, theta: Tensor) -> State:
        return {"velocity": torch.zeros_like(theta)}

    def move(self, state: State, grad: Tensor, noise: Tensor | None, rate: float, adapting: bool) -> None:
        method, n = self.method, self.num_data
        gradient_noise = method.gradient_noise * rate / method.lr / n
        std = dynamics.hamiltonian_std(rate, method.heat / n, method.friction, gradient_noise)
        dynamics.hamiltonian((state["theta"], state["velocity"]), grad, noise, rate, std, method.friction)
