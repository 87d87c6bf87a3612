"""Does uncertainty know about mistakes? Keep the surest predictions, refer the rest, and see what goes wrong among the kept.

`uncertainty` (B,): any scale, finite; the least uncertain are kept first. `loss` (B,): what each prediction costs, ≥ 0;
0 and 1, or booleans with True for an error, for classes, a squared error for numbers. Coverage is the share that is
kept, risk the mean loss of the kept, both fractions for 0-1 losses; lower risk is better.

Equal uncertainties are in no order: each curve is the mean over all orders of them, so no score depends on how the
examples happen to lie. Other shapes, no examples, and values that are not finite raise `InvalidInput`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posterity.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """What the k surest predictions cost, for k = 1 … B: four float64 vectors (B,).

    threshold: the uncertainty of the k-th; coverage: k/B; risk: the mean loss of the k.
    realised: whether a threshold keeps exactly these k, that is, whether the next one is more uncertain.
    """

    threshold: Tensor
    coverage: Tensor
    risk: Tensor
    realised: Tensor

    @property
    def generalized_risk(self) -> Tensor:
        """risk · coverage: the loss of the kept, per example of all; grows with coverage (Traub et al., 2024)."""
        return self.risk * self.coverage

    @property
    def aurc(self) -> float:
        """(1/B)Σ_k risk_k, the area under the curve of risk against coverage (Geifman & El-Yaniv, 2017)."""
        return self.risk.mean().item()

    @property
    def augrc(self) -> float:
        """∫ generalized risk d(coverage), by the trapezoidal rule from (0, 0), which is exact for it."""
        total = self.generalized_risk
        return ((total.sum() - total[-1] / 2) / len(total)).item()

    def coverage_at(self, risk: float) -> float:
        """Return the largest coverage that some threshold realises with a risk of at most this; 0 where none does."""
        kept = self.coverage[self.realised & (self.risk <= risk)]
        return kept[-1].item() if len(kept) else 0.0


def risk_coverage(uncertainty: Tensor, loss: Tensor) -> RiskCoverage:
    """Return the risk-coverage curve: the mean loss of the k least uncertain predictions, for every k.

    >>> curve = risk_coverage(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    >>> curve.coverage.tolist(), curve.risk.tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.3333333333333333, 0.5])
    """
    values, losses = _checked(uncertainty, loss)
    threshold, order = values.sort(stable=True)
    ordered = losses[order]
    count = torch.arange(1, len(values) + 1, dtype=torch.float64)
    _, group, sizes = torch.unique_consecutive(threshold, return_inverse=True, return_counts=True)
    mean = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, group, ordered) / sizes
    realised = torch.cat([group[1:] > group[:-1], torch.ones(1, dtype=torch.bool)])
    # Where a threshold is, the order of equals plays no part, and a sum of 0-1 losses is exact.
    total = torch.where(realised, ordered.cumsum(0), mean[group].cumsum(0))
    return RiskCoverage(threshold, count / len(values), total / count, realised)


def aurc(uncertainty: Tensor, loss: Tensor) -> float:
    """Return the area under the risk-coverage curve, (1/B)Σ_k risk_k, in units of the loss; lower is better.

    It weighs a mistake among the surest most, for that one is in every k. Even a perfect order of predictions leaves
    some, which `excess_aurc` takes away (Geifman & El-Yaniv, 2017).

    >>> round(aurc(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 1.0])), 4)
    0.2083
    """
    return risk_coverage(uncertainty, loss).aurc


def excess_aurc(uncertainty: Tensor, loss: Tensor) -> float:
    """Return AURC − the AURC of these losses in their best order: ≥ 0, and 0 where every mistake is less sure than all else.

    The best order is that of the losses themselves, exactly, not its limit r + (1 − r) log(1 − r) for many examples
    (Geifman, Uziel & El-Yaniv, 2019).

    >>> excess_aurc(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    0.0
    """
    return max(0.0, aurc(uncertainty, loss) - aurc(loss, loss))


def augrc(uncertainty: Tensor, loss: Tensor) -> float:
    """Return the area under the generalized risk-coverage curve, in units of the loss; lower is better.

        AUGRC = ∫ (1/B)Σ_{kept} loss d(coverage)

    The mean, over all coverages alike, of the chance that a prediction is kept and is a mistake. For 0-1 losses it is
    (1 − AUROC)·a·(1 − a) + (1 − a)²/2, with a the accuracy and AUROC that of `error_auroc` (Traub et al., 2024).

    >>> augrc(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    0.125
    """
    return risk_coverage(uncertainty, loss).augrc


def coverage_at_risk(uncertainty: Tensor, loss: Tensor, risk: float) -> float:
    """Return the largest share of predictions that one threshold keeps at a mean loss ≤ `risk`; 0 where none does.

    It describes these examples; it promises nothing about others, for the threshold was chosen by looking at them.

    >>> coverage_at_risk(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 1.0]), risk=0.35)
    0.75
    """
    return risk_coverage(uncertainty, loss).coverage_at(risk)


def error_auroc(uncertainty: Tensor, right: Tensor) -> float:
    """Return the probability that a wrong prediction is more uncertain than a right one, ties counted half.

    uncertainty: (B,), any scale; right: (B,), bool. 0.5 is useless, 1 perfect, NaN where all are right or all wrong.
    It is the area under the ROC curve of detecting errors (Hendrycks & Gimpel, 2017).

    >>> error_auroc(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([True, True, False]))
    1.0
    """
    _check_right(uncertainty, right)
    if bool(right.all()) or not bool(right.any()):
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score((~right).cpu().numpy(), uncertainty.detach().cpu().double().numpy()))


def accuracy_of_the_surest(uncertainty: Tensor, right: Tensor) -> Tensor:
    """Return the accuracy of the k least uncertain predictions, for k = 1 … B, shape (B,): the rest are referred.

    >>> accuracy_of_the_surest(torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([True, False, True, True]))
    tensor([1.0000, 1.0000, 1.0000, 0.7500], dtype=torch.float64)
    """
    _check_right(uncertainty, right)
    return 1 - risk_coverage(uncertainty, ~right).risk


def _checked(uncertainty: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64 on the CPU."""
    if uncertainty.dim() != 1 or not len(uncertainty) or uncertainty.shape != loss.shape:
        got = f"{tuple(uncertainty.shape)} and {tuple(loss.shape)}"
        raise InvalidInput(f"Expected uncertainties (B,) and losses (B,) of at least one example, got {got}.")
    values, losses = (v.detach().to("cpu", torch.float64) for v in (uncertainty, loss))
    if not bool(values.isfinite().all()) or not bool((losses.isfinite() & (losses >= 0)).all()):
        raise InvalidInput("Uncertainties must be finite, and losses finite and ≥ 0.")
    return values, losses


def _check_right(uncertainty: Tensor, right: Tensor) -> None:
    if uncertainty.dim() != 1 or uncertainty.shape != right.shape or right.dtype != torch.bool:
        got = f"{tuple(uncertainty.shape)} and {tuple(right.shape)} of {right.dtype}"
        raise InvalidInput(f"Expected uncertainties (B,) and booleans (B,), got {got}.")
