"""Estimators that draw where the weight meets its input: local reparameterisation and Flipout.

They see the network's calls through a `TorchFunctionMode` and upgrade those that are linear in a random weight; any other
operation on one gets an ordinary drawn weight, never a silent zero gradient.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from posterity.core.estimators import Estimator, Loss, Pair, differentiate
from posterity.core.gaussian import noise_like
from posterity.core.layout import Layout, bound
from posterity.core.linear_ops import Call, LinearOp, parse


class ActivationDraw(Estimator):
    """Common part of the two estimators that draw where the weight meets its input."""

    def __init__(self, params: Mapping[str, nn.Parameter], start: int = 0) -> None:
        super().__init__(params, start)
        # Ids of weights used twice in a pass: noise of its own at each use would be wrong, so they are drawn.
        self.shared: set[int] = set()

    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        mean, std = q
        self._prepare(std, generator)
        spreads = Layout.of(self.random).views(self._spread)
        leaves = {n: spread.detach().requires_grad_() for n, spread in spreads.items()}
        weights = {id(p): RandomWeight(p, leaves[n]) for n, p in self.random.items()}
        with bound(self.params, self.layout.views(mean)):
            value: Tensor = self.run(loss, weights, generator)
            differentiate(value, (self.params, out[0]), (leaves, out[1]))
        self._chain(out[1], std)
        return value.detach()

    def run(
        self, compute: Callable[[], Any], weights: "Mapping[int, RandomWeight]", generator: Generator | None = None
    ) -> Any:
        """Run a computation of the network with random weights, given by the identity of each parameter."""
        start = None if generator is None else generator.get_state()
        while True:
            try:
                with _Rules(self, weights, generator):
                    return compute()
            except _SharedWeight as again:
                self.shared.add(again.key)
                if generator is not None and start is not None:
                    generator.set_state(start)

    @abstractmethod
    def _prepare(self, std: Tensor, generator: Generator | None) -> None:
        """Write what the rule needs beside the mean into `_spread`."""

    @abstractmethod
    def spread(self, std: Tensor) -> Tensor:
        """Return what the rule needs beside the mean, differentiable in the std, for one parameter."""

    @abstractmethod
    def _chain(self, grad: Tensor, std: Tensor) -> None:
        """Turn the gradient for the spread into that for the std, in place."""

    @abstractmethod
    def activation(
        self, call: Call, weight: "RandomWeight", bias: "RandomWeight | None", generator: Generator | None
    ) -> Tensor:
        """Draw the result of a linear operation whose weight (and bias, where given as such) are random."""

    @abstractmethod
    def drawn(self, weight: "RandomWeight", generator: Generator | None) -> Tensor:
        """Draw the weight itself, for an operation without a rule."""


@dataclass(frozen=True)
class RandomWeight:
    """A weight's mean, and what carries its spread: a variance, or a perturbation."""

    mean: Tensor
    spread: Tensor


class LocalReparam(ActivationDraw):
    """Draw activations from their marginals: mean op(x, μ) + b_μ, variance op(x², σ²) + b_σ².

    Exact where a weight meets an example once, with far less variance than a shared draw. Where it meets it more often
    (convolution) each place gets noise of its own: the marginals are right, their correlation is left out; so this is
    an estimator to train with, never a way to predict.
    """

    def _prepare(self, std: Tensor, generator: Generator | None) -> None:
        torch.mul(std, std, out=self._spread)

    def spread(self, std: Tensor) -> Tensor:
        return std.square()

    def _chain(self, grad: Tensor, std: Tensor) -> None:
        grad.mul_(std).mul_(2)

    def activation(
        self, call: Call, weight: RandomWeight, bias: RandomWeight | None, generator: Generator | None
    ) -> Tensor:
        biases = (None, None) if bias is None else (bias.mean, bias.spread)
        arguments = (call.x, weight.mean, weight.spread, *biases, call.op, generator)
        y: Tensor = _LocalReparam.apply(*arguments)  # type: ignore[no-untyped-call]
        if bias is not None or call.bias is None:
            return y
        return y + _along(call.bias, y, call.op.features)  # a frozen bias

    def drawn(self, weight: RandomWeight, generator: Generator | None) -> Tensor:
        return weight.mean + weight.spread.sqrt() * noise_like(weight.spread, generator)


class Flipout(ActivationDraw):
    """One perturbation Δ = σ·ε per batch, made nearly independent between examples by random signs.

    Example b sees the weight μ + r_b ∘ Δ ∘ s_bᵀ: signs per example and channel, never per pixel or token, so that each
    example's output is that of one weight. The first dimension of an operation's input counts the examples.
    """

    def _prepare(self, std: Tensor, generator: Generator | None) -> None:
        torch.mul(std, self._noise.normal_(generator=generator), out=self._spread)

    def spread(self, std: Tensor) -> Tensor:
        return std * torch.randn_like(std)

    def _chain(self, grad: Tensor, std: Tensor) -> None:
        grad.mul_(self._noise)

    def activation(
        self, call: Call, weight: RandomWeight, bias: RandomWeight | None, generator: Generator | None
    ) -> Tensor:
        mean = call.op.forward(call.x, weight.mean, call.bias if bias is None else bias.mean)
        x = call.x * _signs(call.x, call.op.features, generator) if call.x.is_floating_point() else call.x
        perturbation = call.op.forward(x, weight.spread, None if bias is None else bias.spread)
        return mean + perturbation * _signs(perturbation, call.op.features, generator)

    def drawn(self, weight: RandomWeight, generator: Generator | None) -> Tensor:
        return weight.mean + weight.spread


class _LocalReparam(torch.autograd.Function):
    """One node for the whole rule: x² is never stored, and noise and root are kept as one tensor, ζ / (2√v)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        bias_mean: Tensor | None,
        bias_variance: Tensor | None,
        op: LinearOp,
        generator: Generator | None,
    ) -> Tensor:
        squared = x.square() if x.is_floating_point() else x
        y = op.forward(x, mean, bias_mean)
        # A floor of 1e-20 on the variance keeps the slope of the root finite where all inputs are zero.
        std = op.forward(squared, variance, bias_variance).clamp_(min=1e-20).sqrt_()
        noise = noise_like(y, generator)
        y.addcmul_(std, noise)
        ctx.save_for_backward(x, mean, variance, noise.div_(std).mul_(0.5))
        ctx.op, ctx.biased = op, bias_mean is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, slope = ctx.saved_tensors
        wanted = {"bias": ctx.biased, "inputs": ctx.needs_input_grad[0]}
        grad_x, grad_mean, grad_bias = ctx.op.backward(grad, x, mean, **wanted)
        squared = x.square() if x.is_floating_point() else x
        squared_x, grad_variance, grad_bias_variance = ctx.op.backward(grad * slope, squared, variance, **wanted)
        if grad_x is not None:
            grad_x = grad_x.addcmul(x, squared_x, value=2)
        return grad_x, grad_mean, grad_variance, grad_bias, grad_bias_variance, None, None


def _signs(like: Tensor, features: int, generator: Generator | None) -> Tensor:
    """Draw ±1 per example and feature, shaped to multiply `like`."""
    dims = like.dim()
    shape = [n if (d == 0 and dims > 1) or d == features % dims else 1 for d, n in enumerate(like.shape)]
    count = prod(shape)
    # 32 signs from one random integer: a random number for each would cost as much as a layer's matrix product.
    words = torch.empty(-(-count // 32), 1, dtype=torch.int64, device=like.device).random_(
        0, 2**32, generator=generator
    )
    bits = (words >> torch.arange(32, device=like.device)).bitwise_and_(1).view(-1)[:count]
    return bits.to(like.dtype).mul_(2).sub_(1).view(shape)


def _along(vector: Tensor, like: Tensor, features: int) -> Tensor:
    shape = [1] * like.dim()
    shape[features] = -1
    return vector.view(shape)


class _SharedWeight(Exception):
    """A weight is used a second time in one pass."""

    def __init__(self, key: int) -> None:
        super().__init__(key)
        self.key = key


class _Rules(TorchFunctionMode):
    """Upgrades the linear operations on random weights while a network runs; draws a weight for any other use of one."""

    def __init__(
        self, estimator: ActivationDraw, weights: Mapping[int, RandomWeight], generator: Generator | None
    ) -> None:
        super().__init__()
        self.estimator, self.weights, self.generator = estimator, weights, generator
        self.draws: dict[int, Tensor] = {}  # one draw per weight and pass, however often it is used
        self.used: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            return func(*args, **kwargs)
        call = parse(func, args, kwargs)
        if call is not None and id(call.weight) in self.weights and id(call.weight) not in self.estimator.shared:
            return self._activation(call)
        args, kwargs = self._substitute(args), {k: self._substitute(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)

    def _activation(self, call: Call) -> Tensor:
        self._use(call.weight)
        weight, bias = self.weights[id(call.weight)], self.weights.get(id(call.bias))
        with torch.autocast(call.x.device.type, enabled=False):  # the variance needs all of float32
            if call.x.is_floating_point() and call.x.dtype != weight.mean.dtype:
                call = Call(call.op, call.x.to(weight.mean.dtype), call.weight, call.bias, call.finish)
            return call.finish(self.estimator.activation(call, weight, bias, self.generator))

    def _substitute(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._drawn(id(value)) if id(value) in self.weights else value
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            items = [self._substitute(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    def _use(self, weight: Tensor) -> None:
        if id(weight) in self.used or id(weight) in self.draws:
            raise _SharedWeight(id(weight))
        self.used.add(id(weight))

    def _drawn(self, key: int) -> Tensor:
        if key in self.used:
            raise _SharedWeight(key)
        if key not in self.draws:
            self.draws[key] = self.estimator.drawn(self.weights[key], self.generator)
        return self.draws[key]


# Questions about a tensor that do not read its values.
_METADATA = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "grad", "layout", "is_cuda")
} | {
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.is_floating_point,
    Tensor.is_contiguous,
    Tensor.stride,
    torch.is_floating_point,
}
