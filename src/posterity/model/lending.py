"""A problem for one thread: predictions compute with a copy of the network that is theirs alone.

The copy shares buffers and frozen parameters with the network and holds no numbers of its own; θ is bound into the copy's
parameters. So the posterior's network is never touched: any number of threads predict, and what an error or an interrupt
leaves half done is thrown away with its copy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from posterity.core.entered import entered
from posterity.model.alone import unmoved
from posterity.model.problem import Problem


@contextmanager
def lent(problem: Problem, inputs: Tensor) -> Iterator[Problem]:
    """Give the block a problem whose network nobody else uses; lending it once more gives the same one.

    A network that cannot be copied, or computes with parameters of another one, is lent itself, to one thread at a time.

    Args:
        problem: what is lent.
        inputs: what the network will be given; a new copy is tried with the first of them.

    >>> from posterity import Gaussian, Normal
    >>> problem = Problem(nn.Linear(1, 1), Normal(0, 1), Gaussian(), num_data=3)
    >>> with lent(problem, torch.ones(1, 1)) as own, lent(own, torch.ones(1, 1)) as same:
    ...     own.network is problem.network, same is own
    (False, True)
    """
    if problem.spares is None:
        yield problem
        return
    mark = _mark(problem.network)
    own = None if problem.spares.single else problem.spares.take(mark) or _made(problem, inputs)
    if own is not None:
        yield own
        problem.spares.give(mark, own)
        return
    with problem.spares.turn.lock:
        yield problem


def _mark(network: nn.Module) -> list[Any]:
    """Describe what a copy would not see if it changed: modules and tensors that are others now, modes, and hooks.

    It is asked before each prediction, however small, so it walks by itself: `network.modules()` names what it finds.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [network]
    for module in waiting:
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        found += (id(module), module.training)
        for p in module._parameters.values():
            found += (None,) if p is None else (id(p), p.data_ptr())
        for others in (module._buffers, module._forward_hooks, module._forward_pre_hooks):
            if others:
                found += map(id, others.values())
        waiting += module._modules.values()
    return found


def _made(problem: Problem, inputs: Tensor) -> Problem | None:
    """Copy a problem; None, from now on, where its network's copy is not enough."""
    own = _copied(problem)
    if own is not None and _computes_alone(own, problem, inputs):
        return own
    assert problem.spares is not None
    problem.spares.single = True
    return None


def _copied(problem: Problem) -> Problem | None:
    """Copy a problem with parameters of its own, which share their memory, and all other tensors as they are."""
    params = {id(p): nn.Parameter(p.detach()) for p in problem.params.values()}
    network = twin(problem.network, params)
    if network is None:
        return None
    copied = {n: params[id(p)] for n, p in problem.params.items()}
    changes = {"network": network, "coordinates": replace(problem.coordinates, params=copied), "spares": None}
    own = copy(problem)
    for name, value in changes.items():
        object.__setattr__(own, name, value)
    return own


def twin(network: nn.Module, params: Mapping[int, Tensor] | None = None) -> nn.Module | None:
    """Copy modules and share tensors, but for those that have another in `params`, by id; None where that is not possible.

    >>> network = nn.Linear(1, 1)
    >>> copied = twin(network)
    >>> copied is network, copied.weight is network.weight
    (False, True)
    """
    memo: dict[int, Any] = dict(params or {})
    for module in network.modules():
        others = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        kept: list[Any] = [value for value in others if isinstance(value, Tensor)]
        kept += [value for hook in hooks for value in (hook, getattr(hook, "__self__", hook))]  # what they write to
        memo |= {id(value): value for value in kept if id(value) not in memo and not isinstance(value, nn.Module)}
    expected = [id(memo[id(p)]) for p in network.parameters()]
    try:
        copied = deepcopy(network, memo)
    except Exception:  # whatever it is: what a module holds may refuse to be copied
        return None
    return copied if [id(p) for p in copied.parameters()] == expected else None  # some copy themselves in their own way


def _computes_alone(own: Problem, problem: Problem, inputs: Tensor) -> bool:
    """Whether a copy computes without the parameters that it was copied from, which a closure may hold."""
    with unmoved(), torch.no_grad(), entered(_Watch(problem)) as watch:
        try:
            own.network(inputs[:1])
        except Exception:  # the inputs are at fault, or the network is, which is said where it is run
            return True
    return not watch.found


class _Watch(TorchFunctionMode):
    """Notes whether a torch function meets a parameter of a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.params = {id(p) for p in problem.params.values()}
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = [*args, *(kwargs or {}).values()]
        nested = [part for value in values if isinstance(value, list | tuple) for part in value]
        self.found |= any(id(value) in self.params for value in values + nested)
        return func(*args, **(kwargs or {}))
