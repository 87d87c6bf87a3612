"""KL(q‖p) between a diagonal Gaussian q and a prior: closed form where there is one, else reparameterised."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterity.core import gaussian
from posterity.model.coordinates import Coordinates


@dataclass(frozen=True)
class Divergence:
    """KL(q‖p) = E_q[log q(θ) − log p(θ)] in nats, and its gradient, for q = N(μ, diag σ²).

    μ has all P coordinates, σ those from `coordinates.start` on. Point coordinates add −log p(μ), the MAP part of the
    objective; free ones add nothing. Weights under independent normal priors have the closed form and its gradient
    without autograd. Others use q's exact entropy and the cross entropy −E_q[log p]: the prior's closed form given one
    draw of its latents where it has one (`Prior.expected_log_prob`), else one draw of everything, −log p(μ + σ·ε). Both
    are unbiased for value and gradient.
    """

    coordinates: Coordinates
    prior_mean: Tensor | float
    prior_std: Tensor | float

    @classmethod
    def of(cls, coordinates: Coordinates) -> "Divergence":
        if coordinates.normal is None:
            return cls(coordinates, 0.0, 1.0)
        mean, std = coordinates.normal
        return cls(coordinates, _number(mean), _number(std))

    @property
    def closed(self) -> int:
        """Coordinates before this one have a closed form, gradient included; those after it do not."""
        return self.coordinates.free if self.coordinates.normal is None else self.coordinates.network

    @property
    def exact(self) -> bool:
        return self.closed == self.coordinates.layout.size

    def value(self, mean: Tensor, std: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the divergence, shape (), float64; exact or a one-draw estimate, see `exact`. Differentiable in μ and σ."""
        where, closed, start = self.coordinates, self.closed, self.coordinates.start
        total = mean.new_zeros((), dtype=torch.float64)
        if closed > start:
            part = slice(start - where.free, None)
            total = gaussian.kl(
                mean[start:closed], std[: closed - start], _part(self.prior_mean, part), _part(self.prior_std, part)
            )
        points = mean[where.free : min(start, closed)]
        if points.numel():
            part = slice(0, points.numel())
            log_prior = gaussian.log_prob(points, _part(self.prior_mean, part), _part(self.prior_std, part))
            total = total - log_prior.sum(dtype=torch.float64)
        if not self.exact:
            rest = std[max(0, closed - start) :]
            entropy = rest.log().sum(dtype=torch.float64) + rest.numel() * (0.5 + 0.5 * gaussian.LOG_2PI)
            total = total + self._cross_entropy(mean, std, gaussian.noise_like(std, generator)) - entropy
        return total

    def add_gradient(
        self, scale: float, mean: Tensor, std: Tensor, grads: tuple[Tensor, Tensor], generator: Generator | None = None
    ) -> None:
        """Add scale · ∂KL/∂μ, (P,), and scale · ∂KL/∂σ to two vectors in place."""
        self._add_closed(scale, mean, std, grads)
        if not self.exact:
            with torch.enable_grad():
                leaves = [v.detach().requires_grad_() for v in (mean, std)]
                cross = self._cross_entropy(leaves[0], leaves[1], gaussian.noise_like(std, generator))
                found = torch.autograd.grad(cross, leaves, allow_unused=True)
            for grad, part in zip(grads, found, strict=True):
                if part is not None:
                    grad.add_(part, alpha=scale)
            rest = slice(max(0, self.closed - self.coordinates.start), None)
            grads[1][rest].sub_(std[rest].reciprocal(), alpha=scale)

    def _add_closed(self, scale: float, mean: Tensor, std: Tensor, grads: tuple[Tensor, Tensor]) -> None:
        free, start, closed = self.coordinates.free, self.coordinates.start, self.closed
        means, grad_mean = mean[free:closed], grads[0][free:closed]
        stds, grad_std = std[: max(0, closed - start)], grads[1][: max(0, closed - start)]
        precision = 1 / (self.prior_std * self.prior_std)
        if isinstance(precision, Tensor):
            grad_mean.addcmul_(means - self.prior_mean, precision, value=scale)
            grad_std.addcmul_(stds, precision[start - free :], value=scale)
        else:
            grad_mean.add_(means - self.prior_mean if self._shifted else means, alpha=scale * precision)
            grad_std.add_(stds, alpha=scale * precision)
        grad_std.sub_(stds.reciprocal(), alpha=scale)

    @property
    def _shifted(self) -> bool:
        return isinstance(self.prior_mean, Tensor) or self.prior_mean != 0

    def _cross_entropy(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """−E_q[log p] of what has no closed form, given one draw, (), float64."""
        points = torch.zeros_like(mean[: self.coordinates.start])
        spread = torch.cat([points, std])
        draw = mean + spread * torch.cat([points, noise])
        return -self._log_prior(mean, spread, draw).double()

    def _log_prior(self, mean: Tensor, spread: Tensor, draw: Tensor) -> Tensor:
        where = self.coordinates
        means, spreads, draws = (where.layout.views(v) for v in (mean, spread, draw))
        latents = {n: draws[n] for n in where.latents}
        total = where.log_prob_of_latents(latents)
        if where.normal is not None:
            return total
        within = where.of_network(where.of_prior(spreads))
        expected = where.prior.expected_log_prob(where.of_prior({**means, **latents}), within)
        return total + (where.prior.log_prob(where.of_prior(draws)) if expected is None else expected)


def _part(value: Tensor | float, part: slice) -> Tensor | float:
    return value[part] if isinstance(value, Tensor) else value


def _number(vector: Tensor) -> Tensor | float:
    """A constant vector costs a pass over memory at each step that a number does not."""
    first = float(vector[0])
    return first if bool((vector == vector[0]).all()) else vector
