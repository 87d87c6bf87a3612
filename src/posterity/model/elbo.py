"""Descent of the negative ELBO of a diagonal Gaussian, by any estimator; and by compiled kernels."""

import torch
from torch import Generator, Tensor

from posterity.core.activation import ActivationDraw
from posterity.core.compiled import CompiledNormals, CompiledStep
from posterity.core.estimators import Estimator, Loss, Pair, differentiate
from posterity.core.gaussian import softplus
from posterity.core.layout import bound
from posterity.core.optimizer import BoundOptimizer
from posterity.errors import InvalidInput
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence


class NegativeElbo:
    """nelbo(μ, ρ) = E_q[loss] + weight · KL(q‖p), σ = softplus(ρ), with `draws` Monte-Carlo draws of the first term."""

    def __init__(self, estimator: Estimator, divergence: Divergence, draws: int = 1) -> None:
        self.estimator, self.divergence, self.draws = estimator, divergence, draws
        self._std = torch.empty(0)

    def descend(
        self, loss: Loss, weight: float, optimizer: BoundOptimizer, step: int, generator: Generator | None
    ) -> Tensor:
        """Take one step of the optimiser's vectors `mean` and `rho`; return the loss averaged over draws, ()."""
        q, grads = ((v["mean"], v["rho"]) for v in (optimizer.vectors, optimizer.grads))
        value = self.gradient(loss, q, weight, grads, generator)
        optimizer.step(step)
        return value

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
    """The same nelbo with one draw, descended by compiled kernels; for whole networks under independent normal priors.

    `estimator` None takes weight draws, whose noise and gradients stay within the kernels.
    """

    def __init__(self, coordinates: Coordinates, estimator: ActivationDraw | None = None) -> None:
        divergence = Divergence.of(coordinates)
        if coordinates.start or coordinates.noncentred or not divergence.exact:
            raise InvalidInput(
                "compiled=True fits networks that are random as a whole, under Normal priors, without latents; this problem "
                "has point coordinates, another prior, or a learnt noise. Leave compiled=False."
            )
        theta = coordinates.theta()
        self.params, self.layout, self.estimator = coordinates.params, coordinates.layout, estimator
        moments = divergence.prior_mean, divergence.prior_std
        mean, std = (torch.as_tensor(v, dtype=theta.dtype, device=theta.device) for v in moments)
        self._step = CompiledStep(theta, (mean, std.square().reciprocal()))
        if estimator is not None:
            estimator.normals = CompiledNormals()

    def descend(
        self, loss: Loss, weight: float, optimizer: BoundOptimizer, step: int, generator: Generator | None
    ) -> Tensor:
        """Take one step of the optimiser's vectors `mean` and `rho`; return the loss, ()."""
        q, grads = ((v["mean"], v["rho"]) for v in (optimizer.vectors, optimizer.grads))
        if self.estimator is not None:
            value = self.estimator.write(loss, (q[0], self._step.spread(q[1])), grads, generator)
            self._step.update(q, grads, weight, optimizer.adam_step(step))
            return value
        with bound(self.params, self.layout.views(self._step.draw(q, generator))):
            value = loss()
            differentiate(value, (self.params, grads[0], self.layout))
        self._step.update_drawn(q, grads[0], weight, optimizer.adam_step(step))
        return value.detach()
