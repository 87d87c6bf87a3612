"""A Gaussian over θ, seen through the network's linearisation at its mean: a Gaussian over functions, in closed form.

    f(x) ≈ f(x, θ*) + J(x) (θ − θ*),   θ ~ N(θ*, Σ)     ⇒     f(x) ~ N(f(x, θ*), J(x) Σ J(x)ᵀ)

Beside a Gauss–Newton curvature this, not the network itself, is the model whose posterior a Laplace approximation is (Khan et
al. 2019; Immer, Korzepa, Bauer 2021); drawn weights in the network itself may underfit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import ClassVar, Literal, Self

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from posterity.core.curvature import IndependentCurvature
from posterity.core.jacobian import ROW_BYTES, pushed_forward, rows_of
from posterity.errors import InvalidInput
from posterity.model.lending import lent
from posterity.model.likelihoods import Bernoulli, Categorical, Gaussian
from posterity.model.outputs import computed_by, random_parameters
from posterity.model.problem import Problem, call, check_inputs
from posterity.posteriors.asked import check_request
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.evaluation import Draws, split
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian
from posterity.posteriors.memory import served
from posterity.posteriors.stated import Held, Stated, under
from posterity.predict.predictive import AnyPredictive, Regression, predictive

WeightGaussian = DiagonalGaussian | FullRankGaussian | KroneckerGaussian | LowRankPrecisionGaussian
GAUSSIANS: dict[str, type[WeightGaussian]] = {
    c.kind: c for c in (DiagonalGaussian, FullRankGaussian, KroneckerGaussian, LowRankPrecisionGaussian)
}
Link = Literal["sampled", "probit"]
CPU_ROWS = 8 * 2**20  # bytes of a Jacobian's rows that are in caches when they are squared: twice as fast as 128 MiB
COPIES = (
    16  # of the rows of a Jacobian, at most, are held at a time: those that torch makes, padded, spread and squared
)


@dataclass(frozen=True, eq=False, repr=False)
class Linearised(FunctionPosterior):
    """The functions f(x, θ*) + J(x) (θ − θ*) of a Gaussian posterior over θ.

    Args:
        weights: the posterior over θ; θ* is its mean.
        link: how `predict` averages class probabilities. `sampled`: over n functions. `probit`: in closed form (below).
    """

    weights: WeightGaussian
    link: Link = "sampled"
    kind: ClassVar[str] = "linearised"
    shares_statistics: ClassVar[bool] = True

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.weights.sample(generator)

    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        return self.weights.latent_draws(n, generator)

    @property
    def marginal_std(self) -> Tensor | None:
        return self.weights.marginal_std

    @property
    def mean(self) -> Tensor:
        return self.weights.mean

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> AnyPredictive:
        """Return p(y | x, D), in closed form where there is one.

        - A `Gaussian` likelihood of one target: N(f(x, θ*), J Σ Jᵀ + std²), exact; n and `generator` are used for a learnt
          noise level alone. More targets are correlated given the data, so n functions are drawn.
        - Classes with `link="probit"`: softmax(f / √(1 + π/8 · diag(J Σ Jᵀ))) (MacKay 1992; Gibbs 1997), one set of
          probabilities: its decomposition shows no epistemic part, for which there must be draws. Binary classes likewise.
        - All else: n functions, as for any posterior.

        Raises:
            InvalidInput: as `draw`; and where the Jacobians of one example do not fit into memory, for `probit`.
        """
        check_request(n, "draws", generator, max_bytes)
        likelihood = self.problem.likelihood
        if isinstance(likelihood, Categorical | Bernoulli) and self.link == "probit":
            outputs, variances = self.moments(inputs, max_bytes)
            outputs = (outputs / (1 + pi / 8 * variances).sqrt())[None]
            return predictive(likelihood(outputs, {}), outputs)
        if isinstance(likelihood, Gaussian) and self._width(inputs) == 1:
            return self._gaussian(likelihood, inputs, n, generator, max_bytes)
        return super().predict(inputs, n, generator=generator, max_bytes=max_bytes)

    @torch.no_grad()
    def moments(self, inputs: Tensor, max_bytes: int | None = None) -> tuple[Tensor, Tensor]:
        """Return f(x, θ*) and the variance of each output, diag(J Σ Jᵀ), both (B, D).

        Raises:
            InvalidInput: for inputs that do not fit the network, or outputs and weights that are too many.
        """
        check_inputs(inputs)
        inputs = self._moved(inputs)
        with served(self.problem, inputs, 1, max_bytes), lent(self.problem, inputs) as problem:
            parts = [self._moments(problem, part, max_bytes) for part in split(problem, inputs, max_bytes)]
        return torch.cat([f for f, _ in parts]), torch.cat([v for _, v in parts])

    @property
    def size(self) -> int:
        return self.weights.size

    def _inner(self) -> str:
        return f"{type(self.weights).__name__}, "

    def tensors(self) -> dict[str, Tensor]:
        """Return those of the weights, under their family's name, and which link it is."""
        own = {f"{self.weights.kind}.{k}": v for k, v in self.weights.tensors().items()}
        return {**own, f"link.{self.link}": torch.zeros(1)}

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        kind = next((k for k in GAUSSIANS if any(name.startswith(f"{k}.") for name in held)), DiagonalGaussian.kind)
        link = "link.probit" if "link.probit" in held else "link.sampled"
        own = GAUSSIANS[kind].stated(problem, under(f"{kind}.", held))
        return {**{f"{kind}.{name}": stated for name, stated in own.items()}, link: (torch.float32, (1,))}

    def flaw(self) -> str | None:
        return self.weights.flaw()

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        link: Link = "probit" if "link.probit" in tensors else "sampled"
        kind = next(k for k in GAUSSIANS if any(name.startswith(f"{k}.") for name in tensors))
        own = {n.removeprefix(f"{kind}."): v for n, v in tensors.items() if n.startswith(f"{kind}.")}
        return cls(problem, GAUSSIANS[kind].from_tensors(problem, own), link)

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        with lent(self.problem, inputs) as problem:
            batches = split(problem, inputs, max_bytes)
            for _ in range(n):
                yield self._function(problem, self.sample(generator), batches)

    def _function(self, problem: Problem, theta: Tensor, batches: Sequence[Tensor]) -> Iterator[Draws]:
        own = problem.coordinates
        names = set(own.random_names)
        change = {n: v for n, v in problem.layout.parts(theta - self.mean).items() if n in names}
        latents = {n: v.clone()[None] for n, v in own.of_likelihood(problem.layout.views(theta)).items()}
        for batch in batches:
            with problem.bound(self.mean):
                f, d = pushed_forward(computed_by(problem), random_parameters(problem), change, batch)
            yield Draws((f + d)[None], latents)

    def _gaussian(
        self, likelihood: Gaussian, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Regression:
        means, variances = self.moments(inputs, max_bytes)
        thetas = [self.mean] if likelihood.std is not None else [self.sample(generator) for _ in range(max(1, n))]
        stds = []
        for theta in thetas:
            noise = likelihood(means, self.problem.latents(self.problem.layout.views(theta)))
            assert isinstance(noise, Normal)  # of one target
            stds.append(noise.scale)
        noises = torch.stack(stds).square()
        return Regression(means.T.expand_as(noises), noises, variances.T.expand_as(noises))

    def _moments(self, problem: Problem, inputs: Tensor, max_bytes: int | None) -> tuple[Tensor, Tensor]:
        fast = CPU_ROWS if inputs.device.type == "cpu" else ROW_BYTES
        budget = fast if max_bytes is None else min(fast, max_bytes // COPIES)
        with problem.bound(self.mean):
            outputs = call(problem, inputs)
            params = random_parameters(problem)
            self._refuse_large(params, outputs)
            ones = IndependentCurvature(torch.ones_like(outputs))
            variances = torch.zeros_like(outputs)
            for part, first, rows in rows_of(computed_by(problem), params, inputs, ones, budget):
                variances[part, first : first + rows.shape[1]] = self._spread(rows).square().sum(-1)
        return outputs, variances

    def _spread(self, rows: Tensor) -> Tensor:
        """Return J L of the network's coordinates; the latents', which no output depends on, are 0."""
        latents = len(self.mean) - self.problem.coordinates.network
        return self.weights.spread(torch.nn.functional.pad(rows, (0, latents)))

    def _refuse_large(self, params: Mapping[str, Tensor], outputs: Tensor) -> None:
        size = sum(p.numel() for p in params.values())
        if size * outputs.shape[1] * outputs.element_size() > 8 * ROW_BYTES:
            raise InvalidInput(
                f"One example's Jacobian has {outputs.shape[1]:,} × {size:,} elements, more than {8 * ROW_BYTES / 2**30:g} "
                "GiB. Use link='sampled', which needs none."
            )

    def _width(self, inputs: Tensor) -> int:
        check_inputs(inputs)
        first = self._moved(inputs[:1])
        with lent(self.problem, first) as problem, problem.bound(self.mean):
            return call(problem, first).shape[1]

    def _moved(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.mean.device)
