"""Operations that are linear in their weight, each with its own derivative: what activation-space estimators need.

`parse` reads a call of `F.linear`, `F.conv*`, `F.conv_transpose*` or `F.embedding` into (inputs, weight, bias, op).
An op computes y = op(x, w, b) and, given ∂L/∂y, the gradients for x, w and b; squares and signs are the estimators' part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Gradients = tuple[Tensor | None, Tensor, Tensor | None]


@dataclass(frozen=True)
class Dense:
    """y = x wᵀ + b over the last dimension: x (..., I), w (O, I), b (O,)."""

    features: int = -1  # the dimension of inputs and outputs that the weight acts on

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return functional.linear(x, w, b)

    def backward(self, grad: Tensor, x: Tensor, w: Tensor, *, bias: bool, inputs: bool) -> Gradients:
        flat = grad.reshape(-1, grad.shape[-1])
        grad_w = flat.T @ x.reshape(-1, x.shape[-1])
        return (grad @ w if inputs else None), grad_w, (flat.sum(0) if bias else None)


@dataclass(frozen=True)
class Convolution:
    """Any convolution, plain or transposed, in 1, 2 or 3 dimensions: x (B, C, ...), w as in torch, b (C_out,)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = (0,)
    features: int = 1

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return torch.ops.aten.convolution(x, w, b, *self._arguments())  # type: ignore[no-any-return]

    def backward(self, grad: Tensor, x: Tensor, w: Tensor, *, bias: bool, inputs: bool) -> Gradients:
        sizes = [grad.shape[1]] if bias else None
        wanted = [inputs, True, bias]
        return torch.ops.aten.convolution_backward(grad, x, w, sizes, *self._arguments(), wanted)  # type: ignore[no-any-return]

    def _arguments(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups


@dataclass(frozen=True)
class Lookup:
    """y = w[x]: x integers (...), w (V, D). The row of `padding_index` receives no gradient; −1 is none."""

    padding_index: int
    scale_by_frequency: bool
    features: int = -1

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return torch.embedding(w, x, self.padding_index, self.scale_by_frequency, False)

    def backward(self, grad: Tensor, x: Tensor, w: Tensor, *, bias: bool, inputs: bool) -> Gradients:
        arguments = (w.shape[0], self.padding_index, self.scale_by_frequency)
        return None, torch.ops.aten.embedding_dense_backward(grad, x, *arguments), None


LinearOp = Dense | Convolution | Lookup


@dataclass(frozen=True)
class Call:
    """One call of a linear operation: `op.forward(x, weight, bias)` is its result, before `finish`."""

    op: LinearOp
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    finish: Callable[[Tensor], Tensor] = lambda y: y


def parse(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call | None:
    """Read a call of a torch function as a linear operation; None where it is none that we know exactly."""
    reader = READERS.get(function)
    return reader(*args, **kwargs) if reader else None


def _dense(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    return Call(Dense(), input, weight, bias) if weight.dim() == 2 else None


def _lookup(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *rest: Any,
    **named: Any,
) -> Call | None:
    if max_norm is not None:  # renormalises the weight in place: not linear
        return None
    frequency = named.get("scale_grad_by_freq", rest[1] if len(rest) > 1 else False)
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]
    return Call(Lookup(padding, frequency), input, weight, None)


def _convolution(dims: int) -> Callable[..., Call]:
    def read(
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Call:
        steps, holes = _tuple(stride, dims), _tuple(dilation, dims)
        if padding == "valid":
            padding = 0
        elif padding == "same":  # the odd one out goes to the right, as in torch
            total = [d * (k - 1) for d, k in zip(holes, weight.shape[2:], strict=True)]
            input = functional.pad(input, [side for t in reversed(total) for side in (t // 2, t - t // 2)])
            padding = 0
        return _batched(
            Convolution(steps, _tuple(padding, dims), holes, groups, False, (0,) * dims), input, weight, bias
        )

    return read


def _transposed(dims: int) -> Callable[..., Call]:
    def read(
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Call:
        sizes = [_tuple(value, dims) for value in (stride, padding, dilation, output_padding)]
        op = Convolution(sizes[0], sizes[1], sizes[2], groups, True, sizes[3])
        return _batched(op, input, weight, bias)

    return read


def _batched(op: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Call:
    if x.dim() == weight.dim() - 1:  # a single example without a batch dimension
        return Call(op, x[None], weight, bias, lambda y: y[0])
    return Call(op, x, weight, bias)


def _tuple(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


READERS: dict[Callable[..., Any], Callable[..., Call | None]] = {
    functional.linear: _dense,
    functional.embedding: _lookup,
    functional.conv1d: _convolution(1),
    functional.conv2d: _convolution(2),
    functional.conv3d: _convolution(3),
    functional.conv_transpose1d: _transposed(1),
    functional.conv_transpose2d: _transposed(2),
    functional.conv_transpose3d: _transposed(3),
}
