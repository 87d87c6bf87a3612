"""What a posterior predicts of classes: n drawn functions of a batch, averaged, taken apart, and scored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Literal, final

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED
from posterity.predict import decomposition
from posterity.predict.checks import averaged, central, class_labels, in_words, quantile_levels, soft
from posterity.predict.decomposition import precise
from posterity.predict.mixture import empirical_quantile
from posterity.types import Scores


class MeanProbabilities(ABC):
    """What the mean of class probabilities says by itself, whether or not the draws behind it are kept."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """p̄ = (1/n)Σ_s p_s, shape (B, C): the mean of probabilities, never of logits."""

    @property
    @abstractmethod
    def mutual_information(self) -> Tensor:
        """H(p̄) − (1/n)Σ_s H(p_s), shape (B,), in nats."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of functions, n."""

    def __repr__(self) -> str:
        """Say in one line what it is of, with mean entropies in nats."""
        parts = {"mean entropy": self.entropy, "mutual information": self.mutual_information}
        return in_words(type(self).__name__, self.count, self.mean.shape, "classes", parts)

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

    @property
    def variance(self) -> Tensor:
        """p̄_c(1 − p̄_c), shape (B, C): the variance of each class's indicator = `aleatoric` + `epistemic`."""
        return self.mean * (1 - self.mean)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Classification(MeanProbabilities):
    """Class probabilities of n drawn functions, p_s = p(y | x, θ_s).

    probs: (n, B, C), each row a distribution over C classes. A Bernoulli likelihood has the columns [1 − p, p].
    outputs: (n, B, C), what the network itself returned; None where it has no output per class.
    log_probs: (n, B, C), log of `probs` before it could underflow; None: the logarithm is taken here.
    ignored: the label that is not known, beside −100.

    Entropies are in nats; `variance`, `aleatoric` and `epistemic` are variances of each class's indicator.

    Where an example has many labels, its sites (tokens, pixels) stand before the classes, (n, B, ..., C): every measure is
    then one of each site by itself, (B, ...) where it says (B,) below. Only `log_prob`, `nll` and `expected_nll` are those
    of an example's whole label map, (B,): its sites are independent given the function, and linked by not knowing which
    function it is, so that log p(y) = log (1/n)Σ_s Π_site p_s(y_site) is no sum over sites. Labels of −100 are not known,
    and left out of every score. Targets of the shape of `mean` are soft labels, shares of each class.

    >>> draws = Classification(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]))  # 2 functions, 1 input, 2 classes
    >>> draws.mean, draws.labels, draws.log_prob(torch.tensor([0]))
    (tensor([[0.7000, 0.3000]]), tensor([0]), tensor([-0.3567]))
    """

    probs: Tensor
    outputs: Tensor | None = None
    log_probs: Tensor | None = None
    ignored: int = IGNORED

    def __post_init__(self) -> None:
        if self.probs.dim() < 3 or not len(self.probs):
            raise InvalidInput(
                f"Expected probabilities of shape (draws, batch, classes), got {tuple(self.probs.shape)}; sites such as "
                "tokens or pixels stand between batch and classes."
            )
        for name in ("outputs", "log_probs"):
            other: Tensor | None = getattr(self, name)
            if other is not None and other.shape != self.probs.shape:
                shapes = f"{tuple(other.shape)} against {tuple(self.probs.shape)}"
                raise InvalidInput(f"`{name}` must have the shape of `probs`: {shapes}.")
        sums = self.probs.sum(-1)
        if not bool(((sums - 1).abs() < 0.02).all()) or bool((self.probs < 0).any()):
            raise InvalidInput("Class probabilities must be ≥ 0 and sum to 1; NaN and logits are refused.")

    @property
    def count(self) -> int:
        """The number of functions, n."""
        return len(self.probs)

    @cached_property
    def mean(self) -> Tensor:
        """p̄ = (1/n)Σ_s p_s, shape (B, C): the mean of probabilities, never of logits."""
        return precise(self.probs).mean(0).to(self.probs.dtype)

    @cached_property
    def expected_entropy(self) -> Tensor:
        """(1/n)Σ_s H(p_s), shape (B,), in nats: the aleatoric part of the entropy."""
        return decomposition.expected_entropy(self.probs)

    @cached_property
    def mutual_information(self) -> Tensor:
        """H(p̄) − (1/n)Σ_s H(p_s) ≥ 0, shape (B,), in nats: the epistemic part of the entropy."""
        return decomposition.mutual_information(self.probs)

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
        """Return log p̄_y = log (1/n)Σ_s p_s(y), shape (B,), in nats, for labels (B,) or whole label maps (B, ...)."""
        return (self._draw_log_probs(targets).logsumexp(0) - log(len(self.probs))).to(self.probs.dtype)

    def scores(self, targets: Tensor, weights: Tensor | None = None) -> Scores:
        """Return nll (of the mean probabilities), expected_nll (mean over draws; nats per datum), and accuracy.

        They are those of data, and the accuracy that of labels, or sites, that are known, each as often as `weights` (B,) say;
        an accuracy is left out where none is.
        """
        draws = self._draw_log_probs(targets)
        labels = class_labels(targets, *self.probs.shape[1:], ignored=self.ignored).to(self.probs.device)
        own = labels.new_ones(len(labels)) if weights is None else weights.to(labels.device)
        known = own.double().reshape(-1, *[1] * (labels.dim() - 1)) * (labels != IGNORED)
        counts = known.flatten(1).any(1) * own if labels.dim() > 1 else known
        if not bool(known.any()):
            counts = own
        right = {"accuracy": averaged((self.labels == labels).double(), known)} if bool(known.any()) else {}
        return {
            **right,
            "nll": -averaged(draws.logsumexp(0) - log(len(draws)), counts),
            "expected_nll": -averaged(draws.mean(0), counts),
        }

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        """Return log p(y | x, θ_s), shape (n, B), in float64: summed over the sites whose labels are known."""
        if soft(targets, self.probs.shape[1:]):
            logs = precise(self.probs).log() if self.log_probs is None else precise(self.log_probs)
            shares = precise(targets).to(self.probs.device)
            each = torch.where(shares > 0, shares * logs, 0.0).sum(-1)
            return each if each.dim() == 2 else each.flatten(2).sum(-1)
        labels = class_labels(targets, *self.probs.shape[1:], ignored=self.ignored).to(self.probs.device)
        index = labels.clamp(min=0).expand(self.probs.shape[:-1]).unsqueeze(-1)
        if self.log_probs is None:
            each = precise(self.probs.gather(-1, index).squeeze(-1)).log()
        else:
            each = precise(self.log_probs.gather(-1, index).squeeze(-1))
        known = each.masked_fill(labels == IGNORED, 0)
        return known if known.dim() == 2 else known.flatten(2).sum(-1)
