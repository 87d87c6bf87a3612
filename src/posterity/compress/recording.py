"""A network's operations, recorded in a run on an example, and what their arguments say."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from posterity.core.layout import substituted
from posterity.errors import InvalidInput


def recorded(network: nn.Module, inputs: Tensor, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """Record the network's operations on two examples; the placeholders are its tensors in their order, then the inputs."""
    training = {module: module.training for module in network.modules()}
    names, two = list(tensors), torch.cat([inputs[:1], inputs[-1:]])

    def run(values: Sequence[Tensor], examples: Tensor) -> Any:
        with substituted(network, dict(zip(names, values, strict=True))):
            return network(examples)

    try:
        network.eval()
        with torch.no_grad():
            return make_fx(run, pre_dispatch=True)(list(tensors.values()), two)
    except InvalidInput:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidInput(f"{type(network).__name__} cannot be recorded on these inputs: {reason}") from error
    finally:
        for module, mode in training.items():
            module.training = mode


def kind_of(node: fx.Node) -> str:
    """Name an operation without its overload, and without the `_` of those that work in place."""
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2].rstrip("_")


def in_place(node: fx.Node) -> bool:
    return str(getattr(node.target, "overloadpacket", "")).endswith("_")


def shape_of(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def pools_places(node: fx.Node, shape: tuple[int, ...]) -> bool:
    """Whether pooling is over the dimensions after that of the units alone."""
    kind = kind_of(node)
    if "pool" in kind:
        return len(shape) == int(kind[-2]) + 2
    dims = node.args[1] if len(node.args) > 1 else ()
    return isinstance(dims, list | tuple) and all(int(d) % len(shape) > 1 for d in dims)


def is_padded(node: fx.Node) -> bool:
    padding = node.args[4] if len(node.args) > 4 else 0
    return padding != "valid" if isinstance(padding, str) else any_nonzero([padding])


def any_nonzero(values: Sequence[Any]) -> bool:
    return any(any_nonzero(v) if isinstance(v, list | tuple) else bool(v) for v in values)
