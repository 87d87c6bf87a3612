"""Gaussians over θ that Laplace approximations make: blocks with Kronecker factors, and a few directions of precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.stated import Held, Stated, length, numbered, outside, random, sized, whole


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

    @staticmethod
    def stated(problem: Problem, held: Held) -> Stated:
        """Return the types and shapes of its tensors: of a side that is a unit matrix, an empty one."""
        rows, columns = length(held, "std"), length(held, "std", 1)
        found = {"slices": (torch.int64, (length(held, "slices"), 2)), "std": sized(problem, rows, columns)}
        for side, count in (("left", rows), ("right", columns)):
            unit = side in held and 0 in held[side][1]
            found[side] = (sized(problem)[0], held[side][1]) if unit else sized(problem, count, count)
        return found

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
    def stated(cls, problem: Problem, held: Held) -> Stated:
        found = {"loc": sized(problem, whole(problem))}
        for i, part in enumerate(numbered(held)):
            own = Part.stated(problem, part)
            found |= {f"{i}.{name}": kind for name, kind in own.items()}
        return found

    def flaw(self) -> str | None:
        negative = next(filter(None, (outside("std", part.std) for part in self.parts)), None)
        return (
            super().flaw() or negative or _misplaced(self.parts, whole(self.problem) - self.problem.coordinates.start)
        )

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        parts = tuple(Part(**own) for own in numbered(tensors))
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
    def stated(cls, problem: Problem, held: Held) -> Stated:
        count, rank = random(problem, held), length(held, "shrunk")
        own = {"std": sized(problem, count), "basis": sized(problem, count, rank), "shrunk": sized(problem, rank)}
        return {"loc": sized(problem, whole(problem)), **own}

    def flaw(self) -> str | None:
        lengths = self.basis.square().sum(0)
        wide = outside("shrunk", self.shrunk, most=1.01) or outside("basis", lengths, most=1.01)
        return super().flaw() or outside("std", self.std) or wide

    @classmethod
    def from_tensors(cls, problem: Problem, tensors: Mapping[str, Tensor]) -> Self:
        return cls(problem, *(tensors[k] for k in ("loc", "std", "basis", "shrunk")))


def _covariance(posterior: KroneckerGaussian | LowRankPrecisionGaussian) -> Tensor:
    random = posterior.loc[posterior.problem.coordinates.start :]
    root = posterior.spread(torch.eye(len(random), dtype=random.dtype, device=random.device))
    return root @ root.T


def _misplaced(parts: Sequence[Part], count: int) -> str | None:
    """Say that blocks do not lie side by side on all random coordinates; None where they do."""
    every: list[list[int]] = []
    for part in parts:
        own = part.slices.tolist()
        if any(a > b for a, b in own) or sum(b - a for a, b in own) != part.std.numel():
            return "a block's 'slices' are not as long as its 'std'"
        every += own
    every.sort()
    ends = [0, *(b for _, b in every)]
    return None if [a for a, _ in every] == ends[:-1] and ends[-1] == count else "the 'slices' do not cover θ"


def _taken(rows: Tensor, slices: Tensor) -> Tensor:
    return torch.cat([rows[..., a:b] for a, b in slices.tolist()], -1)


def _put(vector: Tensor, slices: Tensor, values: Tensor) -> None:
    parts = values.split([b - a for a, b in slices.tolist()])
    for (a, b), part in zip(slices.tolist(), parts, strict=True):
        vector[a:b] += part
