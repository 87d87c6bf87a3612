"""The plain form of a network: a copy without what torch wraps around modules, or a refusal that says how to get one."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.options import require

# Classes by name, since some exist only in builds of torch that have them: where each keeps the module that it wraps.
WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": "_checkpoint_wrapped_module",
}
FLOAT = "give the float network, and quantise a network of the posterior, posterior.network(), afterwards"
REFUSED = {  # the start of a class's name: what it is, and the cure
    "torch.jit.": ("a ScriptModule", "give the module that was scripted or traced"),
    "torch.distributed.fsdp": ("sharded by FSDP", "give the module before FSDP or fully_shard was called on it"),
    "torch.ao.": ("quantised or prepared for it", FLOAT),
    "torch.export.": ("an exported program", "give the module that was exported"),
    "torch._functorch.make_functional": ("a function without parameters", "give the module that it was made of"),
}
HOOKS = {  # of the style that recomputes an attribute before each forward pass
    "torch.nn.utils.weight_norm.WeightNorm": (
        "old-style weight_norm",
        "torch.nn.utils.remove_weight_norm(layer), then torch.nn.utils.parametrizations.weight_norm(layer)",
    ),
    "torch.nn.utils.spectral_norm.SpectralNorm": (
        "old-style spectral_norm",
        "torch.nn.utils.remove_spectral_norm(layer), then torch.nn.utils.parametrizations.spectral_norm(layer)",
    ),
    "torch.nn.utils.prune.BasePruningMethod": (
        "pruned",
        "torch.nn.utils.prune.remove(layer, 'weight'): its zeros are weights like others then. To keep them, multiply by the "
        "mask in a parametrization, torch.nn.utils.parametrize.register_parametrization(layer, 'weight', mask)",
    ),
}


def plain(network: nn.Module) -> nn.Module:
    """Copy a network without its wrappers, at any depth: compiled, parallel, averaged and checkpointed modules are as written.

    Parameters have the names that they have without wrappers. Parametrisations and `torch.fx` graphs are plain already.

    Raises:
        InvalidInput: for what has no plain form, by name and with the cure: scripted, sharded, quantised, pruned and exported
            modules, hooks that recompute weights, parameters that are no plain tensors, and what cannot be copied.

    >>> net = nn.Sequential(nn.DataParallel(nn.Linear(2, 1)))
    >>> [name for name, _ in plain(net).named_parameters()]
    ['0.weight', '0.bias']
    """
    require(network=(network, nn.Module))
    for name, module in network.named_modules():
        _refuse(module, f"'{name}' ({type(module).__name__})" if name else f"The network ({type(module).__name__})")
    memo: dict[int, Any] = {}
    for module in reversed(list(network.modules())):  # what is inside a wrapper comes after it
        inner = _wrapped(module)
        if inner is not None:
            memo[id(module)] = copied(inner, memo)
    result = copied(network, memo)
    for module in result.modules():
        for name, value in list(vars(module).items()):
            if callable(value) and hasattr(value, "_torchdynamo_orig_callable"):  # it would compute with the original
                del vars(module)[name]  # what a class defines is there again
                if not hasattr(module, name):
                    vars(module)[name] = deepcopy(value._torchdynamo_orig_callable, memo)
    return result


def copied(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy a module, and say in one line what of it cannot be copied.

    Raises:
        InvalidInput: with the module and the attribute.
    """
    try:
        result = deepcopy(network, memo)
    except Exception as error:  # a __deepcopy__ or __reduce__ of anyone's may raise anything
        raise InvalidInput(_uncopied(network, error)) from error
    _refuse_shared(network, result)
    return result


def _refuse_shared(network: nn.Module, copy: nn.Module) -> None:
    """Refuse modules that a copy shares with its original: one that trains would change the other, in silence."""
    own = {id(module) for module in network.modules() if module._parameters or module._buffers}
    name, shared = next(((n, m) for n, m in copy.named_modules() if id(m) in own), ("", None))
    if shared is not None:
        which = f"'{name}' ({type(shared).__name__})" if name else type(shared).__name__
        raise InvalidInput(
            f"A posterior copies its network, and {which} cannot be copied: its __deepcopy__ gives back the same module, whose "
            "weights would be trained in both. Leave out that method."
        )


def _wrapped(module: nn.Module) -> nn.Module | None:
    inner = next((WRAPPERS[name] for name in _names(module) if name in WRAPPERS), None)
    return None if inner is None else getattr(module, inner)


def _names(thing: Any) -> list[str]:
    """Name the class of a thing and those that it derives from."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(thing).__mro__]


def _refuse(module: nn.Module, which: str) -> None:
    for name in _names(module):
        what, cure = next((entry for start, entry in REFUSED.items() if name.startswith(start)), ("", ""))
        if what:
            raise InvalidInput(f"{which} is {what}; its parameters cannot be inferred as they are: {cure}.")
    for hook in module._forward_pre_hooks.values():
        what, cure = next((HOOKS[name] for name in _names(hook) if name in HOOKS), ("", ""))
        if what:
            raise InvalidInput(
                f"{which} is {what}: a hook makes its weights anew, and such a module cannot be copied once it has run. "
                f"Write {cure}."
            )
    for name, tensor in _own_tensors(module):
        _refuse_tensor(tensor, f"'{name}' of {which}")


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _refuse_tensor(tensor: Tensor, which: str) -> None:
    if nn.parameter.is_lazy(tensor):
        raise InvalidInput(
            f"{which} has no shape yet: a lazy module takes it from its first batch; run the network once on a batch before "
            "this, network(inputs[:2])."
        )
    if tensor.device.type == "meta":
        raise InvalidInput(f"{which} is on the meta device and holds no numbers; build the network on the CPU.")
    if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        raise InvalidInput(
            f"{which} has a hook on its gradient, which no copy keeps and no method asks. If it holds a part of the tensor "
            "where it is: make that part a buffer, and what is trained a parameter of its own, torch.cat them in forward. Else "
            "take it off, handle.remove()."
        )
    if type(tensor.data) is not Tensor:
        raise InvalidInput(
            f"{which} is a {type(tensor.data).__name__}, no plain tensor; give the network before it was distributed or "
            "quantised."
        )


def _uncopied(network: nn.Module, error: Exception) -> str:
    """Name the attribute on which a copy failed."""
    for name, module in network.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_modules"):
                continue
            reason = _why_not(value)
            if reason:
                where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
                return f"A posterior copies its network, and {where} cannot be copied: its attribute '{attribute}' {reason}"
    return (
        f"A posterior copies its network, and {type(network).__name__} cannot be copied: {str(error).splitlines()[0]}. Give it "
        "a __deepcopy__, or leave out what cannot be copied."
    )


def _why_not(value: Any) -> str | None:
    """Say why a value cannot be copied, and what to do; None where it can be."""
    try:
        deepcopy(value)
    except Exception as error:  # whatever it raises is what we look for
        if isinstance(value, Tensor) or "deepcopy protocol" in str(error):
            return "holds a tensor with a gradient history, kept from a forward pass: keep tensor.detach() instead."
        return (
            f"is a {type(value).__name__} ({str(error).splitlines()[0]}): make it where it is used, or leave it out in a "
            "__getstate__ of the module."
        )
    return None


def outside(loss: Tensor, params: Iterable[Tensor], inputs: Tensor) -> Tensor | None:
    """Find a leaf that a loss depends on and that is none of the parameters: it would never be inferred, in silence.

    A network may differentiate in its inputs, and so make leaves of them.
    """
    own = {id(p) for p in params}
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in own and not torch.equal(leaf, inputs):
            return leaf
        nodes.extend(parent for parent, _ in node.next_functions)
    return None
