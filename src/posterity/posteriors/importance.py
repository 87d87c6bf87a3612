"""How far a Gaussian posterior is from the one that it approximates, by importance ratios over all training data."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from posterity.model.lending import lent
from posterity.model.problem import Problem
from posterity.posteriors.asked import check_request
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.density import log_density
from posterity.types import Batch, Data
from posterity.weighing import log_probs, on, size


@torch.no_grad()
def log_ratios(posterior: FunctionPosterior, data: Data, draws: int, generator: Generator | None = None) -> Tensor:
    """Return log p(θ_s, D) − log q(θ_s) for θ_s ~ q, (draws,), float64, in nats: up to log p(D) that of p(θ | D)/q.

    Each draw takes one pass over all training data. Networks run in eval mode, in their own precision; sums are float64.

    Args:
        posterior: one with a density, see `log_density`.
        data: the training data, all of them: what is missing is missing from p(θ | D).
        draws: S. k̂ < 0.7 can be relied on from 2,200 draws, k̂ < 2/3 from 1,000 (Vehtari et al. 2024).
    """
    check_request(draws, "importance ratios")
    batches = list(data.batches(0, torch.Generator().manual_seed(0)))
    share = data.num_data / float(sum(map(size, batches)))  # an epoch may show some data again, or not all
    found = []
    with lent(posterior.problem, batches[0][0][:1].to(posterior.device)) as problem:
        for _ in range(draws):
            theta = posterior.sample(generator)
            found.append(log_joint(problem, theta, batches, share) - log_density(posterior, theta))
    return torch.stack(found)


def log_joint(problem: Problem, theta: Tensor, batches: Sequence[Batch], share: float = 1.0) -> Tensor:
    """Return log p(θ, D), () float64, in nats, of these batches together; each datum in them counts for `share` data."""
    total = problem.log_prior(theta.double())
    with problem.bound(theta):
        for batch in batches:
            own = on(batch, theta.device)
            total = total + share * log_probs(problem.predict(own[0]), own).sum(dtype=torch.float64)
    return total
