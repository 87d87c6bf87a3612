"""Which inputs to label next: a score of each input of a pool, and the choice of a batch of them.

A label is worth what it would tell of the function, I(y; θ | x, D): `bald`. Others are simpler, or see the noise, too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from posterity.decide.batches import greedy_classes, greedy_values
from posterity.errors import InvalidInput, unknown
from posterity.predict.decomposition import precise
from posterity.predict.predictive import AnyPredictive, Classification, Regression, classes_or_values

CLASSES: Mapping[str, Callable[[Classification], Tensor]] = MappingProxyType(
    {
        "bald": lambda predictive: predictive.mutual_information,
        "entropy": lambda predictive: predictive.entropy,
        "least_confidence": lambda predictive: 1 - predictive.confidence,
        "variation_ratio": lambda predictive: variation_ratio(predictive.probs),
    }
)
VALUES: Mapping[str, Callable[[Regression], Tensor]] = MappingProxyType(
    {"variance": lambda predictive: predictive.epistemic}
)
CLASS_SCORES = (*CLASSES, "batch_bald", "random")
VALUE_SCORES = (*VALUES, "log_determinant", "random")


@runtime_checkable
class Predicts(Protocol):
    """What a posterior does here."""

    def predict(self, inputs: Tensor, n: int = 32, *, generator: Generator | None = None) -> AnyPredictive: ...


def choose(
    posterior: Predicts,
    pool: Tensor,
    n: int,
    score: str | None = None,
    *,
    draws: int = 64,
    generator: Generator | None = None,
) -> Tensor:
    """Return the places of the n inputs of a pool to label next, (n,), the most wanted first.

    Of classes:

    - `bald`: I(y; θ) = H(p̄) − (1/S)Σ_s H(p_s), what one label tells of the function (Houlsby et al. 2011; Gal et al. 2017).
    - `batch_bald`: greedily, the batch whose labels tell most together (Kirsch et al. 2019); see `greedy_classes`.
    - `entropy`: H(p̄), which wants labels of inputs that are noise, too.
    - `least_confidence`: 1 − max_c p̄_c, likewise.
    - `variation_ratio`: the share of functions that do not vote for the commonest class (Freeman 1965).
    - `random`: what all others have to beat.

    Of values:

    - `variance`: that of the drawn functions, the epistemic part.
    - `log_determinant`: greedily, the batch that tells most together, ½ log det(I + K/σ²); see `greedy_values`.
    - `random`.

    All but the two batch scores look at each input by itself, so that near-copies of one input are wanted together.

    Args:
        posterior: that can `predict`.
        pool: inputs without labels, (B, ...).
        n: how many, 1 to B.
        score: `bald` of classes and `variance` of values unless given.
        draws: S, functions that the scores average over.
        generator: source of the draws and of random choices; torch's global one where None.

    Raises:
        InvalidInput: for an unknown score or one of the other task, for n below 1 or above the pool's size, and for more than
            one label per input.

    >>> class Fixed:
    ...     def predict(self, inputs, n=32, *, generator=None):
    ...         probs = torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]], [[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]])
    ...         return Classification(probs)
    >>> choose(Fixed(), torch.zeros(3, 1), 2, "bald"), choose(Fixed(), torch.zeros(3, 1), 1, "entropy")
    (tensor([2, 0]), tensor([1]))
    """
    if not 1 <= n <= len(pool):
        raise InvalidInput(f"{n} inputs were asked for, of a pool of {len(pool):,}; ask for 1 to {len(pool):,}.")
    if score == "random":
        return torch.randperm(len(pool), generator=generator)[:n]
    predictive = classes_or_values(posterior.predict(pool, draws, generator=generator))
    return ranked(predictive, n, score, generator)


def ranked(
    predictive: Classification | Regression, n: int, score: str | None = None, generator: Generator | None = None
) -> Tensor:
    """Return the places of the n inputs of a prediction that are most wanted, (n,), on the CPU; see `choose`."""
    classes = isinstance(predictive, Classification)
    name = score or ("bald" if classes else "variance")
    known = CLASS_SCORES if classes else VALUE_SCORES
    if name not in known:
        raise unknown(f"acquisition score of {'classes' if classes else 'values'}", name, known)
    if predictive.mean.dim() != (2 if classes else 1):
        raise InvalidInput(f"Expected one label per input, got means of shape {tuple(predictive.mean.shape)}.")
    if name == "random":
        return torch.randperm(len(predictive.mean), generator=generator)[:n]
    if name == "batch_bald":
        assert isinstance(predictive, Classification)
        return greedy_classes(predictive.probs, n, generator)
    if name == "log_determinant":
        assert isinstance(predictive, Regression)
        return greedy_values(predictive.means, predictive.noise, n)
    values = CLASSES[name](predictive) if isinstance(predictive, Classification) else VALUES[name](predictive)
    return precise(values).cpu().argsort(descending=True, stable=True)[:n]


def variation_ratio(probs: Tensor) -> Tensor:
    """Return 1 − f_mode/S, (B,), with f_mode the votes of S functions, (S, B, C), for the class that most vote for.

    >>> variation_ratio(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.3, 0.7]], [[0.6, 0.4]]]))
    tensor([0.2500])
    """
    votes = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1])
    return 1 - votes.to(probs.dtype).mean(0).amax(-1)
