"""How much of a prediction's uncertainty is noise (aleatoric) and how much is ignorance of the function (epistemic).

Every function takes the class probabilities, or the Gaussian means and variances, of n drawn functions: row s is ONE
function, and every average below is (1/n)Σ_s. All is computed in float64, where the device has it, and handed back in
the precision that was given: a mutual information is a small difference of two entropies.

(B, ...) is a batch, with a further axis for each kind of site where an example has many labels: (B, T) tokens, (B, H, W)
pixels. Every measure is then one of each site by itself.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from posterity.errors import InvalidInput

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
    """Return (1/n)Σ_s H(p_s) of drawn probabilities (n, B, ..., C), shape (B, ...), in nats: the aleatoric part."""
    return entropy(precise(probs)).mean(0).to(probs.dtype)


def mutual_information(probs: Tensor) -> Tensor:
    """Return I = H(p̄) − (1/n)Σ_s H(p_s) of drawn probabilities (n, B, ..., C), shape (B, ...), in nats: epistemic.

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
    """Split each class's variance into (aleatoric, epistemic), each (B, ..., C), from drawn probabilities (n, B, ..., C).

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
    """Split the one-hot target's covariance into (aleatoric, epistemic), each (B, ..., C, C), from (n, B, ..., C).

        aleatoric = (1/n)Σ_s [diag(p_s) − p_s p_sᵀ]        epistemic = (1/n)Σ_s (p_s − p̄)(p_s − p̄)ᵀ

    Their sum is diag(p̄) − p̄ p̄ᵀ. Every row of either sums to 0, for probabilities sum to 1 (Kwon et al., 2018).
    """
    draws = precise(probs)
    mean = draws.mean(0)
    spread = draws - mean
    aleatoric = torch.diag_embed(mean) - torch.einsum("n...i,n...j->...ij", draws, draws) / len(draws)
    epistemic = torch.einsum("n...i,n...j->...ij", spread, spread) / len(draws)
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


def drawn_labels(probs: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw one label from each function, y_s ~ p_s, of probabilities (n, B, ..., C): integers (n, B, ...).

    Together they are n draws of the predictive p̄, noise and ignorance alike. Where only the functions' disagreement is
    wanted, take `probs.argmax(-1)` instead, the label that each function itself would give.

    >>> drawn_labels(torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])).tolist()
    [[1], [0]]
    """
    rows = precise(probs).reshape(-1, probs.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).reshape(probs.shape[:-1])


def variation_ratio(labels: Tensor) -> Tensor:
    """Return 1 − (1/n)·max_c n_c, the share of n labels (n, B, ...) that are not the most frequent one, shape (B, ...).

    n_c counts the labels c. From 0, all agree, to at most 1 − 1/C (Freeman, 1965; Gal, 2016). Of `drawn_labels` it
    estimates 1 − max_c p̄_c, all uncertainty; of the functions' own labels, their disagreement alone.

    >>> variation_ratio(torch.tensor([[7], [7], [1], [7]]))
    tensor([0.2500], dtype=torch.float64)
    """
    _check_labels(labels)
    return (labels != labels.mode(0).values).to(precise(labels).dtype).mean(0)


def chi_square(labels: Tensor, classes: int) -> Tensor:
    """Return how far n labels (n, B, ...) are from spread evenly over C classes, shape (B, ...): large is certain.

        χ² = Σ_c (n_c − n/C)² / (n/C)

    n_c counts the labels c: Pearson's (1900) statistic of uniformity, from 0, all classes alike, to n(C − 1), all labels
    equal. It grows with n, so compare like with like. The counts matter, never the labels' names: applied to the label
    values themselves, as has been published, the formula depends on which digits are confused, is undefined for a sure
    0, and runs the other way.

    Raises:
        InvalidInput: for no labels, or some that are not whole numbers in 0 … C − 1.

    >>> chi_square(torch.full((100, 1), 7), 10), chi_square(torch.arange(100)[:, None] % 10, 10)
    (tensor([900.], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    _check_labels(labels)
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        low, high = int(labels.min()), int(labels.max())
        raise InvalidInput(f"Labels run from {low} to {high}, but {classes} classes are numbered 0 to {classes - 1}.")
    even = len(labels) / classes
    counts = torch.stack([(labels == c).sum(0) for c in range(classes)])
    return (precise(counts) - even).square().sum(0) / even


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


def _check_labels(labels: Tensor) -> None:
    """Refuse probabilities where labels are meant."""
    if not labels.numel() or labels.is_floating_point():
        raise InvalidInput(
            f"Expected integer labels (draws, batch, ...), got {labels.dtype} of shape {tuple(labels.shape)}; take "
            "drawn_labels(probs), or probs.argmax(-1)."
        )
