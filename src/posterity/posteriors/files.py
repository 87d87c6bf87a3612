"""Posterior files: safetensors with a JSON specification in the header. No pickles; a file knows its own network."""

from collections.abc import Sequence
from os import PathLike
from os.path import isfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posterity.core.layout import trainable
from posterity.errors import InvalidInput
from posterity.model.adopted import as_likelihood
from posterity.model.informative import Informative
from posterity.model.plain import plain
from posterity.model.priors import as_prior
from posterity.model.problem import Problem
from posterity.options import shown
from posterity.posteriors.base import FAMILIES as FAMILIES
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.identity import structure
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.restoring import Restoring, checked
from posterity.posteriors.specification import FORMAT, described
from posterity.posteriors.stated import within
from posterity.tensors import read, read_values, write
from posterity.text import visible

ENTRY = "posterity"


def save(posterior: FunctionPosterior, path: str | Path) -> None:
    """Write a posterior to `path`, all at once: an interrupted write leaves the old file as it was.

    The header holds the family, the network's class with the names and shapes of its parameters, prior, likelihood,
    number of data, versions, the posterior's provenance (method, data, seed), and the SHA-256 of all tensors; of a mixture
    whose components are of different networks, priors or likelihoods, those of each. A compiled network's parameters have
    the plain one's names.

    Raises:
        InvalidInput: where the file cannot be written, where its numbers make no sense (NaN, a negative std), and for mixtures
            of such mixtures.
    """
    if flaw := posterior.flaw():
        raise InvalidInput(f"This {type(posterior).__name__} cannot be saved: {flaw}.")
    tensors = within("posterior.", posterior.stored()) | within(
        "buffer.", dict(posterior.problem.network.named_buffers())
    )
    tensors |= _of_problem(posterior.problem)
    values = {
        **posterior.provenance,
        "format": FORMAT,
        "family": posterior.kind,
        **_specified(posterior.problem),
        "spec": posterior.spec(),
        "torch": torch.__version__,
    }
    if isinstance(posterior, Mixture) and not _uniform(posterior):
        parts = posterior.components
        values["components"] = [_specified(component.problem) for component in parts]
        for i, component in enumerate(parts):
            tensors |= within(f"component.{i}.", _of_problem(component.problem))
    write(_named(path), tensors, ENTRY, values)


def read_specification(path: str | Path) -> dict[str, Any]:
    """Read a posterior file's specification without its tensors.

    Raises:
        InvalidInput: where there is no such file.
        CorruptFile: where it is truncated, or no posterior file.
    """
    values, _ = read_values(_there(path), ENTRY)
    checked(values, Path(path))
    return values


def load(
    path: str | Path,
    network: nn.Module | Sequence[nn.Module],
    *,
    prior: Any = None,
    likelihood: Any = None,
) -> FunctionPosterior:
    """Restore a posterior for `network`, an instance of the class that it was inferred for; its weights do not matter.

    A file is whole or refused: what it says, the types and shapes of its tensors and their SHA-256 are held against each
    other and against the network, before memory is taken for them. Files of earlier versions, which have no SHA-256, load.

    Args:
        path: a file written by `save`.
        network: copied, not changed; compiled or not. Of a mixture of different networks one for each component, in order.
        prior, likelihood: needed only where the posterior was made with one that is not posterity's own.

    Raises:
        Mismatch: where the file is of another network, with the difference of names and shapes.
        CorruptFile: where the file is truncated, damaged, or no posterior file.
    """
    networks = (network,) if isinstance(network, nn.Module) else network
    if not isinstance(networks, Sequence) or not networks or not all(isinstance(one, nn.Module) for one in networks):
        raise InvalidInput(f"network={shown(network)}: must be a module, or of a mixture one for each component.")
    there = _there(_named(path))
    believed = None if prior is None else as_prior(prior)
    restoring = Restoring(there, tuple(map(plain, networks)), believed, as_likelihood(likelihood))
    _, tensors = read(there, ENTRY, restoring.check)
    return restoring.posterior(tensors)


def _named(path: Any) -> Path:
    """Refuse what can be the name of no file."""
    if not isinstance(path, str | PathLike) or not Path(path).name or "\0" in str(path):
        raise InvalidInput(f"path={shown(path)}: must be the name of a file, as 'posterior.safetensors'.")
    return Path(path)


def _there(path: str | Path) -> Path:
    if not isfile(path):
        raise InvalidInput(f"There is no posterior file {visible(str(path))}.")
    return Path(path)


def _specified(problem: Problem) -> dict[str, Any]:
    """Return what a file says of a problem."""
    rows = {n: list(constant.rows) for n, constant in problem.layout.constants.items()}
    return {
        "network": type(problem.network).__qualname__,
        "structure": structure(problem.network),
        "parameters": {n: list(p.shape) for n, p in trainable(problem.network).items()},
        "random": list(problem.coordinates.random_names),
        **({"constant": rows} if problem.padding else {}),
        **({"movers": sorted(problem.movers)} if problem.movers else {}),
        "dtype": str(problem.theta().dtype).removeprefix("torch."),
        "prior": described(problem.prior),
        "likelihood": described(problem.likelihood),
        "num_data": problem.num_data,
    }


def _uniform(mixture: Mixture) -> bool:
    """Tell whether all components are of one problem, so that it is written once.

    Raises:
        InvalidInput: where a component is itself a mixture of different problems.
    """
    first = _specified(mixture.problem)
    same = all(_specified(part.problem) == first for part in mixture.components)
    if any(isinstance(part.problem.prior, Informative) for part in mixture.components):
        same = same and all(part.problem.prior is mixture.problem.prior for part in mixture.components)
    if any(isinstance(part, Mixture) and not _uniform(part) for part in mixture.components):
        raise InvalidInput(
            "A mixture inside of this one is of different networks, priors or likelihoods, which no file holds. Save its "
            "components by themselves."
        )
    return same


def _of_problem(problem: Problem) -> dict[str, Tensor]:
    """Return the tensors that a problem needs beside those of its posterior."""
    tensors = {f"constant.{n}": rows.values for n, rows in problem.layout.constants.items()}
    if isinstance(problem.prior, Informative):
        tensors.update({f"prior.{k}": v for k, v in problem.prior.tensors().items()})
    return tensors
