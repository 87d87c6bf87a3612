"""Whole units and filters removed as weights: the ones that matter least, with all that reads them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar, overload

import torch
from torch import Tensor, nn

from posterity.compress.prune import removed, without
from posterity.compress.ranking import importance
from posterity.compress.units import Units, units_of
from posterity.compress.weights import Tensors, columns, rows, weights_of
from posterity.errors import InvalidInput, suggest
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.contraction import layer_of
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point

M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=FunctionPosterior)
Share: TypeAlias = float | Mapping[str, float]


@overload
def prune_units(model: M, inputs: Tensor, share: Share, by: str = ...) -> M: ...
@overload
def prune_units(model: P, inputs: Tensor, share: Share, by: str = ...) -> P: ...
def prune_units(
    model: nn.Module | FunctionPosterior, inputs: Tensor, share: Share, by: str = "signal_to_noise"
) -> nn.Module | FunctionPosterior:
    """Remove the units of each layer that matter least, as weights: what makes them and what reads them becomes 0.

    A unit matters as the weights and biases that make it do, in all layers that share it by addition: the norm of their
    |μ|/σ or |μ|, and for `kl` their sum, the log evidence that is lost with all of them (see `importance`). `smaller` then
    takes the units out: `smaller(prune_units(posterior, x, 0.5), x)` has half of all filters.

    Args:
        model: a network, by magnitude; or a `DiagonalGaussian` or `Point`. It is not changed.
        inputs: an example of inputs, (B, ...).
        share: of each layer's units, in [0, 1), rounded down; or `{pattern: share}` with globs over layer names, of which the
            first counts that matches one; what none matches stays whole.
        by: `signal_to_noise`, `kl` or `magnitude`.

    Raises:
        InvalidInput: for a share outside [0, 1), a pattern that matches no layer, or one whose units have to stay, with the
            reason; and as `importance`.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> from posterity.compress.structured import smaller
    >>> smaller(prune_units(net, torch.zeros(1, 2), 0.5, by="magnitude"), torch.zeros(1, 2))[2]
    Linear(in_features=2, out_features=1, bias=True)
    """
    weights = weights_of(model)
    network = model if isinstance(model, nn.Module) else model.problem.network
    groups = units_of(network, inputs, weights.std)
    scores = _scores(model, by)
    zeros = {n: torch.zeros_like(t, dtype=torch.bool) for n, t in weights.mean.items()}
    for units, part in _chosen(groups, share):
        if missing := [n for n in units.sources if n not in scores]:
            raise InvalidInput(
                f"'{missing[0]}' is no random weight, so its units cannot be ranked; leave it out of share=…."
            )
        own = [rows(scores[n]).sum(1) for n in (*units.sources, *units.biases) if n in scores]
        values = torch.stack(own).sum(0)
        gone = values.argsort(stable=True)[
            : int(part * units.size + 1e-6)
        ]  # 0.29 of 100 are 29, whatever binary makes of it
        for name in (*units.sources, *units.biases):
            zeros[name][gone] = True
        for reader in units.readers:
            columns(zeros[reader.weight], reader)[:, gone] = True
    return _zeroed(model, zeros)


def _scores(model: nn.Module | FunctionPosterior, by: str) -> Tensors:
    """Return for each weight what is summed over a unit: squares of what has a norm, and the evidence itself."""
    if isinstance(model, nn.Module):
        if by != "magnitude":
            raise InvalidInput(f"A network has no posterior to rank its units by '{by}'; use by='magnitude'.")
        return {n: p.detach().square() for n, p in model.named_parameters()}
    where, values = model.problem.coordinates, importance(model, by)
    values = torch.where(values.isinf(), 0, values if by == "kl" else values.square())
    return where.random_layout.changes(values)


def _chosen(groups: Sequence[Units], share: Share) -> list[tuple[Units, float]]:
    """Return the groups that lose units, and which share of them."""
    shares = share if isinstance(share, Mapping) else {"*": share}
    if wrong := [s for s in shares.values() if not 0 <= s < 1]:
        raise InvalidInput(
            f"share is {wrong[0]:g}; expected a share of a layer's units of at least 0 and below 1, as 0.5."
        )
    layers = {layer_of(n): units for units in groups for n in units.sources}
    for pattern in shares:
        matched = {name: units for name, units in layers.items() if fnmatchcase(name, pattern)}
        if not matched:
            raise InvalidInput(f"share: '{pattern}' matches no layer.{suggest(pattern, layers)}")
        if all(units.fixed or not units.readers for units in matched.values()):
            name, units = next(iter(matched.items()))
            raise InvalidInput(f"The units of '{name}' have to stay: {units.fixed or 'nothing reads them'}.")
    found = []
    for units in groups:
        names = [layer_of(n) for n in units.sources]
        part = next((s for p, s in shares.items() if any(fnmatchcase(n, p) for n in names)), None)
        if part is not None and not units.fixed and units.readers:
            found.append((units, part))
    return found


def _zeroed(model: nn.Module | FunctionPosterior, zeros: Tensors) -> nn.Module | FunctionPosterior:
    """Return the model with the marked weights 0, random or not."""
    if isinstance(model, nn.Module):
        network = deepcopy(model)
        for name, parameter in network.named_parameters():
            parameter.data.masked_fill_(zeros[name], 0)
        return network
    where = model.problem.coordinates
    marked = where.layout.flatten(
        {n: zeros.get(n, torch.zeros_like(p, dtype=torch.bool)) for n, p in where.params.items()}
    )
    gone = without(model, removed(model) | marked[where.start : where.network])
    theta = gone.mean.masked_fill(marked, 0)
    if isinstance(gone, DiagonalGaussian):
        return replace(gone, loc=theta)
    assert isinstance(gone, Point)  # `weights_of` refused all others
    return replace(gone, theta=theta)
