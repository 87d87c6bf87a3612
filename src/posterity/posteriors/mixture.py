"""An equal mixture of posteriors: a deep ensemble of points, MultiSWAG of Gaussians, or any other."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from posterity.errors import CorruptFile, InvalidInput
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.asked import check_request
from posterity.posteriors.base import FAMILIES, FUNCTIONS, FunctionPosterior
from posterity.posteriors.evaluation import Draws
from posterity.posteriors.identity import identity
from posterity.posteriors.memory import gathered, served
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.posteriors.stated import Held, Stated, buffers, numbered, under, within
from posterity.predict.predictive import AnyPredictive, below, beside
from posterity.types import Likelihood

KIND, BUFFER = "kind.", "buffer."  # how the names begin that a component has beside those of its family
DEEPEST = 8  # mixtures in mixtures
SHOWN = 4  # kinds of components that a `repr` names
TASKS = {"categorical": "classes", "bernoulli": "classes", "gaussian": "values", "heteroscedastic": "values"}


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(FunctionPosterior):
    """q(f) = 1/K Σ_k q_k(f): K posteriors of one task, equally likely.

    Made by `Mixture.of`. Each component keeps its own network, with running statistics of its own, and predicts by its own
    likelihood. The networks may differ in everything but what they return, an MLP beside a convolutional one (Wilson &
    Izmailov, 2020, §3.2: any average over functions is). There is then no θ that they share: what needs one (`sample`, `mean`,
    `network`) is refused, and all that is of functions is not.

    Raises:
        InvalidInput: for no component, and for components on different devices or of different tasks.

    >>> from posterity import Categorical, Normal
    >>> narrow, wide = torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
    >>> problems = [Problem(network, Normal(0, 1), Categorical(), num_data=5) for network in (narrow, wide)]
    >>> mixture = Mixture.of([Point(problem, problem.theta()) for problem in problems])
    >>> mixture
    Mixture(2 components: Point of Linear, Point of Sequential; Categorical, 5 data)
    >>> mixture.predict(torch.ones(4, 2), n=2).probs.shape
    torch.Size([2, 4, 3])
    """

    components: tuple[FunctionPosterior, ...]
    kind: ClassVar[str] = "mixture"

    def __post_init__(self) -> None:
        _refuse_others(self.components)
        kinds = {getattr(c.problem.likelihood, "kind", None) for c in self.components}
        if len({TASKS[kind] for kind in kinds if kind in TASKS}) > 1:
            names = dict.fromkeys(type(c.problem.likelihood).__name__ for c in self.components)
            raise InvalidInput(
                f"A mixture's components predict the same thing; these have {' and '.join(names)} targets."
            )
        if len(places := {str(c.device) for c in self.components}) > 1:
            raise InvalidInput(f"A mixture's components are on one device; these are on {', '.join(sorted(places))}.")

    @classmethod
    def of(cls, components: Iterable[FunctionPosterior]) -> Self:
        """Mix posteriors with equal weights."""
        parts = tuple(components)
        _refuse_others(parts)
        return cls(parts[0].problem, parts)

    @cached_property
    def alike(self) -> bool:
        """Whether all components are of one network, so that a θ means the same to each."""
        same = len({identity(component.problem) for component in self.components}) == 1
        return same and all(c.alike for c in self.components if isinstance(c, Mixture))

    @cached_property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """Those by which the components predict, each for itself."""
        parts = [c.likelihoods if isinstance(c, Mixture) else (c.problem.likelihood,) for c in self.components]
        return tuple(likelihood for part in parts for likelihood in part)

    def sample(self, generator: Generator | None = None) -> Tensor:
        self._refuse_unlike("θ to draw")
        chosen = torch.randint(len(self.components), (), generator=generator)
        return self.components[int(chosen)].sample(generator)

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        """Draw the latents that all components have."""
        k = len(self.components)
        parts = [c.latent_draws(n // k + (i < n % k), generator) for i, c in enumerate(self.components) if i < n]
        shapes = [{name: value.shape[1:] for name, value in part.items()}.items() for part in parts]
        common = dict(set(shapes[0]).intersection(*shapes))
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0] if name in common}

    @property
    def leaves(self) -> tuple[FunctionPosterior, ...]:
        return tuple(part for component in self.components for part in component.leaves)

    def each_leaf(self, change: Callable[[Any], FunctionPosterior]) -> Self:
        return replace(self, components=tuple(component.each_leaf(change) for component in self.components))

    @property
    def mean(self) -> Tensor:
        self._refuse_unlike("mean θ")
        return torch.stack([c.mean for c in self.components]).mean(0)

    @property
    def lacks_statistics(self) -> bool:
        return any(component.lacks_statistics for component in self.components)

    @property
    def device(self) -> torch.device:
        return self.components[0].device

    @property
    def size(self) -> int:
        return sum(component.size for component in self.components)

    def network(self, theta: Tensor | None = None) -> nn.Module:
        self._refuse_unlike("one network")
        return super().network(theta)

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        """Take n/K functions of each component; where K does not divide n, the first components give one more."""
        for component, share in self._shares(n):
            yield from component.passes(inputs, share, generator, max_bytes)

    def draws(self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None = None) -> Draws:
        """Evaluate n functions, and keep the latents that all components have."""
        check_request(n, "draws", generator, max_bytes)
        check_inputs(inputs)
        return gathered(self.passes(inputs.to(self.device), n, generator, max_bytes), n, len(inputs))

    def predictives(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[AnyPredictive]]:
        for component, share in self._shares(n):
            yield from component.predictives(inputs, share, generator, max_bytes)

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> AnyPredictive:
        """As for any posterior; n is rounded up to a multiple of K, so that all components weigh the same."""
        k = len(self.components)
        if all(likelihood == self.problem.likelihood for likelihood in self.likelihoods):
            return super().predict(inputs, max(1, -(-n // k)) * k, generator=generator, max_bytes=max_bytes)
        check_inputs(inputs)
        with served(self.problem, inputs, n, max_bytes):
            parts = self.predictives(inputs.to(self.device), max(1, -(-n // k)) * k, generator, max_bytes)
            return below([beside(list(batches)) for batches in parts])

    def __repr__(self) -> str:
        names = Counter(f"{type(c).__name__} of {type(c.problem.network).__name__}" for c in self.components)
        parts = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in names.most_common(SHOWN))
        more = f" and {len(names) - SHOWN} other kinds" if len(names) > SHOWN else ""
        task = f"{type(self.problem.likelihood).__name__}, {self.problem.num_data:,} data"
        return f"Mixture({len(self.components)} components: {parts}{more}; {task})"

    def _shares(self, n: int) -> Iterator[tuple[FunctionPosterior, int]]:
        k = len(self.components)
        for i, component in enumerate(self.components[:n]):
            yield component, n // k + (i < n % k)

    def _refuse_unlike(self, what: str) -> None:
        if self.alike:
            return
        networks = " and ".join(dict.fromkeys(type(c.problem.network).__name__ for c in self.components))
        raise InvalidInput(
            f"This mixture is of different networks ({networks}), so there is no {what}: take that of one of its `components`. "
            "`predict`, `draw`, `average`, `diagnose` and `save` work."
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the components' tensors and their networks' buffers, numbered."""
        found: dict[str, Tensor] = {}
        for i, component in enumerate(self.components):
            own = component.stored() | within(BUFFER, dict(component.problem.network.named_buffers()))
            found |= within(f"{i}.", {**own, KIND + component.kind: torch.zeros(1)})
        return found

    def spec(self) -> dict[str, Any]:
        parts = [component.spec() for component in self.components]
        return {"components": parts} if any(parts) else {}

    def specified(self, spec: Mapping[str, Any]) -> Self:
        parts = spec.get("components")
        if not isinstance(parts, list) or len(parts) != len(self.components):
            return self
        made = [c.specified(s) if isinstance(s, Mapping) else c for c, s in zip(self.components, parts, strict=True)]
        return replace(self, components=tuple(made))

    def descended(self, temperature: float) -> Self:
        return replace(self, components=tuple(c.descended(temperature) for c in self.components))

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        return cls.stated_for([problem] * len(numbered(held)), held)

    @classmethod
    def stated_for(cls, problems: Sequence[Problem], held: Held) -> Stated:
        """Return what `tensors` has for components of problems of their own."""
        if any(name.endswith(f"{KIND}{cls.kind}") and name.count(".") > DEEPEST for name in held):
            raise CorruptFile(f"a mixture in it is deeper than {DEEPEST} others")
        found: Stated = {}
        parts = numbered(held)
        for i, problem in enumerate(problems):
            part = parts[i] if i < len(parts) else {}
            kind = _kind(part)
            own = stated_for(FAMILIES[kind], problem, part) | within(BUFFER, buffers(problem))
            own[KIND + kind] = torch.float32, (1,)
            found |= within(f"{i}.", own)
        return found

    def flaw(self) -> str | None:
        return next(filter(None, (component.flaw() for component in self.components)), None)

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        parts = numbered(tensors)
        return cls.restored([problem] * len(parts), tensors)

    @classmethod
    def restored(cls, problems: Sequence[Problem], tensors: Mapping[str, Tensor]) -> Self:
        """Restore what `tensors` returned, each component by a problem of its own."""
        parts = numbered(tensors)
        return cls.of(_component(problem, part) for problem, part in zip(problems, parts, strict=True))


def _kind(names: Iterable[str]) -> str:
    """Return the family of a component by the names in it; where none says it, the first that there is."""
    said = (name.removeprefix(KIND) for name in names if name.startswith(KIND))
    return next((kind for kind in said if kind in FAMILIES), Point.kind)


def _component(problem: Problem, part: Mapping[str, Tensor]) -> FunctionPosterior:
    own = problem.snapshot(under(BUFFER, part))
    tensors = {k: v for k, v in part.items() if not k.startswith((KIND, BUFFER))}
    return restored(FAMILIES[_kind(part)], own, tensors)


def stated_for(family: type[FunctionPosterior], problem: Problem, held: Held) -> Stated:
    """Return the types and shapes that `stored` has, those of functions made once included."""
    made = under(FUNCTIONS, held)
    own = {k: v for k, v in held.items() if not k.startswith(FUNCTIONS)}
    found = family.stated(problem, own)
    return found | within(FUNCTIONS, Samples.stated(problem, made)) if made else found


def restored(family: type[FunctionPosterior], problem: Problem, tensors: Mapping[str, Tensor]) -> FunctionPosterior:
    """Restore what `stored` returned."""
    made = under(FUNCTIONS, tensors)
    posterior = family.from_tensors(problem, {k: v for k, v in tensors.items() if not k.startswith(FUNCTIONS)})
    return posterior.having(functions=Samples.from_tensors(problem, made)) if made else posterior


def _refuse_others(components: Any) -> None:
    """Refuse a mixture of none, and of what is no posterior."""
    parts = components if isinstance(components, tuple | list) else (components,)
    wrong = [type(part).__name__ for part in parts if not isinstance(part, FunctionPosterior)]
    if wrong or not parts:
        raise InvalidInput(f"A mixture is of posteriors, at least one; it was given {', '.join(wrong) or 'none'}.")
