"""Curvature summed over the training data, in the form that a Laplace approximation was asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from posterity.core.curvature import (
    DiagonalCurvature,
    FullCurvature,
    LowRankCurvature,
    OutputCurvature,
    top_eigenspace,
)
from posterity.core.jacobian import ROW_BYTES, differentiable, pushed_forward, rows_of
from posterity.core.kronecker import Block, Factors, Independent, KroneckerCurvature, Slices, Squares
from posterity.core.linear_ops import Lookup
from posterity.core.recording import Layer, Recorded, Recorder, backward, layers
from posterity.errors import InvalidInput
from posterity.model.outputs import Kind, computed_by, latent_curvature, output_curvature, random_parameters
from posterity.model.problem import Problem, call
from posterity.posteriors.base import split
from posterity.types import Batch, Data

DENSE = 1024  # numbers in a tensor that no Kronecker product serves, up to which its block is dense, not diagonal
SPARE = 10  # directions beside those that are kept of a low rank


@runtime_checkable
class Options(Protocol):
    """What to measure, and how; `Laplace` says what each of them is."""

    @property
    def structure(self) -> str: ...
    @property
    def curvature(self) -> Kind: ...
    @property
    def rank(self) -> int: ...
    @property
    def passes(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Measured:
    """G of the network's random coordinates, that of the likelihood's latents (L,), and Σ_n log p(y_n | x_n, θ*)."""

    curvature: FullCurvature | DiagonalCurvature | LowRankCurvature | KroneckerCurvature
    latents: Tensor
    log_likelihood: Tensor
    num_targets: int


def measured(problem: Problem, theta: Tensor, data: Data, options: Options) -> Measured:
    """Sum the curvature at θ over the training data, each datum once.

    Raises:
        InvalidInput: see `Laplace.infer`.
    """
    with problem.bound(theta), differentiable():
        total = _total(problem, data, options)
        log_likelihood = torch.zeros((), dtype=torch.float64, device=theta.device)
        latents: Tensor | float = 0.0
        num_targets = 0
        own = {n: p.detach() for n, p in problem.latents(problem.params).items()}
        for inputs, targets in _batches(problem, data):
            outputs = total.outputs(inputs)
            curvature = output_curvature(problem, outputs.detach(), targets, options.curvature, own)
            total.add(inputs, outputs, curvature)
            latents = latents + latent_curvature(problem, outputs, targets, options.curvature, own)
            log_likelihood += problem.likelihood(outputs.detach(), own).log_prob(targets).sum(dtype=torch.float64)
            num_targets += targets.numel()
        assert isinstance(latents, Tensor)  # data are never empty
        return Measured(total.result(), latents.detach(), log_likelihood, num_targets)


class Total(ABC):
    """A sum over the data, of one structure."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.params = random_parameters(problem)
        self.compute = computed_by(problem)
        self.size = sum(p.numel() for p in self.params.values())

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """Run the network, (B, D)."""
        return call(self.problem, inputs)

    @abstractmethod
    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature) -> None:
        """Add a batch."""

    @abstractmethod
    def result(self) -> FullCurvature | DiagonalCurvature | LowRankCurvature | KroneckerCurvature: ...

    def slices(self, *names: str) -> Slices:
        """Say where tensors lie among the network's random coordinates."""
        found, offset = {}, 0
        for name, p in self.params.items():
            found[name] = (offset, offset + p.numel())
            offset += p.numel()
        return tuple(found[name] for name in names)


class FullTotal(Total):
    def __init__(self, problem: Problem, max_bytes: int) -> None:
        super().__init__(problem)
        _refuse_large(f"The full curvature of {self.size:,} weights", 4 * 8 * self.size**2, max_bytes)
        like = next(iter(self.params.values()))
        self.matrix = torch.zeros(self.size, self.size, dtype=torch.float64, device=like.device)

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature) -> None:
        for _, _, rows in rows_of(self.compute, self.params, inputs, curvature):
            flat = rows.flatten(0, 1)
            self.matrix += flat.T @ flat

    def result(self) -> FullCurvature:
        return FullCurvature(self.matrix)


class LowRankTotal(Total):
    """Adds nothing in the common pass: it takes passes of its own, with products."""

    def __init__(self, problem: Problem, data: Data, options: Options) -> None:
        super().__init__(problem)
        width = min(self.size, options.rank + SPARE)
        what = f"{width} directions of {self.size:,} weights"
        _refuse_large(what, 5 * 8 * self.size * width, options.max_bytes)
        self.data, self.options = data, options

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature) -> None:
        pass

    def result(self) -> LowRankCurvature:
        like = next(iter(self.params.values()))
        return top_eigenspace(self._product, self.size, self.options.rank, self.options.passes, like)

    def _product(self, directions: Tensor) -> Tensor:
        """Return G times directions (R, M): Σ_n J_nᵀ Λ_n J_n v."""
        total = torch.zeros_like(directions)
        own = {n: p.detach() for n, p in self.problem.latents(self.problem.params).items()}
        shapes = [p.shape for p in self.params.values()]
        for inputs, targets in _batches(self.problem, self.data):
            with torch.enable_grad():
                outputs = call(self.problem, inputs)
            curvature = output_curvature(self.problem, outputs.detach(), targets, self.options.curvature, own)
            for column, out in zip(directions.T, total.T, strict=True):
                parts = column.to(outputs.dtype).split([s.numel() for s in shapes])
                tangents = {n: v.view(s) for n, v, s in zip(self.params, parts, shapes, strict=True)}
                _, change = pushed_forward(self.compute, self.params, tangents, inputs)
                leaves = list(self.params.values())
                grads = torch.autograd.grad(
                    outputs, leaves, curvature.times(change), retain_graph=True, materialize_grads=True
                )
                out += torch.cat([g.flatten() for g in grads])
        return total


class LayeredTotal(Total):
    """By layers where K-FAC's rows are known, and by whole Jacobians for all other tensors."""

    def __init__(self, problem: Problem, probe: Tensor) -> None:
        super().__init__(problem)
        index = torch.arange(3, device=probe.device) % len(probe)
        found = layers(lambda n: call(problem, probe[index[:n]]), self.params, problem.network.buffers())
        self.layers = {layer.weight: layer for layer in found if self.serves(layer)}
        served = set(self.layers) | {layer.bias for layer in self.layers.values()}
        self.rest = {n: p for n, p in self.params.items() if n not in served}
        self.uses: dict[str, Recorded] = {}

    def serves(self, layer: Layer) -> bool:
        return True

    def outputs(self, inputs: Tensor) -> Tensor:
        """Run the network and keep what goes into its layers, with the graph."""
        with torch.enable_grad(), Recorder(self.params, self.layers) as recorder:
            outputs = call(self.problem, inputs)
        self.uses = recorder.uses
        return outputs

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature) -> None:
        last = {n: u for n, u in self.uses.items() if u.passed_on is outputs and u.result.dim() == 2}
        others = {n: u for n, u in self.uses.items() if n not in last}
        for name, use in self.uses.items():
            self.add_inputs(name, use)
        for name, use in last.items():  # f = y: its rows are Λ's own columns, which need not be taken one by one
            self.add_last(name, use, curvature)
        for k in range(curvature.width if others else 0):
            for name, g in backward(outputs, curvature.column(k), others).items():
                self.add_column(name, others[name], g)
        if self.rest:
            for _, _, rows in rows_of(self.compute, self.rest, inputs, curvature):
                parts = rows.flatten(0, 1).split([p.numel() for p in self.rest.values()], 1)
                for name, part in zip(self.rest, parts, strict=True):
                    self.add_rows(name, part)

    def add_inputs(self, name: str, use: Recorded) -> None:
        """Add what a layer was given; nothing unless overridden."""

    @abstractmethod
    def add_last(self, name: str, use: Recorded, curvature: OutputCurvature) -> None: ...
    @abstractmethod
    def add_column(self, name: str, use: Recorded, g: Tensor) -> None: ...
    @abstractmethod
    def add_rows(self, name: str, rows: Tensor) -> None: ...


class DiagonalTotal(LayeredTotal):
    """The exact diagonal, by layers where it is cheap."""

    def __init__(self, problem: Problem, probe: Tensor) -> None:
        super().__init__(problem, probe)
        like = next(iter(self.params.values()))
        self.squares = {n: Squares(self.params[n], bool(own.bias), ROW_BYTES) for n, own in self.layers.items()}
        self.values = {n: torch.zeros(p.numel(), dtype=torch.float64, device=like.device) for n, p in self.rest.items()}

    def serves(self, layer: Layer) -> bool:
        return layer.by_example  # a square of a sum over places needs to know which of them are one example's

    def add_last(self, name: str, use: Recorded, curvature: OutputCurvature) -> None:
        if isinstance(use.call.op, Lookup):
            for k in range(curvature.width):
                self.add_column(name, use, use.outputs(curvature.column(k)))
        else:
            self.squares[name].add_output(use.inputs, curvature.diagonal())

    def add_column(self, name: str, use: Recorded, g: Tensor) -> None:
        self.squares[name].add(use.inputs, g)

    def add_rows(self, name: str, rows: Tensor) -> None:
        self.values[name] += rows.square().sum(0)

    def result(self) -> DiagonalCurvature:
        found = dict(self.values)
        for name, squares in self.squares.items():
            found[name] = squares.weight.flatten()
            if squares.bias is not None:
                found[self.layers[name].bias] = squares.bias
        return DiagonalCurvature(torch.cat([found[n] for n in self.params]))


class KroneckerTotal(LayeredTotal):
    """Kronecker factors of layers; of any other tensor a dense block, or the exact diagonal where it is large."""

    def __init__(self, problem: Problem, probe: Tensor, max_bytes: int) -> None:
        super().__init__(problem, probe)
        sizes = [len(self.params[n]) ** 2 + self.params[n][0].numel() ** 2 for n in self.layers]
        _refuse_large("The Kronecker factors", 4 * 8 * sum(sizes), max_bytes)
        lookups = {n for n, u in self._probed(probe).items() if isinstance(u.call.op, Lookup)}
        self.factors = {n: Factors(self.params[n], bool(o.bias), n in lookups) for n, o in self.layers.items()}
        shapes = {n: (p.numel(),) * (2 if p.numel() <= DENSE else 1) for n, p in self.rest.items()}
        self.blocks = {n: p.new_zeros(shapes[n], dtype=torch.float64) for n, p in self.rest.items()}

    def _probed(self, probe: Tensor) -> dict[str, Recorded]:
        self.outputs(probe[:1])
        return self.uses

    def add_inputs(self, name: str, use: Recorded) -> None:
        self.factors[name].add_inputs(use)

    def add_last(self, name: str, use: Recorded, curvature: OutputCurvature) -> None:
        self.factors[name].add_output_total(curvature.total())

    def add_column(self, name: str, use: Recorded, g: Tensor) -> None:
        self.factors[name].add_outputs(g)

    def add_rows(self, name: str, rows: Tensor) -> None:
        self.blocks[name] += rows.T @ rows if self.blocks[name].dim() == 2 else rows.square().sum(0)

    def result(self) -> KroneckerCurvature:
        found: list[Block] = []
        for name, factors in self.factors.items():
            bias = self.layers[name].bias
            found.append(factors.block(self.slices(name, bias) if bias else self.slices(name)))
        for name, value in self.blocks.items():
            own = FullCurvature(value) if value.dim() == 2 else DiagonalCurvature(value)
            found.append(Independent(self.slices(name), own))
        return KroneckerCurvature(tuple(found))


def _total(problem: Problem, data: Data, options: Options) -> Total:
    if options.structure == "full":
        return FullTotal(problem, options.max_bytes)
    if options.structure == "low_rank":
        return LowRankTotal(problem, data, options)
    probe = next(islice(_batches(problem, data), 1))[0]
    if options.structure == "diag":
        return DiagonalTotal(problem, probe)
    return KroneckerTotal(problem, probe, options.max_bytes)


def _batches(problem: Problem, data: Data) -> Iterator[Batch]:
    """Give all training data once, in parts that fit into memory."""
    for inputs, targets in data.batches(0, Generator().manual_seed(0)):
        start = 0
        for part in split(problem, inputs, None):
            yield part, targets[start : start + len(part)]
            start += len(part)


def _refuse_large(what: str, needed: int, max_bytes: int) -> None:
    if needed > max_bytes:
        raise InvalidInput(
            f"{what} takes {needed / 2**30:,.1f} GiB; the limit is max_bytes = {max_bytes / 2**30:,.1f} GiB. Use "
            "structure='diag' or 'kron', or fewer random weights: where='last_layer'."
        )
