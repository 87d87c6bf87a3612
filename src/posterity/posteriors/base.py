"""What every posterior shares: functions drawn one by one, evaluated on batches of any size, averaged into predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from posterity.errors import InvalidInput
from posterity.model.lending import lent
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.asked import check_request, say_of_statistics
from posterity.posteriors.descent import Descent
from posterity.posteriors.evaluation import Draws, plan
from posterity.posteriors.latents import LatentDraws, natural
from posterity.posteriors.memory import gathered, predicted, served
from posterity.posteriors.stated import Held, Stated, not_finite
from posterity.predict.predictive import AnyPredictive, predictive
from posterity.registry import changed, remember

FUNCTIONS = "functions."
FAMILIES: dict[str, "type[FunctionPosterior]"] = {}  # by kind, ours and yours: what files are restored by


@dataclass(frozen=True, eq=False, repr=False)
class FunctionPosterior(ABC):
    """A distribution over functions f(θ, ·), given by a distribution over θ.

    Args:
        problem: its network is the posterior's own, in eval mode.
        provenance: how it came about (method, data, seed, …); saved with it, never read by predictions.
        functions: draws made once, each with running statistics of its own, which predictions average in place of new draws:
            where the network normalises by running statistics. See `posterity.with_statistics`.
        descent: what its numbers are the end of, where a gradient descent of the nelbo made them; None: nothing of that kind.

    A family of one's own derives from this class, with a `kind` by which files know it; `sample`, `mean`, `tensors` and
    `from_tensors` are all that it must have.
    """

    problem: Problem
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True)
    functions: "FunctionPosterior | None" = field(default=None, kw_only=True, repr=False)
    descent: Descent | None = field(default=None, kw_only=True, repr=False)
    kind: ClassVar[str]
    shares_statistics: ClassVar[bool] = (
        False  # whether all functions have the network's running statistics by construction
    )
    single: ClassVar[bool] = False  # whether all its functions are one and the same

    def __init_subclass__(cls, stored: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if stored and "kind" in vars(cls):
            remember(FAMILIES, cls.kind, cls, "family of posteriors")

    @abstractmethod
    def sample(self, generator: Generator | None = None) -> Tensor:
        """Draw one θ, shape (P,)."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what a file must hold to restore the posterior, by name."""

    def stored(self) -> dict[str, Tensor]:
        """Return `tensors` and those of the functions made once, as `functions.NAME`: all that a file holds."""
        made = {} if self.functions is None else self.functions.tensors()
        return {**self.tensors(), **{FUNCTIONS + name: value for name, value in made.items()}}

    @classmethod
    @abstractmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        """Restore what `tensors` returned."""

    @classmethod
    def stated(cls, problem: Problem, held: Held) -> Stated:
        """Return the types and shapes that `tensors` has for a problem; sizes that are free are as those held.

        Unless overridden all are free, and `from_tensors` is left to refuse what it cannot use.
        """
        return dict(held)

    def spec(self) -> dict[str, Any]:
        """Return what a file must hold beside `tensors`, as JSON values."""
        return {} if self.descent is None else {"descent": asdict(self.descent)}

    def specified(self, spec: Mapping[str, Any]) -> Self:
        """Restore what `spec` returned."""
        found = spec.get("descent")
        return self.having(descent=Descent(float(found["temperature"]))) if isinstance(found, Mapping) else self

    def descended(self, temperature: float) -> Self:
        """Return it as the end of a descent at a temperature, where it is of a family that descents end in."""
        return self

    def having(self, **changes: Any) -> Self:
        """Return a copy with other values of fields; a class of one's own need not be a dataclass for that."""
        return changed(self, changes)

    def flaw(self) -> str | None:
        """Say what of its numbers makes no sense, NaN or a negative std; None where all of them do."""
        return not_finite(self.stored())

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[θ], shape (P,)."""

    @property
    def leaves(self) -> "tuple[FunctionPosterior, ...]":
        """What it is a mixture of, inmost; of any other, itself."""
        return (self,)

    def each_leaf(self, change: "Callable[[Any], FunctionPosterior]") -> "FunctionPosterior":
        """Return it with what it is a mixture of changed; of any other, the change of itself."""
        return change(self)

    @property
    def marginal_std(self) -> Tensor | None:
        """√Var[θ] of each random coordinate, in θ's order, of a family that knows it; None of all others."""
        return None

    @property
    def size(self) -> int:
        """How many numbers describe the distribution of θ: P of a point, 2 P of a diagonal Gaussian, K P of K draws.

        Running statistics, rates of dropout, and what only tells how a chain ran, are not counted.
        """
        return sum(tensor.numel() for tensor in self.tensors().values() if tensor.is_floating_point())

    def __repr__(self) -> str:
        """Say in one line what it is, and of what."""
        problem, coordinates = self.problem, self.problem.coordinates
        parts = (type(problem.prior).__name__, type(problem.likelihood).__name__, f"{problem.num_data:,} data")
        size = f"{coordinates.layout.size:,} parameters"
        return f"{type(self).__name__}({self._inner()}{type(problem.network).__name__}, {size}, {', '.join(parts)})"

    def _inner(self) -> str:
        """What a family says of itself in its `repr`, with a comma behind."""
        return ""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.mean.device

    @torch.no_grad()
    def draw(
        self, inputs: Tensor, n: int, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> Tensor:
        """Evaluate n functions on a batch: (n, B, *out), row s is ONE function.

        One θ is drawn per row and held for the whole batch, so that draw(cat(x, x′)) = cat(draw(x), draw(x′)) for equal
        generators. Whole weights are drawn, whatever estimator the posterior was trained with.

        Args:
            inputs: (B, ...), on any device.
            n: number of functions.
            generator: source of the draws; torch's global one where None.
            max_bytes: bound on what is held at any one time beside the inputs and what is returned: weights and activations of
                a pass. Larger batches are split, with equal results; one function and one input are the least. None takes
                16 MiB on a CPU, where more is never used because it is slower, and 1 GiB elsewhere.

        Raises:
            InvalidInput: for inputs that are not finite or do not fit the network, and n < 1.
            OutOfMemory: where memory ends, with what to lower.
        """
        with served(self.problem, inputs, n, max_bytes):
            return self.draws(inputs, n, generator, max_bytes).outputs

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None, max_bytes: int | None = None
    ) -> AnyPredictive:
        """Average n functions into p(y | x, D) ≈ 1/n Σ_s p(y | f(θ_s, x)): probabilities are averaged, never logits.

        Arguments and errors are those of `draw`; what is returned holds the n functions' outputs, too. Of
        `functions` made once there are no more than those.
        """
        if self.functions is not None:
            return self.functions.predict(inputs, n, generator=generator, max_bytes=max_bytes)
        with served(self.problem, inputs, n, max_bytes):
            return predicted(self.problem.likelihood, self.draws(inputs, n, generator, max_bytes), max_bytes)

    def draws(self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None = None) -> Draws:
        """Evaluate n functions and keep the likelihood's latents of the same draws."""
        check_request(n, "draws", generator, max_bytes)
        if self.functions is not None:
            return self.functions.draws(inputs, n, generator, max_bytes)
        check_inputs(inputs)
        return gathered(self.passes(inputs.to(self.device), n, generator, max_bytes), n, len(inputs))

    def passes(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[Draws]]:
        """Evaluate n functions, a few at a time, on one batch of the inputs after the other: nothing is kept here."""
        if self.functions is not None:
            yield from self.functions.passes(inputs, n, generator, max_bytes)
            return
        say_of_statistics(self.lacks_statistics)
        with lent(self.problem, inputs) as problem:
            own = plan(problem, inputs, n, max_bytes)
            for count in own.counts(n):
                thetas = [self.sample(generator) for _ in range(count)]
                yield own(torch.stack(thetas) if count > 1 else thetas[0].unsqueeze(0))  # a view: no copy of P numbers

    @property
    def lacks_statistics(self) -> bool:
        """Whether the network normalises by running statistics, which are those of none of the functions that are drawn."""
        return not self.shares_statistics and self.functions is None and bool(self.problem.normalisations())

    def predictives(
        self, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
    ) -> Iterator[Iterable[AnyPredictive]]:
        """Say what n functions predict, a few at a time, on one batch of the inputs after the other: nothing is kept here."""
        likelihood = self.problem.likelihood
        for functions in self.passes(inputs, n, generator, max_bytes):
            yield (predictive(likelihood(d.outputs, d.latents), d.outputs) for d in functions)

    @property
    def latents(self) -> dict[str, LatentDraws]:
        """What the posterior says of the latents of prior and likelihood, by name, in natural units: 1000 fixed draws.

        `posterior.latents["likelihood.std"].interval(0.9)`; see `latent_draws` for other numbers of draws.
        """
        device = self.device
        draws = self.latent_draws(1000, torch.Generator(device=device).manual_seed(0))
        return {n: LatentDraws(value) for n, value in draws.items()}

    @torch.no_grad()
    def latent_draws(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        """Draw each latent n times in its natural units, (n, *shape), by name: `prior.…`, `likelihood.…`."""
        where = self.problem.coordinates
        if not where.latents:
            return {}
        tails = torch.stack([self.sample(generator)[where.network :] for _ in range(n)])
        return natural(where, tails)

    @property
    def log_evidence(self) -> float:
        """log p(D), in nats, as the method that made this posterior estimates it.

        Raises:
            InvalidInput: for a method that does not.
        """
        if "log_evidence" not in self.provenance:
            raise InvalidInput("The method that made this posterior does not estimate the evidence; Laplace does.")
        found = self.provenance["log_evidence"]
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise InvalidInput(f"This posterior says that its log evidence is {found!r:.80}, which is no number.")
        return float(found)

    def save(self, path: Any) -> None:
        """Write the posterior to one safetensors file that describes itself; see `posterity.load`."""
        from posterity.posteriors.files import save

        save(self, path)

    def diagnose(self, inputs: Tensor | None = None, data: Any = None, draws: int = 1000) -> Any:
        """Ask whether the posterior can be trusted: a `Diagnosis`, whose `verdict` says so in words; `print` it.

        - Chains (`NUTS`, `SGHMC`, an ensemble of samplers): R-hat, effective sample sizes and Monte-Carlo errors.
        - Gaussians in θ (`MeanField`, `LowRank`, `FullRank`, …): the shape k̂ of the importance ratios p(θ, D)/q(θ); for mean
          field the signal of its gradients, too.
        - All that have a width: the contraction of each layer from prior to posterior.

        Args:
            inputs: probes (B, ...) at which the functions of chains are diagnosed, too: a few dozen that matter.
            data: the training data, all of them, in any form that `fit` takes; Gaussians need them.
            draws: of importance ratios; each takes a pass over the data.

        Raises:
            InvalidInput: for chains of fewer than 4 draws, fewer than 25 ratios, and inputs that do not fit the network.
        """
        from posterity.posteriors.diagnose import diagnose

        return diagnose(self, inputs, data, draws)

    def to_arviz(self, n: int = 1000, generator: Generator | None = None) -> Any:
        """Return draws by name for ArviZ: chains as they are, any other posterior as one chain of n draws.

        An `InferenceData` of ArviZ before 1.0, a `DataTree` since then; see `posterity.posteriors.arviz_export`.

        Raises:
            InvalidInput: where ArviZ is not installed.
        """
        from posterity.posteriors.arviz_export import to_arviz

        return to_arviz(self, n, generator)

    def network(self, theta: Tensor | None = None) -> nn.Module:
        """Return a plain, deterministic copy of the network at θ, or at the posterior's mean."""
        network = deepcopy(self.problem.network)
        views = self.problem.layout.views(self.problem.coordinates.weights(self.mean if theta is None else theta))
        for name, parameter in network.named_parameters():
            if name in views:
                parameter.data.copy_(views[name])
        return network
