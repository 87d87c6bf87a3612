"""Batches of inputs whose labels tell most of the function together, found greedily: copies of one input tell nothing new.

Joint information is submodular in both forms below, so that the greedy batch has at least 1 − 1/e of the best one's
(Nemhauser et al. 1978).
"""

import torch
from torch import Generator, Tensor

from posterity.predict.decomposition import entropy, mutual_information, precise

CANDIDATES = 200  # of the pool, by information alone, that a batch is chosen from
CONFIGURATIONS = 1000  # of imagined labels: enumerated up to so many, else so many are drawn


def greedy_classes(probs: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """Return the places of n inputs with a large joint mutual information I(y_1 … y_n; θ), (n,): BatchBALD, in short.

    Greedily, each next input adds the most information on top of the labels y_A that those before it will have,

        I(y; θ | y_A) = E_{y_A}[ H(Σ_s w_s p_s(y)) ] − (1/S)Σ_s H(p_s(y)),    w_s ∝ Π_{a ∈ A} p_s(y_a),

    which is that of `bald` under the functions' weights w once y_A are known, averaged over what y_A may be. The average is
    exact as long as there are no more than 1,000 configurations of y_A (3 labels of 10 classes), and taken over 1,000 drawn
    ones from there on (Kirsch, van Amersfoort, Gal 2019, who sample likewise). Departure, for speed: only the n + 200 inputs
    that tell most by themselves are candidates.

    Args:
        probs: (S, B, C), of S drawn functions.
        n: size of the batch.
        generator: source of drawn labels.

    >>> agree_on_two = torch.tensor([[[0.9, 0.1], [0.9, 0.1], [0.8, 0.2]], [[0.1, 0.9], [0.1, 0.9], [0.8, 0.2]]])
    >>> greedy_classes(agree_on_two, 2)
    tensor([0, 1])
    """
    draws = precise(probs.detach().cpu())
    order = mutual_information(draws).argsort(descending=True, stable=True)
    candidates = order[: min(len(order), n + CANDIDATES)]
    own = draws[:, candidates]  # (S, K, C)
    noise = entropy(own).mean(0)
    chosen: list[int] = []
    weights, chances = torch.full((1, len(own)), 1 / len(own), dtype=own.dtype), torch.ones(1, dtype=own.dtype)
    while len(chosen) < n:
        mixed = (weights @ own.flatten(1)).view(len(weights), *own.shape[1:])  # (M, K, C)
        gains = chances @ entropy(mixed) - noise
        gains[chosen] = -torch.inf
        chosen.append(int(gains.argmax()))
        weights, chances = imagined(own[:, chosen], generator)
    return candidates[chosen]


def imagined(probs: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Imagine labels of k inputs: return the functions' weights given each configuration, (M, S), and its chance, (M,).

    Args:
        probs: (S, k, C).

    >>> weights, chances = imagined(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]], dtype=torch.float64))
    >>> weights, chances
    (tensor([[0.6429, 0.3571],
            [0.1667, 0.8333]], dtype=torch.float64), tensor([0.7000, 0.3000], dtype=torch.float64))
    """
    functions, inputs, classes = probs.shape
    if classes**inputs <= CONFIGURATIONS:
        joint = torch.ones(functions, 1, dtype=probs.dtype)
        for k in range(inputs):
            joint = (joint[:, :, None] * probs[:, k, None]).flatten(1)  # (S, C^(k + 1))
        chances = joint.mean(0)
        joint, chances = joint[:, chances > 0], chances[chances > 0]
        return (joint / joint.sum(0)).T, chances
    some = torch.randint(functions, (CONFIGURATIONS,), generator=generator)
    labels = torch.multinomial(probs[some].flatten(0, 1), 1, generator=generator).view(CONFIGURATIONS, inputs)
    columns = labels.T.expand(functions, inputs, CONFIGURATIONS)
    logs = probs.gather(2, columns).log().sum(1)  # (S, M)
    return logs.softmax(0).T, torch.full((CONFIGURATIONS,), 1 / CONFIGURATIONS, dtype=probs.dtype)


def greedy_values(means: Tensor, variances: Tensor, n: int) -> Tensor:
    """Return the places of n inputs with a large joint information of their targets, (n,), for functions taken as Gaussian.

        I(y_A; f) = ½ log det(I + D^(−½) K_AA D^(−½)),    K the covariance of drawn functions, D of the noise,

    added up greedily: the next input has the largest k(x, x | A)/σ², its variance given the targets before it, in units of the
    noise (MacKay 1992; Holzmüller et al. 2023, "MaxDet").

    Args:
        means: (S, B), of S drawn functions. variances: (S, B), of the noise of each; their mean over functions is D.

    >>> copies = torch.tensor([[1.0, 1.0, 0.5], [-1.0, -1.0, 0.5], [1.0, 1.0, -0.5], [-1.0, -1.0, -0.5]])
    >>> greedy_values(copies, torch.full((4, 3), 0.01), 2)  # the second input would tell nothing new
    tensor([0, 2])
    """
    noise = precise(variances.detach().cpu()).mean(0).sqrt()
    functions = precise(means.detach().cpu())
    factor = (
        (functions - functions.mean(0)) / len(functions) ** 0.5 / noise
    )  # K = factorᵀ factor, in units of the noise
    chosen: list[int] = []
    while len(chosen) < n:
        gains = factor.square().sum(0)
        gains[chosen] = -torch.inf
        chosen.append(int(gains.argmax()))
        column = factor[:, chosen[-1]].clone()
        # Knowing y = f + ε of one input leaves K − k kᵀ/(1 + k_aa), which is factorᵀ (I − v vᵀ/(1 + |v|²)) factor.
        size = column.square().sum()
        scale = (1 - (1 + size).rsqrt()) / size.clamp_min(torch.finfo(size.dtype).tiny)
        factor = factor - scale * column[:, None] * (column @ factor)
    return torch.tensor(chosen)
