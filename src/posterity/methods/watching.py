"""What an inference watches of itself while it runs, once an epoch, and how its posterior comes by the remarks on that."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

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


def watched_stds(std: Tensor, start: Tensor | float, guessed: bool) -> Scores:
    """Return the stds' typical size in units of their start; and where that was a guess, the share of those near it."""
    ratios = (std.double() / start).log()
    found = {"stds": float(ratios.mean().exp())}
    return found | {"still": float((ratios.abs() < NEAR).double().mean())} if guessed else found
