"""Posterior files: safetensors with a JSON specification in the header. No pickles; a file knows its own network."""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from posterity.core.layout import Layout, difference, trainable
from posterity.errors import CorruptFile, InvalidInput, Mismatch, unknown
from posterity.model.informative import Informative
from posterity.model.likelihoods import AnyLikelihood
from posterity.model.padding import padding_rows
from posterity.model.plain import plain
from posterity.model.priors import AnyPrior
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.identity import structure
from posterity.posteriors.mixture import KINDS, Mixture, restored
from posterity.storage import replacing
from posterity.types import Likelihood, Prior

FORMAT = "posterity-1"
NEEDED = {"family", "network", "structure", "parameters", "random", "dtype", "prior", "likelihood", "num_data"}
FAMILIES: dict[str, type[FunctionPosterior]] = {**KINDS, Mixture.kind: Mixture}


def save(posterior: FunctionPosterior, path: str | Path) -> None:
    """Write a posterior to `path`, all at once: an interrupted write leaves the old file as it was.

    The header holds the family, the network's class with the names and shapes of its parameters, prior, likelihood,
    number of data, versions, and the posterior's provenance (method, data, seed); of a mixture whose components are of
    different networks, priors or likelihoods, those of each. A compiled network's parameters have the plain one's names.

    Raises:
        InvalidInput: where the file cannot be written, and for mixtures of such mixtures.
    """
    path = Path(path)
    tensors = {f"posterior.{k}": v for k, v in posterior.stored().items()}
    tensors.update({f"buffer.{k}": v for k, v in posterior.problem.network.named_buffers()})
    tensors.update(_of_problem(posterior.problem))
    specification = {
        "format": FORMAT,
        "family": posterior.kind,
        **_specified(posterior.problem),
        "torch": torch.__version__,
        **posterior.provenance,
    }
    if isinstance(posterior, Mixture) and not _uniform(posterior):
        parts = posterior.components
        specification["components"] = [_specified(component.problem) for component in parts]
        for i, component in enumerate(parts):
            tensors.update({f"component.{i}.{k}": v for k, v in _of_problem(component.problem).items()})
    contiguous = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(contiguous, part, metadata={"posterity": json.dumps(specification)})
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"Cannot write {path}: {error}. Choose another folder, or free some space.") from error


def read_specification(path: str | Path) -> dict[str, Any]:
    """Read a posterior file's specification without its tensors.

    Raises:
        InvalidInput: where there is no such file.
        CorruptFile: where it is truncated, or no posterior file.
    """
    return _read(Path(path), tensors=False)[0]


def load(
    path: str | Path,
    network: nn.Module | Sequence[nn.Module],
    *,
    prior: Prior | None = None,
    likelihood: Likelihood | None = None,
) -> FunctionPosterior:
    """Restore a posterior for `network`, an instance of the class that it was inferred for; its weights do not matter.

    Args:
        path: a file written by `save`.
        network: copied, not changed; compiled or not. Of a mixture of different networks one for each component, in order.
        prior, likelihood: needed only where the posterior was made with one that is not posterity's own.

    Raises:
        Mismatch: where the file is of another network, with the difference of names and shapes.
        CorruptFile: where the file is truncated, or no posterior file.
    """
    specification, tensors = _read(Path(path), tensors=True)
    given = tuple(plain(one) for one in ((network,) if isinstance(network, nn.Module) else network))
    parts = _under("posterior.", tensors)
    entries = specification.get("components")
    if entries is None:
        if len(given) != 1:
            raise Mismatch(f"{path} is a posterior of one network, and {len(given)} were given.")
        problem = _problem(specification, given[0], path, tensors, (prior, likelihood))
        problem = problem.snapshot(_fitting(problem, _under("buffer.", tensors), path))
        posterior = restored(FAMILIES[specification["family"]], problem, parts)
    else:
        several = given * len(entries) if len(given) == 1 else given
        if len(several) != len(entries):
            wanted = ", ".join(entry["network"] for entry in entries)
            raise Mismatch(f"{path} is a mixture of {len(entries)} ({wanted}), and {len(given)} networks were given.")
        problems = [
            _problem(entry, one, path, _under(f"component.{i}.", tensors), (prior, likelihood))
            for i, (entry, one) in enumerate(zip(entries, several, strict=True))
        ]
        posterior = Mixture.restored(problems, parts)
    posterior.provenance.update({k: v for k, v in specification.items() if k not in _OWN})
    return posterior


_OWN = {"format", "family", "network", "structure", "parameters", "random", "constant", "movers", "dtype"}
_OWN |= {"prior", "likelihood", "num_data", "torch", "components"}


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
        "prior": _described(problem.prior),
        "likelihood": _described(problem.likelihood),
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


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _problem(
    specification: Mapping[str, Any],
    network: nn.Module,
    path: str | Path,
    tensors: Mapping[str, Tensor],
    parts: tuple[Prior | None, Likelihood | None],
) -> Problem:
    """Build the problem that a file's specification is of, around a network that is its own."""
    prior, likelihood = parts
    prior = prior or _restored_prior(specification["prior"], _under("prior.", tensors))
    likelihood = likelihood or _restored(specification["likelihood"], AnyLikelihood, "likelihood")
    _same_network(specification, network, path)
    # A file without this entry is of a version that drew rows of padding like any others: it is drawn from as it was.
    padding = "constant" in specification
    if padding and specification["constant"]:
        _write_constants(network, specification["constant"], tensors, path)
    random = frozenset(specification["random"])
    movers = frozenset(specification.get("movers", ()))
    return Problem(network, prior, likelihood, specification["num_data"], random, movers=movers, padding=padding)


def _write_constants(
    network: nn.Module, rows: Mapping[str, list[int]], tensors: Mapping[str, Tensor], path: str | Path
) -> None:
    """Write a file's constant rows into a network."""
    if {n: tuple(r) for n, r in rows.items()} != padding_rows(network):
        raise Mismatch(f"{path} has rows of padding {dict(rows)}; the network's are {padding_rows(network)}.")
    with torch.no_grad():
        for name, indices in rows.items():
            network.get_parameter(name)[indices] = tensors[f"constant.{name}"].to(network.get_parameter(name))


def _fitting(problem: Problem, buffers: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    own = {n: tuple(b.shape) for n, b in problem.network.named_buffers()}
    if own != {n: tuple(b.shape) for n, b in buffers.items()}:
        raise Mismatch(
            f"{path} does not fit this network: its buffers are {sorted(buffers)}, the network's {sorted(own)}."
        )
    return buffers


def _same_network(specification: Mapping[str, Any], network: nn.Module, path: str | Path) -> None:
    name = type(network).__qualname__
    if name != specification["network"]:
        raise Mismatch(
            f"{path} is a posterior of {specification['network']}; it was given a {name}. Build that network."
        )
    own = Layout.of(trainable(network))
    shapes = {n: tuple(s) for n, s in specification["parameters"].items()}
    if shapes != {n: tuple(s) for n, s in own.named_shapes().items()}:
        raise Mismatch(f"{path}: " + difference(own, shapes))
    saved, given = specification["structure"], structure(network)
    if saved != given:  # equal shapes, but another activation, stride or padding
        pairs = zip_longest(saved.splitlines(), given.splitlines(), fillvalue="nothing")
        row = next((a.strip(), b.strip()) for a, b in pairs if a != b)
        raise Mismatch(f"{path} is a posterior of a network with {row[0]}; the one given has {row[1]} there.")
    dtype = str(next(iter(trainable(network).values())).dtype).removeprefix("torch.")
    if dtype != specification["dtype"]:
        raise Mismatch(
            f"{path} holds {specification['dtype']} weights; the network's are {dtype}. Convert the network first."
        )


def _described(part: Any) -> dict[str, Any]:
    if isinstance(part, Informative):
        return {"kind": "informative", "layout": {n: list(s) for n, s in part.layout.named_shapes().items()}}
    own = type(part).__module__.startswith("posterity.")
    return TypeAdapter(type(part)).dump_python(part, mode="json") if own else {"kind": type(part).__qualname__}


def _restored_prior(specification: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if specification.get("kind") != "informative":
        return _restored(specification, AnyPrior, "prior")
    shapes = {n: torch.Size(s) for n, s in specification["layout"].items()}
    return Informative.from_tensors(Layout(tuple(shapes), tuple(shapes.values())), tensors)


def _restored(specification: Mapping[str, Any], union: Any, what: str) -> Any:
    try:
        return TypeAdapter(union).validate_python(dict(specification))
    except ValidationError as error:
        raise InvalidInput(
            f"The file's {what} '{specification.get('kind')}' is not posterity's own; pass {what}=…"
        ) from error


def _read(path: Path, tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise InvalidInput(f"There is no posterior file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("posterity")
            if text is None:
                raise CorruptFile(
                    f"{path} is a safetensors file, but no posterior: its header has no 'posterity' entry."
                )
            found = {k: file.get_tensor(k) for k in file.keys()} if tensors else {}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CorruptFile(
            f"{path} is empty, truncated or no posterior file ({error}). Save or copy it again."
        ) from error
    try:
        specification = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} has a header that is no JSON ({error}). Save or copy it again.") from error
    if not isinstance(specification, dict):
        raise CorruptFile(f"{path} has a header that says nothing of a posterior. Save or copy it again.")
    if specification.get("format") != FORMAT:
        raise CorruptFile(f"{path} has the format '{specification.get('format')}'; this version reads '{FORMAT}'.")
    if missing := sorted(NEEDED - specification.keys()):
        raise CorruptFile(f"{path} has a header without {', '.join(missing)}. Save or copy it again.")
    if specification["family"] not in FAMILIES:
        raise unknown("family of posteriors", str(specification["family"]), FAMILIES)
    return specification, found
