"""Draws of θ, equally weighted: what a Markov chain leaves."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.evaluation import Draws, plan
from posterity.predict.predictive import Classification, Regression


@dataclass(frozen=True, eq=False, repr=False)
class Samples(FunctionPosterior):
    """q(θ) = 1/K Σ_k δ(θ − θ_k), θ_k in the order of the chain: `thetas` (K, P). The network's buffers are kept once.

    Several draws at a time are spread evenly over the chain, from a random start (systematic sampling: Madow & Madow 1944):
    each θ_k is as likely as any other, none comes twice where n ≤ K, and neighbours, which are alike, are avoided.

    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> posterior = Samples(problem, torch.tensor([[1.0], [2.0], [3.0]]))
    >>> posterior.predict(torch.ones(1, 1), n=100).means.flatten()  # three functions are all there are
    tensor([1., 2., 3.])
    """

    thetas: Tensor
    kind: ClassVar[str] = "samples"

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.thetas[self._spread(1, generator)[0]]

    @property
    def mean(self) -> Tensor:
        return self.thetas.mean(0)

    def draws(self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None = None) -> Draws:
        """Evaluate n of the K functions; where n > K each of them comes ⌊n/K⌋ or ⌈n/K⌉ times and is evaluated once."""
        if n < 1:
            raise InvalidInput(f"{n} draws were asked for; ask for at least 1.")
        check_inputs(inputs)
        chosen, row = self._spread(n, generator).unique_consecutive(return_inverse=True)
        found = Draws.below(map(Draws.beside, self._evaluate(chosen, inputs.to(self.thetas.device), max_bytes)))
        if len(chosen) == n:
            return found
        return Draws(found.outputs[row], {name: value[row] for name, value in found.latents.items()})

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        return self._evaluate(self._spread(n, generator), inputs, max_bytes)

    def _evaluate(self, chosen: Tensor, inputs: Tensor, max_bytes: int | None) -> Iterator[Iterable[Draws]]:
        own = plan(self.problem, inputs, len(chosen), max_bytes)
        for some in chosen.split(own.at_once):
            yield own(self.thetas[some])

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> Classification | Regression:
        """As for any posterior, with at most K functions: all of them weigh the same, and there are no others."""
        return super().predict(inputs, min(n, len(self.thetas)), generator=generator, max_bytes=max_bytes)

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        first = self.problem.coordinates.network
        if first == self.thetas.shape[-1]:
            return {}
        return self._natural(self.thetas[self._spread(n, generator), first:])

    def _inner(self) -> str:
        return f"{len(self.thetas):,} draws, "

    def tensors(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, tensors["thetas"])

    def _spread(self, n: int, generator: Generator | None) -> Tensor:
        """Choose ⌊(i K + r)/n⌋ for i = 0 … n − 1, with r uniform on 0 … K − 1: over all r, each k comes n times."""
        k, device = len(self.thetas), self.thetas.device
        start = torch.randint(k, (), generator=generator, device=device)
        return (torch.arange(n, device=device) * k + start) // n
