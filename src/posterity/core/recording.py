"""What goes into each linear operation of a network and what its results are good for, in one forward and some backward passes.

For y_t = W a_t + b, used at T places t of an example (pixels, tokens; T = 1 in a plain layer), the gradient of a loss by W is
Σ_t g_t a_tᵀ with g_t = ∂loss/∂y_t. K-FAC and the diagonal of the curvature need no more than a and g.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from posterity.core import dispatch
from posterity.core.linear_ops import Call, Convolution, Lookup, parse


@dataclass(frozen=True, eq=False)
class Recorded:
    """One use of a weight: the call, its result y, and the copy of y that the network went on with."""

    call: Call
    result: Tensor
    passed_on: Tensor

    @property
    def inputs(self) -> Tensor:
        """a, (B, T, I), or the integers that a lookup was given, (B, T)."""
        op, x = self.call.op, self.call.x.detach()
        if isinstance(op, Lookup):
            return x.reshape(len(x), -1) if x.dim() else x.reshape(1, 1)
        if isinstance(op, Convolution):
            return patches(op, x, self.call.weight.shape[2:])
        return x.reshape(len(x) if x.dim() > 1 else 1, -1, x.shape[-1])

    def outputs(self, grad: Tensor) -> Tensor:
        """Bring ∂loss/∂y into the order of `inputs`: g, (B, T, O)."""
        if isinstance(self.call.op, Convolution):
            batched = grad if grad.dim() == self.call.weight.dim() else grad[None]
            return batched.flatten(2).transpose(1, 2)
        grad = grad if grad.dim() > 1 else grad[None]
        return grad.reshape(len(grad), -1, grad.shape[-1])


def patches(op: Convolution, x: Tensor, kernel: Iterable[int]) -> Tensor:
    """Cut x (B, C, ...) into what the kernel sees at each place: (B, T, C · kernel), a convolution as a linear layer.

    >>> op = Convolution(stride=(1,), padding=(0,), dilation=(1,), groups=1)
    >>> patches(op, torch.tensor([[[1.0, 2.0, 3.0]]]), (2,))
    tensor([[[1., 2.],
             [2., 3.]]])
    """
    sizes = tuple(kernel)
    x = functional.pad(x, [p for padding in reversed(op.padding) for p in (padding, padding)])
    for i, (size, step, hole) in enumerate(zip(sizes, op.stride, op.dilation, strict=True)):
        x = x.unfold(2 + i, hole * (size - 1) + 1, step)[..., ::hole]
    places = range(2, 2 + len(sizes))
    x = x.permute(0, *places, 1, *range(2 + len(sizes), 2 + 2 * len(sizes)))
    return x.reshape(len(x), -1, x.shape[1 + len(sizes) :].numel())


class Recorder(TorchFunctionMode):
    """Records the uses of some weights in a forward pass, by name."""

    def __init__(self, params: Mapping[str, Tensor], wanted: Collection[str]) -> None:
        super().__init__()
        self._names = {id(params[n]): n for n in wanted}
        self.uses: dict[str, Recorded] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        call = parse(func, args, kwargs)
        name = self._names.get(id(call.weight)) if call else None
        if call is None or name is None or torch._C._functorch.is_functorch_wrapped_tensor(call.x):
            return result  # under the network's own vmap or grad a use has no rows of the batch
        passed_on = result.clone()  # what changes it in place, as ReLU may, must not change the record
        self.uses[name] = Recorded(call, result, passed_on)
        return passed_on


@dataclass(frozen=True)
class Layer:
    """A weight that is used once, by a linear operation, and the bias that is added there (empty: none that is random).

    `by_example`: the first dimension of its inputs counts the examples of the batch.
    """

    weight: str
    bias: str
    by_example: bool


def layers(run: Callable[[int], Tensor], params: Mapping[str, Tensor], buffers: Iterable[Tensor]) -> list[Layer]:
    """Find the linear operations whose weights are among `params` and have no other use.

    Left out are grouped and transposed convolutions, fused kernels (recurrent layers, `nn.MultiheadAttention`), and weights
    that are used twice, by any other function, or under a vmap of the network's own: these have no rows a and g of their own.

    Args:
        run: the forward pass on so many examples, by the parameters as they are.
        params: by name, as the network holds them.
        buffers: the network's, put back afterwards.
    """
    uses = dispatch.rehearse(lambda: run(2), params, params, buffers)
    free = {n for n in params if uses.get(n) and not dispatch.hindrance(n, uses)}
    recorded = []
    for count in (2, 3):  # a dimension that is 2, then 3, is that of the examples
        with torch.no_grad(), Recorder(params, free) as recorder:
            run(count)
        recorded.append(recorder.uses)
    names = {id(p): n for n, p in params.items()}
    found = []
    for name, use in recorded[0].items():
        op = use.call.op
        if isinstance(op, Convolution) and (op.groups != 1 or op.transposed):
            continue
        bias = names.get(id(use.call.bias), "")
        sizes = [len(r[name].call.x) if r[name].call.x.dim() > 1 or isinstance(op, Lookup) else 0 for r in recorded]
        found.append(Layer(name, bias if bias in free else "", sizes == [2, 3]))
    return found


def backward(outputs: Tensor, grad: Tensor, uses: Mapping[str, Recorded]) -> dict[str, Tensor]:
    """Return ∂(Σ outputs · grad)/∂y of each use, as (B, T, O)."""
    results = [use.result for use in uses.values()]
    grads = torch.autograd.grad(outputs, results, grad, retain_graph=True, allow_unused=True)
    pairs = zip(uses.items(), grads, strict=True)
    return {n: use.outputs(torch.zeros_like(use.result) if g is None else g) for (n, use), g in pairs}
