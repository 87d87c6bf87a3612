"""Functions of one θ that differ by what they drop: the posterior of Monte Carlo dropout."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.model.dropout import HeldMasks, masked
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.evaluation import Draws, Plan, split
from posterity.posteriors.stated import Held, Stated, sized, whole

RATE = "rate."


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(FunctionPosterior):
    """f(x) = f(θ, z, x) with masks z ~ Bernoulli(1 − rate), independent between sites: θ (P,), and the rate of each site.

    One draw is one set of masks, the same for all examples, so that it is one function. A mask has the shape of one example's
    values at its site: draws agree between batches of examples of equal shape. Normalisation layers are in eval mode.

    `sample` and `mean` are θ, at which nothing is dropped: the network of "weight scaling".

    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(1, 1)), Normal(0, 1), Gaussian(0.1), 3)
    >>> posterior = Dropout(problem, torch.tensor([1.0, 0.0]), {"0": 0.5})
    >>> sorted({value.item() for value in posterior.draw(torch.ones(1, 1), 20)})
    [0.0, 2.0]
    """

    theta: Tensor
    rates: Mapping[str, float]
    kind: ClassVar[str] = "dropout"
    shares_statistics: ClassVar[bool] = True

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.theta

    @property
    def mean(self) -> Tensor:
        return self.theta

    @property
    def size(self) -> int:
        return self.theta.numel()

    def tensors(self) -> dict[str, Tensor]:
        rates = {RATE + site: torch.tensor(rate, dtype=torch.float64) for site, rate in self.rates.items()}
        return {"theta": self.theta, **rates}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        sites = {RATE + name: (torch.float64, ()) for name, _ in problem.network.named_modules() if RATE + name in held}
        return {"theta": sized(problem, whole(problem)), **sites}

    def flaw(self) -> str | None:
        wrong = (f"the rate of {site[:80]!r} is {rate:g}" for site, rate in self.rates.items() if not 0 <= rate < 1)
        return super().flaw() or next(wrong, None)

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        rates = {name.removeprefix(RATE): float(value) for name, value in tensors.items() if name.startswith(RATE)}
        return cls(problem, tensors["theta"], rates)

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        device, sites = self.theta.device, sorted(self.rates)  # a file does not keep their order
        own = Plan(self.problem, "loop", 1, split(self.problem, inputs, max_bytes))
        for _ in range(n):
            seeds = torch.randint(2**62, (len(sites),), generator=generator, device=device).tolist()
            masks = HeldMasks(dict(zip(sites, seeds, strict=True)), device)
            yield self._masked(own, masks)

    def _masked(self, own: Plan, masks: HeldMasks) -> Iterator[Draws]:
        with masked(self.problem.network, self.rates, masks):
            yield from own(self.theta[None])
