"""Many functions evaluated on the same inputs: how many at a time, and by which of three ways, within a byte budget.

- `loop`: one function after the other, the plain forward pass of the network with θ written into it.
- `batched`: a few functions in one pass, their channels side by side (`core/vectorised.py`): for most networks of
  convolutions, linear layers, normalisation in eval mode and pooling.
- `vmap`: a few functions in one pass by `torch.func.vmap`, for most others.

Which is fastest depends on the network, the batch and the machine, so a short race decides, once for each of them in a process.
All three compute the same functions; their last digits may differ. `evaluating_by("loop")` forgoes the race. Whoever does not
agree with the loop in the race, or fails, is out of it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from posterity.core.entered import entered
from posterity.core.layout import substituted
from posterity.core.vectorised import ManyWeights
from posterity.errors import unknown
from posterity.model.problem import Problem, call, read

Way = Literal["loop", "batched", "vmap"]
WAYS: tuple[Way, ...] = ("loop", "batched", "vmap")
# What fits a processor's caches is twice as fast there as batches of hundreds of megabytes; an accelerator wants more.
CPU_BYTES, ACCELERATOR_BYTES = 16 * 2**20, 2**30
AT_ONCE = 8  # functions of one pass, at most
SHAPES = 64  # of inputs whose activations are remembered
WORTH_A_RACE = 8  # passes by the loop, at least: the race itself takes the time of about six

_asked: ContextVar[Way | None] = ContextVar("way", default=None)
_winners: dict[Any, Way] = {}
_sizes: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()


@contextmanager
def evaluating_by(way: Way) -> Iterator[None]:
    """Evaluate functions in this way inside the block, whatever a race would say.

    A network that the way cannot run is evaluated by the loop.

    >>> with evaluating_by("loop"):
    ...     pass  # posterior.predict(…) is bit for bit what one function after the other gives
    """
    if way not in WAYS:
        raise unknown("way", way, WAYS)
    token = _asked.set(way)
    try:
        yield
    finally:
        _asked.reset(token)


@dataclass(frozen=True)
class Draws:
    """n functions evaluated on B inputs: outputs (n, B, *out), and the likelihood's latents, each (n, ...)."""

    outputs: Tensor
    latents: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a problem's functions are evaluated on these inputs: `at_once` of them, on one batch after the other."""

    problem: Problem
    way: Way
    at_once: int
    batches: Sequence[Tensor]

    def counts(self, n: int) -> list[int]:
        """Split n functions into as few passes as there must be, as even as can be."""
        passes = -(-n // self.at_once)
        return [n // passes + (index < n % passes) for index in range(passes)]

    def __call__(self, thetas: Tensor) -> Iterator[Draws]:
        """Evaluate the functions at `thetas` (k, P) on each batch in turn; by the loop where this way cannot."""
        evaluate = self.at(thetas)
        for batch in self.batches:
            try:
                found = evaluate(batch)
            except Exception:  # whatever it is: where the network or the inputs are at fault, the loop says so
                if self.way == "loop":
                    raise
                evaluate = replace(self, way="loop").at(thetas)
                found = evaluate(batch)
            yield found

    def at(self, thetas: Tensor) -> Callable[[Tensor], Draws]:
        """Return what evaluates the functions at `thetas` on a batch; it raises anything where the way cannot."""
        if self.way == "loop":
            return partial(self._one_by_one, thetas)
        where = self.problem.coordinates
        views = where.layout.views(torch.stack([where.weights(theta) for theta in thetas]))
        run, own = _batched if self.way == "batched" else _vmapped, where.of_network(views)
        latents = {name: value.clone() for name, value in self.problem.latents(views).items()}

        def together(batch: Tensor) -> Draws:
            outputs = run(self.problem, own, batch).to(thetas.dtype)  # autocast may have lowered it
            return Draws(outputs.unsqueeze(-1) if outputs.dim() == 2 else outputs, latents)

        return together

    def _one_by_one(self, thetas: Tensor, batch: Tensor) -> Draws:
        outputs, latents = [], []
        for theta in thetas:
            with self.problem.bound(theta):
                outputs.append(call(self.problem, batch))
                latents.append({n: p.detach().clone() for n, p in self.problem.latents(self.problem.params).items()})
        return Draws(torch.stack(outputs), {name: torch.stack([own[name] for own in latents]) for name in latents[0]})


def plan(problem: Problem, inputs: Tensor, n: int, max_bytes: int | None = None) -> Plan:
    """Choose how to evaluate n functions on inputs (B, ...), with `max_bytes` for weights and activations of one pass.

    Raises:
        InvalidInput: for inputs that do not fit the network.
    """
    loop = Plan(problem, "loop", 1, split(problem, inputs, max_bytes))
    asked = _asked.get()
    if (asked is None and n * len(loop.batches) < WORTH_A_RACE) or asked == "loop" or not len(inputs):
        return loop
    if asked is not None:
        return _several(problem, asked, inputs, n, max_bytes)
    key = (*_structure(problem.network), problem.layout, problem.network.training)
    key += (loop.batches[0].shape, min(n, AT_ONCE), max_bytes, inputs.dtype, inputs.device, torch.get_num_threads())
    candidates = {way: _several(problem, way, inputs, n, max_bytes) for way in WAYS[1:]} | {"loop": loop}
    if max(candidate.at_once for candidate in candidates.values()) == 1:
        return loop  # weights of two do not fit
    winner = _winners.get(key) or _winners.setdefault(key, _race(candidates))  # of two races, the first one counts
    return candidates[winner]


def _several(problem: Problem, way: Way, inputs: Tensor, n: int, max_bytes: int | None) -> Plan:
    """Plan several functions a pass, half of the budget for weights and half for activations."""
    budget = budget_of(inputs, max_bytes)
    size = problem.layout.size * problem.theta().element_size()
    at_once = max(1, min(n, AT_ONCE, budget // (2 * size)))
    spent = 0 if max_bytes is None else at_once * size  # what was asked for is a bound; the default is what is fast
    return Plan(problem, way, at_once, split(problem, inputs, max(1, (budget - spent) // at_once)))


@torch.no_grad()
def _race(candidates: dict[Way, Plan]) -> Way:
    """Return the way that is fastest per function and example, of those that compute what the loop computes."""
    most = max(plan.at_once for plan in candidates.values())
    thetas = _functions(candidates["loop"].problem, most)
    expected, seconds = _timed(candidates["loop"], thetas[[0, -1]].split(1))
    times: dict[Way, float] = {"loop": seconds}
    for way in WAYS[1:]:
        plan = candidates[way]
        try:
            found, seconds = _timed(plan, [thetas] * 2)
        except Exception:  # this way cannot run the network, for whatever reason; the loop can
            continue
        if _agree(found[0][[0, -1]], torch.cat(expected)[:, : found[0].shape[1]]):
            times[way] = seconds
    return min(times, key=lambda way: times[way])


def _timed(plan: Plan, thetas: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """Evaluate functions on the first batch, pass by pass: their outputs, and the least time per function and example."""
    batch, outputs, times = plan.batches[0], [], []
    for some in thetas:
        start = time.perf_counter()
        outputs.append(plan.at(some)(batch).outputs)
        outputs[-1].flatten()[0].item()  # wait for an accelerator
        times.append((time.perf_counter() - start) / (len(some) * len(batch)))
    return outputs, min(times)


def _functions(problem: Problem, n: int) -> Tensor:
    """Return n different functions around the network's own, (n, P), for a comparison of ways."""
    theta = problem.theta()
    generator = torch.Generator(device=theta.device).manual_seed(0)
    noise = torch.randn((n, len(theta)), generator=generator, dtype=theta.dtype, device=theta.device)
    return theta + 0.3 * (theta.abs() + theta.abs().mean()) * noise


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Say whether outputs are equal to rounding; the arithmetic of an accelerator may round to 10 bits."""
    if found.shape != expected.shape:
        return False
    scale = expected.abs().nan_to_num(posinf=0).max()
    rounding = torch.finfo(found.dtype).eps ** 0.5 if found.device.type == "cpu" else 0.01
    return torch.allclose(found, expected, rtol=0, atol=rounding * float(scale), equal_nan=True)


def _batched(problem: Problem, views: dict[str, Tensor], batch: Tensor) -> Tensor:
    own = {n: p for n, p in problem.params.items() if n in views}
    with entered(ManyWeights(own, views)) as many:
        outputs: Tensor = many.stacked(read(problem.network(batch)))
    return outputs


def _vmapped(problem: Problem, views: dict[str, Tensor], batch: Tensor) -> Tensor:
    def one(params: dict[str, Tensor]) -> Tensor:
        with substituted(problem.network, params):
            outputs = read(problem.network(batch))
        return outputs

    outputs: Tensor = torch.func.vmap(one)(views)
    return outputs


def _structure(network: nn.Module) -> tuple[Any, ...]:
    return tuple((type(module), module.extra_repr()) for module in network.modules())


def budget_of(inputs: Tensor, max_bytes: int | None) -> int:
    """Return the bytes of one pass; on a processor no more than is fast, however much is allowed."""
    if inputs.device.type == "cpu":
        return CPU_BYTES if max_bytes is None else min(max_bytes // 2, CPU_BYTES)  # as much again the allocator keeps
    return ACCELERATOR_BYTES if max_bytes is None else max_bytes


def split(problem: Problem, inputs: Tensor, max_bytes: int | None) -> Sequence[Tensor]:
    """Cut inputs into batches whose activations stay within a byte budget, as one example's forward pass measures it."""
    if len(inputs) <= 1:
        return (inputs,)
    size = max(1, budget_of(inputs, max_bytes) // activation_bytes(problem, inputs[:1]))
    parts: tuple[Tensor, ...] = inputs.split(size)
    return parts


def activation_bytes(problem: Problem, example: Tensor) -> int:
    """Sum the bytes of all modules' outputs for one example: what a forward pass could hold at most.

    A copy that is lent (`model/lending.py`) does not change, so it is asked once for each shape.
    """
    known = _sizes.setdefault(problem.network, {}) if problem.spares is None else {}
    key = example.shape, example.dtype
    if key not in known:
        if len(known) >= SHAPES:
            known.clear()
        known[key] = _measured(problem, example)
    return known[key]


def _measured(problem: Problem, example: Tensor) -> int:
    seen: list[int] = []

    def count(module: nn.Module, args: Any, output: Any) -> None:
        seen.extend(t.nbytes for t in (output if isinstance(output, tuple) else (output,)) if isinstance(t, Tensor))

    handles = [m.register_forward_hook(count) for m in problem.network.modules()]
    try:
        call(problem, example)
    finally:
        for handle in handles:
            handle.remove()
    return sum(seen) + example.nbytes
