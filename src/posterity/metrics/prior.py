"""What a prior says of functions, in numbers: sure of themselves, undecided, flat or wild, before any data."""

from torch import Tensor
from torch.nn.functional import one_hot

from posterity.metrics.checks import precise, real_targets
from posterity.predict.decomposition import entropy
from posterity.predict.predictive import Classification, Regression
from posterity.types import Scores

SATURATED = 0.99  # a prediction with more probability than this is one


def prior_scores(predictive: Classification | Regression, targets: Tensor | None = None) -> Scores:
    """Describe the functions f_s, s = 1 … n, of a prior predictive on B inputs; for posteriors there is `evaluate`.

    Classification, with p_sb the class probabilities (C,) of function s for input b:

    - max_probability: the mean of max_c p_sbc; 1/C says nothing, 1 is certain.
    - entropy: the mean of H(p_sb), in nats; log C says nothing, 0 is certain. That of single functions, not of their mean.
    - saturated: the share of functions with max_c p_sbc > 0.99 for more than half of the inputs.
    - commonest_class: the mean over functions of the share of inputs that fall to their commonest class; 1 says that
      functions do not look at their inputs.

    Regression, with means m_sb and noise variances v_sb, in the units of the predictive:

    - function_std: the std of m_sb over the inputs, the median over functions: how much one of them varies. A median, as
      the functions of a heavy-tailed prior may have no mean.
    - predicted_std: that of targets, √(variance of all m_sb + mean of v_sb), which a single wild function may rule.
    - target_std: that of the targets, where they are given.

    Raises:
        InvalidInput: for targets that do not have the shape of the prediction, or are not finite.

    >>> import torch
    >>> functions = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.75, 0.25], [0.25, 0.75]]])  # of 2 inputs, 2 classes
    >>> {name: round(value, 3) for name, value in prior_scores(Classification(functions)).items()}
    {'max_probability': 0.875, 'entropy': 0.281, 'saturated': 0.5, 'commonest_class': 0.75}
    """
    if isinstance(predictive, Classification):
        probs = precise(predictive.probs)
        return {
            "max_probability": probs.amax(-1).mean().item(),
            "entropy": entropy(probs).mean().item(),
            "saturated": ((probs.amax(-1) > SATURATED).double().mean(1) > 0.5).double().mean().item(),
            "commonest_class": commonest_class(predictive).mean().item(),
        }
    means, variances = precise(predictive.means), precise(predictive.variances)
    found = {
        "function_std": function_stds(predictive).median().item(),
        "predicted_std": (means.var(correction=0) + variances.mean()).sqrt().item(),
    }
    if targets is None:
        return found
    return {**found, "target_std": real_targets(targets, predictive.mean.shape).std(correction=0).item()}


def function_stds(predictive: Regression) -> Tensor:
    """Return the std over inputs (and targets) of each function's means, (n,)."""
    return precise(predictive.means).flatten(1).std(-1, correction=0)


def commonest_class(predictive: Classification) -> Tensor:
    """Return the share of inputs that fall to each function's commonest class, (n,), in 1/C … 1."""
    labels = one_hot(predictive.probs.argmax(-1).cpu(), predictive.probs.shape[-1])
    return labels.double().mean(1).amax(-1)
