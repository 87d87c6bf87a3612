"""What every method is: a way to infer, and what others may ask of it, each a trait with a default.

A plain class with `infer(problem, data, engine)` alone is a method, too: `as_method` gives it the traits. Methods with a
`kind` are found by it in `KINDS`, ours and yours: in configuration files, on the command line, and in records.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from posterity.errors import InvalidInput
from posterity.methods.started import Started
from posterity.model.problem import Problem
from posterity.options import shown
from posterity.registry import remember
from posterity.types import Budget, Data, Engine, Params, Prior, Streams

KINDS: dict[str, "type[Method]"] = {}  # ours and yours


class Method:
    """A way to infer: options, and `infer`, or `start` for what runs batch after batch.

    Derive from it, best as a frozen dataclass, and override what differs; or write a plain class with `infer`, which gets
    these defaults. A class with a `kind` of its own is found by it.

    >>> class Still(Method):
    ...     kind = "still"
    ...     def infer(self, problem, data, engine):
    ...         return Point(problem.snapshot(), problem.theta())
    >>> from posterity.posteriors.point import Point
    >>> Still().title, Still().temperature, KINDS.pop("still") is Still
    ('Still', None, True)
    """

    stages: ClassVar[tuple[str, ...]] = ()  # options that are methods themselves: that of the posterior comes first
    shared: ClassVar[tuple[str, ...]] = ("epochs", "patience")  # options that maximum likelihood beside it has, too
    small_batches: ClassVar[bool] = True  # False: the noise of a small batch's gradient would heat it
    augmentable: ClassVar[bool] = True  # False: it needs the same inputs at every pass
    centred: ClassVar[bool] = True  # False: the mean of its posterior's weights is no network

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        kind = vars(cls).get("kind")
        if isinstance(kind, str):
            remember(KINDS, kind, cls, "method")

    @property
    def kind(self) -> str:
        """What files and the command line call it."""
        return kind_of(self)

    @property
    def title(self) -> str:
        """What people call it."""
        return type(self).__name__

    @property
    def epochs(self) -> int | None:
        """Passes over the training data; None for a method that does not count in them."""
        return None

    @property
    def training(self) -> int | None:
        """Steps of mini-batches of a method that counts in them; None for all others."""
        return None

    @property
    def patience(self) -> int | None:
        """Epochs without a better validation score that end it; None: it does not watch."""
        return None

    @property
    def temperature(self) -> float | None:
        """T of p(D|θ)^(1/T) p(θ); None for a method that has none."""
        return None

    @property
    def pace(self) -> str:
        """How its steps go, for people: `0.004, one_cycle, Adam`."""
        return "its own"

    @property
    def growing(self) -> tuple[str, ...]:
        """Options that may become larger when a run is resumed."""
        return ()

    @property
    def starts_anew(self) -> bool:
        """Whether a run that goes on may begin again from the weights of the network that it is given."""
        return False

    @property
    def keeps_start(self) -> bool:
        """Whether it begins at the weights that the network has."""
        return True

    @property
    def member(self) -> "Method":
        """What each member of an ensemble does; of a refinement its last stage; of all others the method itself."""
        return self

    def start(self, problem: Problem, budget: Budget, run: Streams) -> Any:
        """Begin on a problem: return an `Inference`, which takes a batch a step.

        Args:
            problem: its network is the inference's own, to be moved.
            budget: how many steps there will be.
            run: gives a generator for each purpose: `run("noise")`.
        """
        raise InvalidInput(
            f"{type(self).__name__} is a method without infer(problem, data, engine): write it, or start."
        )

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Any:
        """Return the posterior of a problem, given data: by running what `start` begins, unless overridden."""
        budget = Budget(self.epochs or 1, data.steps_per_epoch, self.patience)
        inference = Started(self, problem, budget)
        return inference.posterior(engine.run(inference, data, budget))

    def infer_from(self, problem: Problem, data: Data, engine: Engine, stds: Params | None) -> Any:
        """Infer from where another method ended, whose marginal stds are these; only what has stds of its own reads them."""
        return self.infer(problem, data, engine)

    @classmethod
    def renewed(cls, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a record of an earlier version as one of today: the same unless options have changed since."""
        return record

    def twin(self) -> "Method":
        """Return maximum likelihood with the same epochs, optimiser and patience, as far as it has them."""
        options = {name: getattr(self, name) for name in self.shared if getattr(self, name, None) is not None}
        return KINDS["mle"](**options)

    def suited(self, problem: Problem) -> Self:
        """Return the method with what it leaves open chosen for a problem; its stages are asked by themselves."""
        return self

    def prior_flaw(self, prior: Prior) -> str | None:
        """Say in flags what of a prior it cannot take, and what to do, before anything is made; None where it can."""
        return None


class Plain(Method):
    """A class of one's own with `infer` or `start` alone: what it does not say of itself is as `Method` has it."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __getattribute__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "own"), name, None) if name in SAID else None
        said = callable(value) if name in ("infer", "start") else isinstance(value, SAID.get(name, ()))
        return value if said and not isinstance(value, bool) else object.__getattribute__(self, name)

    @property
    def kind(self) -> str:
        return kind_of(self.own)

    @property
    def title(self) -> str:
        return type(self.own).__name__


# What a plain class may say of itself, and by values of which types.
SAID: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "epochs": (int,),
    "patience": (int,),
    "temperature": (float, int),
    "joint_temperature": (float, int),
    "pace": (str,),
    "growing": (tuple,),
    "infer": (),
    "start": (),
}


def as_method(value: Any) -> Method:
    """Return a method with its traits: itself, or what stands for a plain class with `infer` or `start`.

    Raises:
        InvalidInput: for what is no method, a class that was not made included.
    """
    if isinstance(value, Method):
        return value
    if not is_method(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
        raise InvalidInput(f"method is {what}; it must be made, as MeanField(), or have infer(problem, data, engine).")
    return Plain(value)


def is_method(value: Any) -> bool:
    """Tell whether something can infer: it is made, and has `infer` or `start`."""
    return not isinstance(value, type) and any(callable(getattr(value, name, None)) for name in ("infer", "start"))


def kind_of(method: Any) -> str:
    """Return what a method is called in files: its class's own kind, or the class's name, with its module.

    >>> class Mine:
    ...     kind = "map"  # is somebody else's
    >>> kind_of(Mine()).rpartition(".")[2]
    'Mine'
    """
    cls = type(method)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not isinstance(method, Method):
        said = getattr(method, "kind", None)
        return said if isinstance(said, str) and said not in KINDS else name
    kind: Any = cls.kind
    if isinstance(kind, str):
        return kind if KINDS.get(kind) is cls else name  # what derives from ours is not ours
    return name if kind is Method.kind else method.kind
