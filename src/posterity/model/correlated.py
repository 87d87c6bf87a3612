"""KL(q‖p) between a Gaussian q with correlations and a prior: closed form where it is Normal, else one draw of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from posterity.core import gaussian
from posterity.core.covariance import Covariance
from posterity.model.coordinates import Coordinates


@dataclass(frozen=True, eq=False)
class CorrelatedDivergence:
    """KL(q‖p) = E_q[log q(θ) − log p(θ)] in nats, for q = N(μ, Σ) over the random coordinates.

    q's entropy ½ log|Σ| + n/2 (1 + log 2π) is exact. Under independent Normal priors, p = Π_i N(m_i, s_i²), so is the cross
    entropy, which sees Σ's diagonal alone: −log p(μ) + ½ Σ_i Σ_ii / s_i². Any other prior's, and that of latents, is taken at
    the draw that the likelihood is taken at, −log p(θ), which is unbiased for value and gradient whatever correlates them.
    Point coordinates add −log p(μ); free ones add nothing.
    """

    coordinates: Coordinates
    mean: Tensor  # the Normal prior's m, of coordinates free … network − 1
    precision: Tensor  # 1/s², (P,): 0 where the prior is not Normal
    drawn: bool  # whether a part of the prior is taken at draws

    @classmethod
    def of(cls, coordinates: Coordinates) -> "CorrelatedDivergence":
        precision = torch.zeros_like(coordinates.theta())
        if coordinates.normal is None:
            return cls(coordinates, precision[:0], precision, True)
        mean, std = coordinates.normal
        precision[coordinates.free : coordinates.network] = std.square().reciprocal()
        return cls(coordinates, mean, precision, bool(coordinates.latents))

    def value(self, mean: Tensor, covariance: Covariance, draw: Tensor) -> Tensor:
        """Return the divergence, (), float64, for q's mean (P,); `draw` is a θ ~ q (P,), looked at where `drawn`."""
        where = self.coordinates
        n = where.layout.size - where.start
        entropy = 0.5 * covariance.log_det() + 0.5 * n * (1 + gaussian.LOG_2PI)
        total = 0.5 * (self.precision[where.start :] * covariance.variance()).sum(dtype=torch.float64) - entropy
        if where.normal is not None:
            at_mean = gaussian.log_prob(mean[where.free : where.network], *where.normal)
            total = total - at_mean.sum(dtype=torch.float64)
        return total - self._log_prior(draw).double() if self.drawn else total

    def score(self, draw: Tensor) -> Tensor | None:
        """Return −∂ log p/∂θ of the part that is taken at draws, (P,), at one; None where there is no such part."""
        if not self.drawn:
            return None
        with torch.enable_grad():
            leaf = draw.detach().requires_grad_()
            (found,) = torch.autograd.grad(-self._log_prior(leaf), [leaf])
        return found

    def add_mean_gradient(self, weight: float, mean: Tensor, out: Tensor) -> None:
        """Add weight times ∂/∂μ of the closed form's part, (P,), to a vector in place."""
        if self.coordinates.normal is not None:
            part = slice(self.coordinates.free, self.coordinates.network)
            out[part].addcmul_(mean[part] - self.mean, self.precision[part], value=weight)

    def _log_prior(self, theta: Tensor) -> Tensor:
        where = self.coordinates
        return where.log_prior(theta) if where.normal is None else where.log_prob_of_latents(where.layout.views(theta))
