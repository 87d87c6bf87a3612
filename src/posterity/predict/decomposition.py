"""How much of a prediction's uncertainty is noise (aleatoric) and how much is ignorance of the function (epistemic).

Every function takes the class probabilities, or the Gaussian means and variances, of n drawn functions: row s is ONE
function, and every average below is (1/n)Σ_s. All is computed in float64, where the device has it, and handed back in
the precision that was given: a mutual information is a small difference of two entropies.
"""

import torch
from torch import Tensor
from torch.nn import functional

LOWEST = -37.0  # below it log softplus(f) = f − e^f/2 + … is f to the last bit of float64


def precise(values: Tensor) -> Tensor:
    """Return the values in float64, or in float32 on a device that has no float64 (Apple's)."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def entropy(probs: Tensor) -> Tensor:
    """Return H(p) = −Σ_c p_c log p_c of probabilities (..., C), shape (...), in nats; 0·log 0 = 0.

    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    terms: Tensor = torch.special.entr(precise(probs))
    return terms.sum(-1).to(probs.dtype)


def expected_entropy(probs: Tensor) -> Tensor:
    """Return (1/n)Σ_s H(p_s) of drawn probabilities (n, B, C), shape (B,), in nats: the aleatoric part of H(p̄)."""
    return entropy(precise(probs)).mean(0).to(probs.dtype)


def mutual_information(probs: Tensor) -> Tensor:
    """Return I = H(p̄) − (1/n)Σ_s H(p_s) of drawn probabilities (n, B, C), shape (B,), in nats: the epistemic part.

    It is what one label would tell of the function (Houlsby et al., 2011, "BALD"); 0 ≤ I ≤ log min(n, C). Entropy is
    concave, so I ≥ 0 for any probabilities, and the clamp at 0 meets nothing but rounding.

    >>> disagree = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two functions, each certain of another class
    >>> mutual_information(disagree), expected_entropy(disagree)
    (tensor([0.6931]), tensor([0.]))
    """
    draws = precise(probs)
    information = entropy(draws.mean(0)) - expected_entropy(draws)
    return information.clamp(min=0).to(probs.dtype)


def classwise(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Split each class's variance into (aleatoric, epistemic), each (B, C), from drawn probabilities (n, B, C).

        aleatoric_c = (1/n)Σ_s p_sc (1 − p_sc)        epistemic_c = (1/n)Σ_s (p_sc − p̄_c)²

    The variance is that of the class's indicator; the sum is p̄_c(1 − p̄_c). They are the diagonals of `covariance`
    (Kwon et al., 2018).

    >>> aleatoric, epistemic = classwise(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]))
    >>> aleatoric, epistemic
    (tensor([[0.1700, 0.1700]]), tensor([[0.0400, 0.0400]]))
    """
    draws = precise(probs)
    aleatoric = (draws * (1 - draws)).mean(0)
    epistemic = draws.var(0, correction=0)
    return aleatoric.to(probs.dtype), epistemic.to(probs.dtype)


def covariance(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Split the covariance of the one-hot target into (aleatoric, epistemic), each (B, C, C), from (n, B, C).

        aleatoric = (1/n)Σ_s [diag(p_s) − p_s p_sᵀ]        epistemic = (1/n)Σ_s (p_s − p̄)(p_s − p̄)ᵀ

    Their sum is diag(p̄) − p̄ p̄ᵀ. Every row of either sums to 0, for probabilities sum to 1 (Kwon et al., 2018).
    """
    draws = precise(probs)
    mean = draws.mean(0)
    spread = draws - mean
    aleatoric = torch.diag_embed(mean) - torch.einsum("nbi,nbj->bij", draws, draws) / len(draws)
    epistemic = torch.einsum("nbi,nbj->bij", spread, spread) / len(draws)
    return aleatoric.to(probs.dtype), epistemic.to(probs.dtype)


def normalized_probs(outputs: Tensor) -> Tensor:
    """Return p_c = softplus(f_c) / Σ_k softplus(f_k) of network outputs (..., C): the "normalized" form.

    Taken as a softmax of log softplus(f), it stays finite where every softplus underflows (Shridhar et al., 2018).

    >>> normalized_probs(torch.tensor([0.0, 0.0, -1e4]))
    tensor([0.5000, 0.5000, 0.0000])
    >>> normalized_probs(torch.tensor([-500.0, -500.0]))
    tensor([0.5000, 0.5000])
    """
    log_softplus = torch.where(outputs < LOWEST, outputs, functional.softplus(outputs.clamp(min=LOWEST)).log())
    return log_softplus.softmax(-1)


def total_variance(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Split Var[y] of n equally likely Gaussians (n, B, ...) into (aleatoric, epistemic), each (B, ...).

        aleatoric = (1/n)Σ_s σ_s²        epistemic = (1/n)Σ_s (μ_s − μ̄)²

    Their sum is the variance of the mixture, by the law of total variance; all in units of y².

    >>> total_variance(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [1.5]]))
    (tensor([1.]), tensor([1.]))
    """
    aleatoric = precise(variances).mean(0)
    epistemic = precise(means).var(0, correction=0)
    return aleatoric.to(means.dtype), epistemic.to(means.dtype)
