"""What a network does with its random weights, seen through a `TorchFunctionMode`, and what it gets in their place.

`rehearse` watches one pass and says which weights a rule can serve; `Rules` serves them in every pass after that.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from posterity.core.entered import entered
from posterity.core.linear_ops import Call, parse


@dataclass(frozen=True)
class RandomWeight:
    """A weight's mean, what carries its spread (a variance, or a perturbation), and how to draw it from them."""

    mean: Tensor
    spread: Tensor
    drawing: "Drawing"


@dataclass(frozen=True)
class Use:
    """One use of a random weight in a forward pass.

    `hindrance` says why no rule can draw there. It is empty where the operation is linear in `weight`: the weight itself or,
    of a bias, the random weight beside it.
    """

    operation: str
    hindrance: str = ""
    weight: str = ""


Uses = Mapping[str, Sequence[Use]]  # by the weight's name, in the order of the pass
UNSEEN = "used where no torch function shows it (a scripted module, an autograd.Function)"
_TIMES = {2: "twice", 3: "three times"}


def hindrance(name: str, uses: Uses) -> str:
    """Say why no rule can draw where this weight is used; empty where one can.

    >>> hindrance("w", {"w": [Use("linear", weight="w"), Use("linear", weight="w")]})
    'used twice in a forward pass'
    """
    own = uses.get(name, ())
    if any(use.hindrance == UNSEEN for use in own):
        return UNSEEN
    if len(own) > 1:
        return f"used {_TIMES.get(len(own), f'{len(own)} times')} in a forward pass"
    for use in own:
        if use.hindrance or use.weight == name:
            return use.hindrance
        if reason := hindrance(use.weight, uses):
            return f"its weight is {reason}" if reason.startswith("used") else reason
    return ""


def rehearse(
    compute: Callable[[], Any], params: Mapping[str, Tensor], means: Mapping[str, Tensor], buffers: Iterable[Tensor]
) -> dict[str, list[Use]]:
    """Run a network once at the means of its random weights, and list how each is used; none where it is not.

    Args:
        compute: the pass; it returns tensors in any nesting.
        params: the random weights as the network holds them.
        means: what it computes with instead.
        buffers: the network's. They and torch's random numbers are put back to what they were.
    """
    kept = [(buffer, buffer.clone()) for buffer in buffers]
    with same_random_numbers(params.values()), torch.enable_grad(), entered(_Rehearsal(params, means)) as seen:
        outputs = [t for t in tree_leaves(compute()) if isinstance(t, Tensor) and t.requires_grad]
    with torch.no_grad():
        for buffer, value in kept:
            buffer.copy_(value)
    torch.clear_autocast_cache()
    for name in _differentiable(outputs, params):
        seen.uses[name].append(Use("", UNSEEN))
    return dict(seen.uses)


def same_random_numbers(params: Iterable[Tensor]) -> AbstractContextManager[None]:
    """Put the random numbers of torch, and of the weights' accelerator, back to what they were."""
    devices = {p.device for p in params if p.device.type in ("cuda", "xpu")}
    return torch.random.fork_rng(devices, device_type=next(iter(devices)).type if devices else "cpu")


def _differentiable(outputs: list[Tensor], params: Mapping[str, Tensor]) -> list[str]:
    """Name the weights that outputs have a gradient for: used, though constants stood in for them wherever one could see."""
    leaves = {n: p for n, p in params.items() if p.requires_grad}
    if not outputs or not leaves:
        return []
    ones = [torch.ones_like(t) for t in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), ones, allow_unused=True)
    return [n for n, grad in zip(leaves, grads, strict=True) if grad is not None]


class _Seen(TorchFunctionMode):
    """Meets every torch function of a pass, but those that ask for a shape or the like."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(p): n for n, p in params.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **kwargs) if func in _METADATA else self.call(func, args, kwargs)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute one function, with other tensors in the place of random weights."""
        raise NotImplementedError

    def replaced(self, value: Any, stand_in: Callable[[str], Tensor]) -> Any:
        """Put `stand_in(name)` in the place of each random weight in nested arguments."""
        if isinstance(value, Tensor):
            return stand_in(self.names[id(value)]) if id(value) in self.names else value
        if isinstance(value, dict):
            return {key: self.replaced(part, stand_in) for key, part in value.items()}
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            items = [self.replaced(part, stand_in) for part in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value


class _Rehearsal(_Seen):
    def __init__(self, params: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> None:
        super().__init__(params)
        self.means = {n: means[n].detach() for n in params}
        self.uses: dict[str, list[Use]] = defaultdict(list)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        linear, operation = parse(func, args, kwargs), name_of(func)
        weight = self.names.get(id(linear.weight), "") if linear else ""
        beside = self.names.get(id(linear.bias), "") if linear else ""

        def stand_in(name: str) -> Tensor:
            if linear is None:
                reason = f"{'fused kernel' if func in _FUSED else 'no rule for'} {operation}"
            elif name not in (weight, beside):
                reason = f"no rule for the input of {operation}"
            else:
                reason = "" if weight else "its weight is deterministic"
            self.uses[name].append(Use(operation, reason, weight))
            return self.means[name]

        return func(*self.replaced(args, stand_in), **self.replaced(kwargs, stand_in))


class Drawing(ABC):
    """How to draw a random weight, or what a linear operation makes of it."""

    @abstractmethod
    def activation(
        self, call: Call, weight: RandomWeight, bias: RandomWeight | None, generator: Generator | None
    ) -> Tensor:
        """Draw the result of a linear operation whose weight (and bias, where given as such) are random."""

    @abstractmethod
    def drawn(self, weight: RandomWeight, generator: Generator | None) -> Tensor:
        """Draw the weight itself, for an operation without a rule."""


class Changed(Exception):
    """A pass uses a weight in another way than the rehearsal did."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Rules(_Seen):
    """Draws where the weight meets its input, for the weights `by_rule`; every other weight is drawn once for the pass."""

    def __init__(
        self,
        params: Mapping[str, Tensor],
        weights: Mapping[str, RandomWeight],
        by_rule: Collection[str],
        generator: Generator | None,
    ) -> None:
        super().__init__(params)
        self.weights, self.by_rule, self.generator = weights, by_rule, generator
        self.draws: dict[str, Tensor] = {}
        self.used: set[str] = set()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        linear = parse(func, args, kwargs)
        weight = self.names.get(id(linear.weight), "") if linear else ""
        if linear is None or weight not in self.by_rule:
            return func(*self.replaced(args, self._drawn), **self.replaced(kwargs, self._drawn))
        bias = self.names.get(id(linear.bias), "")
        ruled = {n: p for n, p in ((weight, linear.weight), (bias, linear.bias)) if n in self.by_rule and p is not None}
        if bias in ruled and self.weights[bias].drawing is not self.weights[weight].drawing:
            raise Changed(bias)  # one rule draws a layer's result
        for name in ruled:
            self._once(name)

        def stand_in(name: str) -> Tensor:
            return ruled[name] if name in ruled else self._drawn(name)

        own = parse(func, self.replaced(args, stand_in), self.replaced(kwargs, stand_in))
        assert own is not None  # the same call, with other tensors
        return self._activation(own, self.weights[weight], self.weights[bias] if bias in ruled else None)

    def _activation(self, call: Call, weight: RandomWeight, bias: RandomWeight | None) -> Tensor:
        with torch.autocast(call.x.device.type, enabled=False):  # the variance needs all of float32
            if call.x.is_floating_point() and call.x.dtype != weight.mean.dtype:
                call = Call(call.op, call.x.to(weight.mean.dtype), call.weight, call.bias, call.finish)
            return call.finish(weight.drawing.activation(call, weight, bias, self.generator))

    def _once(self, name: str) -> None:
        """Noise of its own at each use would be wrong: the rule is for weights that are used once."""
        if name in self.used:
            raise Changed(name)
        self.used.add(name)

    def _drawn(self, name: str) -> Tensor:
        if name in self.by_rule:
            raise Changed(name)
        if name not in self.draws:
            weight = self.weights[name]
            self.draws[name] = weight.drawing.drawn(weight, self.generator)
        return self.draws[name]


def name_of(func: Any) -> str:
    """Name a torch function as a reader would write it.

    >>> name_of(functional.conv2d), name_of(Tensor.T.__get__), name_of(torch.addmm)
    ('conv2d', 'Tensor.T', 'addmm')
    """
    name: str = resolve_name(func) or getattr(func, "__name__", type(func).__name__)
    return name.removeprefix("torch.").removeprefix("nn.functional.").removesuffix(".__get__")


# Questions about a tensor that do not read its values.
_PROPERTIES = (
    "shape dtype device ndim layout requires_grad is_leaf grad grad_fn is_cuda is_meta is_nested is_sparse is_quantized"
)
_METADATA = {getattr(Tensor, name).__get__ for name in _PROPERTIES.split()} | {
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.element_size,
    Tensor.is_floating_point,
    Tensor.is_complex,
    Tensor.is_contiguous,
    Tensor.stride,
    Tensor.get_device,
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
}

# Whole layers in one call.
_FUSED = {
    torch.lstm,
    torch.gru,
    torch.rnn_tanh,
    torch.rnn_relu,
    torch.lstm_cell,
    torch.gru_cell,
    torch.rnn_tanh_cell,
    torch.rnn_relu_cell,
    functional.multi_head_attention_forward,
}
