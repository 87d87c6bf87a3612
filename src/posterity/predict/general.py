"""What a posterior predicts of targets of any distribution: n drawn ones, averaged, taken apart, and scored."""

from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import final

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent

from posterity.errors import InvalidInput
from posterity.predict.checks import central, quantile_levels
from posterity.predict.decomposition import precise
from posterity.predict.mixture import empirical_quantile
from posterity.types import Scores

SAMPLES = 4096  # targets drawn for quantiles, over all functions


@final
@dataclass(frozen=True, eq=False)
class General:
    """Distributions p_s(y | x) of n drawn functions, of any family: an equal mixture for every input.

    distribution: of batch shape (n, B) and event shape E, that of one target: () for numbers, (D,) for vectors, ….

    Mean and variance are those of the mixture, by the law of total variance; where the family has none, or none at these
    parameters, asking for them raises `InvalidInput`, and `quantile`, `sample`, `log_prob` and `scores` are there.

    >>> draws = General(torch.distributions.Poisson(torch.tensor([[1.0], [3.0]])))  # 2 functions, 1 input
    >>> draws.mean, draws.aleatoric, draws.epistemic, draws.variance
    (tensor([2.]), tensor([2.]), tensor([1.]), tensor([3.]))
    >>> draws.log_prob(torch.tensor([0]))  # log (exp(−1) + exp(−3))/2
    tensor([-1.5662])
    """

    distribution: Distribution

    def __post_init__(self) -> None:
        shape = self.distribution.batch_shape
        if len(shape) != 2 or not shape[0]:
            raise InvalidInput(f"Expected a distribution of batch shape (draws, batch), got {tuple(shape)}.")

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return self.distribution.batch_shape[0]

    @property
    def family(self) -> str:
        """What the distribution is called."""
        base = self.distribution
        while isinstance(base, Independent):
            base = base.base_dist
        return type(base).__name__

    @cached_property
    def means(self) -> Tensor:
        """μ_s, shape (n, B, *E), in units of the target."""
        return self._moment("mean")

    @cached_property
    def variances(self) -> Tensor:
        """σ_s², shape (n, B, *E): of each number in a target by itself."""
        return self._moment("variance")

    @property
    def mean(self) -> Tensor:
        """μ̄ = (1/n)Σ_s μ_s, shape (B, *E), in units of the target."""
        return precise(self.means).mean(0).to(self.means.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s σ_s², shape (B, *E): the mean noise variance."""
        return precise(self.variances).mean(0).to(self.variances.dtype)

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (μ_s − μ̄)², shape (B, *E): the variance of the drawn functions."""
        return precise(self.means).var(0, correction=0).to(self.means.dtype)

    @property
    def variance(self) -> Tensor:
        """`aleatoric` + `epistemic`, in units of the target squared."""
        return self.aleatoric + self.epistemic

    @property
    def std(self) -> Tensor:
        """√variance, in units of the target."""
        return self.variance.sqrt()

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw targets of the mixture, (count·n, B, *E): `count` of each function; fixed ones unless given a generator."""
        seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices):  # torch's distributions know no generator
            torch.manual_seed(seed)
            return self.distribution.sample(torch.Size([count])).flatten(0, 1)

    def quantile(self, q: float | Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return quantiles of each number in a target, (B, *E), or (Q, B, *E) for a vector of Q levels.

        They are those of at least 4096 draws: a level q is met with an error of √(q(1 − q)/4096), at most 0.8 %.
        """
        levels = quantile_levels(q)
        draws = self.sample(-(-SAMPLES // self.count), generator)
        values = torch.stack([empirical_quantile(draws, level) for level in levels])
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def interval(self, level: float = 0.9, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the central predictive interval, (lower, upper), each (B, *E), of draws as `quantile`'s are."""
        lower, upper = self.quantile(central(level), generator=generator)
        return lower, upper

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log (1/n)Σ_s p_s(y), shape (B,), in nats, for targets (B, *E)."""
        draws = self._draw_log_probs(targets)
        return (precise(draws).logsumexp(0) - log(self.count)).to(draws.dtype)

    def scores(self, targets: Tensor) -> Scores:
        """Return nll of the mixture, expected_nll (mean over draws; nats per datum), and rmse where there is a mean."""
        draws = precise(self._draw_log_probs(targets))
        scores = {"nll": log(self.count) - draws.logsumexp(0).mean().item(), "expected_nll": -draws.mean().item()}
        try:
            error = precise(self.mean) - precise(targets).to(self.mean.device)
        except InvalidInput:  # this family has no mean
            return scores
        return {"rmse": error.square().mean().sqrt().item(), **scores}

    def _moment(self, name: str) -> Tensor:
        """Return a moment of every function, or refuse it by name."""
        try:
            moment: Tensor = getattr(self.distribution, name)
        except NotImplementedError:
            raise InvalidInput(f"torch knows no {name} of {self.family}; {_INSTEAD}") from None
        broken = ~torch.isfinite(moment)
        if bool(broken.any()):
            raise InvalidInput(
                f"{self.family} has no finite {name} at {int(broken.sum())} of {broken.numel()} of these parameters; {_INSTEAD}"
            )
        return moment

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B)."""
        expected = self.distribution.batch_shape[1:] + self.distribution.event_shape
        if targets.shape != expected:
            raise InvalidInput(
                f"Expected targets of shape {tuple(expected)}, got {tuple(targets.shape)}: reshape them."
            )
        try:
            support = self.distribution.support
        except NotImplementedError:  # what it can give is not known
            support = None
        if support is not None and not bool(
            support.check(targets).all()
        ):  # torch's own check is off wherever its compiler was used
            raise InvalidInput(f"Some targets are none that {self.family} can give: they are in {support}.")
        log_probs: Tensor = self.distribution.log_prob(targets)
        return log_probs


_INSTEAD = "ask for quantile(0.5), interval(), sample(…) or log_prob(…) instead."
