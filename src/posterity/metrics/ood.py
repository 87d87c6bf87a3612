"""Does uncertainty know what it was not trained on? It should be larger for inputs of another kind."""

import torch
from torch import Tensor

from posterity.errors import InvalidInput


def ood_auroc(inside: Tensor, outside: Tensor) -> float:
    """Return the probability that an input from outside is more uncertain than one from inside, ties counted half.

    inside: (B,), uncertainties of inputs like the training data; outside: (M,), of others; any scale, finite. 0.5 is
    useless, 1 perfect. It is the area under the ROC curve of detecting them (Hendrycks & Gimpel 2017).

    Raises `InvalidInput` for other shapes, no values, or values that are not finite.

    >>> ood_auroc(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))
    0.75
    """
    for name, values in (("inside", inside), ("outside", outside)):
        if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
            raise InvalidInput(
                f"Expected finite uncertainties of shape (B,), B ≥ 1, as `{name}`; got {tuple(values.shape)}."
            )
    from sklearn.metrics import roc_auc_score

    known = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))])
    return float(roc_auc_score(known.numpy(), torch.cat([inside, outside]).detach().cpu().double().numpy()))
