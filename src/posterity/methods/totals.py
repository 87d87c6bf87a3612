"""Curvature summed over the data in one of its forms: all of it, and its largest eigenpairs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from posterity.core.curvature import DiagonalCurvature, FullCurvature, LowRankCurvature, OutputCurvature, top_eigenspace
from posterity.core.jacobian import pushed_forward, rows_of
from posterity.core.kronecker import KroneckerCurvature, Slices
from posterity.model.outputs import Kind, computed_by, output_curvature, random_parameters
from posterity.model.problem import Problem, call
from posterity.posteriors.evaluation import split
from posterity.types import Batch, Data
from posterity.weighing import rows as some

Curvature = FullCurvature | DiagonalCurvature | LowRankCurvature | KroneckerCurvature


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
    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature, weights: Tensor | None = None) -> None:
        """Add a batch; `curvature` is weighted already, and `weights` (B,) are those of its data."""

    @abstractmethod
    def result(self) -> Curvature: ...

    def slices(self, *names: str) -> Slices:
        """Say where tensors lie among the network's random coordinates."""
        found, offset = {}, 0
        for name, p in self.params.items():
            found[name] = (offset, offset + p.numel())
            offset += p.numel()
        return tuple(found[name] for name in names)


class FullTotal(Total):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        like = next(iter(self.params.values()))
        self.matrix = torch.zeros(self.size, self.size, dtype=torch.float64, device=like.device)

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature, weights: Tensor | None = None) -> None:
        for _, _, rows in rows_of(self.compute, self.params, inputs, curvature):
            flat = rows.flatten(0, 1)
            self.matrix += flat.T @ flat

    def result(self) -> FullCurvature:
        return FullCurvature(self.matrix)


class LowRankTotal(Total):
    """Adds nothing in the common pass: it takes passes of its own, with products."""

    def __init__(self, problem: Problem, data: Data, options: Options) -> None:
        super().__init__(problem)
        self.data, self.options = data, options

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature, weights: Tensor | None = None) -> None:
        pass

    def result(self) -> LowRankCurvature:
        like = next(iter(self.params.values()))
        return top_eigenspace(self._product, self.size, self.options.rank, self.options.passes, like)

    def _product(self, directions: Tensor) -> Tensor:
        """Return G times directions (R, M): Σ_n J_nᵀ Λ_n J_n v."""
        total = torch.zeros_like(directions)
        own = {n: p.detach() for n, p in self.problem.latents(self.problem.params).items()}
        shapes = [p.shape for p in self.params.values()]
        layout = self.problem.coordinates.random_layout
        leaves = [self.problem.params[n] for n in layout.names]
        for batch in batches(self.problem, self.data):
            inputs = batch[0]
            with torch.enable_grad():
                outputs = call(self.problem, inputs)
            curvature = output_curvature(
                self.problem, outputs.detach(), batch[1], self.options.curvature, own, *batch[2:]
            )
            for column, out in zip(directions.T, total.T, strict=True):
                parts = column.to(outputs.dtype).split([s.numel() for s in shapes])
                tangents = {n: v.view(s) for n, v, s in zip(self.params, parts, shapes, strict=True)}
                _, change = pushed_forward(self.compute, self.params, tangents, inputs)
                grads = torch.autograd.grad(
                    outputs, leaves, curvature.times(change), retain_graph=True, materialize_grads=True
                )
                out += layout.flatten(dict(zip(layout.names, grads, strict=True)))
        return total


def batches(problem: Problem, data: Data) -> Iterator[Batch]:
    """Give all training data once, in parts that fit into memory."""
    for batch in data.batches(0, Generator().manual_seed(0)):
        start = 0
        for part in split(problem, batch[0], None):
            yield some(batch, slice(start, start + len(part)))
            start += len(part)
