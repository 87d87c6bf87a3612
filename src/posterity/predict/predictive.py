"""What a posterior predicts: n drawn functions of a batch, averaged, taken apart, and scored.

Three final classes hold the draws: `Classification`, `Regression` (Gaussians), and `General` for any other distribution;
`predictive` makes the right one from the distribution that a likelihood returns. Draws come first (n), then the batch (B),
and are never folded together.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal
from torch.nn import functional

from posterity.core.censored import Censored
from posterity.core.families import Pinball
from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED, SiteCategorical
from posterity.options import shown
from posterity.predict.classification import Classification as Classification
from posterity.predict.general import General as General
from posterity.predict.quantiles import Quantiles as Quantiles
from posterity.predict.regression import Regression as Regression
from posterity.predict.survival import Survival as Survival

AnyPredictive: TypeAlias = Classification | Regression | General


def check_predictive(value: object) -> None:
    """Refuse what is no prediction of a posterior.

    >>> check_predictive(torch.ones(3))
    Traceback (most recent call last):
    posterity.errors.InvalidInput: predictive=Tensor(…): must be what posterior.predict(inputs) returns.
    """
    if not isinstance(value, AnyPredictive):
        raise InvalidInput(f"predictive={shown(value)}: must be what posterior.predict(inputs) returns.")


def predictive(distribution: Distribution, outputs: Tensor) -> AnyPredictive:
    """Make the predictive of a likelihood's distribution, batch shape (n, B), and of the network's outputs.

    Categorical and Bernoulli (of sites, too) give a `Classification`, Normal and Independent(Normal, 1) a `Regression`, any
    other distribution a `General`: of censored numbers a `Survival`, of a pinball loss `Quantiles`.

    Raises:
        InvalidInput: for another batch shape.

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
            ignored = distribution.labels.ignored if isinstance(distribution, SiteCategorical) else IGNORED
            return Classification(distribution.probs, raw, log_probs, ignored)
        case Independent(base_dist=SiteCategorical()):
            base = distribution.base_dist
            return Classification(base.probs, base.outputs, base.logits, base.labels.ignored)
        case Bernoulli():
            return _bernoulli(distribution)
        case Independent(base_dist=Categorical()):
            return Classification(distribution.base_dist.probs)
        case Independent(base_dist=Bernoulli()):
            return _bernoulli(distribution.base_dist)
        case Normal():
            return Regression(distribution.loc, distribution.scale.square())
        case Independent(base_dist=Normal(), reinterpreted_batch_ndims=1):
            return Regression(distribution.base_dist.loc, distribution.base_dist.scale.square())
        case Censored():
            return Survival(distribution.base)
        case Pinball():
            return Quantiles(distribution)
    return General(distribution)


def draw_log_probs(predictive: AnyPredictive, targets: Tensor) -> Tensor:
    """Return log p(y | x, θ_s) of each function, (n, B), in nats: `log_prob` is that of their average.

    Raises:
        InvalidInput: for targets that do not fit, and quantiles, which have no density.

    >>> draw_log_probs(Classification(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])), torch.tensor([0])).exp()
    tensor([[0.9000],
            [0.5000]], dtype=torch.float64)
    """
    if isinstance(predictive, Quantiles):
        predictive.log_prob(targets)
    return predictive._draw_log_probs(targets)


def beside(parts: Sequence[AnyPredictive]) -> AnyPredictive:
    """Join what the same functions predict of one batch of inputs after the other."""
    return _joined(parts, 1)


def below(parts: Sequence[AnyPredictive]) -> AnyPredictive:
    """Put what functions predict behind what others do, of the same inputs; the functions may be of different networks.

    Raises:
        InvalidInput: where one predicts classes and another values, or of other shapes.

    >>> below([Classification(torch.tensor([[[0.9, 0.1]]])), Classification(torch.tensor([[[0.5, 0.5]]]))]).mean
    tensor([[0.7000, 0.3000]])
    """
    kinds = sorted({type(part).__name__ for part in parts})
    shapes = {tuple(part.mean.shape) for part in parts}
    if len(kinds) > 1:
        raise InvalidInput(f"Functions of one mixture predict the same thing; these predict {' and '.join(kinds)}.")
    if len(shapes) > 1:
        shown = " and ".join(map(str, sorted(shapes)))
        raise InvalidInput(f"Functions of one mixture have predictions of one shape; these have {shown}.")
    return _joined(parts, 0)


def _joined(parts: Sequence[AnyPredictive], dim: int) -> AnyPredictive:
    if len(parts) == 1:
        return parts[0]
    classes = [part for part in parts if isinstance(part, Classification)]
    if classes:
        probs = torch.cat([part.probs for part in classes], dim)
        return Classification(
            probs,
            _whole([part.outputs for part in classes], dim),
            _whole([part.log_probs for part in classes], dim),
            classes[0].ignored,
        )
    values = [part for part in parts if isinstance(part, Regression)]
    if not values:
        raise InvalidInput(
            "Functions of different likelihoods are mixed where they are of classes or Gaussian values; these are of another "
            "distribution. Give all components the same likelihood."
        )
    own = [torch.as_tensor(part.function_variances).to(part.means).expand_as(part.means) for part in values]
    means, noise = (torch.cat([getattr(part, name) for part in values], dim) for name in ("means", "noise"))
    return Regression(means, noise, torch.cat(own, dim) if any(part.any() for part in own) else 0.0)


def _whole(tensors: Sequence[Tensor | None], dim: int) -> Tensor | None:
    """Join tensors; there is none of the whole where a part has none."""
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(known, dim) if len(known) == len(tensors) else None


def _bernoulli(distribution: Bernoulli) -> Classification:
    """Return the two-class form, columns [1 − p, p]."""
    logit = vars(distribution).get("logits")
    if logit is None:  # it was made of probabilities
        return Classification(torch.stack([1 - distribution.probs, distribution.probs], -1))
    log_probs = functional.logsigmoid(torch.stack([-logit, logit], -1))
    return Classification(log_probs.exp(), None, log_probs)


def classes_or_values(predictive: AnyPredictive) -> Classification | Regression:
    """Return a predictive of classes or of Gaussian values, for what is known of these two alone.

    Raises:
        InvalidInput: for one of another family.
    """
    if isinstance(predictive, General):
        raise InvalidInput(
            f"This is known of classes and of Gaussian values alone, and these targets are {predictive.family}; `predict`, "
            "`average` and `evaluate` take any."
        )
    return predictive
