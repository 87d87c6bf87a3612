"""Draws of θ, equally weighted: what a Markov chain leaves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.layout import substituted
from posterity.model.lending import lent
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.asked import check_request, say_of_statistics
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.evaluation import Draws, Plan, plan, split
from posterity.posteriors.latents import natural
from posterity.posteriors.memory import gathered
from posterity.posteriors.stated import Held, Stated, buffers, length, sized, whole
from posterity.predict.predictive import AnyPredictive

STATISTICS = "statistics."


@dataclass(frozen=True, eq=False, repr=False)
class Samples(FunctionPosterior):
    """q(θ) = 1/K Σ_k δ(θ − θ_k), θ_k in the order of the chain: `thetas` (K, P).

    `statistics`: running statistics of each draw, (K, *shape), by the names of the network's buffers; the other buffers, or all
    where there are none, are the network's, for all draws.

    Several draws at a time are spread evenly over the chain, from a random start (systematic sampling: Madow & Madow 1944):
    each θ_k is as likely as any other, none comes twice where n ≤ K, and neighbours, which are alike, are avoided.

    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> posterior = Samples(problem, torch.tensor([[1.0], [2.0], [3.0]]))
    >>> posterior.predict(torch.ones(1, 1), n=100).means.flatten()  # three functions are all there are
    tensor([1., 2., 3.])
    """

    thetas: Tensor
    statistics: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True, repr=False)
    kind: ClassVar[str] = "samples"

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.thetas[self._spread(1, generator)[0]]

    @property
    def lacks_statistics(self) -> bool:
        return not self.statistics and super().lacks_statistics

    @property
    def mean(self) -> Tensor:
        return self.thetas.mean(0)

    def draws(self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None = None) -> Draws:
        """Evaluate n of the K functions; where n > K each of them comes ⌊n/K⌋ or ⌈n/K⌉ times and is evaluated once."""
        check_request(n, "draws", generator, max_bytes)
        check_inputs(inputs)
        chosen, row = self._spread(n, generator).unique_consecutive(return_inverse=True)
        found = gathered(self._evaluate(chosen, inputs.to(self.thetas.device), max_bytes), len(chosen), len(inputs))
        if len(chosen) == n:
            return found
        return Draws(found.outputs[row], {name: value[row] for name, value in found.latents.items()})

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        return self._evaluate(self._spread(n, generator), inputs, max_bytes)

    def _evaluate(self, chosen: Tensor, inputs: Tensor, max_bytes: int | None) -> Iterator[Iterable[Draws]]:
        if not self.statistics:
            say_of_statistics(self.lacks_statistics)
        with lent(self.problem, inputs) as problem:
            if self.statistics:
                batches = split(problem, inputs, max_bytes)
                yield from (self._function(problem, k, batches) for k in chosen.tolist())
                return
            own = plan(problem, inputs, len(chosen), max_bytes)
            for some in chosen.split(own.at_once):
                yield own(self.thetas[some])

    @torch.no_grad()
    def evaluated(self, inputs: Tensor) -> Tensor:
        """Evaluate every draw in the order of the chain, (K, B, *out)."""
        check_inputs(inputs)
        every = torch.arange(len(self.thetas), device=self.thetas.device)
        return gathered(self._evaluate(every, inputs.to(self.thetas.device), None), len(every), len(inputs)).outputs

    def some(self, n: int, generator: Generator | None = None) -> "Samples":
        """Choose n draws, spread evenly over the chain, with their statistics."""
        chosen = self._spread(n, generator)
        statistics = {name: values[chosen] for name, values in self.statistics.items()}
        return Samples(self.problem, self.thetas[chosen], statistics=statistics, provenance=self.provenance)

    def _function(self, problem: Problem, k: int, batches: Sequence[Tensor]) -> Iterator[Draws]:
        """Evaluate one draw with its own statistics, batch by batch."""
        own = {name: values[k] for name, values in self.statistics.items()}
        for batch in batches:
            with substituted(problem.network, own):  # for no longer than it takes: whoever asks may pause
                found = list(Plan(problem, "loop", 1, [batch])(self.thetas[k : k + 1]))
            yield from found

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> AnyPredictive:
        """As for any posterior, with at most K functions: all of them weigh the same, and there are no others."""
        return super().predict(inputs, min(n, len(self.thetas)), generator=generator, max_bytes=max_bytes)

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        first = self.problem.coordinates.network
        if first == self.thetas.shape[-1]:
            return {}
        return natural(self.problem.coordinates, self.thetas[self._spread(n, generator), first:])

    def _inner(self) -> str:
        return f"{len(self.thetas):,} draws, "

    def tensors(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas, **{STATISTICS + name: values for name, values in self.statistics.items()}}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        count = length(held, "thetas")
        every = {STATISTICS + n: (dtype, (count, *shape)) for n, (dtype, shape) in buffers(problem).items()}
        own = {name: kind for name, kind in every.items() if name in held}
        return {"thetas": sized(problem, count, whole(problem)), **own}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        statistics = {k.removeprefix(STATISTICS): v for k, v in tensors.items() if k.startswith(STATISTICS)}
        return cls(problem, tensors["thetas"], statistics=statistics)

    def _spread(self, n: int, generator: Generator | None) -> Tensor:
        """Choose ⌊(i K + r)/n⌋ for i = 0 … n − 1, with r uniform on 0 … K − 1: over all r, each k comes n times."""
        k, device = len(self.thetas), self.thetas.device
        start = torch.randint(k, (), generator=generator, device=device)
        return (torch.arange(n, device=device) * k + start) // n
