"""KL(q‖p) between a diagonal Gaussian q and a problem's prior: closed form where there is one, else reparameterised."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterity.core import gaussian
from posterity.model.problem import Problem


@dataclass(frozen=True)
class Divergence:
    """KL(q‖p) = E_q[log q(θ) − log p(θ)] in nats, q = N(μ, diag σ²), and its gradient.

    Coordinates under a `Normal` prior use the closed form. The others use q's exact entropy and one draw of the cross
    entropy, −log p(μ + σ·ε): an unbiased estimate of value and gradient.
    """

    problem: Problem
    prior_mean: Tensor | float
    prior_std: Tensor | float
    closed: int  # coordinates 0 … closed − 1 have the closed form; those after it do not

    @classmethod
    def of(cls, problem: Problem) -> "Divergence":
        if problem.normal is None:
            return cls(problem, 0.0, 1.0, 0)
        mean, std = problem.normal
        return cls(problem, _number(mean), _number(std), problem.network_size)

    @property
    def exact(self) -> bool:
        return self.closed == self.problem.layout.size

    def value(self, mean: Tensor, std: Tensor, generator: Generator | None = None) -> Tensor:
        """Return KL(q‖p), shape (), float64; exact or a one-draw estimate, see `exact`."""
        c = self.closed
        total = (
            gaussian.kl(mean[:c], std[:c], self.prior_mean, self.prior_std)
            if c
            else mean.new_zeros((), dtype=torch.float64)
        )
        if not self.exact:
            total = total + self._drawn(mean, std, generator)[0]
        return total

    def add_gradient(
        self, scale: float, mean: Tensor, std: Tensor, grads: tuple[Tensor, Tensor], generator: Generator | None = None
    ) -> None:
        """Add scale · ∂KL/∂μ and scale · ∂KL/∂σ to two vectors in place."""
        grad_mean, grad_std = grads
        c = self.closed
        if c:
            precision = 1 / (self.prior_std * self.prior_std)
            if isinstance(precision, Tensor):
                grad_mean[:c].addcmul_(mean[:c] - self.prior_mean, precision, value=scale)
                grad_std[:c].addcmul_(std[:c], precision, value=scale)
            else:
                grad_mean[:c].add_(mean[:c] - self.prior_mean if self.prior_mean else mean[:c], alpha=scale * precision)
                grad_std[:c].add_(std[:c], alpha=scale * precision)
            grad_std[:c].sub_(std[:c].reciprocal(), alpha=scale)
        if not self.exact:
            _, drawn_mean, drawn_std = self._drawn(mean, std, generator)
            grad_mean.add_(drawn_mean, alpha=scale)
            grad_std.add_(drawn_std, alpha=scale)

    def _drawn(self, mean: Tensor, std: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        c = self.closed
        noise = gaussian.noise_like(mean, generator)
        draw = torch.addcmul(mean, std, noise).requires_grad_()
        with torch.enable_grad():
            log_prior = self._log_prior_beyond(draw)
            (score,) = torch.autograd.grad(log_prior, [draw])
        entropy = std[c:].log().sum(dtype=torch.float64) + (std.numel() - c) * (0.5 + 0.5 * gaussian.LOG_2PI)
        grad_std = score.neg().mul_(noise)
        grad_std[c:] -= std[c:].reciprocal()
        return -log_prior.detach().double() - entropy, -score, grad_std

    def _log_prior_beyond(self, theta: Tensor) -> Tensor:
        """log p of the coordinates without a closed form."""
        if not self.closed:
            return self.problem.log_prior(theta)
        priors = self.problem.likelihood.latents()
        latents = self.problem.latents(self.problem.layout.views(theta))
        return torch.stack([priors[n].log_prob(v) for n, v in latents.items()]).sum()


def _number(vector: Tensor) -> Tensor | float:
    """A constant vector costs a pass over memory at each step that a number does not."""
    first = float(vector[0])
    return first if bool((vector == vector[0]).all()) else vector
