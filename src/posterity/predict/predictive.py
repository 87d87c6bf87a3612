"""What a posterior predicts: n drawn functions of a batch, averaged, taken apart, and scored.

Two final classes hold the draws, `Classification` and `Regression`; `predictive` makes the right one from the
distribution that a likelihood returns. Draws come first (n), then the batch (B), and are never folded together.
"""

from dataclasses import dataclass, field
from functools import cached_property
from math import log, pi
from typing import Literal, final

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal
from torch.nn import functional

from posterity.errors import InvalidInput
from posterity.predict import decomposition
from posterity.predict.checks import central, class_labels, finite_values, quantile_levels
from posterity.predict.decomposition import precise
from posterity.predict.mixture import empirical_quantile, mixture_cdf, mixture_quantile
from posterity.types import Scores


@final
@dataclass(frozen=True, eq=False)
class Classification:
    """Class probabilities of n drawn functions, p_s = p(y | x, θ_s).

    probs: (n, B, C), each row a distribution over C classes. A Bernoulli likelihood has the columns [1 − p, p].
    outputs: (n, B, C), what the network itself returned; None where it has no output per class.
    log_probs: (n, B, C), log of `probs` before it could underflow; None: the logarithm is taken here.

    Entropies are in nats; `variance`, `aleatoric` and `epistemic` are variances of each class's indicator.

    >>> draws = Classification(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]))  # 2 functions, 1 input, 2 classes
    >>> draws.mean, draws.labels, draws.log_prob(torch.tensor([0]))
    (tensor([[0.7000, 0.3000]]), tensor([0]), tensor([-0.3567]))
    """

    probs: Tensor
    outputs: Tensor | None = field(default=None, repr=False)
    log_probs: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.probs.dim() != 3 or not len(self.probs):
            raise InvalidInput(
                f"Expected probabilities of shape (draws, batch, classes), got {tuple(self.probs.shape)}."
            )
        for name in ("outputs", "log_probs"):
            other: Tensor | None = getattr(self, name)
            if other is not None and other.shape != self.probs.shape:
                shapes = f"{tuple(other.shape)} against {tuple(self.probs.shape)}"
                raise InvalidInput(f"`{name}` must have the shape of `probs`: {shapes}.")
        sums = self.probs.sum(-1)
        if not bool(((sums - 1).abs() < 0.02).all()) or bool((self.probs < 0).any()):
            raise InvalidInput("Class probabilities must be ≥ 0 and sum to 1; NaN and logits are refused.")

    @cached_property
    def mean(self) -> Tensor:
        """p̄ = (1/n)Σ_s p_s, shape (B, C): the mean of probabilities, never of logits."""
        return precise(self.probs).mean(0).to(self.probs.dtype)

    @property
    def labels(self) -> Tensor:
        """The most probable class, shape (B,)."""
        return self.mean.argmax(-1)

    @property
    def confidence(self) -> Tensor:
        """The probability of the most probable class, shape (B,)."""
        return self.mean.amax(-1)

    @cached_property
    def entropy(self) -> Tensor:
        """H(p̄), shape (B,), in nats: the total uncertainty = `expected_entropy` + `mutual_information`."""
        return decomposition.entropy(self.mean)

    @cached_property
    def expected_entropy(self) -> Tensor:
        """(1/n)Σ_s H(p_s), shape (B,), in nats: the aleatoric part of the entropy."""
        return decomposition.expected_entropy(self.probs)

    @cached_property
    def mutual_information(self) -> Tensor:
        """H(p̄) − (1/n)Σ_s H(p_s) ≥ 0, shape (B,), in nats: the epistemic part of the entropy."""
        return decomposition.mutual_information(self.probs)

    @property
    def variance(self) -> Tensor:
        """p̄_c(1 − p̄_c), shape (B, C): the variance of each class's indicator = `aleatoric` + `epistemic`."""
        return self.mean * (1 - self.mean)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return self.classwise()

    @property
    def aleatoric(self) -> Tensor:
        """(1/n)Σ_s p_sc(1 − p_sc), shape (B, C): the noise that more data would not remove."""
        return self._parts[0]

    @property
    def epistemic(self) -> Tensor:
        """(1/n)Σ_s (p_sc − p̄_c)², shape (B, C): the disagreement of the drawn functions."""
        return self._parts[1]

    def classwise(self, form: Literal["softmax", "normalized"] = "softmax") -> tuple[Tensor, Tensor]:
        """Return (aleatoric, epistemic), each (B, C): of the probabilities, or of softplus(f)/Σ softplus(f).

        Raises `InvalidInput` where the form is unknown, or "normalized" is asked of draws without network outputs.
        """
        if form == "softmax":
            return decomposition.classwise(self.probs)
        if form != "normalized":
            raise InvalidInput(f"Unknown form '{form}'. Choices: softmax, normalized.")
        if self.outputs is None:
            raise InvalidInput("The normalized form needs the network's outputs, one per class; these draws have none.")
        return decomposition.classwise(decomposition.normalized_probs(self.outputs))

    def quantile(self, q: float | Tensor) -> Tensor:
        """Return quantiles over draws of each class's probability: (B, C), or (Q, B, C) for a vector of Q levels."""
        levels = quantile_levels(q)
        values = torch.stack([empirical_quantile(self.probs, level) for level in levels])
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the central credible interval of each class's probability, (lower, upper), each (B, C)."""
        lower, upper = self.quantile(central(level))
        return lower, upper

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log p̄_y = log (1/n)Σ_s p_s(y), shape (B,), in nats, for labels (B,)."""
        return (self._draw_log_probs(targets).logsumexp(0) - log(len(self.probs))).to(self.probs.dtype)

    def scores(self, targets: Tensor) -> Scores:
        """Return accuracy, nll (of the mean probabilities) and expected_nll (mean over draws), in nats per datum."""
        draws = self._draw_log_probs(targets)
        return {
            "accuracy": (self.labels == targets.to(self.probs.device)).double().mean().item(),
            "nll": log(len(draws)) - draws.logsumexp(0).mean().item(),
            "expected_nll": -draws.mean().item(),
        }

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B), in float64."""
        batch, classes = self.probs.shape[1:]
        labels = class_labels(targets, batch, classes)
        index = labels.to(self.probs.device).expand(len(self.probs), -1).unsqueeze(-1)
        if self.log_probs is None:
            return precise(self.probs.gather(-1, index).squeeze(-1)).log()
        return precise(self.log_probs.gather(-1, index).squeeze(-1))


@final
@dataclass(frozen=True, eq=False)
class Regression:
    """Gaussians N(μ_s(x), σ_s²(x)) of n drawn functions: an equal mixture for every input.

    means: (n, B), or (n, B, D) for D targets that are independent given the function; variances: the same shape, > 0.
    function_variances: the share of variances that functions have that were integrated over, not drawn.

    >>> draws = Regression(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))  # 2 functions, 1 input
    >>> draws.mean, draws.aleatoric, draws.epistemic, draws.variance
    (tensor([1.]), tensor([1.]), tensor([1.]), tensor([2.]))
    """

    means: Tensor
    variances: Tensor
    function_variances: Tensor | float = 0.0

    def __post_init__(self) -> None:
        if self.means.dim() not in (2, 3) or not len(self.means) or self.means.shape != self.variances.shape:
            shapes = f"{tuple(self.means.shape)} and {tuple(self.variances.shape)}"
            raise InvalidInput(f"Expected means and variances of one shape (draws, batch[, targets]), got {shapes}.")
        finite = torch.isfinite(self.means) & torch.isfinite(self.variances) & (self.noise > 0)
        if not bool(finite.all()):
            raise InvalidInput("Means must be finite and variances finite and > 0, also without those of functions.")

    @property
    def noise(self) -> Tensor:
        """σ_s² without the function's own share, (n, B[, D])."""
        return self.variances - self.function_variances

    @cached_property
    def mean(self) -> Tensor:
        """μ̄ = (1/n)Σ_s μ_s, shape (B,) or (B, D), in units of the target."""
        return precise(self.means).mean(0).to(self.means.dtype)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        aleatoric, epistemic = decomposition.total_variance(self.means, self.noise)
        own = (precise(self.variances) - precise(self.noise)).mean(0)
        return aleatoric, epistemic + own.to(epistemic.dtype)

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
        means, stds = precise(self.means), precise(self.variances).sqrt()
        values = torch.stack([mixture_quantile(means, stds, level) for level in levels]).to(self.means.dtype)
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the central predictive interval, (lower, upper), each (B[, D])."""
        lower, upper = self.quantile(central(level))
        return lower, upper

    def cdf(self, y: Tensor) -> Tensor:
        """Return F(y) = (1/n)Σ_s Φ((y − μ_s)/σ_s) for y of shape (B[, D])."""
        values = finite_values(y, self.means.shape[1:]).to(self.means.device)
        return mixture_cdf(values, precise(self.means), precise(self.variances).sqrt()).to(self.means.dtype)

    def log_prob(self, targets: Tensor) -> Tensor:
        """Return log (1/n)Σ_s Π_d N(y_d; μ_sd, σ_sd²), shape (B,), in nats, for targets of shape (B[, D])."""
        return (self._draw_log_probs(targets).logsumexp(0) - log(len(self.means))).to(self.means.dtype)

    def scores(self, targets: Tensor) -> Scores:
        """Return rmse (units of the target), nll of the mixture, expected_nll (mean over draws; nats per datum)."""
        draws = self._draw_log_probs(targets)
        return {
            "rmse": (precise(self.mean) - precise(targets).to(self.mean.device)).square().mean().sqrt().item(),
            "nll": log(len(draws)) - draws.logsumexp(0).mean().item(),
            "expected_nll": -self._expected_log_probs(targets).mean().item(),
        }

    def rescale(self, mean: Tensor | float, std: Tensor | float) -> "Regression":
        """Return the predictive of mean + std·y: the same draws in original units, for standardised targets."""
        return Regression(self.means * std + mean, self.variances * (std * std), self.function_variances * (std * std))

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B), in float64; of functions that are integrated over, their marginal."""
        return self._densities(targets, precise(self.variances), 0.0)

    def _expected_log_probs(self, targets: Tensor) -> Tensor:
        """Return E[log p(y | x, θ)] over the functions of each component, one unless integrated over: (n, B), float64."""
        return self._densities(targets, precise(self.noise), self.function_variances)

    def _densities(self, targets: Tensor, variances: Tensor, spread: Tensor | float) -> Tensor:
        """Average log N(y; f, variances) over functions f of mean μ_s and variance `spread`, in closed form."""
        values = finite_values(targets, self.means.shape[1:]).to(self.means.device)
        squares = (values - precise(self.means)).square() + spread
        density = -0.5 * (squares / variances + (2 * pi * variances).log())
        return density if self.means.dim() == 2 else density.sum(-1)


def predictive(distribution: Distribution, outputs: Tensor) -> Classification | Regression:
    """Make the predictive of a likelihood's distribution, batch shape (n, B), and of the network's outputs.

    Categorical and Bernoulli give a `Classification`, Normal and Independent(Normal, 1) a `Regression`. Any other
    distribution, or another batch shape, raises `InvalidInput`.

    >>> predictive(Categorical(logits=torch.zeros(4, 3, 10)), torch.zeros(4, 3, 10)).mean.shape
    torch.Size([3, 10])
    """
    if len(distribution.batch_shape) != 2:
        raise InvalidInput(
            f"Expected a distribution of batch shape (draws, batch), got {tuple(distribution.batch_shape)}."
        )
    match distribution:
        case Categorical():
            log_probs = vars(distribution).get("logits")  # None: it was made of probabilities
            raw = outputs if outputs.shape == distribution.probs.shape else None
            return Classification(distribution.probs, raw, log_probs)
        case Bernoulli():
            return _bernoulli(distribution)
        case Normal():
            return Regression(distribution.loc, distribution.scale.square())
        case Independent(base_dist=Normal(), reinterpreted_batch_ndims=1):
            return Regression(distribution.base_dist.loc, distribution.base_dist.scale.square())
    name = type(distribution).__name__
    raise InvalidInput(f"No predictive for {name}. Choices: Bernoulli, Categorical, Independent(Normal, 1), Normal.")


def _bernoulli(distribution: Bernoulli) -> Classification:
    """Return the two-class form, columns [1 − p, p]."""
    logit = vars(distribution).get("logits")
    if logit is None:  # it was made of probabilities
        return Classification(torch.stack([1 - distribution.probs, distribution.probs], -1))
    log_probs = functional.logsigmoid(torch.stack([-logit, logit], -1))
    return Classification(log_probs.exp(), None, log_probs)
