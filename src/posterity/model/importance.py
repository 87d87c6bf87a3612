"""Path gradients of the ELBO, and of the importance-weighted bound, for a diagonal Gaussian and draws of whole weights.

With θ_k = μ + σ·ε_k, k = 1 … K, nll the batch's mean, and weight = temperature/N:

    log w_k = −nll(θ_k)/weight + log p(θ_k) − log q(θ_k)
    ELBO:                   weight · 1/K Σ_k log w_k                      has the mean   −E_q[nll] − weight · KL(q‖p)
    importance-weighted:    weight · log 1/K Σ_k w_k                      (Burda, Grosse, Salakhutdinov 2016)

The second one's mean rises with K, from the ELBO to weight · log p(D) (for temperature 1 and the whole data in each batch).

A path gradient follows θ_k alone, and leaves out the derivative of log q(θ; μ, σ) by μ and σ at fixed θ, whose mean is 0. With
G_k = −weight · ∂ log w_k/∂θ_k = ∂nll/∂θ_k − weight · (∂ log p/∂θ_k + ε_k/σ), in descent:

    ELBO:                   ∂μ = 1/K Σ_k G_k,       ∂σ = 1/K Σ_k G_k ε_k          (Roeder, Wu, Duvenaud 2017)
    importance-weighted:    ∂μ = Σ_k ŵ_k² G_k,      ∂σ = Σ_k ŵ_k² G_k ε_k         (Tucker et al. 2019), ŵ_k = w_k / Σ_j w_j

Both are exactly 0 where q is the posterior and the batch is the whole data. Point coordinates, which have no noise, have the
gradient Σ_k ŵ_k G_k of the bound.

On smaller batches nll is an estimate whose error is multiplied by N: the ELBO keeps its mean, but the log of an average of
exponentials does not. By Jensen's inequality it is then too large in expectation, and no bound on log p(D) any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import torch
from torch import Generator, Tensor

from posterity.core.estimators import Loss, Pair, differentiate
from posterity.core.gaussian import LOG_2PI, noise_like, softplus
from posterity.core.optimizer import BoundOptimizer
from posterity.model.coordinates import Coordinates


@dataclass(frozen=True)
class _Drawn:
    """A draw: ε (R,), nll (), log w (), float64, and G (P,)."""

    noise: Tensor
    nll: Tensor
    log_weight: Tensor
    gradient: Tensor


class PathElbo:
    """Descends −weight · (ELBO or importance-weighted bound) along path gradients; keeps 2 K vectors at a time.

    Args:
        coordinates: of the problem.
        draws: K.
        antithetic: draw ε and −ε in pairs.
        importance: take the importance-weighted bound.
    """

    def __init__(
        self, coordinates: Coordinates, draws: int, *, antithetic: bool = False, importance: bool = False
    ) -> None:
        self.coordinates, self.draws = coordinates, draws
        self.antithetic, self.importance = antithetic, importance
        self.value = torch.zeros(())  # −weight · bound of the last step, in nats per datum

    def descend(
        self, loss: Loss, weight: float, optimizer: BoundOptimizer, step: int, generator: Generator | None
    ) -> Tensor:
        """Take one step of the optimiser's vectors `mean` and `rho`; return the nll averaged over draws, ()."""
        q, grads = ((v["mean"], v["rho"]) for v in (optimizer.vectors, optimizer.grads))
        value = self.gradient(loss, q, weight, grads, generator)
        optimizer.step(step)
        return value

    def gradient(self, loss: Loss, q: Pair, weight: float, out: Pair, generator: Generator | None) -> Tensor:
        """Write the gradients for q = (μ, ρ), σ = softplus(ρ), into `out`; return the nll averaged over draws, ()."""
        std, start = softplus(q[1]), self.coordinates.start
        drawn = [self._drawn(loss, (q[0], std), weight, noise) for noise in self._noises(std, generator)]
        shares, squares = self._shares(drawn, weight)
        for grad in out:
            grad.zero_()
        for draw, share, square in zip(drawn, shares, squares, strict=True):
            random = draw.gradient[start:]
            out[0][:start].add_(draw.gradient[:start], alpha=share)
            out[0][start:].add_(random, alpha=square)
            out[1].addcmul_(random, draw.noise, value=square)
        out[1].mul_(torch.sigmoid(q[1]))
        return torch.stack([draw.nll for draw in drawn]).mean()

    def _shares(self, drawn: list[_Drawn], weight: float) -> tuple[list[float], list[float]]:
        """Return what a draw counts for point coordinates, and for random ones."""
        log_weights = torch.stack([draw.log_weight for draw in drawn])
        if not self.importance:
            self.value = -weight * log_weights.mean()
            return [1 / self.draws] * self.draws, [1 / self.draws] * self.draws
        self.value = -weight * (log_weights.logsumexp(0) - log(self.draws))
        shares = log_weights.softmax(0)
        return shares.tolist(), shares.square().tolist()

    def _noises(self, std: Tensor, generator: Generator | None) -> Iterator[Tensor]:
        noise = std
        for index in range(self.draws):
            noise = -noise if self.antithetic and index % 2 else noise_like(std, generator)
            yield noise

    def _drawn(self, loss: Loss, q: Pair, weight: float, noise: Tensor) -> _Drawn:
        where, (mean, std) = self.coordinates, q
        theta, gradient = mean.clone(), torch.empty_like(mean)
        theta[where.start :].addcmul_(std, noise)
        with where.bound(theta):
            nll = loss()
            differentiate(nll, (where.params, gradient, where.layout))
        gradient = where.pull(theta, gradient)
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            log_prior = where.log_prior(leaf)
            (score,) = torch.autograd.grad(log_prior, [leaf])
        gradient = gradient.sub(score, alpha=weight)
        gradient[where.start :].addcdiv_(noise, std, value=-weight)
        log_q = (-0.5 * noise.square() - std.log() - 0.5 * LOG_2PI).sum(dtype=torch.float64)
        likelihood = -nll.detach().double() / weight if weight else torch.zeros_like(log_q)
        return _Drawn(noise, nll.detach(), likelihood + log_prior.detach().double() - log_q, gradient)
