"""An equal mixture of posteriors: a deep ensemble of points, MultiSWAG of Gaussians, or any other."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.model.problem import Problem
from posterity.posteriors.base import FUNCTIONS, FunctionPosterior
from posterity.posteriors.chains import Chains
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.evaluation import Draws
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.predict.predictive import AnyPredictive

KINDS: dict[str, type[FunctionPosterior]] = {
    c.kind: c for c in (Point, Dropout, DiagonalGaussian, LowRankGaussian, FullRankGaussian, Samples, Chains)
}
KINDS |= {c.kind: c for c in (KroneckerGaussian, LowRankPrecisionGaussian, Linearised)}


@dataclass(frozen=True, eq=False)
class Mixture(FunctionPosterior):
    """q(θ) = 1/K Σ_k q_k(θ); each component keeps its own network, with running statistics of its own."""

    components: tuple[FunctionPosterior, ...]
    kind: ClassVar[str] = "mixture"

    @classmethod
    def of(cls, components: tuple[FunctionPosterior, ...]) -> Self:
        return cls(components[0].problem, components)

    def sample(self, generator: Generator | None = None) -> Tensor:
        chosen = torch.randint(len(self.components), (), generator=generator)
        return self.components[int(chosen)].sample(generator)

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        k = len(self.components)
        parts = [c.latent_draws(n // k + (i < n % k), generator) for i, c in enumerate(self.components) if i < n]
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    @property
    def mean(self) -> Tensor:
        return torch.stack([c.mean for c in self.components]).mean(0)

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        """Take n/K functions of each component; where K does not divide n, the first components give one more."""
        k = len(self.components)
        for i, component in enumerate(self.components[:n]):
            yield from component.passes(inputs, n // k + (i < n % k), generator, max_bytes)

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> AnyPredictive:
        """As for any posterior; n is rounded up to a multiple of K, so that all components weigh the same."""
        k = len(self.components)
        return super().predict(inputs, max(1, -(-n // k)) * k, generator=generator, max_bytes=max_bytes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the components' tensors and their networks' buffers, numbered."""
        own = {f"{i}.{k}": v for i, c in enumerate(self.components) for k, v in c.stored().items()}
        for i, component in enumerate(self.components):
            own.update({f"{i}.buffer.{k}": v for k, v in component.problem.network.named_buffers()})
            own[f"{i}.kind.{component.kind}"] = torch.zeros(1)
        return own

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        parts: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            parts.setdefault(int(index), {})[key] = value
        return cls.of(tuple(_component(problem, parts[i]) for i in sorted(parts)))


def _component(problem: Problem, part: Mapping[str, Tensor]) -> FunctionPosterior:
    kind = next(k.removeprefix("kind.") for k in part if k.startswith("kind."))
    buffers = {k.removeprefix("buffer."): v for k, v in part.items() if k.startswith("buffer.")}
    own = problem.snapshot(buffers)
    return restored(Mixture if kind == Mixture.kind else KINDS[kind], own, part)


def restored(family: type[FunctionPosterior], problem: Problem, tensors: Mapping[str, Tensor]) -> FunctionPosterior:
    """Restore what `stored` returned."""
    made = {k.removeprefix(FUNCTIONS): v for k, v in tensors.items() if k.startswith(FUNCTIONS)}
    posterior = family.from_tensors(problem, {k: v for k, v in tensors.items() if not k.startswith(FUNCTIONS)})
    return replace(posterior, functions=Samples.from_tensors(problem, made)) if made else posterior
