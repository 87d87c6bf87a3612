"""All mass on one θ: what maximum likelihood and MAP return. Its epistemic uncertainty is zero by construction."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Generator, Tensor

from posterity.model.lending import lent
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.evaluation import Draws, plan
from posterity.posteriors.latents import natural
from posterity.posteriors.memory import gathered
from posterity.posteriors.stated import Held, Stated, sized, whole


@dataclass(frozen=True, eq=False, repr=False)
class Point(FunctionPosterior):
    """q(θ) = δ(θ − θ*), θ* of shape (P,)."""

    theta: Tensor
    kind: ClassVar[str] = "point"
    single: ClassVar[bool] = True
    shares_statistics: ClassVar[bool] = True

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.theta

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        tail = self.theta[self.problem.coordinates.network :]
        return natural(self.problem.coordinates, tail.expand(n, -1)) if len(tail) else {}

    @property
    def mean(self) -> Tensor:
        return self.theta

    def tensors(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        return {"theta": sized(problem, whole(problem))}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["theta"])

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        """Evaluate the one function once, and show it n times without copying."""
        with lent(self.problem, inputs) as problem:
            one = gathered([plan(problem, inputs, 1, max_bytes)(self.theta[None])], 1, len(inputs))
        latents = {name: value.expand(n, *value.shape[1:]) for name, value in one.latents.items()}
        yield [Draws(one.outputs.expand(n, *one.outputs.shape[1:]), latents)]
