"""The conjugate problem whose answers are known exactly: Bayesian linear regression."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from posterity.conformance.subject import Task


@dataclass(frozen=True)
class Conjugate:
    """y ~ N(w·x + b, noise²), θ = (w, b) ~ N(0, prior_std²), in float64; x (N, 2) has correlated columns. `bias` False: no b.

    The posterior is N(mean, precision⁻¹) with precision = DᵀD/noise² + 1/prior_std², D = [x, 1] (Bishop 2006, eq. 3.50).

    >>> Conjugate.make().mean.round(decimals=2)
    tensor([ 0.8300, -0.4200,  0.3300], dtype=torch.float64)
    """

    x: Tensor
    y: Tensor
    noise: float = 0.5
    prior_std: float = 0.7
    bias: bool = True

    @classmethod
    def make(cls, orthogonal: bool = False) -> Self:
        """Make the 24 data; `orthogonal` columns, to each other and the bias, make the posterior diagonal."""
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(24, 2, generator=generator, dtype=torch.float64)
        if orthogonal:
            x = torch.linalg.qr(torch.cat([torch.ones(24, 1, dtype=torch.float64), x], 1))[0][:, 1:] * 24**0.5
        else:
            x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
        y = x @ torch.tensor([1.0, -0.5], dtype=torch.float64) + 0.3
        return cls(x, y + 0.5 * torch.randn(24, generator=generator, dtype=torch.float64))

    @property
    def design(self) -> Tensor:
        """The columns in the order of θ: weights, then bias."""
        return torch.cat([self.x, torch.ones_like(self.x[:, :1])], 1) if self.bias else self.x

    @property
    def precision(self) -> Tensor:
        d = self.design
        return d.T @ d / self.noise**2 + torch.eye(d.shape[1], dtype=d.dtype) / self.prior_std**2

    @property
    def mean(self) -> Tensor:
        found: Tensor = torch.linalg.solve(self.precision, self.design.T @ self.y / self.noise**2)
        return found

    @property
    def log_evidence(self) -> float:
        """log p(y | x), in nats."""
        d = self.design
        covariance = self.noise**2 * torch.eye(len(d), dtype=d.dtype) + self.prior_std**2 * d @ d.T
        return float(torch.distributions.MultivariateNormal(torch.zeros_like(self.y), covariance).log_prob(self.y))

    def repeated(self, copies: int) -> Self:
        """Return the problem whose data are these, several times over."""
        return replace(self, x=self.x.repeat(copies, 1), y=self.y.repeat(copies))

    @classmethod
    def outlying(cls) -> Self:
        """Make 101 data of y ~ N(w, 1), w ~ N(0, 1): a hundred that are 0, and a last one of 10. The mean is 10/102."""
        x = torch.ones(101, 1, dtype=torch.float64)
        return cls(x, torch.cat([0 * x[:-1, 0], 10 * x[-1:, 0]]), noise=1.0, prior_std=1.0, bias=False)

    def task(self, seed: int = 0) -> Task:
        """Return it as a task for a linear layer."""
        torch.manual_seed(seed)
        return Task(
            nn.Linear(self.x.shape[1], 1, bias=self.bias).double(), self.x, self.y, self.noise, self.prior_std, seed
        )
