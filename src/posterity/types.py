"""The contract, on one screen: what a problem, a method, a posterior and an engine promise each other.

A network is a function f(θ, x) of one flat vector θ ∈ R^P. A prior p(θ) and a likelihood p(y | f(θ, x)) make it a
problem; a method turns a problem and data into a posterior; a posterior predicts; an engine says where it all runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from torch import Generator, Size, Tensor
from torch.distributions import Distribution

Params: TypeAlias = Mapping[
    str, Tensor
]  # views into one flat vector; a leading dimension, where there is one, counts draws
State: TypeAlias = dict[str, Tensor]  # all that an algorithm remembers: updated in place, checkpointed as it is
# What a person wants to see of one step: a mean over the batch's data, (), or a sum and what it is divided by, (2,).
Info: TypeAlias = dict[str, Tensor]
# Inputs (B, ...), targets (B, ...); and, where data do not all count once, their weights, see `posterity.weighing`.
Batch: TypeAlias = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
Scores: TypeAlias = dict[str, float]
Row: TypeAlias = Mapping[
    str, Any
]  # one finished epoch of a run: means of each Info value, validation scores, what was watched
IGNORED = -100  # the label that is not known
PRIOR, LIKELIHOOD = "prior.", "likelihood."  # what the names of coordinates that are no weights start with


@dataclass(frozen=True)
class Latent:
    """An unknown of the likelihood or the prior (a noise level, say): a further coordinate of θ.

    It is called `likelihood.<name>` or `prior.<name>`, and lives on the whole real line, where every method can move it.
    """

    initial: Tensor  # unconstrained
    log_prob: Callable[[Tensor], Tensor]  # its prior's log-density in unconstrained space, summed to (), in nats
    natural: Callable[[Tensor], Tensor]  # maps it to the units that people read it in (a std, say)


class Prior(ABC):
    """A density over the network's parameters: `log_prob` and `sample` are the required methods."""

    @abstractmethod
    def log_prob(self, params: Params) -> Tensor:
        """Return log p(θ), shape (), in nats, of the network's coordinates and of the prior's own `prior.*`."""

    @abstractmethod
    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        """Draw one value of each named parameter of the network."""

    def latents(self, shapes: Mapping[str, Size]) -> Mapping[str, Latent]:
        """Name the prior's own unknowns, without `prior.`; their log-densities are not part of `log_prob`."""
        return {}

    def initial(self, weights: Params) -> Params:
        """Say where the prior's own unknowns start beside these weights, by their names; those left out, as `latents` says."""
        return {}

    def volume(self, params: Params) -> Tensor | None:
        """Return what makes log p(θ) a density that has a maximum, shape (), in nats; None where it has one as it is.

        It is log |∂θ/∂z| for coordinates z in which the density is bounded. What looks for a maximum (MAP, SWAG,
        explorations) adds it; what draws or integrates never does.
        """
        return None

    def weights(self, params: Params) -> Params:
        """Return the network's parameters, given its coordinates and the prior's latents: the same unless overridden.

        A non-centred prior scales its coordinates here. It must be linear in the network's coordinates.
        """
        return {n: p for n, p in params.items() if not n.startswith(PRIOR)}

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor | None:
        """Return E_q[log p(θ)], shape (), in nats, for q = N(mean, std²), where that has a closed form; else None.

        `mean` has a value for each of the prior's latents too, and the expectation is given them; `std` has none.
        """
        return None


class Likelihood(ABC):
    """A conditional density p(y | outputs): `__call__` is the one required method."""

    own_units: ClassVar[bool] = (
        False  # whether targets mean something in their own units alone, as counts and shares do
    )

    @abstractmethod
    def __call__(self, outputs: Tensor, latents: Params) -> Distribution:
        """Return the distribution of the targets; its batch shape is (..., B): one event is one target."""

    def latents(self) -> Mapping[str, Latent]:
        """Name the likelihood's own unknowns; none unless overridden."""
        return {}

    def known(self, targets: Tensor) -> Tensor:
        """Say which numbers of the targets are known, bool, of their shape: those that are not NaN, unless overridden.

        A datum of whose target nothing is known is as if it were not there. No other method is asked about NaN.
        """
        return ~targets.isnan()

    def started(self, inputs: Tensor, targets: Tensor) -> "Likelihood":
        """Return the likelihood that starts where these data say, before anything is trained; itself unless overridden."""
        return self

    def width(self, targets: int) -> int:
        """Return how many outputs a network has for so many targets; one for each unless overridden."""
        return targets

    def error_size(self, latents: Params) -> Tensor | None:
        """Return the least size of an error that counts, (), where it is learnt: curvatures in outputs go with 1/scale².

        What takes plain gradients divides its steps in the weights by them: they grow without bound as a noise level comes
        down. None, unless overridden: steps are as they are.
        """
        return None

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Any:
        """Return the Fisher information of p(y | f) in the outputs f (B, D), for Laplace; None where it is not known.

        (B, D), its diagonal, where outputs know nothing of each other, else (B, D, D), or an `OutputCurvature`. What is not
        known of a target (a label of −100) has none.
        """
        return None

    def latent_curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Params | None:
        """Return the batch's Fisher information in each of the likelihood's own coordinates, by name, for Laplace.

        None: the squares of the scores of the targets that were seen are summed instead.
        """
        return None

    def check(self, outputs: Tensor, targets: Tensor) -> None:  # noqa: B027  # nothing to refuse unless overridden
        """Raise `InvalidInput` where the targets cannot be those of a network with such outputs."""


@runtime_checkable
class Predictive(Protocol):
    """What a posterior says of a batch of targets."""

    @property
    def mean(self) -> Tensor:
        """Mean of the predictive distribution: class probabilities (B, C), or regression means."""

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, data), shape (B,), in nats."""

    def scores(self, targets: Tensor) -> Scores:
        """Return the headline scores of these predictions: `nll`, `expected_nll`, and `accuracy` or `rmse`."""


@runtime_checkable
class Posterior(Protocol):
    """A distribution over functions."""

    def draw(self, inputs: Tensor, n: int, *, generator: Generator | None = None) -> Tensor:
        """Evaluate n functions on a batch: (n, B, *out), row s is ONE function."""

    def predict(self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None) -> Predictive:
        """Average over n functions."""


@runtime_checkable
class Data(Protocol):
    """Where batches come from; `num_data` is N: how many different data there are to be seen (validation left out).

    Of weighted data it is the sum of their weights.
    """

    @property
    def num_data(self) -> int | float: ...
    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, generator: Generator) -> Iterator[Batch]: ...
    def validation(self) -> Iterator[Batch] | None: ...


@runtime_checkable
class Streams(Protocol):
    """The random numbers of one run, named by purpose, each from its own generator."""

    def __call__(self, purpose: str) -> Generator: ...


VALIDATED = 250  # times that a run looks at its validation data, or up to twice as often


@dataclass(frozen=True)
class Budget:
    """How long to run, and what to stop on."""

    epochs: int
    steps_per_epoch: int
    patience: int | None = None  # epochs without a better validation score; None: run them all
    monitor: str = "nll"  # the validation score to keep the best state of: 'nll' or 'nelbo'
    warmup_epochs: int = 0  # epochs that optimise another objective than the last ones; none of them is the best

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def validates(self, epoch: int) -> bool:
        """Tell whether an epoch, counted from 1, ends with a look at the validation data.

        Of more than 500 epochs only each ⌊epochs/250⌋-th does, and the last: small data have epochs of a step or two, which
        take less time than the look.

        >>> [epoch for epoch in range(1, 1201) if Budget(1200, 1).validates(epoch)][:3]
        [4, 8, 12]
        """
        return epoch % max(1, self.epochs // VALIDATED) == 0 or epoch == self.epochs


@runtime_checkable
class Inference(Protocol):
    """One streaming algorithm bound to one problem."""

    def init(self, streams: Streams) -> State: ...
    def update(self, state: State, batch: Batch) -> tuple[State, Info]: ...
    def posterior(self, state: State) -> Posterior: ...


@runtime_checkable
class Stepping(Protocol):
    """A streaming algorithm that owns its state: what a method's `start` returns."""

    @property
    def state(self) -> State:
        """All that the next step needs, by name: checkpointed as it is, and written into on resume."""

    def step(self, batch: Batch) -> Info:
        """Move by one batch; return what a person wants to see of it."""

    def posterior(self) -> Posterior:
        """Return the posterior of the state as it stands."""


@runtime_checkable
class Observing(Protocol):
    """An inference that hears how each epoch ended: its score by validation, or in training where there is no validation."""

    def observe(self, score: float) -> None: ...


@runtime_checkable
class Watchful(Protocol):
    """An inference that looks at itself once an epoch, so that it can say at the end whether it has arrived."""

    def watched(self, state: State) -> Scores:
        """Return a few numbers for the epoch's row, where they are called `watched`."""

    def ended(self, rows: Sequence[Row], best: int | None) -> None:
        """Take the rows of the whole run, and the epoch that validation chose, if it did."""


@runtime_checkable
class Engine(Protocol):
    """The only one that knows devices, precision, files and progress."""

    def run(self, inference: Inference, data: Data, budget: Budget) -> State: ...
    def fork(self, name: str) -> "Engine":
        """Return the engine of a named part of the work: its own random streams, checkpoints and progress line."""

    def streams(self) -> Streams: ...
    def mapped(self, name: str, like: Tensor, rows: int) -> Tensor:
        """Return a tensor (rows, *like) that lives in a file beside the checkpoints: larger than memory, never lost."""


@runtime_checkable
class Method(Protocol):
    """How to infer: a frozen dataclass whose fields are its configuration, its flags and its TOML keys."""

    def infer(self, problem: Any, data: Data, engine: Engine) -> Posterior: ...
