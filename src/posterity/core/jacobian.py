"""Jacobians of a network in its parameters, example by example: their transposes' products, and their own.

A network that is handed in here is a function of (parameters, inputs) whose outputs of one example do not depend on the
others in the batch (dropout off, batch normalisation by running statistics).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from weakref import WeakSet, finalize

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from posterity.core.curvature import OutputCurvature
from posterity.core.threads import Turn
from posterity.errors import InvalidInput

Params = Mapping[str, Tensor]
Compute = Callable[[Params, Tensor], Tensor]  # parameters and inputs (B, ...) to outputs (B, D)
ROW_BYTES = 128 * 2**20  # of the rows held at once


class _Shared:
    """A state of the whole process that several threads need at a time: the first one makes it, the last one ends it.

    Who holds it is known by objects that live in the threads' own frames, so an interrupted thread holds nothing.
    """

    def __init__(self, state: Callable[[], AbstractContextManager[object]]) -> None:
        self.state, self.turn = state, Turn()
        self.holders: WeakSet[_Holder] = WeakSet()
        self.running: ExitStack | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the state inside the block.

        Raises:
            RuntimeError: where somebody else has it in a way that is not shared.
        """
        holder = _Holder()
        finalize(holder, self._gone).atexit = False  # of a thread that was interrupted on its way in or out, too
        with self.turn.briefly():
            self._end()
            if self.running is None:
                self.running = ExitStack()  # known before it holds anything: an interrupt may come in between
                self.running.enter_context(self.state())
            self.holders.add(holder)
        try:
            yield
        finally:
            with self.turn.briefly():
                self.holders.discard(holder)
                self._end()

    def _gone(self) -> None:
        with self.turn.briefly():
            self._end()

    def _end(self) -> None:
        if self.running is not None and not any(True for _ in self.holders):  # dead ones are counted, but not met
            self.running.close()
            self.running = None  # once it holds nothing; to close it twice does nothing


class _Holder:
    """A thread that needs a state of the process."""


@contextmanager
def _unfused() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        try:
            torch.backends.mha.set_fastpath_enabled(fast)
        finally:  # an interrupt came in the middle of that
            torch.backends.mha.set_fastpath_enabled(fast)


_UNFUSED, _LEVEL = _Shared(_unfused), _Shared(forward_ad.dual_level)


def _alone_again() -> None:
    """Forget in a forked child who held what in its parent: those threads are not there."""
    for shared in (_UNFUSED, _LEVEL):
        shared.holders = WeakSet()


os.register_at_fork(after_in_child=_alone_again)


def differentiable() -> AbstractContextManager[None]:
    """Let attention compute by operations that have derivatives of every kind, not by fused kernels, inside the block."""
    return _UNFUSED.held()


def rows_of(
    compute: Compute, params: Params, inputs: Tensor, curvature: OutputCurvature, max_bytes: int = ROW_BYTES
) -> Iterator[tuple[slice, int, Tensor]]:
    """Give g_nk = J_nᵀ s_nk of all examples n and columns k, some at a time: (examples, first column, rows (b, k, R)).

    Args:
        compute: the network; one example's outputs must not depend on the others.
        params: the parameters to differentiate by; rows have their elements in this order.
        inputs: (B, ...). curvature: of the B outputs.
        max_bytes: of the rows given at once; at least one row is.
    """
    size = sum(p.numel() for p in params.values())
    budget = max(1, max_bytes // (size * next(iter(params.values())).element_size()))
    step = min(budget, curvature.width)
    examples = max(1, budget // step)
    for first in range(0, curvature.width, step):
        columns = torch.stack([curvature.column(k) for k in range(first, min(first + step, curvature.width))], 1)
        for start in range(0, len(inputs), examples):
            part = slice(start, min(start + examples, len(inputs)))
            yield part, first, pulled_back(compute, params, inputs[part], columns[part])


def pulled_back(compute: Compute, params: Params, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Return J_nᵀ c_nk, (B, K, R), for cotangents c (B, K, D).

    By torch.func, all at once; where an operation of the network has no rule for that, example by example.

    >>> w = {"w": torch.tensor([[1.0, 2.0]])}
    >>> compute = lambda p, x: x @ p["w"].T
    >>> pulled_back(compute, w, torch.tensor([[3.0, 4.0]]), torch.ones(1, 1, 1))
    tensor([[[3., 4.]]])
    """
    params = {n: p.detach() for n, p in params.items()}

    def one(x: Tensor, c: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda p: compute(p, x[None])[0], params)[1]
        (grads,) = torch.func.vmap(pull)(c)
        return torch.cat([g.reshape(len(c), -1) for g in grads.values()], 1)

    with differentiable():
        try:
            return torch.func.vmap(one)(inputs, cotangents)
        except InvalidInput:
            raise
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return torch.stack(
                [_one_by_one(compute, params, x[None], c) for x, c in zip(inputs, cotangents, strict=True)]
            )


def _one_by_one(compute: Compute, params: Params, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Return the rows (K, R) of one example, by ordinary backward passes."""
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    with torch.enable_grad():
        outputs = compute(leaves, inputs)[0]
        rows = [
            torch.autograd.grad(outputs, list(leaves.values()), c, retain_graph=True, allow_unused=True)
            for c in cotangents
        ]
    return torch.stack(
        [
            torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in _pairs(leaves, row)])
            for row in rows
        ]
    )


def _pairs(leaves: Params, row: tuple[Tensor | None, ...]) -> list[tuple[Tensor, Tensor | None]]:
    return list(zip((p.detach() for p in leaves.values()), row, strict=True))


def pushed_forward(compute: Compute, params: Params, tangents: Params, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(θ, x) and J(x) t, both (B, D), for a tangent t of the parameters.

    By forward-mode differentiation; where an operation has none, by the transpose of the transpose: J t = ∂(Jᵀu · t)/∂u.
    `torch.func.jvp` is for one thread at a time: torch has a single level of forward derivatives, which threads share here.
    """
    params = {n: p.detach() for n, p in params.items()}
    with differentiable():
        try:
            with _LEVEL.held():
                duals = {n: forward_ad.make_dual(p, tangents[n]) for n, p in params.items()}
                outputs, change = forward_ad.unpack_dual(compute(duals, inputs))
            return outputs, torch.zeros_like(outputs) if change is None else change
        except InvalidInput:
            raise
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return _double_backward(compute, params, tangents, inputs)


def _double_backward(compute: Compute, params: Params, tangents: Params, inputs: Tensor) -> tuple[Tensor, Tensor]:
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    with torch.enable_grad():
        outputs = compute(leaves, inputs)
        probe = torch.zeros_like(outputs, requires_grad=True)
        grads = torch.autograd.grad(outputs, list(leaves.values()), probe, create_graph=True, allow_unused=True)
        product = sum(
            ((g * tangents[n]).sum() for n, g in zip(leaves, grads, strict=True) if g is not None and g.requires_grad),
            probe.sum() * 0,
        )
        (change,) = torch.autograd.grad(product, [probe])
    return outputs.detach(), change
