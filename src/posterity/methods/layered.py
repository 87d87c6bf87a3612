"""Curvature summed over the data layer by layer: Kronecker factors, and the exact diagonal."""

from abc import abstractmethod

import torch
from torch import Tensor

from posterity.core.curvature import DiagonalCurvature, FullCurvature, OutputCurvature
from posterity.core.jacobian import ROW_BYTES, rows_of
from posterity.core.kronecker import Block, Factors, Independent, KroneckerCurvature, Squares
from posterity.core.linear_ops import Lookup
from posterity.core.recording import Layer, Recorded, Recorder, backward, layers
from posterity.methods.totals import Total
from posterity.model.problem import Problem, call

DENSE = 1024  # numbers in a tensor that no Kronecker product serves, up to which its block is dense, not diagonal


class LayeredTotal(Total):
    """By layers where K-FAC's rows are known, and by whole Jacobians for all other tensors."""

    def __init__(self, problem: Problem, probe: Tensor) -> None:
        super().__init__(problem)
        index = torch.arange(3, device=probe.device) % len(probe)
        self.layout = problem.coordinates.random_layout
        self.leaves = {n: problem.params[n] for n in self.params}  # as the network holds them, with constant rows
        found = layers(lambda n: call(problem, probe[index[:n]]), self.leaves, problem.network.buffers())
        self.layers = {layer.weight: layer for layer in found if self.serves(layer)}
        served = set(self.layers) | {layer.bias for layer in self.layers.values()}
        self.rest = {n: p for n, p in self.params.items() if n not in served}
        self.uses: dict[str, Recorded] = {}

    def serves(self, layer: Layer) -> bool:
        return True

    def outputs(self, inputs: Tensor) -> Tensor:
        """Run the network and keep what goes into its layers, with the graph."""
        with torch.enable_grad(), Recorder(self.leaves, self.layers) as recorder:
            outputs = call(self.problem, inputs)
        self.uses = recorder.uses
        return outputs

    def add(self, inputs: Tensor, outputs: Tensor, curvature: OutputCurvature, weights: Tensor | None = None) -> None:
        last = {n: u for n, u in self.uses.items() if u.passed_on is outputs and u.result.dim() == 2}
        others = {n: u for n, u in self.uses.items() if n not in last}
        for name, use in self.uses.items():
            self.add_inputs(name, use, weights)
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

    def add_inputs(self, name: str, use: Recorded, weights: Tensor | None) -> None:
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
        self.squares = {n: Squares(self.leaves[n], bool(own.bias), ROW_BYTES) for n, own in self.layers.items()}
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
            found[name] = self.layout.part(name, squares.weight).flatten()
            if squares.bias is not None:
                found[self.layers[name].bias] = squares.bias
        return DiagonalCurvature(torch.cat([found[n] for n in self.params]))


class KroneckerTotal(LayeredTotal):
    """Kronecker factors of layers; of any other tensor a dense block, or the exact diagonal where it is large."""

    def __init__(self, problem: Problem, probe: Tensor) -> None:
        super().__init__(problem, probe)
        lookups = {n for n, u in self._probed(probe).items() if isinstance(u.call.op, Lookup)}
        self.factors = {n: Factors(self.leaves[n], bool(o.bias), n in lookups) for n, o in self.layers.items()}
        shapes = {n: (p.numel(),) * (2 if p.numel() <= DENSE else 1) for n, p in self.rest.items()}
        self.blocks = {n: p.new_zeros(shapes[n], dtype=torch.float64) for n, p in self.rest.items()}

    def _probed(self, probe: Tensor) -> dict[str, Recorded]:
        self.outputs(probe[:1])
        return self.uses

    def add_inputs(self, name: str, use: Recorded, weights: Tensor | None) -> None:
        self.factors[name].add_inputs(use, weights)

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
            if name in self.layout.constants:
                factors.left = self.layout.constants[name].without(factors.left)
            found.append(factors.block(self.slices(name, bias) if bias else self.slices(name)))
        for name, value in self.blocks.items():
            own = FullCurvature(value) if value.dim() == 2 else DiagonalCurvature(value)
            found.append(Independent(self.slices(name), own))
        return KroneckerCurvature(tuple(found))
