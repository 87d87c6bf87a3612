"""Modules of any class that hold running statistics: what a pass in training mode moves in them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from posterity.model.alone import unmoved
from posterity.model.modes import frozen
from posterity.model.problem import Problem


def watched(problem: Problem, inputs: Tensor) -> Problem:
    """Return the problem that knows which of its network's modules hold running statistics; frozen ones keep still."""
    movers = moved(problem, inputs)
    if not movers:
        return problem
    still = (problem.still or frozenset()) | frozen(problem.network, movers)
    return replace(problem, movers=movers - still, still=still)


@torch.no_grad()
def moved(problem: Problem, inputs: Tensor) -> frozenset[str]:
    """Name the modules whose buffers a pass in training mode moves, and one in eval mode does not; torch's own norms aside.

    Normalisation written by hand is one, an exponential average of features, the power iteration of a spectral norm. What
    counts (buffers of integers) is no statistics, and what moves in eval mode, too, is a state.
    """
    trial = problem.snapshot()
    names = {
        name
        for name, module in trial.network.named_modules()
        if not isinstance(module, _NormBase) and any(b.is_floating_point() for b in module.buffers(recurse=False))
    }
    if not names:
        return frozenset()
    with unmoved():
        states = _changed(trial, inputs, names)
        trial.train()
        return frozenset(_changed(trial, inputs, names) - states)


def _changed(trial: Problem, inputs: Tensor, names: set[str]) -> set[str]:
    buffers = {name: [b.clone() for b in trial.network.get_submodule(name).buffers(recurse=False)] for name in names}
    trial.outputs(inputs.clone())
    return {
        name
        for name, before in buffers.items()
        for old, new in zip(before, trial.network.get_submodule(name).buffers(recurse=False), strict=True)
        if new.is_floating_point() and not torch.equal(old.nan_to_num(), new.nan_to_num())
    }
