"""What a posterior predicts: n drawn functions of a batch, averaged, taken apart, and scored.

Two final classes hold the draws, `Classification` and `Regression`; `predictive` makes the right one from the
distribution that a likelihood returns. Draws come first (n), then the batch (B), and are never folded together.
"""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal
from torch.nn import functional

from posterity.errors import InvalidInput
from posterity.model.likelihoods import SiteCategorical
from posterity.predict.classification import Classification as Classification
from posterity.predict.regression import Regression as Regression


def predictive(distribution: Distribution, outputs: Tensor) -> Classification | Regression:
    """Make the predictive of a likelihood's distribution, batch shape (n, B), and of the network's outputs.

    Categorical (of sites, too) and Bernoulli give a `Classification`, Normal and Independent(Normal, 1) a `Regression`.
    Any other distribution, or another batch shape, raises `InvalidInput`.

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
        case Independent(base_dist=SiteCategorical()):
            base = distribution.base_dist
            return Classification(base.probs, base.outputs, base.logits)
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
