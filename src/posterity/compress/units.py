"""Where each unit of a network is made and where it is read: what has to go with it, and what must stay.

A unit is an output of a linear layer or a filter of a convolution. The network is run once on an example and recorded, one
operation after the other; whatever Python it is made of, only the operations count. Units go through operations that keep
them apart (activations, pooling, batch normalisation, flattening); those of two layers that are added to each other are one
and the same. What meets any other operation is fixed, with the operation's name as the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from posterity.compress.recording import any_nonzero, in_place, is_padded, kind_of, pools_places, recorded, shape_of

RECTIFIERS = {"relu", "relu6", "softplus", "gelu", "silu", "elu", "celu", "selu", "leaky_relu", "hardswish", "mish"}
SIGMOIDS = {"tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "logsigmoid"}
ARITHMETIC = {"add", "sub", "mul", "div", "neg", "abs", "square", "pow", "exp", "maximum", "minimum"}
BOUNDS = {"clamp", "clamp_min", "clamp_max"}
UNCHANGED = {"dropout", "feature_dropout", "alpha_dropout", "clone", "alias", "detach", "contiguous"}  # in eval mode
ELEMENTWISE = frozenset(RECTIFIERS | SIGMOIDS | ARITHMETIC | BOUNDS | UNCHANGED)
POOLING = frozenset(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)) | {"mean", "amax"}
RESHAPING = frozenset(["flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze"])
LAYERS = MappingProxyType({"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3})  # and their spatial dimensions
UNKNOWN = float("nan")


@dataclass(frozen=True)
class Reader:
    """A layer that takes units in: its weight (out, units · repeat, *kernel), where each unit has `repeat` inputs.

    constant: (units,), what a unit without weights looks like here at every place; NaN where that is not one number.
    folds: whether such a constant could be added to the reader's bias: it has one, and does not pad with zeros.
    """

    weight: str
    bias: str | None
    repeat: int
    constant: Tensor
    folds: bool


@dataclass
class Units:
    """`size` units that stay or go one by one, but each of them everywhere at once.

    sources: the weights whose rows make them; biases: those layers' biases; others: further tensors with a row per unit.
    fixed: why they must stay, or None.
    """

    size: int
    sources: list[str] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    fixed: str | None = None

    @property
    def rows(self) -> list[str]:
        return [*self.sources, *self.biases, *self.others]


@dataclass(frozen=True)
class Flow:
    """A tensor whose dimension `dim` counts units, `repeat` places for each, and `constant` (units,) as in `Reader`."""

    units: int
    dim: int
    repeat: int
    constant: Tensor


def units_of(network: nn.Module, inputs: Tensor, std: Mapping[str, Tensor] | None = None) -> list[Units]:
    """Return the units of a network, group by group, as it treats `inputs` in eval mode.

    Args:
        network: any module that torch can record; it is not changed.
        inputs: (B, ...), two examples of them are run.
        std: of parameters that are random, by name: a bias with a std is no constant.

    Raises:
        InvalidInput: where the network cannot be recorded.

    >>> net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> hidden, outputs = units_of(net, torch.zeros(1, 3))
    >>> hidden.size, hidden.sources, [r.weight for r in hidden.readers], hidden.fixed
    (5, ['0.weight'], ['2.weight'], None)
    >>> outputs.fixed
    'they are outputs of the network'
    """
    tensors = {n: p.detach() for n, p in (*network.named_parameters(), *network.named_buffers())}
    walk = _Walk(tensors, std or {})
    for node in recorded(network, inputs, tensors).graph.nodes:
        walk.step(node)
    return walk.result()


class _Walk:
    """Follows units from one operation to the next."""

    def __init__(self, tensors: Mapping[str, Tensor], std: Mapping[str, Tensor]) -> None:
        self.tensors, self.std = tensors, std
        self.names = iter(tensors)
        self.found: list[Units] = []
        self.same: dict[int, int] = {}  # groups that turned out to be part of another
        self.flows: dict[fx.Node, Flow] = {}
        self.parameters: dict[fx.Node, str] = {}

    def step(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            name = next(self.names, None)
            if name is not None:
                self.parameters[node] = name
        elif node.op == "output":
            self._fix(node, "they are outputs of the network")
        else:
            self._operation(node)

    def result(self) -> list[Units]:
        return [units for i, units in enumerate(self.found) if self._root(i) == i]

    def _operation(self, node: fx.Node) -> None:
        kind = kind_of(node)
        handle: Callable[[fx.Node], Flow | None]
        if kind in LAYERS:
            handle = self._layer
        elif kind == "batch_norm":
            handle = self._batch_norm
        elif kind in ELEMENTWISE:
            handle = self._elementwise
        elif kind in POOLING:
            handle = self._pooled
        else:
            handle = self._reshaped if kind in RESHAPING else lambda node: None
        flow = handle(node)
        if flow is None:
            self._fix(node, f"they go through '{kind}'")
        else:
            self.flows[node] = flow

    def _fix(self, node: fx.Node, reason: str) -> None:
        for source in node.all_input_nodes:
            if source in self.flows:
                units = self._units(self.flows[source])
                units.fixed = units.fixed or reason

    def _layer(self, node: fx.Node) -> Flow | None:
        """A linear layer or convolution reads one group, and makes another."""
        source, weight, bias = (*node.args[:2], node.args[2] if len(node.args) > 2 else None)
        assert isinstance(source, fx.Node)
        name, bias_name = self._single(weight), self._single(bias)
        if name is None or (bias is not None and bias_name is None):
            return None  # a weight that is computed, or used in more than one place
        spatial = LAYERS[kind_of(node)]
        last, values = len(shape_of(source)) - 1, self.tensors[name]
        dim = last - spatial
        grouped = spatial > 0 and len(node.args) > 6 and node.args[6] != 1
        flow = self.flows.get(source)
        if flow is not None:
            whole = flow.dim == dim and flow.repeat * self._units(flow).size == values.shape[1] and not grouped
            if whole:
                folds = (
                    bias_name is not None and not is_padded(node) and (name not in self.std or bias_name in self.std)
                )
                self._units(flow).readers.append(Reader(name, bias_name, flow.repeat, flow.constant, folds))
            else:
                self._fix(
                    node,
                    "they go through a grouped convolution" if grouped else "a layer reads them along another axis",
                )
        made = Units(len(values), [name], [bias_name] if bias_name else [])
        made.fixed = "they are filters of a grouped convolution" if grouped else None
        self.found.append(made)
        constant = self.tensors[bias_name].clone() if bias_name else values.new_zeros(len(values))
        return Flow(len(self.found) - 1, dim, 1, self._certain(constant, bias_name))

    def _batch_norm(self, node: fx.Node) -> Flow | None:
        flow, training = self.flows.get(node.args[0]), node.args[5]  # type: ignore[arg-type]
        names = [self._single(a) for a in node.args[1:5]]
        given = [a for a in node.args[1:5] if a is not None]
        if flow is None or flow.dim != 1 or flow.repeat != 1 or training or len(given) != len([n for n in names if n]):
            return None
        weight, bias, mean, variance = (self.tensors[n] if n else None for n in names)
        if mean is None or variance is None:
            return None
        constant = (flow.constant - mean) * torch.rsqrt(variance + float(node.args[7]))  # type: ignore[arg-type]
        constant = constant if weight is None else constant * weight
        constant = constant if bias is None else constant + bias
        self._units(flow).others += [n for n in names if n]
        return Flow(flow.units, 1, 1, self._certain(self._certain(constant, names[0]), names[1]))

    def _elementwise(self, node: fx.Node) -> Flow | None:
        """Values at one place become one value there; groups that meet are one from then on."""
        flows = [self.flows.get(a) for a in node.args if isinstance(a, fx.Node)]
        first = flows[0] if flows else None
        if first is None or any(f is None or (f.dim, f.repeat) != (first.dim, first.repeat) for f in flows):
            return None
        known = [f for f in flows if f is not None]
        if "dropout" in str(node.target) and node.args[2]:  # active whatever the network's mode is
            return None
        if len({self._units(f).size for f in known}) > 1 or len({len(shape_of(n)) for n in node.all_input_nodes}) > 1:
            return None
        for other in known[1:]:
            self._merge(first.units, other.units)
        values = [self.flows[a].constant.clone() if isinstance(a, fx.Node) else a for a in node.args]
        constant = node.target(*values, **node.kwargs)  # type: ignore[operator]
        flow = Flow(first.units, first.dim, first.repeat, _keep_unknown(constant, [f.constant for f in known]))
        if in_place(node):
            self.flows[node.all_input_nodes[0]] = flow
        return flow

    def _pooled(self, node: fx.Node) -> Flow | None:
        """Places of one unit become fewer; a constant stays what it is, unless its average is not one."""
        source = node.all_input_nodes[0]
        flow, before, after = self.flows.get(source), shape_of(source), shape_of(node)
        if (
            flow is None
            or flow.dim != 1
            or flow.repeat != 1
            or after[:2] != before[:2]
            or not pools_places(node, before)
        ):
            return None
        averaged = "avg_pool" in str(node.target) and "adaptive" not in str(node.target)
        padded = averaged and any_nonzero([*node.args[3:4], *node.args[6:7]])  # padding, divisor_override
        unknown = torch.where(flow.constant == 0, flow.constant, UNKNOWN)
        return Flow(flow.units, 1, 1, unknown if padded else flow.constant)

    def _reshaped(self, node: fx.Node) -> Flow | None:
        """Places of a unit become inputs of their own, side by side, as `flatten(1)` makes them."""
        source = node.all_input_nodes[0]
        flow, before, after = self.flows.get(source), shape_of(source), shape_of(node)
        if flow is None or flow.dim != 1 or after[0] != before[0]:
            return None
        if after[1:2] == before[1:2]:
            return flow
        if len(after) == 2 and after[1] == prod(before[1:]):
            return Flow(flow.units, 1, flow.repeat * prod(before[2:]), flow.constant)
        return None

    def _single(self, node: Any) -> str | None:
        """Name the network's tensor that an argument is, unless it is used elsewhere, too."""
        return self.parameters.get(node) if isinstance(node, fx.Node) and len(node.users) == 1 else None

    def _certain(self, constant: Tensor, name: str | None) -> Tensor:
        std = None if name is None else self.std.get(name)
        return constant if std is None else torch.where(std != 0, UNKNOWN, constant)

    def _units(self, flow: Flow) -> Units:
        return self.found[self._root(flow.units)]

    def _root(self, index: int) -> int:
        while index in self.same:
            index = self.same[index]
        return index

    def _merge(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            kept, lost = self.found[one], self.found[other]
            kept.sources += lost.sources
            kept.biases += lost.biases
            kept.others += lost.others
            kept.readers += lost.readers
            kept.fixed = kept.fixed or lost.fixed
            self.same[other] = one


def _keep_unknown(constant: Tensor, sources: Sequence[Tensor]) -> Tensor:
    unknown = torch.stack([s.isnan() for s in sources]).any(0)
    return torch.where(unknown, UNKNOWN, constant)
