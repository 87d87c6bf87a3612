"""The potential that stochastic-gradient samplers move in, U(θ) = −log p(θ, D), and its gradient on a batch."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from posterity.core.estimators import differentiate
from posterity.model.divergence import Divergence
from posterity.model.problem import Problem
from posterity.types import Batch


class Potential:
    """Ū(θ) = mean nll of the batch − T log p(θ)/N, in nats per datum; its gradient is unbiased for that of all data.

    exp(−N Ū/T) = p(D|θ)^(1/T) p(θ): a temperature T of the likelihood is a chain at the temperature T/N whose prior counts T
    times. At T = 1 it is U/N.

    The gradient of independent normal priors is (θ − m) / (N s²), in one pass over the weights; other priors, and those of
    latents, are differentiated. Under a non-centred prior the gradient is that of its coordinates.
    """

    def __init__(self, problem: Problem, temperature: float = 1.0) -> None:
        self.problem = problem
        self._share = temperature / problem.num_data  # of log p(θ)
        self._prior = Divergence.of(problem.coordinates)  # holds mean and std as numbers where they are constant

    def gradient(
        self, theta: Tensor, batch: Batch, out: Tensor, *, exploring: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Write ∇Ū(θ), (P,), into `out`; return the mean nll of the batch, (), and the distribution of its targets.

        `exploring`: steps without noise look for a maximum, of a density that has one; see `Prior.volume`.
        """
        problem = self.problem
        with problem.bound(theta):
            nll, distribution = problem.nll(batch)
            differentiate(nll, (problem.params, out, problem.layout))
        if problem.coordinates.noncentred:
            out.copy_(problem.coordinates.pull(theta, out))
        self._add_prior(theta, out, exploring)
        return nll.detach(), distribution

    def _add_prior(self, theta: Tensor, out: Tensor, exploring: bool) -> None:
        where, prior = self.problem.coordinates, self._prior
        if where.normal is not None:
            part = slice(where.free, where.network)
            precision = self._share / (prior.prior_std * prior.prior_std)
            away = (
                theta[part]
                if isinstance(prior.prior_mean, float) and not prior.prior_mean
                else theta[part] - prior.prior_mean
            )
            if isinstance(precision, Tensor):
                out[part].addcmul_(away, precision)
            else:
                out[part].add_(away, alpha=precision)
        if where.normal is None or where.latents:
            self._add_differentiated(theta, out, exploring)

    def _add_differentiated(self, theta: Tensor, out: Tensor, exploring: bool) -> None:
        where = self.problem.coordinates
        log_prior = where.bounded_log_prior if exploring else where.log_prior
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            own = log_prior(leaf) if where.normal is None else where.log_prob_of_latents(where.layout.views(leaf))
            (score,) = torch.autograd.grad(own, [leaf])
        out.sub_(score, alpha=self._share)
