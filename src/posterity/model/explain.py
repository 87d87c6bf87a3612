"""What a network became: each parameter's prior, its std, and the estimator that it really gets, and why."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import torch
from torch import Size, Tensor, nn

from posterity.core.dispatch import UNSEEN, Uses, hindrance, rehearse, same_random_numbers
from posterity.errors import InvalidInput
from posterity.model.bayesianize import Bayesian
from posterity.model.coordinates import normalisation
from posterity.model.location_scale import LocationScale
from posterity.model.priors import Product
from posterity.types import Prior

WIDTH = 120
ROOM = {2: 16, 4: 24}  # priors and reasons are broken down to these widths before names are
CLOSED, SAMPLED = "closed form", "Monte Carlo"


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
    if not any(isinstance(m, Bayesian) for m in module.modules()):
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    copied = deepcopy(module)
    parts = {name: m for name, m in copied.named_modules() if isinstance(m, Bayesian)}
    passes: dict[str, list[Uses]] = defaultdict(list)
    for name, part in parts.items():
        part.forward = partial(_rehearsed, part, passes[name])  # type: ignore[method-assign]  # on a copy
    with same_random_numbers(copied.parameters()):
        _call(copied, example)
    own = {id(p) for part in parts.values() for p in part.parameters()}
    described = {id(p): entry for name, part in parts.items() for p, entry in _described(name, part, passes[name])}
    norms = normalisation(copied)
    for name, parameter in copied.named_parameters():
        if id(parameter) not in own:
            described[id(parameter)] = _deterministic(name, parameter, name in norms)
    entries = tuple(described[id(p)] for p in copied.parameters() if id(p) in described)  # all but ρ
    stds = [part.rho for part in parts.values()]
    return Explanation(entries, sum(2 * rho.numel() * rho.element_size() for rho in stds))


def _rehearsed(part: Bayesian, passes: list[Uses], *args: Any, **kwargs: Any) -> Any:
    """Compute what the network does at the mean, in the place of `forward`, and note the uses."""
    outputs: list[Any] = []

    def compute() -> Any:
        outputs.append(part.network(*args, **kwargs))
        return outputs[0]

    means = part.prior.weights(part.mean)
    params = {n: part.network.get_parameter(n) for n in means}
    passes.append(rehearse(compute, params, means, part.network.buffers()))
    return outputs[0]


def _call(module: nn.Module, example: Any) -> None:
    kwargs = dict(example) if isinstance(example, Mapping) else {}
    args = example if isinstance(example, tuple) else () if isinstance(example, Mapping) else (example,)
    try:
        module(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        shapes = [tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__ for a in (*args, *kwargs.values())]
        raise InvalidInput(f"The network cannot take this example, {shapes}: {reason}") from error


def _described(prefix: str, part: Bayesian, passes: Sequence[Uses]) -> Iterator[tuple[nn.Parameter, Entry]]:
    """Describe each parameter of a Bayesian module, and each latent of its prior."""
    stds, shapes, exact = part.std, part.coordinates.shapes(), _exactness(part)
    norms = normalisation(part.network)
    for own, parameter in part.network.named_parameters():
        name = f"{prefix}.{own}" if prefix else own
        if own not in part.random_names:
            yield parameter, _deterministic(name, parameter, own in norms)
            continue
        estimator, why = _estimator(own, part.estimator, passes)
        count = sum(len(uses.get(own, ())) for uses in passes)
        prior = _prior_of(own, part.prior, shapes)
        std = float(stds[own].mean())
        yield (
            parameter,
            Entry(name, tuple(parameter.shape), parameter.numel(), estimator, why, prior, std, count, exact),
        )
    for own, parameter in zip(part.coordinates.latents, part.latents, strict=True):
        name = f"{prefix}.{own}" if prefix else own
        std, why = float(stds[own].mean()), "latent of the prior"
        shape, numbers = tuple(parameter.shape), parameter.numel()
        yield parameter, Entry(name, shape, numbers, "weight draw", why, "its own", std, 1, SAMPLED)


def _deterministic(name: str, parameter: nn.Parameter, norm: bool) -> Entry:
    kind, why = "deterministic", "normalisation layer" if norm else "not selected"
    if not parameter.requires_grad:
        kind, why = "frozen", ""
    return Entry(name, tuple(parameter.shape), parameter.numel(), kind, why)


def _estimator(name: str, asked: str, passes: Sequence[Uses]) -> tuple[str, str]:
    used = [uses for uses in passes if uses.get(name)]
    if not used:
        return ("weight draw" if asked == "weight" else asked), "not used by this example"
    if asked == "weight":
        return "weight draw", ""
    why = hindrance(name, used[0])
    return ("none" if why == UNSEEN else "weight draw" if why else asked), why


def _exactness(part: Bayesian) -> str:
    """Say whether E_q[log p(w)] is exact; given one draw of the latents, where the prior has some."""
    if part.divergence.exact:
        return CLOSED
    where = part.coordinates
    stds = where.of_network(part.std)
    expected = part.prior.expected_log_prob(where.of_prior(part.mean), stds)
    return SAMPLED if expected is None else CLOSED


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
