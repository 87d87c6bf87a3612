"""Networks that are really smaller: whole units and filters go, with the inputs of all that read them.

A unit can go without a change of any output where nothing reads it, or where it has no weights left: it is the same number at
every place then, which is added to its readers' biases unless it is 0.
"""

from copy import deepcopy
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from posterity.compress.units import Reader, Units, units_of
from posterity.compress.weights import Tensors, Weights, columns, rows, weights_of
from posterity.errors import InvalidInput
from posterity.model.informative import Informative
from posterity.model.problem import Problem, check_inputs
from posterity.posteriors.asked import check_posterior
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point

M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=FunctionPosterior)
TOLERANCE = 1e-3  # of the largest output; rounding is some 1e-6 of it, a unit that was wrongly removed far more


@overload
def smaller(model: M, inputs: Tensor) -> M: ...
@overload
def smaller(model: P, inputs: Tensor) -> P: ...
def smaller(model: nn.Module | FunctionPosterior, inputs: Tensor) -> nn.Module | FunctionPosterior:
    """Return a network, or the posterior of one, without the units that do not matter to any output.

    These are units without weights, and units that nothing reads: all that `prune` and `prune_units` made so. Outputs are those
    of `model`, to rounding; of a posterior, in the law of its draws. Layers keep one unit at least, and units stay whose
    constant value cannot go into a bias (a layer that pads with zeros reads it, or one without bias).

    Args:
        model: a network; or a `DiagonalGaussian` or `Point`, whose means and stds of what remains become the posterior of the
            smaller network, to predict with, to save, or to fit on from (see `refit`). It is not changed.
        inputs: an example of inputs, (B, ...), on which the network is recorded.

    Returns:
        of a network, one of the same class, with smaller layers; of a posterior, one of the same family.

    Raises:
        InvalidInput: where the network cannot be recorded, where its code contains the sizes of layers, and for a prior that
            has numbers of its own for each weight or row.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight[1].zero_(), net[0].bias[1].zero_()
    >>> smaller(net, torch.zeros(1, 2))[0]
    Linear(in_features=2, out_features=2, bias=True)
    """
    if not isinstance(model, nn.Module):
        check_posterior(model, "model")
    check_inputs(inputs)
    network = model if isinstance(model, nn.Module) else model.network()
    weights = weights_of(model)
    small = deepcopy(network)
    while (shrunk := _shrunk(small, weights, inputs)) is not None:  # what is not read any more goes in the next round
        small, weights = shrunk
        _compare(network, small, inputs)
    if isinstance(model, nn.Module):
        return small
    return _transferred(model, small, weights)


def _shrunk(network: nn.Module, weights: Weights, inputs: Tensor) -> tuple[nn.Module, Weights] | None:
    """Take out what can go at once; None where nothing can."""
    mean, std = dict(weights.mean), dict(weights.std)
    found = [(units, _dead(units, weights)) for units in units_of(network, inputs, weights.std)]
    found = [(units, dead) for units, dead in found if dead.any()]
    for units, dead in found:
        for reader in units.readers:
            _fold(reader, dead, weights, Weights(mean, std))
    for units, dead in found:
        for tensors in (mean, std):
            for name in units.rows:
                if name in tensors:
                    tensors[name] = tensors[name][~dead]
            for reader in units.readers:
                if reader.weight in tensors:
                    own = columns(tensors[reader.weight], reader)[:, ~dead]
                    tensors[reader.weight] = own.reshape(len(own), -1, *tensors[reader.weight].shape[2:])
    return (_resized(network, mean), Weights(mean, std)) if found else None


def _dead(units: Units, weights: Weights) -> Tensor:
    """Mark the units that may go, (size,)."""
    none = torch.zeros(units.size, dtype=torch.bool, device=weights.mean[units.sources[0]].device)
    if units.fixed or not units.readers:
        return none
    empty = torch.stack([rows(weights.gone(n)).all(1) for n in units.sources]).all(0)
    dead = ~none
    for reader in units.readers:
        unread = columns(weights.gone(reader.weight), reader).transpose(0, 1).reshape(units.size, -1).all(1)
        dead &= unread | empty & ((reader.constant == 0) | reader.constant.isfinite() & reader.folds)
    if dead.all():
        dead[0] = False
    return dead


def _fold(reader: Reader, dead: Tensor, old: Weights, new: Weights) -> None:
    """Add to a bias what constant units give, Σ w c: its mean is Σ μ c, and its variance Σ σ² c²."""
    if reader.bias is None or not reader.folds:
        return
    constant = torch.where(dead & reader.constant.isfinite(), reader.constant, 0)
    new.mean[reader.bias] = (
        new.mean[reader.bias] + columns(old.mean[reader.weight], reader).flatten(2).sum(2) @ constant
    )
    if reader.weight in old.std:
        variances = columns(old.std[reader.weight], reader).flatten(2).square().sum(2)
        new.std[reader.bias] = (new.std[reader.bias].square() + variances @ constant.square()).sqrt()


def _resized(network: nn.Module, tensors: Tensors) -> nn.Module:
    """Copy a network with other tensors in the place of its own, and layers that say their new sizes."""
    network = deepcopy(network)
    for name, value in tensors.items():
        path, _, own = name.rpartition(".")
        module = network.get_submodule(path)
        if own in module._parameters:
            old = module._parameters[own]
            setattr(module, own, nn.Parameter(value.clone(), requires_grad=old is not None and old.requires_grad))
        else:
            setattr(module, own, value.clone())
        _named_sizes(module)
    return network


def _named_sizes(module: nn.Module) -> None:
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        known = weight if weight is not None else module.running_mean
        module.num_features = module.num_features if known is None else len(known)


def _compare(network: nn.Module, small: nn.Module, inputs: Tensor) -> None:
    """Run both on the example: code that contains the sizes of layers fails here, and nothing wrong is returned."""
    modes = [(m, m.training) for whole in (network, small) for m in whole.modules()]
    try:
        expected, found = (_seeded(whole.eval(), inputs) for whole in (network, small))
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(
            f"{type(network).__name__} cannot be made smaller: its code contains the size of a layer, as view(-1, 400) does "
            f"where flatten(1) would not ({str(error).strip().splitlines()[0]})."
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not torch.allclose(expected, found, rtol=0, atol=TOLERANCE * float(expected.abs().max().clamp_min(1e-3))):
        raise InvalidInput(
            f"{type(network).__name__} cannot be made smaller: one of its operations mixes units unseen."
        )


def _seeded(network: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network with the same random numbers each time, should it use any."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs: Tensor = network(inputs)
    return outputs


def _transferred(posterior: FunctionPosterior, network: nn.Module, weights: Weights) -> DiagonalGaussian | Point:
    """Make what remains of means and stds the posterior of the smaller network."""
    old = posterior.problem
    if isinstance(old.prior, Informative):
        raise InvalidInput(
            "The prior has a number of its own for each weight, also for those that go; fit with another one."
        )
    random = frozenset(old.coordinates.random_names)
    problem = Problem(network.eval(), old.prior, old.likelihood, old.num_data, random, padding=old.padding)
    where = problem.coordinates
    for name in where.latents:
        if where.params[name].shape != old.coordinates.params[name].shape:
            raise InvalidInput(
                f"The prior's '{name}' has a number for each row, also for those that go; use per='layer'."
            )
    latents = old.layout.views(posterior.mean)
    theta = where.layout.flatten({n: latents[n] if n in where.latents else weights.mean[n] for n in where.params})
    if isinstance(posterior, Point):
        return Point(problem, theta, provenance=dict(posterior.provenance))
    assert isinstance(posterior, DiagonalGaussian)  # `weights_of` refused all others
    own = where.random_layout.flatten({n: weights.std[n] for n in where.random_names})
    tail = posterior.std[old.coordinates.network - old.coordinates.start :]
    return DiagonalGaussian(problem, theta, torch.cat([own, tail]), provenance=dict(posterior.provenance))
