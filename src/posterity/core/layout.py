"""One flat vector θ for all that is to be inferred: names, shapes and offsets, and networks bound to it.

`Layout.views` reads the vector by name without copying; `bound` makes an unmodified network compute with it.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

import torch
from torch import Size, Tensor, nn

from posterity.errors import InvalidInput, Mismatch


@dataclass(frozen=True, eq=False)
class ConstantRows:
    """Rows of a tensor (rows, ...) that are the same numbers always: a lookup's row for padding, for one.

    Args:
        rows: their indices, rising.
        values: their values, (len(rows), ...).
        others: the indices of all other rows.
    """

    rows: tuple[int, ...]
    values: Tensor
    others: Tensor

    @classmethod
    def of(cls, table: Tensor, rows: Iterable[int]) -> "ConstantRows":
        """Hold these rows at the values that a table has there now."""
        own = sorted(set(rows))
        others = [i for i in range(len(table)) if i not in set(own)]
        indices = torch.tensor(others, dtype=torch.int64, device=table.device)
        return cls(tuple(own), table.detach()[own].clone(), indices)

    def part_shape(self, shape: Size) -> Size:
        return Size((shape[0] - len(self.rows), *shape[1:]))

    def left_out_of(self, table: Tensor, lead: int = 0) -> Tensor:
        """Return the other rows of a table (..., rows, *rest), behind so many leading dimensions."""
        return table.index_select(lead, self.others.to(table.device))

    def without(self, matrix: Tensor) -> Tensor:
        """Return a diagonal (rows,) or a matrix (rows, rows) of the other rows."""
        for dim in range(matrix.dim()):
            matrix = self.left_out_of(matrix, dim)
        return matrix

    def among(self, part: Tensor, table: Tensor | None = None, zero: bool = False) -> Tensor:
        """Put the constant rows among the others, (..., others, *rest) → (..., rows, *rest).

        They are what they are held at, or what `table` (rows, *rest) has there, or 0.
        """
        values = self.values if table is None else table.detach()[list(self.rows)]
        values = torch.zeros_like(values) if zero else values
        lead = part.shape[: part.dim() - values.dim()]
        values = values.to(part).expand(*lead, *values.shape)
        pieces: list[Tensor] = []
        start = 0
        for index, row in enumerate(self.rows):
            free = row - index  # so many of the others come before it
            pieces += [part.narrow(len(lead), start, free - start), values.narrow(len(lead), index, 1)]
            start = free
        return torch.cat([*pieces, part.narrow(len(lead), start, part.shape[len(lead)] - start)], len(lead))


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in a vector of `size` numbers.

    >>> layout = Layout.of({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
    >>> layout.size, layout.offsets
    (8, (0, 6))
    >>> layout.views(torch.arange(8.0))["bias"]
    tensor([6., 7.])

    Rows that are constants (of padding) are no coordinates: `views` shows them among the others, `flatten` leaves them out.

    >>> table = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    >>> layout = Layout.of({"table": table}, {"table": ConstantRows.of(table, [0])})
    >>> layout.size, layout.views(torch.tensor([3.0, 4.0]))["table"]
    (2, tensor([[0., 0.],
            [3., 4.]]))
    """

    names: tuple[str, ...]
    shapes: tuple[Size, ...]
    constants: Mapping[str, ConstantRows] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, params: Mapping[str, Tensor], constants: Mapping[str, ConstantRows] | None = None) -> "Layout":
        """Lay out tensors in the order of the mapping; `constants` of those among them that have some."""
        own = {n: rows for n, rows in (constants or {}).items() if n in params}
        return cls(tuple(params), tuple(p.shape for p in params.values()), own)

    @property
    def numels(self) -> tuple[int, ...]:
        """How many coordinates each tensor has."""
        return tuple(prod(shape) for shape in self.part_shapes)

    @property
    def part_shapes(self) -> tuple[Size, ...]:
        """The shape of each tensor without its constant rows."""
        if not self.constants:
            return self.shapes
        pairs = zip(self.names, self.shapes, strict=True)
        return tuple(self.constants[n].part_shape(s) if n in self.constants else s for n, s in pairs)

    @property
    def offsets(self) -> tuple[int, ...]:
        return tuple(accumulate(self.numels, initial=0))[:-1]

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.numels)

    def views(self, theta: Tensor) -> dict[str, Tensor]:
        """Split θ, shape (..., P), into named views of shape (..., *shape): writes go through, nothing is copied.

        But a tensor with constant rows is a copy, of them and the others.

        Raises:
            InvalidInput: where the last dimension is not P.
        """
        parts = self.parts(theta)
        return parts | {n: rows.among(parts[n]) for n, rows in self.constants.items()} if self.constants else parts

    def changes(self, vector: Tensor) -> dict[str, Tensor]:
        """Do as `views` with differences or stds, (..., P), which are 0 where something is constant."""
        parts = self.parts(vector)
        return parts | {n: rows.among(parts[n], zero=True) for n, rows in self.constants.items()}

    def parts(self, vector: Tensor) -> dict[str, Tensor]:
        """Split a vector (..., P) into named views of what is not constant, (..., *part_shape): writes go through.

        Raises:
            InvalidInput: where the last dimension is not P.
        """
        if vector.dim() == 0 or vector.shape[-1] != self.size:
            raise InvalidInput(
                f"A vector of shape {tuple(vector.shape)} was given; this layout needs (..., {self.size})."
            )
        lead = vector.shape[:-1]
        pieces = vector.split(list(self.numels), dim=-1)
        return {n: piece.view(lead + s) for n, s, piece in zip(self.names, self.part_shapes, pieces, strict=True)}

    def flatten(self, params: Mapping[str, Tensor]) -> Tensor:
        """Copy named tensors, with equal leading dimensions if any, into a new vector (..., P).

        Raises:
            Mismatch: with the difference of names and shapes.
        """
        lead = self._leading(params)
        return torch.cat([self.part(n, params[n], len(lead)).reshape(*lead, -1) for n in self.names], dim=-1)

    def part(self, name: str, tensor: Tensor, lead: int = 0) -> Tensor:
        """Leave a tensor's constant rows out, behind so many leading dimensions."""
        return self.constants[name].left_out_of(tensor, lead) if name in self.constants else tensor

    def whole(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put the constant rows among the others of tensors without them, (*part_shape)."""
        return {n: self.constants[n].among(p) if n in self.constants else p for n, p in parts.items()}

    def among(self, names: Container[str]) -> "Layout":
        """Return the layout of some of the tensors."""
        shapes = {n: s for n, s in self.named_shapes().items() if n in names}
        return Layout(tuple(shapes), tuple(shapes.values()), {n: r for n, r in self.constants.items() if n in shapes})

    def write(self, out: Tensor, grads: Iterable[Tensor | None]) -> None:
        """Write gradients by the tensors, in their order, into a vector (P,); zero where one is not used."""
        for (name, target), grad in zip(self.parts(out).items(), grads, strict=True):
            # Lookups with sparse=True have sparse gradients, which cannot be copied into a part of a vector.
            dense = grad.to_dense() if grad is not None and grad.is_sparse else grad
            target.zero_() if dense is None else target.copy_(self.part(name, dense))

    def _leading(self, params: Mapping[str, Tensor]) -> Size:
        if not self.names or set(params) != set(self.names):
            raise Mismatch(difference(self, {n: p.shape for n, p in params.items()}))
        first = params[self.names[0]]
        lead = first.shape[: first.dim() - len(self.shapes[0])]
        wanted = {n: lead + s for n, s in zip(self.names, self.shapes, strict=True)}
        if wanted != {n: p.shape for n, p in params.items()}:
            raise Mismatch(difference(self, {n: p.shape for n, p in params.items()}))
        return lead

    def named_shapes(self) -> dict[str, Size]:
        return dict(zip(self.names, self.shapes, strict=True))


def difference(layout: Layout, shapes: Mapping[str, Sequence[int]]) -> str:
    """Say how other names and shapes differ from those of a layout, one line each.

    >>> layout = Layout.of({"fc1.weight": torch.ones(2, 3)})
    >>> print(difference(layout, {"fc.weight": (2, 3)}))
    The tensors do not fit this network:
      missing    fc1.weight (2, 3)
      unexpected fc.weight (2, 3)
    """
    own = layout.named_shapes()
    rows = [f"missing    {n} {tuple(s)}" for n, s in own.items() if n not in shapes]
    rows += [f"unexpected {n} {tuple(s)}" for n, s in shapes.items() if n not in own]
    rows += [
        f"shape      {n}: given {tuple(shapes[n])}, expected {tuple(s)}"
        for n, s in own.items()
        if n in shapes and tuple(shapes[n]) != tuple(s)
    ]
    return "The tensors do not fit this network:\n" + "\n".join("  " + row for row in rows)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name the parameters that are to be inferred: tied weights once, frozen ones (requires_grad=False) left out.

    Raises:
        InvalidInput: where there is none, or where they differ in dtype or device, or are not real numbers.
    """
    params = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not params:
        raise InvalidInput(f"{type(network).__name__} has no trainable parameters; there is nothing to infer.")
    lazy = [n for n, p in params.items() if nn.parameter.is_lazy(p)]
    if lazy:
        raise InvalidInput(f"Parameter '{lazy[0]}' has no shape yet; run the network once on a batch before this.")
    for what, kinds in (
        ("dtypes", {str(p.dtype) for p in params.values()}),
        ("devices", {str(p.device) for p in params.values()}),
    ):
        if len(kinds) > 1:
            raise InvalidInput(
                f"The parameters have different {what} ({', '.join(sorted(kinds))}); move them to one first."
            )
    if not next(iter(params.values())).is_floating_point():
        raise InvalidInput("The parameters are not real floating-point numbers; convert the network, e.g. net.float().")
    broken = [n for n, p in params.items() if not p.isfinite().all()]
    if broken:
        raise InvalidInput(f"Parameter '{broken[0]}' holds NaN or infinite values; re-initialise the network.")
    return params


@contextmanager
def bound(params: Mapping[str, nn.Parameter], views: Mapping[str, Tensor]) -> Iterator[None]:
    """Make parameters share memory with `views` inside the block, and give each its own storage back in any case.

    The network's forward and backward then run unmodified on the flat vector: no per-layer code, no copies.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> own = trainable(net)
    >>> layout, theta = Layout.of(own), torch.tensor([3.0, 4.0])
    >>> with bound(own, layout.views(theta)):
    ...     net(torch.ones(2)).item()
    7.0
    """
    kept = {n: p.data for n, p in params.items()}
    try:
        for n, p in params.items():
            p.data = views[n]
        torch.clear_autocast_cache()  # it knows a parameter by identity, and would go on with its old values
        yield
    finally:
        for n, p in params.items():
            p.data = kept[n]
        torch.clear_autocast_cache()


@contextmanager
def substituted(network: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other tensors in the place of named parameters and buffers inside the block; they may carry gradients, or be batched.

    A tensor that is tied, or whose module is registered twice, is replaced at every place and put back at every place:
    `torch.func.functional_call` leaves a module that is registered twice with the other tensor.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> network, own = nn.Sequential(layer, layer), layer.weight
    >>> with substituted(network, {"0.weight": torch.tensor([[3.0]])}):
    ...     network(torch.ones(1, 1)).item()
    9.0
    >>> layer.weight is own
    True
    """
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    given = {id(own[name]): tensor for name, tensor in tensors.items()}
    places = [
        (holder, name, tensor)
        for module in network.modules()
        for holder in (module._parameters, module._buffers)
        for name, tensor in holder.items()
        if id(tensor) in given
    ]
    try:
        for holder, name, tensor in places:
            holder[name] = given[id(tensor)]  # type: ignore[assignment]  # any tensor computes as a parameter does
        yield
    finally:
        for holder, name, tensor in places:
            holder[name] = tensor  # type: ignore[assignment]
