"""What a posterior predicts of real targets: n drawn Gaussians of a batch, averaged, taken apart, and scored."""

from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import final

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.predict import decomposition
from posterity.predict.checks import (
    averaged,
    central,
    finite_values,
    in_words,
    mean_square,
    quantile_levels,
)
from posterity.predict.decomposition import precise
from posterity.predict.mixture import mixture_cdf, mixture_crps, mixture_quantile
from posterity.types import Scores
from posterity.weighing import there


@final
@dataclass(frozen=True, eq=False, repr=False)
class Regression:
    """Gaussians N(μ_s(x), σ_s²(x)) of n drawn functions: an equal mixture for every input.

    Noise and functions are numbers of their own and nothing is told from a difference: far from the data the functions'
    variance is larger than the noise by more than a float32 can hold in one sum.

    means: (n, B), or (n, B, D) for D targets that are independent given the function.
    noise: σ_s², the variance of the targets given the function, in units of the target squared, of the same shape, > 0.
    function_variances: v_s ≥ 0, of functions that were integrated over, not drawn: component s is N(μ_s, v_s + σ_s²).

    >>> draws = Regression(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))  # 2 functions, 1 input
    >>> draws.mean, draws.aleatoric, draws.epistemic, draws.variance
    (tensor([1.]), tensor([1.]), tensor([1.]), tensor([2.]))
    """

    means: Tensor
    noise: Tensor
    function_variances: Tensor | float = 0.0

    def __post_init__(self) -> None:
        if self.means.dim() not in (2, 3) or not len(self.means) or self.means.shape != self.noise.shape:
            shapes = f"{tuple(self.means.shape)} and {tuple(self.noise.shape)}"
            raise InvalidInput(f"Expected means and variances of one shape (draws, batch[, targets]), got {shapes}.")
        functions = torch.as_tensor(self.function_variances)
        finite = (
            torch.isfinite(self.means).all() and torch.isfinite(self.noise).all() and torch.isfinite(functions).all()
        )
        if not finite or not bool((self.noise > 0).all()) or bool((functions < 0).any()):
            raise InvalidInput(
                "Means must be finite, variances finite and > 0, and those of functions finite and >= 0."
            )

    def __repr__(self) -> str:
        """Say in one line what it is of, with mean variances."""
        parts = {"mean variance": self.variance, "of it epistemic": self.epistemic}
        return in_words(type(self).__name__, len(self.means), self.mean.shape, "targets", parts)

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return len(self.means)

    @property
    def variances(self) -> Tensor:
        """σ_s² + v_s: the whole variance of each component."""
        return self._variances.to(self.noise.dtype)

    @property
    def _variances(self) -> Tensor:
        return precise(self.noise) + self._functions

    @property
    def _functions(self) -> Tensor:
        """v_s, (n, B[, D]), in float64."""
        functions = torch.as_tensor(self.function_variances, device=self.noise.device)
        return precise(functions).expand(self.noise.shape)

    @cached_property
    def mean(self) -> Tensor:
        """μ̄ = (1/n)Σ_s μ_s, shape (B,) or (B, D), in units of the target."""
        return precise(self.means).mean(0).to(self.means.dtype)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        aleatoric, drawn = decomposition.total_variance(precise(self.means), precise(self.noise))
        return aleatoric.to(self.means.dtype), (drawn + self._functions.mean(0)).to(self.means.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s σ_s²: the mean noise variance."""
        return self._parts[0]

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (μ_s − μ̄)²: the variance of the drawn functions, and of what was integrated over."""
        return self._parts[1]

    @property
    def variance(self) -> Tensor:
        """`aleatoric` + `epistemic`, in units of the target squared."""
        return self.aleatoric + self.epistemic

    @property
    def std(self) -> Tensor:
        """√variance, in units of the target."""
        return self.variance.sqrt()

    def quantile(self, q: float | Tensor) -> Tensor:
        """Return exact quantiles of the mixture: (B[, D]), or (Q, B[, D]) for a vector of Q levels."""
        levels = quantile_levels(q)
        means, stds = precise(self.means), self._variances.sqrt()
        values = torch.stack([mixture_quantile(means, stds, level) for level in levels]).to(self.means.dtype)
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the central predictive interval, (lower, upper), each (B[, D])."""
        lower, upper = self.quantile(central(level))
        return lower, upper

    def cdf(self, y: Tensor) -> Tensor:
        """Return F(y) = (1/n)Σ_s Φ((y − μ_s)/σ_s) for y of shape (B[, D])."""
        values = finite_values(y, self.means.shape[1:]).to(self.means.device)
        return mixture_cdf(values, precise(self.means), self._variances.sqrt()).to(self.means.dtype)

    def crps(self, targets: Tensor) -> Tensor:
        """Return ∫(F(t) − 1[t ≥ y])² dt of each target, (B[, D]), float64, in units of the target, in closed form."""
        values = finite_values(targets, self.means.shape[1:]).to(self.means.device)
        return mixture_crps(values, precise(self.means), precise(self.variances))

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log (1/n)Σ_s Π_d N(y_d; μ_sd, σ_sd²), shape (B,), in nats, for targets of shape (B[, D]); NaN is left out."""
        return (self._draw_log_probs(targets).logsumexp(0) - log(len(self.means))).to(self.means.dtype)

    def scores(self, targets: Tensor, weights: Tensor | None = None) -> Scores:
        """Return rmse (units of the target), nll of the mixture, expected_nll (mean over draws; nats per datum).

        They are those of targets that are known, not NaN, each as often as `weights` (B,) say.
        """
        draws = self._draw_log_probs(targets)
        counts = there(targets).double() * (1.0 if weights is None else weights.double())
        return {
            "rmse": mean_square(precise(self.mean), precise(targets).to(self.mean.device), counts) ** 0.5,
            "nll": -averaged(draws.logsumexp(0) - log(len(draws)), counts),
            "expected_nll": -averaged(self._expected_log_probs(targets).mean(0), counts),
        }

    def rescale(self, mean: Tensor | float, std: Tensor | float) -> "Regression":
        """Return the predictive of mean + std·y: the same draws in original units, for standardised targets."""
        return Regression(self.means * std + mean, self.noise * (std * std), self.function_variances * (std * std))

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B), in float64; of functions that are integrated over, their marginal."""
        return self._densities(targets, self._variances, 0.0)

    def _expected_log_probs(self, targets: Tensor) -> Tensor:
        """Return E[log p(y | x, θ)] over the functions of each component, one unless integrated over: (n, B), float64."""
        return self._densities(targets, precise(self.noise), self._functions)

    def _densities(self, targets: Tensor, variances: Tensor, spread: Tensor | float) -> Tensor:
        """Average log N(y; f, variances) over functions f of mean μ_s and variance `spread`, in closed form."""
        values = finite_values(targets, self.means.shape[1:]).to(self.means.device)
        squares = (values - precise(self.means)).square() + spread
        density = (-0.5 * (squares / variances + (2 * pi * variances).log())).masked_fill(values.isnan(), 0)
        return density if self.means.dim() == 2 else density.sum(-1)
