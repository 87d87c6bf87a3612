"""Gaussians over θ that Laplace approximations make: blocks with Kronecker factors, and a few directions of precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior


@dataclass(frozen=True, eq=False)
class Part:
    """An independent block, θ − μ = left (std ∘ E) rightᵀ with standard normals E (rows, columns).

    Args:
        slices: where it lies among the random coordinates: (1, 2), or (2, 2) for a weight and a bias, the last column.
        std: (rows, columns). left: (rows, rows), right: (columns, columns); empty ones are unit matrices.
    """

    slices: Tensor
    std: Tensor
    left: Tensor
    right: Tensor

    def deviation(self, noise: Tensor) -> Tensor:
        """Turn standard normals (..., rows, columns) into θ − μ, (..., elements)."""
        own = noise * self.std
        own = self.left @ own if self.left.numel() else own
        return self._flat(own @ self.right.T if self.right.numel() else own)

    def spread(self, rows: Tensor) -> Tensor:
        """Return J L, (..., elements), for rows J and Σ = L Lᵀ: `deviation` transposed."""
        own = self._matrix(rows)
        own = self.left.T @ own if self.left.numel() else own
        own = own @ self.right if self.right.numel() else own
        spread: Tensor = (own * self.std).flatten(-2)
        return spread

    @property
    def variance(self) -> Tensor:
        """Marginal variances, (elements,)."""
        own = self.std.square()
        own = self.left.square() @ own if self.left.numel() else own
        return self._flat(own @ self.right.square().T if self.right.numel() else own)

    def _flat(self, own: Tensor) -> Tensor:
        if len(self.slices) == 1:
            return own.flatten(-2)
        return torch.cat([own[..., :-1].flatten(-2), own[..., -1]], -1)

    def _matrix(self, flat: Tensor) -> Tensor:
        if len(self.slices) == 1:
            return flat.reshape(*flat.shape[:-1], *self.std.shape)
        count = len(self.std)
        weight = flat[..., :-count].reshape(*flat.shape[:-1], count, -1)
        return torch.cat([weight, flat[..., -count:, None]], -1)


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerGaussian(FunctionPosterior):
    """q(θ) = Π_b N(θ_b; loc_b, L_b L_bᵀ), L_b = (left ⊗ right) diag(std), over independent blocks b.

    Args:
        loc: (P,).
        parts: the blocks of all random coordinates, which come last in θ; the others are points.
    """

    loc: Tensor
    parts: tuple[Part, ...]
    kind: ClassVar[str] = "kronecker_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        draw = self.loc.clone()
        random = draw[self.problem.coordinates.start :]
        for part in self.parts:
            _put(random, part.slices, part.deviation(noise_like(part.std, generator)))
        return draw

    def spread(self, rows: Tensor) -> Tensor:
        """Return J L, with Σ = L Lᵀ, for rows J (..., R)."""
        return torch.cat([part.spread(_taken(rows, part.slices)) for part in self.parts], -1)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def marginal_std(self) -> Tensor:
        """Marginal std of each random coordinate, (R,)."""
        variance = torch.zeros_like(self.loc[self.problem.coordinates.start :])
        for part in self.parts:
            _put(variance, part.slices, part.variance)
        return variance.sqrt()

    @property
    def covariance(self) -> Tensor:
        """Covariance of the random coordinates, (R, R): for small networks."""
        return _covariance(self)

    def tensors(self) -> dict[str, Tensor]:
        own = {f"{i}.{k}": v for i, p in enumerate(self.parts) for k, v in vars(p).items()}
        return {"loc": self.loc, **own}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        # In memory of their own: a file's may lie unaligned, where matrix kernels round differently.
        count = len({k.partition(".")[0] for k in tensors if k != "loc"})
        keys = ("slices", "std", "left", "right")
        parts = tuple(Part(*(tensors[f"{i}.{k}"].clone() for k in keys)) for i in range(count))
        return cls(problem, tensors["loc"], parts)


@dataclass(frozen=True, eq=False, repr=False)
class LowRankPrecisionGaussian(FunctionPosterior):
    """q(θ) = N(loc, diag(std) (1 − V diag(1 − s²) Vᵀ) diag(std)), drawn as loc + std ∘ (ε + V (s − 1) Vᵀ ε).

    The inverse of a prior's precision 1/std² with a few directions added, in which the std is s < 1 times the prior's.

    Args:
        loc: (P,).
        std: of the random coordinates under the prior, (R,); they come last in θ, the others are points.
        basis: V, (R, K), orthonormal columns.
        shrunk: s, (K,).
    """

    loc: Tensor
    std: Tensor
    basis: Tensor
    shrunk: Tensor
    kind: ClassVar[str] = "low_rank_precision_gaussian"

    def sample(self, generator: Generator | None = None) -> Tensor:
        draw, start = self.loc.clone(), len(self.loc) - len(self.std)
        noise = noise_like(self.std, generator)
        draw[start:].addcmul_(self.std, noise + self.basis @ ((self.shrunk - 1) * (self.basis.T @ noise)))
        return draw

    def spread(self, rows: Tensor) -> Tensor:
        """Return J L, with Σ = L Lᵀ, for rows J (..., R)."""
        own = rows * self.std
        return own + ((own @ self.basis) * (self.shrunk - 1)) @ self.basis.T

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def marginal_std(self) -> Tensor:
        """Marginal std of each random coordinate, (R,)."""
        # What lies outside the basis, 1 − Σ b², and what is left inside: 1 − Σ b² (1 − s²) would lose a small s to rounding.
        squares = self.basis.double().square()
        outside = 1 - squares.sum(1)
        outside = torch.where(outside > 8 * torch.finfo(self.basis.dtype).eps, outside, 0.0)
        return self.std * (outside + squares @ self.shrunk.double().square()).sqrt().to(self.std)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the random coordinates, (R, R): for small networks."""
        return _covariance(self)

    def tensors(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "std": self.std, "basis": self.basis, "shrunk": self.shrunk}

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, *(tensors[k].clone() for k in ("loc", "std", "basis", "shrunk")))


def _covariance(posterior: KroneckerGaussian | LowRankPrecisionGaussian) -> Tensor:
    random = posterior.loc[posterior.problem.coordinates.start :]
    root = posterior.spread(torch.eye(len(random), dtype=random.dtype, device=random.device))
    return root @ root.T


def _taken(rows: Tensor, slices: Tensor) -> Tensor:
    return torch.cat([rows[..., a:b] for a, b in slices.tolist()], -1)


def _put(vector: Tensor, slices: Tensor, values: Tensor) -> None:
    parts = values.split([b - a for a, b in slices.tolist()])
    for (a, b), part in zip(slices.tolist(), parts, strict=True):
        vector[a:b] += part
