"""Does uncertainty know what it was not trained on? It should be larger for inputs of another kind.

Every function takes `inside` (B,), the uncertainties of inputs like the training data, and `outside` (M,), those of
others: any scale, finite, large where the model is unsure. Who is `positive` matters for all scores but the AUROC:
"outside" asks how well strangers are caught, "inside" how well the familiar are let through. Other shapes, no values,
and values that are not finite raise `InvalidInput`.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.errors import InvalidInput, unknown
from posterity.types import Scores

Side = Literal["outside", "inside"]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Rates of detection as a threshold on the uncertainty falls, from (0, 0) to (1, 1); two float64 vectors.

    tpr: the share of the positive inputs that are called positive; fpr: the share of the negative ones that are, too.
    """

    fpr: Tensor
    tpr: Tensor


def ood_auroc(inside: Tensor, outside: Tensor) -> float:
    """Return the probability that an input from outside is more uncertain than one from inside, ties counted half.

    0.5 is useless, 1 perfect, whichever side is called positive. It is the area under the ROC curve of detecting them
    (Hendrycks & Gimpel, 2017), and does not depend on how many there are of either.

    >>> ood_auroc(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(inside, outside, "outside")))


def ood_aupr(inside: Tensor, outside: Tensor, positive: Side = "outside") -> float:
    """Return the average precision Σ_k (R_k − R_{k−1}) P_k of detecting the positive side, over falling thresholds.

    P_k is the share of positives among the inputs beyond the k-th threshold, R_k the share of the positives found there.
    1 is perfect; a useless detector has the share of positives among all inputs, M/(B + M) for "outside": unlike the
    AUROC it depends on how many there are of either side. Often called AUPR-Out and AUPR-In (Hendrycks & Gimpel, 2017);
    summed over steps, for the line between two points of this curve promises what no threshold reaches (Davis & Goadrich,
    2006).

    >>> round(ood_aupr(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4])), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(inside, outside, positive)))


def ood_fpr(inside: Tensor, outside: Tensor, tpr: float = 0.95, positive: Side = "outside") -> float:
    """Return the smallest false positive rate among thresholds of true positive rate ≥ `tpr`: FPR95 unless given.

    positive="outside": the share of familiar inputs that are refused where 95 % of the strangers are. "inside": the
    share of strangers that are let through where 95 % of the familiar inputs are, as Liang et al. (2018) have it; papers
    differ, so say which. 0 is perfect; a useless detector has `tpr`. Equal uncertainties fall on one side together.

    >>> ood_fpr(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))  # the threshold 0.2 catches both, and one of inside
    0.5
    """
    if not 0 < tpr <= 1:
        raise InvalidInput(f"A true positive rate is in (0, 1], such as 0.95; got {tpr}.")
    positives, negatives = _sides(inside, outside, positive)
    caught = ceil(tpr * len(positives) - 1e-9)  # 0.95 · 20 is 19, whatever floats make of it
    threshold = positives.sort(descending=True).values[max(caught, 1) - 1]
    return (negatives >= threshold).double().mean().item()


def ood_roc(inside: Tensor, outside: Tensor, positive: Side = "outside") -> RocCurve:
    """Return the ROC curve of detecting the positive side, without the points that lie on a line between two others.

    >>> curve = ood_roc(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))
    >>> curve.fpr.tolist(), curve.tpr.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(*_labelled(inside, outside, positive))
    return RocCurve(torch.from_numpy(fpr).double(), torch.from_numpy(tpr).double())


def ood_scores(inside: Tensor, outside: Tensor) -> Scores:
    """Return `auroc`, `aupr_out` and `aupr_in` (positive: outside, inside), and `fpr95` (positive: outside).

    >>> scores = ood_scores(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))
    >>> {name: round(value, 4) for name, value in scores.items()}
    {'auroc': 0.75, 'aupr_out': 0.8333, 'aupr_in': 0.8333, 'fpr95': 0.5}
    """
    return {
        "auroc": ood_auroc(inside, outside),
        "aupr_out": ood_aupr(inside, outside, "outside"),
        "aupr_in": ood_aupr(inside, outside, "inside"),
        "fpr95": ood_fpr(inside, outside),
    }


def _sides(inside: Tensor, outside: Tensor, positive: str) -> tuple[Tensor, Tensor]:
    """Return how positive each of the positive and of the negative inputs looks: its uncertainty, or minus it; float64."""
    if positive not in ("outside", "inside"):
        raise unknown("positive side", str(positive), ("outside", "inside"))
    for name, values in (("inside", inside), ("outside", outside)):
        if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
            raise InvalidInput(
                f"Expected finite uncertainties of shape (B,), B ≥ 1, as `{name}`; got {tuple(values.shape)}."
            )
    familiar, strange = (values.detach().to("cpu", torch.float64) for values in (inside, outside))
    return (strange, familiar) if positive == "outside" else (-familiar, -strange)


def _labelled(inside: Tensor, outside: Tensor, positive: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return, as scikit-learn wants them, who is positive and how positive each looks, (B + M,)."""
    positives, negatives = _sides(inside, outside, positive)
    scores = torch.cat([positives, negatives])
    return (torch.arange(len(scores)) < len(positives)).numpy(), scores.numpy()
