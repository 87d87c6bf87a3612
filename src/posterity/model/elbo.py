"""The gradient of the negative ELBO for a diagonal Gaussian, by any estimator; and by two compiled kernels."""

import torch
from torch import Generator, Tensor

from posterity.core.compiled import CompiledDraw
from posterity.core.estimators import Estimator, Loss, Pair, differentiate
from posterity.core.gaussian import softplus
from posterity.core.layout import bound
from posterity.errors import InvalidInput
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence


class NegativeElbo:
    """nelbo(μ, ρ) = E_q[loss] + weight · KL(q‖p), σ = softplus(ρ), with `draws` Monte-Carlo draws of the first term."""

    def __init__(self, estimator: Estimator, divergence: Divergence, draws: int = 1) -> None:
        self.estimator, self.divergence, self.draws = estimator, divergence, draws
        self._std = torch.empty(0)

    def gradient(self, loss: Loss, q: Pair, weight: float, out: Pair, generator: Generator | None) -> Tensor:
        """Write the gradients for q = (μ, ρ) into `out`; return the loss averaged over draws, ()."""
        mean, rho = q
        if self._std.shape != rho.shape:
            self._std = torch.empty_like(rho)
        std = softplus(rho, out=self._std)
        total = self.estimator.write(loss, (mean, std), out, generator)
        for _ in range(self.draws - 1):
            estimate = self.estimator(loss, mean, std, generator)
            total = total + estimate.loss
            out[0].add_(estimate.mean)
            out[1].add_(estimate.std)
        if self.draws > 1:
            for grad in out:
                grad.div_(self.draws)
        self.divergence.add_gradient(weight, mean, std, out, generator)
        out[1].mul_(torch.sigmoid(rho))
        return total / self.draws


class CompiledElbo:
    """The same with one weight draw, in two passes over the vector; for whole networks under independent normal priors."""

    def __init__(self, coordinates: Coordinates) -> None:
        divergence = Divergence.of(coordinates)
        if coordinates.start or coordinates.noncentred or not divergence.exact:
            raise InvalidInput(
                "compiled=True fits networks that are random as a whole, under Normal priors, without latents; this problem "
                "has point coordinates, another prior, or a learnt noise. Leave compiled=False."
            )
        theta = coordinates.theta()
        self.params, self.layout = coordinates.params, coordinates.layout
        self._draw = CompiledDraw(theta)
        mean, std = (torch.as_tensor(v).to(theta) for v in (divergence.prior_mean, divergence.prior_std))
        self._prior = mean, std.square().reciprocal()

    def gradient(self, loss: Loss, q: Pair, weight: float, out: Pair, generator: Generator | None) -> Tensor:
        """Write the gradients for q = (μ, ρ) into `out`; return the loss, ()."""
        theta = self._draw.draw(*q, generator)
        with bound(self.params, self.layout.views(theta)):
            value = loss()
            differentiate(value, (self.params, out[0]))
        self._draw.chain(*q, torch.tensor(weight).to(theta), self._prior, out)
        return value.detach()
