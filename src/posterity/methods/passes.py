"""One pass over the training data at θ*: the curvature in the form that was asked for, and the log-likelihood."""

from dataclasses import dataclass
from itertools import islice
from math import isclose

import torch
from torch import Tensor, nn

from posterity.core.jacobian import differentiable
from posterity.errors import InvalidInput
from posterity.methods.layered import DiagonalTotal, KroneckerTotal
from posterity.methods.totals import Curvature, FullTotal, LowRankTotal, Options, Total, batches
from posterity.model.outputs import latent_curvature, output_curvature, random_parameters
from posterity.model.problem import Problem
from posterity.types import Data
from posterity.weighing import log_probs, numbers, of_data, size

SPARE = 10  # directions beside those that are kept of a low rank


@dataclass(frozen=True, eq=False)
class Measured:
    """G of the network's random coordinates, that of the likelihood's latents (L,), and Σ_n log p(y_n | x_n, θ*)."""

    curvature: Curvature
    latents: Tensor
    log_likelihood: Tensor
    num_targets: float


@torch.no_grad()
def measured(problem: Problem, theta: Tensor, data: Data, options: Options) -> Measured:
    """Sum the curvature at θ over the training data: over an epoch, and scaled to N data where an epoch delivers others.

    Raises:
        InvalidInput: see `Laplace.infer`.
    """
    with problem.bound(theta), differentiable():
        total = _total(problem, data, options)
        log_likelihood = torch.zeros((), dtype=torch.float64, device=theta.device)
        latents: Tensor | float = 0.0
        num_targets = seen = 0.0
        own = {n: p.detach() for n, p in problem.latents(problem.params).items()}
        for batch in batches(problem, data):
            outputs = total.outputs(batch[0])
            curvature = output_curvature(problem, outputs.detach(), batch[1], options.curvature, own, *batch[2:])
            total.add(batch[0], outputs, curvature, of_data(batch))
            latents = latents + latent_curvature(problem, outputs, batch[1], options.curvature, own, *batch[2:])
            log_likelihood += log_probs(problem.likelihood(outputs.detach(), own), batch).sum(dtype=torch.float64)
            num_targets += numbers(batch)
            seen += float(size(batch))
        assert isinstance(latents, Tensor)  # data are never empty
        if isclose(seen, problem.num_data, rel_tol=1e-9):
            return Measured(total.result(), latents.detach(), log_likelihood, num_targets)
        share = problem.num_data / seen
        curvature_of_all = total.result().scaled(share)
        return Measured(curvature_of_all, share * latents.detach(), share * log_likelihood, share * num_targets)


def _total(problem: Problem, data: Data, options: Options) -> Total:
    if options.structure == "full":
        return FullTotal(problem)
    if options.structure == "low_rank":
        return LowRankTotal(problem, data, options)
    probe = next(islice(batches(problem, data), 1))[0]
    if options.structure == "diag":
        return DiagonalTotal(problem, probe)
    return KroneckerTotal(problem, probe)


def refuse_large(problem: Problem, options: Options) -> None:
    """Refuse a curvature that would take more memory than `max_bytes` while it is decomposed, in float64."""
    shapes = [p.shape for p in random_parameters(problem).values()]
    size = sum(shape.numel() for shape in shapes)
    width = min(size, options.rank + SPARE)
    sides = sum(s[0] ** 2 + s[1:].numel() ** 2 for s in shapes if len(s) > 1)  # an embedding's first side is diagonal
    embeddings = [m.weight for m in problem.network.modules() if isinstance(m, nn.Embedding)]
    sides -= sum(
        w.shape[0] ** 2 for w in embeddings if any(w is problem.params[n] for n in problem.coordinates.random_names)
    )
    what, count = {
        "full": (f"The full curvature of {size:,} weights", 4 * size**2),
        "low_rank": (f"The search for {width} directions of {size:,} weights", 5 * size * width),
        "kron": (f"The Kronecker factors of {size:,} weights", 4 * sides),
        "diag": (f"The diagonal curvature of {size:,} weights", 2 * size),
    }[options.structure]
    needed, max_bytes = 8 * count, options.max_bytes
    if needed > max_bytes:
        raise InvalidInput(
            f"{what} takes {needed / 2**30:,.1f} GiB; the limit is max_bytes = {max_bytes / 2**30:,.1f} GiB. Use "
            "structure='diag' or 'kron', or fewer random weights: where='last_layer'."
        )
