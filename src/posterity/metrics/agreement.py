"""How alike two posteriors are: in what they predict, how sure they are of it, and in each weight by itself."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf, isnan, nan, sqrt

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.metrics.checks import precise
from posterity.predict.predictive import Classification, Regression

FLOOR = 1e-12  # of a probability: float32 cannot tell smaller ones from 0, and a divergence would be infinite


@dataclass(frozen=True)
class Agreement:
    """How posterior a agrees with b; `str()` is a table. NaN where a quantity is not defined.

    Args:
        weights_w2: Wasserstein-2 distance of the marginals of each coordinate of θ, the root mean square over coordinates,
            in units of the weights; NaN unless both were drawn in the same coordinates. Networks have many equivalent
            arrangements of their weights: it says something of methods that start at the same ones, and of linear models.
    """

    weights_w2: float

    def __str__(self) -> str:
        rows = {label: getattr(self, name) for name, label in LABELS.items() if name in {f.name for f in fields(self)}}
        return "\n".join(f"{label:40}{value:10.3g}" for label, value in rows.items() if not isnan(value))


@dataclass(frozen=True)
class ClassAgreement(Agreement):
    """Of classes: p̄ and q̄ are the mean probabilities (B, C) of a and b; means are over the B inputs.

    Args:
        top1: the share of inputs that both assign to the same class; 1 is best.
        total_variation: mean of ½ Σ_c |p̄_c − q̄_c|, in [0, 1]; 0 is best.
        symmetric_kl: mean of ½ (KL(p̄‖q̄) + KL(q̄‖p̄)), in nats.
        epistemic_std_ratio: a's over b's √(mean variance of a class's probability over functions); below 1, a is surer.
    """

    top1: float
    total_variation: float
    symmetric_kl: float
    epistemic_std_ratio: float


@dataclass(frozen=True)
class ValueAgreement(Agreement):
    """Of real targets, in their units; root mean squares are over inputs (and targets).

    Args:
        rmse_of_means: of a's predictive means against b's; 0 is best.
        std_ratio: a's over b's root mean square predictive std, noise included.
        epistemic_std_ratio: the same of functions alone: below 1, a is surer of its functions.
        function_w2: Wasserstein-2 distance of the marginals of f(x), the root mean square over x.
        symmetric_kl: of Gaussians with the means and variances of both predictives, the mean, in nats.
    """

    rmse_of_means: float
    std_ratio: float
    epistemic_std_ratio: float
    function_w2: float
    symmetric_kl: float


LABELS = {
    "top1": "Same class",
    "total_variation": "Total variation of probabilities",
    "rmse_of_means": "RMSE of means",
    "std_ratio": "Predictive std, ratio",
    "epistemic_std_ratio": "Epistemic std, ratio",
    "function_w2": "W2 of functions' marginals",
    "symmetric_kl": "Symmetric KL of predictives, nats",
    "weights_w2": "W2 of weights' marginals",
}


def compare_predictives(
    a: Classification | Regression, b: Classification | Regression, weights_w2: float = nan
) -> ClassAgreement | ValueAgreement:
    """Compare two predictives of the same inputs; see `ClassAgreement` and `ValueAgreement`.

    Raises:
        InvalidInput: where one predicts classes and the other values, or of other shapes.
    """
    if type(a) is not type(b) or a.mean.shape != b.mean.shape:
        said = " and ".join(f"a {type(p).__name__} of shape {tuple(p.mean.shape)}" for p in (a, b))
        raise InvalidInput(f"Cannot compare {said}: both must predict the same inputs, with the same outputs.")
    if isinstance(a, Classification) and isinstance(b, Classification):
        return _classes(a, b, weights_w2)
    assert isinstance(a, Regression)
    assert isinstance(b, Regression)
    return _values(a, b, weights_w2)


def wasserstein2(a: Tensor, b: Tensor) -> Tensor:
    """Return the Wasserstein-2 distance of one-dimensional samples a (n, ...) and b (m, ...), elementwise, (...).

        W2² = ∫₀¹ (F_a⁻¹(u) − F_b⁻¹(u))² du

    exactly for the two empirical laws: for n = m the root mean square difference of sorted values.

    >>> wasserstein2(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0]))
    tensor(2., dtype=torch.float64)
    """
    x, y = precise(a).sort(0).values, precise(b).sort(0).values
    n, m = len(x), len(y)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1/(n m)
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    rows_x, rows_y = (ends - 1) // m, (ends - 1) // n
    squares = (x[rows_x] - y[rows_y]).square()
    return (widths.view(-1, *[1] * (x.dim() - 1)) * squares).sum(0).sqrt()


def _classes(a: Classification, b: Classification, weights_w2: float) -> ClassAgreement:
    p, q = precise(a.mean), precise(b.mean)
    logs = p.clamp_min(FLOOR).log() - q.clamp_min(FLOOR).log()
    return ClassAgreement(
        weights_w2=weights_w2,
        top1=(p.argmax(-1) == q.argmax(-1)).double().mean().item(),
        total_variation=0.5 * (p - q).abs().sum(-1).mean().item(),
        symmetric_kl=0.5 * ((p - q) * logs).sum(-1).mean().item(),
        epistemic_std_ratio=_ratio(a, b, lambda own: own.epistemic),
    )


def _values(a: Regression, b: Regression, weights_w2: float) -> ValueAgreement:
    away = (precise(a.mean) - precise(b.mean)).square()
    var_a, var_b = precise(a.variance), precise(b.variance)
    kl = 0.25 * (var_a / var_b + var_b / var_a - 2 + away * (1 / var_a + 1 / var_b))
    return ValueAgreement(
        weights_w2=weights_w2,
        rmse_of_means=away.mean().sqrt().item(),
        std_ratio=_ratio(a, b, lambda own: own.variance),
        epistemic_std_ratio=_ratio(a, b, lambda own: own.epistemic),
        function_w2=wasserstein2(a.means, b.means).square().mean().sqrt().item(),
        symmetric_kl=kl.mean().item(),
    )


def _ratio(a: Classification | Regression, b: Classification | Regression, part: Callable[..., Tensor]) -> float:
    """Return the ratio of root mean square stds; NaN where both are 0, infinite where b's is."""
    own, other = (precise(part(p)).mean().item() for p in (a, b))
    return sqrt(own / other) if other else nan if not own else inf
