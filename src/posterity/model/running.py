"""Modules of any class that hold running statistics: what a pass in training mode moves in them."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from posterity.errors import InvalidInput
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

    Raises:
        InvalidInput: where the pass moves something else that the network computes with, which no draw and no file would hold.
    """
    trial = problem.snapshot()
    names = {n for n, m in trial.network.named_modules() if not isinstance(m, _NormBase)}
    with unmoved():
        states = _changed(trial, inputs, names)
        first = deepcopy(trial.network)
        before, again = (_computed(trial, inputs) for _ in range(2))
        trial.train()
        with torch.enable_grad():  # some tell training by it
            found = _changed(trial, inputs, names) - states
        trial.network.eval()
        for name, buffer in first.named_buffers():
            trial.network.get_buffer(name).data = buffer
        if torch.equal(before, again) and not torch.equal(before, _computed(trial, inputs)):
            raise InvalidInput(_hidden(first, trial.network))
    return frozenset(found)


def _computed(trial: Problem, inputs: Tensor) -> Tensor:
    torch.manual_seed(0)
    return trial.outputs(inputs.clone()).nan_to_num()


def _changed(trial: Problem, inputs: Tensor, names: set[str]) -> set[str]:
    modules = {name: trial.network.get_submodule(name) for name in names}
    buffers = {name: [b.clone() for b in module.buffers(recurse=False)] for name, module in modules.items()}
    trial.outputs(inputs.clone())
    return {
        name
        for name, before in buffers.items()
        for old, new in zip(before, modules[name].buffers(recurse=False), strict=True)
        if new.is_floating_point() and not torch.equal(old.nan_to_num(), new.nan_to_num())
    }


def _hidden(before: nn.Module, after: nn.Module) -> str:
    """Say what a pass in training mode has moved that is no buffer."""
    for (path, old), (_, new) in zip(before.named_modules(), after.named_modules(), strict=True):
        for name, value in {**vars(new), **new._parameters}.items():
            first = {**vars(old), **old._parameters}.get(name)
            if isinstance(value, Tensor) and isinstance(first, Tensor) and not torch.equal(value, first):
                kind = "a parameter" if name in new._parameters else "an attribute"
                where = f"'{path}' ({type(new).__name__})" if path else type(new).__name__
                return (
                    f"{where} keeps running statistics in {kind}, '{name}', where neither draws nor files can hold them: make "
                    f"it a buffer, self.register_buffer('{name}', …)."
                )
    return (
        f"A pass in training mode changes what {type(after).__name__} computes in eval mode, by something that is no buffer: "
        "hold running statistics as self.register_buffer(name, tensor), where draws and files can hold them."
    )
