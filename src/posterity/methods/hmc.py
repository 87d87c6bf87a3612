"""Hamiltonian Monte Carlo with trajectories of random length (Duane et al. 1987; Neal 2011).

The number of leapfrog steps is drawn anew for each transition, uniformly from 1 … `steps`: a fixed one meets the periods of
the dynamics, and then hardly moves (Mackenzie 1989). `NUTS` needs no such number; HMC costs what it is told to.
"""

from typing import Literal

import torch
from torch import Generator

from posterity.core import hamiltonian
from posterity.core.hamiltonian import Position, System, Transition
from posterity.methods.hamiltonian import Count, HamiltonianMethod
from posterity.options import STRICT, dataclass


@dataclass(frozen=True, config=STRICT)
class HMC(HamiltonianMethod):
    """Hamiltonian Monte Carlo.

    Args:
        steps: leapfrog steps of a trajectory at most, each one gradient; half as many on average.
        chains, warmup, draws, target_accept, mass, jitter, precision, compiled, max_bytes: see `HamiltonianMethod`.

    >>> HMC(steps=16).mass
    'diag'
    """

    steps: Count = 32
    kind: Literal["hmc"] = "hmc"
    title = "HMC"

    def transition(
        self, system: System, start: Position, step_size: float, generator: Generator | None = None
    ) -> Transition:
        device = start.theta.device
        steps = int(torch.randint(1, self.steps + 1, (), generator=generator, device=device))
        return hamiltonian.hmc(system, start, step_size, steps, generator)
