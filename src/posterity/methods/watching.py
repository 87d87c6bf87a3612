"""What an inference watches of itself while it runs, once an epoch, and how its posterior comes by the remarks on that."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from posterity.core.optimizer import SECOND
from posterity.methods.arrival import NEAR, Remark
from posterity.types import Batch, Budget, Data, Engine, Info, Latent, Posterior, Row, Scores, State, Streams

P_co = TypeVar("P_co", bound=Posterior, covariant=True)


class Watching(ABC):
    """What inferences share that say at the end whether they have arrived: the rows of the run, and the epoch chosen."""

    rows: Sequence[Row] = ()
    best: int | None = None

    @abstractmethod
    def remarks(self) -> list[Remark]:
        """Say what the rows tell, after the run."""

    def ended(self, rows: Sequence[Row], best: int | None) -> None:
        self.rows, self.best = rows, best


@runtime_checkable
class Arriving(Protocol[P_co]):
    """An `Inference` whose posterior is of one family, and that has remarks."""

    def init(self, streams: Streams) -> State: ...
    def update(self, state: State, batch: Batch) -> tuple[State, Info]: ...
    def posterior(self, state: State) -> P_co: ...
    def remarks(self) -> list[Remark]: ...


def run(inference: Arriving[P_co], data: Data, engine: Engine, budget: Budget) -> P_co:
    """Run an inference to its end; what it has to say of its arrival is in the posterior's provenance, as `remarks`."""
    posterior: Any = inference.posterior(engine.run(inference, data, budget))
    posterior.provenance["remarks"] = list(inference.remarks())
    return posterior  # type: ignore[no-any-return]


def watched_latents(latents: Mapping[str, Latent], views: Mapping[str, Tensor]) -> Scores:
    """Return each latent's value in natural units, averaged where it is a vector."""
    return {name: float(latent.natural(views[name]).double().mean()) for name, latent in latents.items()}


def watched_stds(std: Tensor, start: Tensor | float, pull: float | None, guessed: bool = True) -> Scores:
    """Return what `still_stds` asks: the stds' typical size in units of their start, and the share of them near it.

    `pull` says how much the stds are still pulled to one side, from 0 to 1, where that is known; `guessed` is a start that
    says nothing of the posterior.
    """
    ratios = (std.double() / start).log()
    found = {"stds": float(ratios.mean().exp())}
    if guessed:
        found["still"] = float((ratios.abs() < NEAR).double().mean())
    return found if pull is None else found | {"pull": pull}


def pull_of(state: State, name: str, momentum: float) -> float | None:
    """Return |mean of m/√v| of Adam's moments of a vector: 1 where each gradient keeps its sign, 0 where they are noise.

    None for optimisers that do not remember the two.
    """
    first, second = (state.get(f"optimizer.{name}.{key}") for key in ("exp_avg", "exp_avg_sq"))
    steps = int(state["step"])
    if first is None or second is None or not steps:
        return None
    first, second = first / (1 - momentum**steps), second / (1 - SECOND**steps)
    return float((first / second.sqrt().clamp_min(torch.finfo(second.dtype).tiny)).double().mean().abs())
