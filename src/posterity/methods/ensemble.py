"""An ensemble of any method: the same problem inferred n times from independent starts, mixed with equal weights.

q(θ) = 1/n Σ_k q_k(θ)

`Ensemble(MLE(), 5)` is a deep ensemble (Lakshminarayanan et al. 2017), without its adversarial training.
"""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from posterity.methods.cyclical import Cyclical
from posterity.methods.full_rank import FullRank
from posterity.methods.hmc import HMC
from posterity.methods.ivon import IVON
from posterity.methods.laplace import Laplace
from posterity.methods.low_rank import LowRank
from posterity.methods.map import MAP, MLE
from posterity.methods.mc_dropout import MCDropout
from posterity.methods.mean_field import MeanField
from posterity.methods.nuts import NUTS
from posterity.methods.refine import Refine
from posterity.methods.sghmc import SGHMC
from posterity.methods.sgld import SGLD
from posterity.methods.swag import SWAG
from posterity.model.padding import padding_kept
from posterity.model.problem import Problem
from posterity.options import STRICT
from posterity.posteriors.mixture import Mixture
from posterity.types import Data, Engine

Member = Annotated[
    MAP
    | MLE
    | MCDropout
    | MeanField
    | LowRank
    | FullRank
    | IVON
    | SWAG
    | SGLD
    | SGHMC
    | Cyclical
    | HMC
    | NUTS
    | Laplace
    | Refine,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, config=STRICT)
class Ensemble:
    """Run a method n times and mix what it finds.

    Args:
        method: what each member does.
        n: number of members.
        reinitialise: give each member fresh weights (every module's own `reset_parameters`), seeded by its number; False
            keeps the network's weights as the common start, for pretrained networks: members then differ by data order
            and noise alone.
    """

    method: Member = Field(default_factory=MLE)
    n: Annotated[int, Field(ge=1)] = 5
    reinitialise: bool = True
    kind: Literal["ensemble"] = "ensemble"

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Mixture:
        """Infer the members one after the other; a finished one is not run again on resume."""
        members = []
        for k in range(self.n):
            part = engine.fork(f"member-{k + 1}")
            own = problem.snapshot()
            if self.reinitialise:
                seed = int(
                    torch.randint(2**31, (), generator=part.streams()("initialisation"), device=own.theta().device)
                )
                reinitialise(own.network, seed)
                own = replace(own)  # its latents anew, too
            members.append(self.method.infer(own, data, part))
        return Mixture.of(tuple(members))


def reinitialise(network: nn.Module, seed: int) -> None:
    """Draw fresh weights by each module's own `reset_parameters`, without touching torch's global random numbers."""
    with torch.random.fork_rng(), padding_kept(network):
        torch.manual_seed(seed)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
