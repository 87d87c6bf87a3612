"""Estimators that draw where the weight meets its input: local reparameterisation and Flipout.

They see the network's calls through a `TorchFunctionMode` and upgrade those that are linear in a random weight; any other
operation on one gets an ordinary drawn weight, never a silent zero gradient.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from posterity.core.dispatch import UNSEEN, Changed, Drawing, RandomWeight, Rules, hindrance, rehearse
from posterity.core.entered import entered
from posterity.core.estimators import Estimator, Loss, Pair, differentiate
from posterity.core.gaussian import noise_like
from posterity.core.layout import Layout, bound
from posterity.core.linear_ops import Call, LinearOp
from posterity.errors import InvalidInput

Normals: TypeAlias = Callable[
    [Tensor, Generator | None], Tensor
]  # standard normals of a tensor's shape, dtype and device


class RuledPasses:
    """Passes of a network with random weights, each drawn by a rule where there is one.

    A rule draws for a weight that is used once in a pass, by an operation that is linear in it. Which these are is found in
    the first pass, by a rehearsal that leaves no trace (its random numbers, and the buffers of `network`, are put back).

    Args:
        network: whose passes they are, if it has buffers.
        whole: the names of weights that no rule is to draw.
    """

    def __init__(self, network: nn.Module | None = None, whole: Collection[str] = ()) -> None:
        self.network, self.whole = network, whole
        self.by_rule: set[str] | None = None  # names; None before the first pass

    def run(
        self,
        compute: Callable[[], Any],
        params: Mapping[str, Tensor],
        weights: Mapping[str, RandomWeight],
        generator: Generator | None = None,
    ) -> Any:
        """Run a computation of the network with random weights, by name, in the place of its own parameters.

        Raises:
            InvalidInput: for a weight that is used behind torch's back, where it cannot be drawn.
        """
        if self.by_rule is None:
            self.by_rule = self._rehearsed(compute, params, weights)
        while True:
            try:
                with entered(Rules(params, weights, self.by_rule, generator)):
                    return compute()
            except Changed as change:
                self.by_rule.discard(change.name)  # another thread may have

    def _rehearsed(
        self, compute: Callable[[], Any], params: Mapping[str, Tensor], weights: Mapping[str, RandomWeight]
    ) -> set[str]:
        means = {n: weights[n].mean for n in params}
        uses = rehearse(compute, params, means, () if self.network is None else self.network.buffers())
        hindrances = {n: hindrance(n, uses) for n in params}
        if unseen := [n for n, reason in hindrances.items() if reason == UNSEEN]:
            raise InvalidInput(
                f"'{unseen[0]}' is {UNSEEN}, so {type(weights[unseen[0]].drawing).__name__} cannot draw it there. Use "
                "estimator='weight'."
            )
        return {n for n, reason in hindrances.items() if not reason and n not in self.whole}


class ActivationDraw(Estimator, Drawing):
    """Common part of the two estimators that draw where the weight meets its input; see `RuledPasses`."""

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        start: int = 0,
        network: nn.Module | None = None,
        *,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(params, start, layout=layout)
        self.passes = RuledPasses(network)
        self.normals: Normals = noise_like  # where normals come from

    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        mean, std = q
        self._prepare(std, generator)
        spreads = self.spreads.changes(self._spread)
        leaves = {n: spread.detach().requires_grad_() for n, spread in spreads.items()}
        weights = {n: RandomWeight(p, leaves[n], self) for n, p in self.random.items()}
        with bound(self.params, self.layout.views(mean)):
            value: Tensor = self.passes.run(loss, self.random, weights, generator)
            differentiate(value, (self.params, out[0], self.layout), (leaves, out[1], self.spreads))
        self._chain(out[1], std)
        return value.detach()

    @property
    def by_rule(self) -> set[str] | None:
        """The names of the weights that a rule draws; None before the first pass."""
        return self.passes.by_rule

    @abstractmethod
    def _prepare(self, std: Tensor, generator: Generator | None) -> None:
        """Write what the rule needs beside the mean into `_spread`."""

    @abstractmethod
    def spread(self, std: Tensor) -> Tensor:
        """Return what the rule needs beside the mean, differentiable in the std, for one parameter."""

    @abstractmethod
    def _chain(self, grad: Tensor, std: Tensor) -> None:
        """Turn the gradient for the spread into that for the std, in place."""


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
        normals = self.normals

        def noise(like: Tensor) -> Tensor:
            return normals(like, generator)

        arguments = (call.x, weight.mean, weight.spread, *biases, call.op, noise)
        y: Tensor = _LocalReparam.apply(*arguments)[0]  # type: ignore[no-untyped-call]
        if bias is not None or call.bias is None:
            return y
        return y + _along(call.bias, y, call.op.features)  # a frozen bias

    def drawn(self, weight: RandomWeight, generator: Generator | None) -> Tensor:
        return weight.mean + weight.spread.sqrt() * self.normals(weight.spread, generator)


class Flipout(ActivationDraw):
    """One perturbation Δ = σ·ε per batch, made nearly independent between examples by random signs.

    Example b sees the weight μ + r_b ∘ Δ ∘ s_bᵀ: signs per example and channel, never per pixel or token, so that each
    example's output is that of one weight. The first dimension of an operation's input counts the examples.
    """

    def _prepare(self, std: Tensor, generator: Generator | None) -> None:
        self._noise = self.normals(std, generator)
        torch.mul(std, self._noise, out=self._spread)

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

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        bias_mean: Tensor | None,
        bias_variance: Tensor | None,
        op: LinearOp,
        normals: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        squared = x.square() if x.is_floating_point() else x
        y = op.forward(x, mean, bias_mean)
        std = op.forward(squared, variance, bias_variance).clamp_(min=0).sqrt_()
        noise = normals(y)
        y.addcmul_(std, noise)
        # A floor keeps the slope of the root finite where all inputs are zero, or the weight is a constant.
        return y, noise.div_(std.clamp_(min=1e-10)).mul_(0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, mean, variance, bias_mean, _, op, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, mean, variance, output[1])
        ctx.op, ctx.biased = op, bias_mean is not None

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
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
    size = (-(-count // 32), 1)
    if generator is None:  # compiled code of variable shapes cannot take even that
        words = torch.randint(2**32, size, device=like.device)
    else:
        words = torch.randint(2**32, size, generator=generator, device=like.device)
    bits = (words >> torch.arange(32, device=like.device)).bitwise_and_(1).view(-1)[:count]
    return bits.to(like.dtype).mul_(2).sub_(1).view(shape)


def _along(vector: Tensor, like: Tensor, features: int) -> Tensor:
    shape = [1] * like.dim()
    shape[features] = -1
    return vector.view(shape)
