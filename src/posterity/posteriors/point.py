"""All mass on one θ: what maximum likelihood and MAP return. Its epistemic uncertainty is zero by construction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.base import Draws, FunctionPosterior, split


@dataclass(frozen=True, eq=False)
class Point(FunctionPosterior):
    """q(θ) = δ(θ − θ*), θ* of shape (P,)."""

    theta: Tensor
    kind: ClassVar[str] = "point"

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.theta

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        tail = self.theta[self.problem.coordinates.network :]
        return self._natural(tail.expand(n, -1)) if len(tail) else {}

    @property
    def mean(self) -> Tensor:
        return self.theta

    def tensors(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["theta"])

    def draws(self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None = None) -> Draws:
        """Evaluate the one function once, and show it n times without copying."""
        if n < 1:
            raise InvalidInput(f"{n} draws were asked for; ask for at least 1.")
        check_inputs(inputs)
        inputs = inputs.to(self.theta.device)
        outputs, latents = self._evaluate(self.theta, split(self.problem, inputs, max_bytes))
        return Draws(outputs.expand(n, *outputs.shape), {k: v.expand(n, *v.shape) for k, v in latents.items()})
