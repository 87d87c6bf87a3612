"""What a network became: each parameter's prior, its std, and the estimator that it really gets, and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import torch
from torch import Size, Tensor, nn

from posterity.core.dispatch import UNSEEN, Uses, hindrance, rehearse, same_random_numbers
from posterity.errors import InvalidInput
from posterity.model.bayesianize import EstimatorName, bayesian_modules
from posterity.model.coordinates import Coordinates, normalisation
from posterity.model.location_scale import LocationScale
from posterity.model.priors import Product
from posterity.model.problem import Problem
from posterity.options import require
from posterity.types import Prior

WIDTH = 120
ROOM = {2: 16, 4: 24}  # priors and reasons are broken down to these widths before names are
CLOSED, SAMPLED = "closed form", "Monte Carlo"
WHOLE = "weight draw"


@dataclass(frozen=True)
class Entry:
    """One parameter, or one latent of a prior (`prior.…`).

    estimator: `weight draw` (one for the whole pass), `local_reparam` or `flipout` where it is random; else `deterministic`
        (trained, without a std) or `frozen`. `why` says what stood in the way of more.
    std: the mean of σ over the tensor. uses: by torch functions in one forward pass. kl: whether the prior's part of its KL
        is exact. These are None where it is not random.
    """

    name: str
    shape: tuple[int, ...]
    numbers: int
    estimator: str
    why: str
    prior: str | None = None
    std: float | None = None
    uses: int | None = None
    kl: str | None = None


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; `str()` of it is a table."""

    entries: tuple[Entry, ...]
    bytes: int  # of the posterior: a mean and a std for each random number

    @property
    def random(self) -> int:
        """How many numbers are random."""
        return sum(entry.numbers for entry in self.entries if entry.std is not None)

    @property
    def deterministic(self) -> int:
        """How many numbers are not."""
        return sum(entry.numbers for entry in self.entries if entry.std is None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        totals = {"random": self.random, "deterministic": self.deterministic, "bytes": self.bytes}
        return {"parameters": [asdict(entry) for entry in self.entries], **totals}

    def __str__(self) -> str:
        rows = [["parameter", "shape", "prior", "std", "estimator", "uses", "KL"], *map(_cells, self.entries)]
        return "\n".join(
            [
                *_table(rows),
                f"{self.random:,} random and {self.deterministic:,} deterministic numbers; the posterior takes "
                f"{_in_units(self.bytes)}, two numbers for each random one.",
            ]
        )


@torch.no_grad()
def explain(module: nn.Module, example: Any) -> Explanation:
    """Run a Bayesian network once, at the means of its weights, and say what each parameter really gets.

    A rule (`local_reparam`, `flipout`) can draw for a weight that is used once in a pass, by an operation that is linear in
    it; any other gets one draw of the weight for the whole pass. Which is which, the estimators find out in their first pass;
    this is the same rehearsal, on a copy. Module and random numbers are left as they were.

    Args:
        module: `bayesianize` made it, or such modules (`posterity.nn`) are in it.
        example: a batch: one tensor; or a tuple of arguments; or a mapping of keyword arguments.

    Raises:
        InvalidInput: where there is no Bayesian module, or the network cannot take the example.

    >>> from posterity import bayesianize
    >>> found = explain(bayesianize(nn.Linear(3, 2), estimator="flipout", init=0.1), torch.ones(5, 3))
    >>> [(entry.name, entry.estimator, entry.uses) for entry in found.entries]
    [('weight', 'flipout', 1), ('bias', 'flipout', 1)]
    >>> found.bytes  # 8 means and 8 stds
    64
    """
    require(module=(module, nn.Module))
    copied = deepcopy(module)
    found = bayesian_modules(copied)
    if not found:
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    parts = [_Part(name, m.network, m.coordinates, m.estimators, m.mean, m.std) for name, m in found.items()]
    for bayesian, part in zip(found.values(), parts, strict=True):
        bayesian.forward = part.rehearse  # type: ignore[method-assign]  # of a copy
    with same_random_numbers(copied.parameters()):
        _call(copied, example)
    described = {p: entry for part in parts for p, entry in part.entries()}
    norms, own = normalisation(copied), {p for m in found.values() for p in m.parameters()}
    described |= {p: _deterministic(n, p, n in norms) for n, p in copied.named_parameters() if p not in own}
    rhos = {m.rho for m in found.values()}  # no numbers of the network's
    entries = tuple(described[p] for p in copied.parameters() if p in described and p not in rhos)
    return Explanation(entries, sum(part.bytes for part in parts))


@torch.no_grad()
def explain_problem(problem: Problem, inputs: Tensor, estimator: EstimatorName, std: Tensor) -> Explanation:
    """Do the same for a problem as mean field infers it: what is not selected has a prior too, and no std.

    Args:
        problem: left as it is.
        inputs: a batch.
        estimator, std: as `MeanField` starts with them; std (P − start,).
    """
    problem = problem.snapshot()
    where = problem.coordinates
    random = {n: p for n, p in where.params.items() if n in where.random_names or n in where.latents}
    values = {n: p for n, p in where.params.items() if n in where.of_prior(where.params)}
    estimators = dict.fromkeys(where.random_names, estimator)
    part = _Part("", problem.network, where, estimators, values, where.layout.among(random).changes(std))
    with same_random_numbers(problem.network.parameters()):
        _call(part.rehearse, inputs)
    return Explanation(tuple(entry for _, entry in part.entries()), part.bytes)


@dataclass(frozen=True, eq=False)
class _Part:
    """A network that is random in whole or in part, and all that its rows are made of."""

    prefix: str
    network: nn.Module
    coordinates: Coordinates
    estimators: Mapping[str, str]
    values: Mapping[str, Tensor]  # means and points that the prior speaks of, latents too
    stds: Mapping[str, Tensor]
    passes: list[Uses] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of means and stds."""
        return sum(2 * std.nbytes for std in self.stds.values())

    def rehearse(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the network does at the mean, and note the uses."""
        outputs: list[Any] = []

        def compute() -> Any:
            outputs.append(self.network(*args, **kwargs))
            return outputs[0]

        weights = self.coordinates.computed(self.values)
        params = {n: self.network.get_parameter(n) for n in self.coordinates.random_names}
        self.passes.append(rehearse(compute, params, weights, self.network.buffers()))
        return outputs[0]

    def entries(self) -> Iterator[tuple[Tensor, Entry]]:
        """Describe each parameter of the network, then each latent."""
        norms, shapes, kl = normalisation(self.network), self.coordinates.shapes(), self._kl()
        for name, parameter in self.network.named_parameters():
            prior = _prior_of(name, self.coordinates.prior, shapes) if name in shapes else None
            if name not in self.stds:
                yield parameter, replace(_deterministic(self._full(name), parameter, name in norms), prior=prior)
                continue
            estimator, why = self._estimator(name)
            uses = sum(len(seen.get(name, ())) for seen in self.passes)
            yield parameter, self._random(name, parameter, estimator, why, prior=prior, uses=uses, kl=kl)
        for name in self.coordinates.latents:
            latent = self.values.get(name, self.coordinates.params[name])
            why = f"latent of the {name.partition('.')[0]}"
            yield latent, self._random(name, latent, WHOLE, why, prior="its own", uses=1, kl=SAMPLED)

    def _full(self, name: str) -> str:
        return f"{self.prefix}.{name}" if self.prefix else name

    def _random(self, name: str, parameter: Tensor, estimator: str, why: str, **found: Any) -> Entry:
        std, shape = float(self.stds[name].mean()), tuple(parameter.shape)
        return Entry(self._full(name), shape, parameter.numel(), estimator, why, std=std, **found)

    def _estimator(self, name: str) -> tuple[str, str]:
        used = [seen for seen in self.passes if seen.get(name)]
        own = self.estimators[name]
        asked = WHOLE if own == "weight" else own
        if not used:
            return asked, "not used by this example"
        why = "" if asked == WHOLE else hindrance(name, used[0])
        return ("none" if why == UNSEEN else WHOLE if why else asked), why

    def _kl(self) -> str:
        """Say whether E_q[log p(w)] is exact; given one draw of the prior's latents, where it has some."""
        where = self.coordinates
        if where.normal is not None:
            return CLOSED
        spreads = {n: self.stds.get(n, torch.zeros_like(v)) for n, v in where.of_network(self.values).items()}
        expected = where.prior.expected_log_prob(where.of_prior(self.values), where.of_prior(spreads))
        return SAMPLED if expected is None else CLOSED


def _call(network: Callable[..., Any], example: Any) -> None:
    kwargs = dict(example) if isinstance(example, Mapping) else {}
    args = example if isinstance(example, tuple) else () if isinstance(example, Mapping) else (example,)
    try:
        network(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        shapes = [tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__ for a in (*args, *kwargs.values())]
        raise InvalidInput(f"The network cannot take this example, {shapes}: {reason}") from error


def _deterministic(name: str, parameter: nn.Parameter, norm: bool) -> Entry:
    kind, why = "deterministic", "normalisation layer" if norm else "not selected"
    if not parameter.requires_grad:
        kind, why = "frozen", ""
    return Entry(name, tuple(parameter.shape), parameter.numel(), kind, why)


def _prior_of(name: str, prior: Prior, shapes: Mapping[str, Size]) -> str:
    """Write one parameter's prior in a few letters, its own numbers in the place of patterns."""
    if isinstance(prior, Product):
        part, own = next((part, own) for part, own in prior.assigned(shapes) if name in own)
        return _prior_of(name, part, own)
    known = {"kind", "fan_in"}  # of these, the reader sees the effect
    values = (
        {f.name: getattr(prior, f.name) for f in fields(prior) if f.name not in known} if is_dataclass(prior) else {}
    )
    if isinstance(prior, LocationScale):
        values["mean"], values[prior.scale_field] = (numbers[name] for numbers in prior.numbers(shapes))
    text = ", ".join(f"{value:.3g}" for value in values.values() if isinstance(value, float))
    return f"{type(prior).__name__}({text})" if text.count(",") + 1 == len(values) else type(prior).__name__


def _cells(entry: Entry) -> list[str]:
    return [
        entry.name,
        "×".join(map(str, entry.shape)) or "()",
        entry.prior or "",
        "" if entry.std is None else f"{entry.std:.2g}",
        f"{entry.estimator}: {entry.why}" if entry.why else entry.estimator,
        "" if entry.uses is None else str(entry.uses),
        entry.kl or "",
    ]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Set cells in columns, in lines of at most `WIDTH`; names, priors and reasons are broken where there is no room."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        yielding = [i for i, least in ROOM.items() if widths[i] > least] or [0]
        widths[max(yielding, key=widths.__getitem__)] -= 1
    for number, row in enumerate(rows):
        cells = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*cells, fillvalue=""):
            yield "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("─" * width for width in widths)


def _broken(cell: str, width: int) -> list[str]:
    """Break a cell between words, and names after their dots."""
    parts = wrap(cell.replace(".", ". "), width, break_long_words=True) if len(cell) > width else [cell]
    return [part.replace(". ", ".") for part in parts]


def _in_units(count: int) -> str:
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GiB"
