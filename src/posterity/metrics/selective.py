"""Does uncertainty know about mistakes? It should be larger for wrong predictions than for right ones."""

import torch
from torch import Tensor

from posterity.errors import InvalidInput


def error_auroc(uncertainty: Tensor, right: Tensor) -> float:
    """Return the probability that a wrong prediction is more uncertain than a right one, ties counted half.

    uncertainty: (B,), any scale; right: (B,), bool. 0.5 is useless, 1 perfect, NaN where all are right or all wrong.
    It is the area under the ROC curve of detecting errors (Hendrycks & Gimpel, 2017).

    >>> error_auroc(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([True, True, False]))
    1.0
    """
    _check(uncertainty, right)
    if bool(right.all()) or not bool(right.any()):
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score((~right).cpu().numpy(), uncertainty.detach().cpu().double().numpy()))


def accuracy_of_the_surest(uncertainty: Tensor, right: Tensor) -> Tensor:
    """Return the accuracy of the k least uncertain predictions, for k = 1 … B, shape (B,): the rest are referred.

    >>> accuracy_of_the_surest(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([True, False, True, True]))
    tensor([1.0000, 1.0000, 1.0000, 0.7500], dtype=torch.float64)
    """
    _check(uncertainty, right)
    ordered = right.detach().cpu()[uncertainty.detach().cpu().argsort(stable=True)].double()
    return ordered.cumsum(0) / torch.arange(1, len(right) + 1)


def _check(uncertainty: Tensor, right: Tensor) -> None:
    if uncertainty.dim() != 1 or uncertainty.shape != right.shape or right.dtype != torch.bool:
        got = f"{tuple(uncertainty.shape)} and {tuple(right.shape)} of {right.dtype}"
        raise InvalidInput(f"Expected uncertainties (B,) and booleans (B,), got {got}.")
