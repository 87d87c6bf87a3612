"""A posterior's draws in ArviZ's own form, for its plots and summaries."""

from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.chains import Chains


@torch.no_grad()
def to_arviz(posterior: FunctionPosterior, n: int = 1000, generator: Generator | None = None) -> Any:
    """Return draws by name as an `InferenceData` (ArviZ before 1.0) or a `DataTree` (since then).

    Its group `posterior` has each parameter of the network, (chain, draw, *shape), as the network computes with it, and the
    latents in natural units. Chains come as they are, with `energy` and `diverging` in `sample_stats`; any other posterior
    as one chain of n draws.
    """
    arviz = _installed()
    chains = posterior if isinstance(posterior, Chains) else None
    thetas = chains.by_chain if chains else torch.stack([posterior.sample(generator) for _ in range(n)])[None]
    groups = {"posterior": _named(posterior, thetas)}
    if chains:
        groups["sample_stats"] = {"energy": chains.energies, "diverging": chains.divergent.bool()}
    arrays = {group: {k: v.cpu().numpy() for k, v in own.items()} for group, own in groups.items()}
    return arviz.from_dict(arrays) if int(arviz.__version__.split(".")[0]) >= 1 else arviz.from_dict(**arrays)


def _named(posterior: FunctionPosterior, thetas: Tensor) -> dict[str, Tensor]:
    """Name the parameters and latents of draws (C, S, P)."""
    where = posterior.problem.coordinates
    weights = torch.stack([where.weights(theta) for theta in thetas.flatten(0, 1)]).reshape(thetas.shape)
    views = where.layout.views(weights)
    natural = {n: where.latents[n].natural(v) for n, v in views.items() if n in where.latents}
    return {**views, **natural}


def _installed() -> Any:
    try:
        return import_module("arviz")
    except ImportError as error:
        raise InvalidInput("ArviZ is not installed: pip install 'posterity[diag]', or pip install arviz.") from error
