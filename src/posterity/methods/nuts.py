"""The No-U-Turn sampler: Hamiltonian Monte Carlo that chooses the length of each trajectory by itself.

Its draws are those of p(θ | D), exact as their number grows: the yardstick for every approximation, on networks of up to
some thousand weights and data that fit into one batch. Hoffman & Gelman 2014, with multinomial sampling along the
trajectory (Betancourt 2017) and Stan's warm-up; see `core/nuts.py` and `core/adaptation.py`.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Generator

from posterity.core import nuts
from posterity.core.hamiltonian import Position, System, Transition
from posterity.methods.hamiltonian import HamiltonianMethod
from posterity.options import STRICT, dataclass


@dataclass(frozen=True, config=STRICT)
class NUTS(HamiltonianMethod):
    """The No-U-Turn sampler.

    Args:
        max_depth: doublings of a trajectory at most: up to 2^max_depth − 1 gradients per draw.
        chains, warmup, draws, target_accept, mass, jitter, precision, compiled, max_bytes: see `HamiltonianMethod`.

    >>> import torch
    >>> from posterity import Engine, Gaussian, Normal, fit
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> posterior = fit(torch.nn.Linear(1, 1), (x, 2 * x.squeeze()), likelihood=Gaussian(std=0.1), prior=Normal(0, 1),
    ...                 method=NUTS(chains=2, warmup=100, draws=100), engine=Engine(progress=False))
    >>> round(posterior.predict(torch.tensor([[0.5]]), n=100).mean.item(), 1)
    1.0
    >>> posterior.diagnose().divergences
    0
    """

    max_depth: Annotated[int, Field(ge=1, le=20)] = 10
    kind: Literal["nuts"] = "nuts"
    title = "NUTS"

    def transition(
        self, system: System, start: Position, step_size: float, generator: Generator | None = None
    ) -> Transition:
        return nuts.nuts(system, start, step_size, self.max_depth, generator)
