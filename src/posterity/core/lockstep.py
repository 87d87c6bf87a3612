"""A log-density and its gradient at K positions at once: one batched pass where torch can make one, else one after the other.

The pass is recorded once for each shape and type of a batch, backward included: K small networks cost few more calls than one.
On a processor TorchScript calls its operations, as they stand, without Python's share of the time. What torch cannot record so
(operations that depend on values, say) is evaluated position by position, and so is what comes out differently: the first
values of each shape are compared.
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Size, Tensor, dtype
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from posterity.core.hamiltonian import differentiated
from posterity.types import Batch

Found: TypeAlias = tuple[Tensor, Tensor]  # log π (K,), in nats, and ∇log π (K, P)
Densities: TypeAlias = Callable[[Tensor], Found]  # of θ (K, P)


class SideBySide:
    """log π(θ; batch) and its gradient of many θ; where they are no numbers, −∞ and 0.

    Args:
        log_density: of θ (P,) and a batch, (), in nats.

    >>> side_by_side = SideBySide(lambda theta, batch: -0.5 * (theta * batch[0]).square().sum())
    >>> ones = torch.ones(3)
    >>> side_by_side(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), (ones, ones))[0]
    tensor([-0.5000, -1.5000])
    """

    def __init__(self, log_density: Callable[[Tensor, Batch], Tensor]) -> None:
        self._log_density = log_density
        self._passes: dict[tuple[tuple[Size, dtype], ...], Callable[..., Found]] = {}

    def __call__(self, theta: Tensor, batch: Batch) -> Found:
        kinds = tuple((part.shape, part.dtype) for part in (theta, *batch))
        if kinds not in self._passes:
            self._passes[kinds] = self._chosen(theta, batch)
        return self._passes[kinds](theta, *batch)

    def of(self, batch: Batch) -> Densities:
        """Return the densities that one batch makes."""
        return lambda theta: self(theta, batch)

    def _chosen(self, theta: Tensor, batch: Batch) -> Callable[..., Found]:
        recorded = self._recorded(theta, batch)
        if recorded is None or not _alike(recorded(theta, *batch), self._one_by_one(theta, *batch)):
            return self._one_by_one
        return recorded

    def _one_by_one(self, theta: Tensor, *batch: Any) -> Found:
        found = [differentiated(lambda row: self._log_density(row, batch), row) for row in theta]
        return theta.new_tensor([f.log_density for f in found]), torch.stack([f.gradient for f in found])

    def _recorded(self, theta: Tensor, batch: Batch) -> Callable[..., Found] | None:
        """Record the batched pass; None where torch cannot, which it says by errors of many kinds."""
        each = vmap(
            grad_and_value(lambda row, *given: self._log_density(row, given)), in_dims=(0, *(None for _ in batch))
        )
        example = tuple(tensor.clone() for tensor in (theta, *batch))  # they are told apart by identity
        try:
            with torch.no_grad():
                graph = _without_python(make_fx(each)(*example), example)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
            return None

        def recorded(theta: Tensor, *batch: Tensor) -> Found:
            with torch.no_grad():  # the pass has its own backward, and autograd has nothing to add
                gradient, log_density = (found.to(theta) for found in graph(theta, *batch))  # weights may be float64
            finite = log_density.isfinite() & gradient.sum(1).isfinite()
            return torch.where(finite, log_density, -torch.inf), torch.where(finite[:, None], gradient, 0.0)

        return recorded


def _without_python(graph: GraphModule, example: tuple[Tensor, ...]) -> Callable[..., Any]:
    """Have recorded operations called by TorchScript, where torch still has it; elsewhere than on a processor it could
    fuse them, and round otherwise.
    """
    if any(tensor.device.type != "cpu" for tensor in example) or not hasattr(torch.jit, "trace"):
        return graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, which a recording has anyhow, and of TorchScript's own age
        return torch.jit.trace(graph, example, check_trace=False)  # type: ignore[no-any-return]


def _alike(found: Found, expected: Found) -> bool:
    """Whether values agree up to rounding, each beside the largest of its kind: sums of many terms cancel."""
    for values, others in zip(found, expected, strict=True):
        size = others[others.isfinite()].abs()
        error = torch.finfo(values.dtype).eps ** 0.5 * (float(size.max()) if len(size) else 1.0)
        if not torch.allclose(values, others, rtol=0, atol=error):
            return False
    return True
