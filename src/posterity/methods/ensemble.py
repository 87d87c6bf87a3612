"""An ensemble of any method: the same problem inferred n times from independent starts, mixed with equal weights.

q(θ) = 1/n Σ_k q_k(θ)

`Ensemble(MLE(), 5)` is a deep ensemble (Lakshminarayanan et al. 2017), without its adversarial training.
"""

import warnings
from dataclasses import replace
from inspect import signature
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from posterity.errors import PosterityWarning
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
        reinitialise: give each member fresh weights, seeded by its number, but for what is frozen; see `reinitialise`. False
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
                unmoved = reinitialise(own, seed)
                if k == 0 and unmoved:
                    _say_alike(unmoved)
                own = replace(own)  # its latents anew, too
            members.append(self.method.infer(own, data, part))
        return Mixture.of(tuple(members))


def reinitialise(problem: Problem, seed: int) -> tuple[str, ...]:
    """Draw fresh weights, in place, without touching torch's global random numbers; return the names of those that stay.

    Each module draws its own by `reset_parameters` (or `_reset_parameters`, as attention calls it). What is trained but no
    module draws anew, such as an `nn.Parameter` in a module of one's own, gets normals of its present mean and std; where all
    its numbers are the same there is nothing to draw, and it stays. So do frozen parameters, and the statistics of
    normalisation that keeps still.
    """
    network = problem.network
    before = {n: (p, p._version, p.detach().clone()) for n, p in network.named_parameters()}
    statistics = {n: b.clone() for n, b in network.named_buffers() if n.rpartition(".")[0] in (problem.still or ())}
    with torch.random.fork_rng(), padding_kept(network), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            _reset(module)
        unmoved = []
        for name, parameter in network.named_parameters():
            first, version, values = before[name]
            if not parameter.requires_grad:
                parameter.copy_(values)
            elif parameter is first and parameter._version == version:
                spread = values.std(correction=0)
                parameter.copy_(values.mean() + spread * torch.randn_like(values))
                unmoved += [name] * (not spread)
        for name, buffer in network.named_buffers():
            if name in statistics:
                buffer.copy_(statistics[name])
    return tuple(unmoved)


def _reset(module: nn.Module) -> None:
    for name in ("reset_parameters", "_reset_parameters"):
        reset = getattr(module, name, None)
        if callable(reset) and not any(
            p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            for p in signature(reset).parameters.values()
        ):
            reset()
            return


def _say_alike(names: tuple[str, ...]) -> None:
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    warnings.warn(
        f"All members start with the same {shown}: no module draws them anew, and all their numbers are equal. They differ "
        "by what the training makes of them; a reset_parameters() of your module would draw them.",
        PosterityWarning,
        stacklevel=3,
    )
