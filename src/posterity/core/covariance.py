"""Covariances Σ of Gaussians on flat vectors, in tensors that an optimiser may move freely: draws, determinant, gradients.

    low rank    Σ = diag(σ²) + F Fᵀ      θ − μ = σ·ε + F z
    Cholesky    Σ = L Lᵀ                 θ − μ = L ε,          L = lower + diag(σ)

with σ = softplus(ρ) and independent standard normals ε, z. Gradients are written by hand: none flows through the sampling.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import softplus

BLOCK = 2**15  # rows of F worked on at once: what fits a processor's caches is twice as fast there


class Covariance(ABC):
    """Σ over n coordinates; `tensors` are live, and gradients are added to tensors of the same names and shapes."""

    rho: Tensor

    @property
    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what an optimiser moves, by name."""

    @property
    @abstractmethod
    def noises(self) -> int:
        """Count the standard normals that one draw takes."""

    @abstractmethod
    def deviation(self, noise: Tensor) -> Tensor:
        """Turn standard normals, (noises,), into θ − μ ~ N(0, Σ), (n,)."""

    @abstractmethod
    def variance(self) -> Tensor:
        """Return Σ's diagonal, (n,)."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """Return log|Σ|, (), float64."""

    @abstractmethod
    def add_draw_gradient(self, out: dict[str, Tensor], gradient: Tensor, noise: Tensor) -> None:
        """Add the gradient of a loss of θ = μ + deviation(noise), given ∂loss/∂θ (n,)."""

    @abstractmethod
    def add_divergence_gradient(self, out: dict[str, Tensor], weight: float, precision: Tensor) -> None:
        """Add weight times the gradient of ½ Σ_i precision_i Σ_ii − ½ log|Σ|: all that KL(q‖p) for a Normal p has of Σ."""

    @property
    def std(self) -> Tensor:
        return softplus(self.rho)

    def noise(self, generator: Generator | None) -> Tensor:
        return torch.randn(self.noises, generator=generator, dtype=self.rho.dtype, device=self.rho.device)


@dataclass(frozen=True, eq=False)
class LowRankCovariance(Covariance):
    """Σ = diag(σ²) + F Fᵀ: ρ (n,), F (n, K).

    With A = F/σ, Woodbury's identity and the determinant lemma leave the K × K matrix M = I + Aᵀ A to be decomposed:
    log|Σ| = 2 Σ log σ + log|M|, and Σ⁻¹ F = A M⁻¹ / σ.
    """

    rho: Tensor
    factor: Tensor

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"rho": self.rho, "factor": self.factor}

    @property
    def noises(self) -> int:
        return sum(self.factor.shape)

    def deviation(self, noise: Tensor) -> Tensor:
        n = len(self.rho)
        return torch.addmv(self.std * noise[:n], self.factor, noise[n:])

    def variance(self) -> Tensor:
        return self.std.square() + self.factor.square().sum(1)

    def log_det(self) -> Tensor:
        spread, _ = self._decomposed(self.std)
        return 2 * self.std.log().sum(dtype=torch.float64) + torch.log1p(spread).sum()

    def add_draw_gradient(self, out: dict[str, Tensor], gradient: Tensor, noise: Tensor) -> None:
        n = len(self.rho)
        out["rho"].addcmul_(gradient * noise[:n], self.rho.sigmoid())
        out["factor"].addr_(gradient, noise[n:])

    def add_divergence_gradient(self, out: dict[str, Tensor], weight: float, precision: Tensor) -> None:
        std = self.std
        spread, basis = self._decomposed(std)
        inverse = ((basis / (1 + spread)) @ basis.T).to(std)  # M⁻¹
        share = torch.empty_like(std)  # diag(F M⁻¹ Aᵀ) · σ
        blocks = (v.split(BLOCK) for v in (self.factor, std, out["factor"], precision, share))
        for factor, own, grad, prior, part in zip(*blocks, strict=True):
            solved = (factor @ inverse).div_(own[:, None])
            torch.sum(solved * factor, 1, out=part)
            grad.addcmul_(factor, prior[:, None], value=weight).addcdiv_(solved, own[:, None], value=-weight)
        diagonal = (1 - share / std) / std  # σ · diag(Σ⁻¹)
        out["rho"].add_((precision * std - diagonal) * self.rho.sigmoid(), alpha=weight)

    def _decomposed(self, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues and eigenvectors of Aᵀ A, in float64; what is below 0 is rounding."""
        gram = torch.zeros(self.factor.shape[1], self.factor.shape[1], dtype=torch.float64, device=std.device)
        for factor, own in zip(self.factor.split(BLOCK), std.split(BLOCK), strict=True):
            scaled = factor / own[:, None]
            gram += scaled.T @ scaled
        values, basis = torch.linalg.eigh(gram)
        return values.clamp_min(0), basis


@dataclass(frozen=True, eq=False)
class CholeskyCovariance(Covariance):
    """Σ = L Lᵀ: ρ (n,) holds L's diagonal, `lower` (n, n) what is below it; at and above the diagonal it stays zero."""

    rho: Tensor
    lower: Tensor

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"rho": self.rho, "lower": self.lower}

    @property
    def noises(self) -> int:
        return len(self.rho)

    @property
    def cholesky(self) -> Tensor:
        return self.lower + self.std.diag()

    def deviation(self, noise: Tensor) -> Tensor:
        return torch.addmv(self.std * noise, self.lower, noise)

    def variance(self) -> Tensor:
        return self.std.square() + self.lower.square().sum(1)

    def log_det(self) -> Tensor:
        return 2 * self.std.log().sum(dtype=torch.float64)

    def add_draw_gradient(self, out: dict[str, Tensor], gradient: Tensor, noise: Tensor) -> None:
        out["rho"].addcmul_(gradient * noise, self.rho.sigmoid())
        out["lower"].add_(torch.outer(gradient, noise).tril_(-1))

    def add_divergence_gradient(self, out: dict[str, Tensor], weight: float, precision: Tensor) -> None:
        std = self.std
        out["rho"].add_((precision * std - std.reciprocal()) * self.rho.sigmoid(), alpha=weight)
        out["lower"].addcmul_(precision[:, None], self.lower, value=weight)
