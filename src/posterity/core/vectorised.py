"""An unmodified network run with many weights at once: n functions of one batch in about one pass.

A `TorchFunctionMode` meets every torch function of the forward pass. The n functions' values live in one tensor, in one of
two forms: FOLDED, (B, n·C, H, W), where the functions are groups of channels and n convolutions are one grouped convolution;
or STACKED, (n, B, F), where n matrix products are one batched product. A function of torch that has no rule here raises
`NoRule`: then the pass cannot be vectorised in this way. What torch does not show to a mode (scripted functions, a tensor
that is changed through another name) is not seen here: compare some values with the plain network's before trusting it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from math import prod
from typing import Any

import torch
from torch import Size, Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from posterity.core.linear_ops import Call, Convolution, Dense, parse

FOLDED, STACKED = "folded", "stacked"
BATCH_NORM = signature(functional.batch_norm)


class NoRule(Exception):
    """A function of torch met the values of many functions, and has no rule for them."""


def _channels_last(weight: Tensor) -> Tensor:
    """Lay a kernel (C′, C, H, W) out so that a convolution answers with its channels last.

    Pooling is ten times as fast then, and many small groups are twice. A kernel of one channel is laid out both ways at once;
    its strides say which is meant.
    """
    _, channels, height, width = weight.shape
    strides = (channels * height * width, 1, width * channels, channels)
    return weight.contiguous(memory_format=torch.channels_last).as_strided(weight.shape, strides)


class ManyWeights(TorchFunctionMode):
    """Inside the block a network computes with n values of each of its parameters.

    params: the network's parameters; weights: by the same names, (n, *shape). What the network returns inside the block is
    turned into (n, B, *out) by `stacked`.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> with ManyWeights({"weight": layer.weight}, {"weight": torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])}) as many:
    ...     outputs = many.stacked(layer(torch.tensor([[3.0, 4.0]])))
    >>> outputs.flatten()
    tensor([3., 4.])
    """

    def __init__(self, params: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = {id(p): weights[name] for name, p in params.items()}
        self.count = len(next(iter(weights.values())))
        self.forms: Any = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(self.many(value) for value in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        call = parse(func, args, kwargs)
        if call is not None:
            return call.finish(self.linear(call, args[0] if args else kwargs["input"]))
        rule = RULES.get(func)
        if rule is None:
            raise NoRule(getattr(func, "__name__", str(func)))
        return rule(self, func, *args, **kwargs)

    def many(self, value: Any) -> bool:
        """Say whether a value is a parameter, or was computed with one; those in lists have no rule, and are found."""
        if isinstance(value, list | tuple):
            return any(map(self.many, value))
        return isinstance(value, Tensor) and (id(value) in self.weights or value in self.forms)

    def form(self, value: Any) -> str:
        """Return how a value holds the n functions' own."""
        if value not in self.forms:
            raise NoRule("a parameter by itself, or what none has touched")
        return str(self.forms[value])

    def as_(self, form: str, value: Tensor) -> Tensor:
        self.forms[value] = form
        return value

    def each(self, value: Tensor) -> Tensor:
        """Return a parameter's n values, (n, *shape): the same ones where it is not among those of θ."""
        own = self.weights.get(id(value))
        return value.expand(self.count, *value.shape) if own is None else own

    def stacked(self, value: Tensor) -> Tensor:
        """Return the values of the n functions, (n, B, ...)."""
        if self.form(value) == STACKED:
            return value
        split: Tensor = value.unflatten(1, (self.count, -1)).transpose(0, 1)
        return split

    def linear(self, call: Call, given: Tensor) -> Tensor:
        """Run a layer, op(x, weight, bias), for every function; x may be what was given, padded."""
        if call.weight in self.forms or call.bias in self.forms:
            raise NoRule("a computed weight")
        if id(given) in self.weights or call.x.dim() != given.dim():
            raise NoRule("a parameter as a layer's input, or an example without a batch")
        if given in self.forms and call.x is not given:
            self.as_(self.form(given), call.x)
        weight, bias = self.each(call.weight), None if call.bias is None else self.each(call.bias)
        match call.op:
            case Convolution(transposed=False):
                return self.as_(FOLDED, self._convolved(call, weight, bias))
            case Dense() if weight.dim() == 3:
                return self.as_(STACKED, self._multiplied(call.x, weight, bias))
        raise NoRule(type(call.op).__name__)

    def _convolved(self, call: Call, weight: Tensor, bias: Tensor | None) -> Tensor:
        op, x = call.op, call.x
        assert isinstance(op, Convolution)
        groups = op.groups
        if x in self.forms:
            if self.form(x) != FOLDED:
                raise NoRule("a convolution of stacked values")
            groups *= self.count
        elif groups > 1:
            raise NoRule("a grouped convolution of the inputs")
        weight = weight.flatten(0, 1)
        if weight.dim() == 4 and weight.device.type == "cpu":
            weight = _channels_last(weight)
        return replace(op, groups=groups).forward(x, weight, None if bias is None else bias.flatten())

    def _multiplied(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x not in self.forms:
            if x.dim() != 2:
                raise NoRule("a linear layer over more than one axis")
            flat = functional.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            split: Tensor = flat.unflatten(1, (self.count, -1)).transpose(0, 1)
            return split
        if self.form(x) != STACKED or x.dim() != 3:
            raise NoRule("a linear layer over channels")
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    def shape(self, value: Tensor) -> Size:
        """Return the shape that a single function's values have."""
        if id(value) in self.weights:
            return self.weights[id(value)].shape[1:]
        if self.form(value) == STACKED:
            return value.shape[1:]
        return Size((value.shape[0], value.shape[1] // self.count, *value.shape[2:]))

    def flattened(self, value: Tensor) -> Tensor:
        """Join all axes but the batch: (B, n·C, ...) to (n, B, F), (n, B, ...) to (n, B, F)."""
        return self.as_(STACKED, self.stacked(value).flatten(2))


def _alike(many: ManyWeights, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Apply what treats every number by itself: of tensors, one, or several of the same form and shape."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    form = many.form(tensors[0])
    for value in tensors[1:]:
        if value.dim() == 0 and not many.many(value):
            continue  # a number
        if many.form(value) != form or value.shape != tensors[0].shape:
            raise NoRule(func.__name__)
    return many.as_(form, func(*args, **kwargs))


def _by_channel(axes: int) -> Callable[..., Any]:
    """Apply what treats every channel by itself, over so many axes of places; over one more, it would pool channels."""

    def apply(many: ManyWeights, func: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if many.form(x) != FOLDED or x.dim() != axes + 2:
            raise NoRule("pooling")
        return many.as_(FOLDED, func(x, *args, **kwargs))

    return apply


def _flatten(many: ManyWeights, func: Callable[..., Any], x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    if start_dim != 1 or end_dim not in (-1, len(many.shape(x)) - 1):
        raise NoRule("flatten")
    return many.flattened(x)


def _reshape(many: ManyWeights, func: Callable[..., Any], x: Tensor, *shape: Any) -> Any:
    """Allow the two ways to write flatten(1)."""
    wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    own = many.shape(x)
    batch, width = own[0], prod(own[1:])
    if wanted not in ((batch, -1), (batch, width), (-1, width)):
        raise NoRule("reshape")
    return many.flattened(x)


def _mean(many: ManyWeights, func: Callable[..., Any], x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Average over places, as a network does before its last layer."""
    axes = {axis % x.dim() for axis in dim} if isinstance(dim, list | tuple) else set()
    if many.form(x) != FOLDED or axes != set(range(2, x.dim())) or keepdim:
        raise NoRule("mean")
    return many.flattened(many.as_(FOLDED, x.mean(tuple(axes))))


def _pad(many: ManyWeights, func: Callable[..., Any], x: Tensor, pad: Any, *args: Any, **kwargs: Any) -> Any:
    """Pad places and channels, but not examples."""
    if many.form(x) != FOLDED or len(pad) > 2 * (x.dim() - 1):
        raise NoRule("pad")
    if len(pad) <= 2 * (x.dim() - 2):
        return many.as_(FOLDED, func(x, pad, *args, **kwargs))
    own = x.unflatten(1, (many.count, -1))
    return many.as_(FOLDED, func(own, pad, *args, **kwargs).flatten(1, 2))


def _index(many: ManyWeights, func: Callable[..., Any], x: Tensor, index: Any) -> Any:
    """Take some of the places: x[:, :, ...]."""
    whole = isinstance(index, tuple) and index[:2] == (slice(None), slice(None))
    if many.form(x) != FOLDED or not whole or not all(isinstance(part, slice) for part in index):
        raise NoRule("indexing")
    return many.as_(FOLDED, func(x, index))


def _dropout(
    many: ManyWeights, func: Callable[..., Any], x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    if training:
        raise NoRule("dropout")
    return x


def _batch_norm(many: ManyWeights, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Normalise by running statistics, which all functions share."""
    given = BATCH_NORM.bind(*args, **kwargs).arguments
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None or many.form(given["input"]) != FOLDED:
        raise NoRule("batch_norm")
    own = {n: many.each(given[n]).flatten() for n in ("weight", "bias") if given.get(n) is not None}
    tiled = {"running_mean": mean.repeat(many.count), "running_var": variance.repeat(many.count)}
    return many.as_(FOLDED, func(**{**given, **own, **tiled}))


def _size(many: ManyWeights, func: Callable[..., Any], x: Tensor, dim: int | None = None) -> Any:
    return many.shape(x) if dim is None else many.shape(x)[dim]


def _told(many: ManyWeights, func: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return func(x, *args, **kwargs)


ALIKE = (
    functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu6, functional.leaky_relu,
    functional.softplus, functional.elu, functional.selu, functional.celu, functional.gelu, functional.silu,
    functional.mish, functional.hardtanh, functional.hardswish, functional.hardsigmoid, functional.softsign,
    functional.tanh, torch.tanh, Tensor.tanh, functional.sigmoid, torch.sigmoid, Tensor.sigmoid, functional.logsigmoid,
    torch.sin, torch.cos, torch.exp, torch.square, torch.abs, Tensor.square, Tensor.abs, Tensor.neg, Tensor.exp,
    torch.add, torch.sub, torch.mul, torch.div, Tensor.add, Tensor.sub, Tensor.mul, Tensor.div, Tensor.pow,
    Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.__sub__, Tensor.__mul__, Tensor.__rmul__,
    Tensor.__truediv__, Tensor.__neg__, Tensor.clamp, Tensor.contiguous, Tensor.float, Tensor.to,
)  # fmt: skip
BY_CHANNEL = {
    1: (functional.max_pool1d, torch.max_pool1d, functional.avg_pool1d, functional.adaptive_avg_pool1d),
    2: (functional.max_pool2d, torch.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
    3: (functional.max_pool3d, torch.max_pool3d, functional.avg_pool3d, functional.adaptive_avg_pool3d),
}
RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(ALIKE, _alike),
    **{function: _by_channel(axes) for axes, functions in BY_CHANNEL.items() for function in functions},
    **dict.fromkeys((torch.flatten, Tensor.flatten), _flatten),
    **dict.fromkeys((Tensor.view, Tensor.reshape, torch.reshape), _reshape),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
    functional.pad: _pad,
    Tensor.__getitem__: _index,
    functional.dropout: _dropout,
    functional.batch_norm: _batch_norm,
    Tensor.size: _size,
    Tensor.shape.__get__: _size,  # type: ignore[attr-defined]
    Tensor.__len__: lambda many, func, x: many.shape(x)[0],
    Tensor.dim: lambda many, func, x: len(many.shape(x)),
    Tensor.ndim.__get__: lambda many, func, x: len(many.shape(x)),  # type: ignore[attr-defined]
    **dict.fromkeys(
        (Tensor.dtype.__get__, Tensor.device.__get__, Tensor.is_floating_point, Tensor.requires_grad.__get__),  # type: ignore[attr-defined]
        _told,
    ),
}
