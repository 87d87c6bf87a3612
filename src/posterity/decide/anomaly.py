"""How unusual is an input? A number per input, and the unit that such a number lacks: a p-value against known inputs.

A measure of uncertainty is large where a prediction should be trusted less. What "large" is, calibration inputs tell.
"""

import torch
from torch import Tensor

from posterity.errors import InvalidInput, unknown
from posterity.predict.decomposition import precise
from posterity.predict.predictive import Classification, Regression

CLASS_MEASURES = ("entropy", "max_probability", "mutual_information", "epistemic")
VALUE_MEASURES = ("variance", "epistemic")
ROWS = 1024  # features compared at once


def uncertainty(predictive: Classification | Regression, measure: str) -> Tensor:
    """Return a measure of uncertainty, shape (B,), float64, on the CPU; larger is less sure.

    Of classes:

    - entropy: H(p̄), in nats, all of the uncertainty.
    - max_probability: 1 − max_c p̄_c = Σ_{c ≠ ĉ} p̄_c, summed so that it does not round to 0 for sure predictions.
    - mutual_information: H(p̄) − (1/n)Σ_s H(p_s), in nats, the epistemic part of the entropy.
    - epistemic: Σ_c Var_s[p_sc], the disagreement of the drawn functions.

    Of values, in units of the target squared: variance of the predictive distribution; epistemic, the functions' part of it.

    Raises:
        InvalidInput: for an unknown measure, or one of the other task; for more than one target per input.

    >>> sure_and_not = Classification(torch.tensor([[[1.0, 0.0], [0.7, 0.3]]]))
    >>> uncertainty(sure_and_not, "max_probability")
    tensor([0.0000, 0.3000], dtype=torch.float64)
    """
    if isinstance(predictive, Classification):
        found = _of_classes(predictive, measure)
    elif measure not in VALUE_MEASURES:
        raise unknown("measure of a regression's uncertainty", measure, VALUE_MEASURES)
    elif predictive.mean.dim() != 1:
        raise InvalidInput(f"Expected one target per input, got means of shape {tuple(predictive.mean.shape)}.")
    else:
        found = predictive.variance if measure == "variance" else predictive.epistemic
    return precise(found.detach()).cpu()


def p_value(scores: Tensor, usual: Tensor) -> Tensor:
    """Return how often an input like the calibration inputs would score as high, shape (B,), float64.

        p = (1 + #{i: s_i ≥ s}) / (n + 1),   s_i the scores of n calibration inputs

    For an input exchangeable with them P(p ≤ a) ≤ a for every a, and p is uniform on {1/(n+1), …, 1} where no two scores are
    equal (Vovk et al. 2005; Bates et al. 2023). That is so on average over calibration sets, and only for inputs that the
    network was not trained on: calibrate on held-out data.

    Args:
        scores: (B,), any scale, larger is more unusual. usual: (n,), those of the calibration inputs.

    Raises:
        InvalidInput: for other shapes, no calibration scores, or NaN.

    >>> p_value(torch.tensor([0.5, 9.0]), torch.tensor([0.1, 0.2, 0.7]))
    tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    for name, values in (("scores", scores), ("usual", usual)):
        if values.dim() != 1 or bool(values.isnan().any()):
            raise InvalidInput(f"Expected `{name}` of shape (B,) without NaN, got {tuple(values.shape)}.")
    if not len(usual):
        raise InvalidInput("A p-value needs at least one calibration score.")
    ordered = precise(usual.detach()).cpu().sort().values
    below = torch.searchsorted(ordered, precise(scores.detach()).cpu())
    return (1 + len(ordered) - below).double() / (len(ordered) + 1)


def neighbour_distance(features: Tensor, known: Tensor, k: int = 10) -> Tensor:
    """Return the distance of each feature vector from the k-th nearest known one, both scaled to length 1, shape (B,).

    A score in [0, 2] that needs no predictive: features are a network's last hidden layer, say, and `known` those of training
    inputs (Sun et al. 2022). A vector of zeros stays as it is.

    Args:
        features: (B, D). known: (N, D), N ≥ k.

    Raises:
        InvalidInput: where the shapes do not fit each other, or k is not between 1 and N.

    >>> neighbour_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]), k=2)
    tensor([1.4142])
    """
    if features.dim() != 2 or known.dim() != 2 or features.shape[1] != known.shape[1]:
        shapes = f"{tuple(features.shape)} and {tuple(known.shape)}"
        raise InvalidInput(f"Expected features (B, D) and known ones (N, D), got {shapes}.")
    if not 1 <= k <= len(known):
        raise InvalidInput(f"k is {k}; it must be between 1 and the number of known inputs, {len(known)}.")
    unit = torch.nn.functional.normalize(known, dim=1)
    parts = torch.nn.functional.normalize(features, dim=1).split(ROWS)
    return torch.cat([torch.cdist(part, unit).kthvalue(k, dim=1).values for part in parts])


def _of_classes(predictive: Classification, measure: str) -> Tensor:
    match measure:
        case "entropy":
            return predictive.entropy
        case "max_probability":
            return precise(predictive.mean).sort(-1).values[..., :-1].sum(-1)
        case "mutual_information":
            return predictive.mutual_information
        case "epistemic":
            return precise(predictive.epistemic).sum(-1)
    raise unknown("measure of a classification's uncertainty", measure, CLASS_MEASURES)
