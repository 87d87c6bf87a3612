"""Curvature of a likelihood in the network's outputs, and forms of the curvature in the parameters that it makes.

The generalised Gauss–Newton matrix of N data is G = Σ_n J_nᵀ Λ_n J_n, with J_n = ∂f(θ, x_n)/∂θ (D, R) and Λ_n the Fisher
information of p(y | f) at f(θ, x_n) (Schraudolph 2002; Martens 2020, §9). Each Λ = Σ_k s_k s_kᵀ is known by its columns s_k,
so that G = Σ_n Σ_k g_nk g_nkᵀ with rows g_nk = J_nᵀ s_nk, each an ordinary gradient (`core/jacobian.py`). The empirical Fisher
information has the one column ∂(−log p(y_n | f))/∂f. Everything is in nats for the whole data set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor


class OutputCurvature(ABC):
    """Λ_n ⪰ 0 of B examples, each (D, D), as the square roots' columns: never as a (B, D, D) table."""

    @property
    @abstractmethod
    def width(self) -> int:
        """K, the number of columns."""

    @abstractmethod
    def column(self, k: int) -> Tensor:
        """Return s_k of each example, (B, D)."""

    @abstractmethod
    def total(self) -> Tensor:
        """Return Σ_n Λ_n, (D, D)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return the diagonal of each Λ_n, (B, D)."""

    @abstractmethod
    def times(self, u: Tensor) -> Tensor:
        """Return Λ_n u_n for u (..., B, D)."""

    def weighted(self, weights: Tensor) -> "OutputCurvature":
        """Return w_n Λ_n, for weights (B, 1) ≥ 0."""
        return WeightedCurvature(self, weights)


@dataclass(frozen=True, eq=False)
class WeightedCurvature(OutputCurvature):
    """w_n Λ_n, for whatever Λ is.

    >>> WeightedCurvature(ScoreCurvature(torch.tensor([[1.0], [2.0]])), torch.tensor([[0.0], [3.0]])).total()
    tensor([[12.]])
    """

    own: OutputCurvature
    weights: Tensor

    @property
    def width(self) -> int:
        return self.own.width

    def column(self, k: int) -> Tensor:
        return self.weights.sqrt() * self.own.column(k)

    def total(self) -> Tensor:
        columns = (self.column(k) for k in range(self.width))
        return torch.stack([column.T @ column for column in columns]).sum(0)

    def diagonal(self) -> Tensor:
        return self.weights * self.own.diagonal()

    def times(self, u: Tensor) -> Tensor:
        return self.weights * self.own.times(u)


@dataclass(frozen=True, eq=False)
class CategoricalCurvature(OutputCurvature):
    """Λ = w (diag(p) − p pᵀ) of softmax probabilities p (B, C), with s_k = √(w p_k) (e_k − p); `weights` (B, 1).

    >>> curvature = CategoricalCurvature(torch.tensor([[0.5, 0.5]]))
    >>> curvature.total()
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """

    probs: Tensor
    weights: Tensor | float = 1.0

    @property
    def width(self) -> int:
        return self.probs.shape[1]

    def column(self, k: int) -> Tensor:
        root = (self.weights * self.probs[:, k : k + 1]).sqrt()
        column = -self.probs * root
        column[:, k : k + 1] += root
        return column

    def total(self) -> Tensor:
        weighted = self.weights * self.probs
        return weighted.sum(0).diag() - weighted.T @ self.probs

    def diagonal(self) -> Tensor:
        return self.weights * self.probs * (1 - self.probs)

    def times(self, u: Tensor) -> Tensor:
        return self.weights * self.probs * (u - (self.probs * u).sum(-1, keepdim=True))

    def weighted(self, weights: Tensor) -> "CategoricalCurvature":
        return replace(self, weights=self.weights * weights)


@dataclass(frozen=True, eq=False)
class IndependentCurvature(OutputCurvature):
    """Λ = diag(values), values (B, D) ≥ 0: outputs that know nothing of each other."""

    values: Tensor

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def column(self, k: int) -> Tensor:
        column = torch.zeros_like(self.values)
        column[:, k] = self.values[:, k].sqrt()
        return column

    def total(self) -> Tensor:
        return self.values.sum(0).diag()

    def diagonal(self) -> Tensor:
        return self.values

    def times(self, u: Tensor) -> Tensor:
        return self.values * u


@dataclass(frozen=True, eq=False)
class MatrixCurvature(OutputCurvature):
    """Λ ⪰ 0 as they are, (B, D, D), for few outputs; the columns are their eigenvectors times roots of eigenvalues.

    >>> MatrixCurvature(torch.tensor([[[4.0, 0.0], [0.0, 1.0]]])).total()
    tensor([[4., 0.],
            [0., 1.]])
    """

    matrices: Tensor

    @cached_property
    def roots(self) -> Tensor:
        values, vectors = torch.linalg.eigh(self.matrices)
        root: Tensor = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
        return root

    @property
    def width(self) -> int:
        return self.matrices.shape[1]

    def column(self, k: int) -> Tensor:
        return self.roots[..., k]

    def total(self) -> Tensor:
        return self.matrices.sum(0)

    def diagonal(self) -> Tensor:
        return self.matrices.diagonal(dim1=1, dim2=2)

    def times(self, u: Tensor) -> Tensor:
        return (self.matrices @ u.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class ScoreCurvature(OutputCurvature):
    """Λ = s sᵀ with the score s (B, D) of the target that was seen: the empirical Fisher information."""

    score: Tensor

    @property
    def width(self) -> int:
        return 1

    def column(self, k: int) -> Tensor:
        return self.score

    def total(self) -> Tensor:
        return self.score.T @ self.score

    def diagonal(self) -> Tensor:
        return self.score.square()

    def times(self, u: Tensor) -> Tensor:
        return self.score * (self.score * u).sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class DiagonalCurvature:
    """G ≈ diag(values), values (R,) ≥ 0."""

    values: Tensor

    def scaled(self, factor: float) -> "DiagonalCurvature":
        """Return factor · G."""
        return DiagonalCurvature(factor * self.values)

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return log|scale · G + diag(precision)|, (), differentiable in both."""
        return (scale * self.values + precision).log().sum()


@dataclass(frozen=True, eq=False)
class FullCurvature:
    """G itself, (R, R)."""

    matrix: Tensor

    def scaled(self, factor: float) -> "FullCurvature":
        """Return factor · G."""
        return FullCurvature(factor * self.matrix)

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return log|scale · G + diag(precision)|, (), differentiable in both."""
        lower: Tensor = torch.linalg.cholesky(scale * self.matrix + precision.diag())
        return 2 * lower.diagonal().log().sum()


@dataclass(frozen=True, eq=False)
class LowRankCurvature:
    """G ≈ factor · factorᵀ, factor (R, K)."""

    factor: Tensor

    def scaled(self, factor: float) -> "LowRankCurvature":
        """Return factor · G."""
        return LowRankCurvature(sqrt(factor) * self.factor)

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return log|scale · G + diag(precision)|, (), differentiable in both: the determinant lemma in K × K."""
        inner = scale * (self.factor.T / precision) @ self.factor
        eye = torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
        lower: Tensor = torch.linalg.cholesky(eye + inner)
        return precision.log().sum() + 2 * lower.diagonal().log().sum()


def top_eigenspace(
    product: Callable[[Tensor], Tensor], size: int, rank: int, passes: int, like: Tensor
) -> LowRankCurvature:
    """Approximate a matrix G ⪰ 0 (R, R), known by its products, by `rank` of its largest eigenpairs.

    Subspace iteration from random directions, then Nyström's G Q (Qᵀ G Q)⁻¹ (G Q)ᵀ, cut to `rank` (Halko, Martinsson, Tropp
    2011, algorithms 4.4 and 5.5). Exact where the matrix has no more than rank + 10 nonzero eigenvalues.

    Args:
        product: G times (R, M), (R, M); called `passes` times.
        like: a tensor of the wanted device.
    """
    width = min(size, rank + 10)
    generator = torch.Generator().manual_seed(0)
    if width == size:
        basis = torch.eye(size, dtype=torch.float64, device=like.device)
    else:
        random = torch.randn(size, width, generator=generator, dtype=torch.float64).to(like.device)
        basis = torch.linalg.qr(random)[0]
        for _ in range(passes - 1):
            basis = torch.linalg.qr(product(basis))[0]
    image = product(basis)
    inner = basis.T @ image
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    kept = values > values[-1].clamp_min(0) * 1e-12
    factor = image @ (vectors[:, kept] / values[kept].sqrt())
    left, singular, _ = torch.linalg.svd(factor, full_matrices=False)
    return LowRankCurvature(left[:, :rank] * singular[:rank])
