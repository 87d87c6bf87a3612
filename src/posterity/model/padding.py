"""Rows that a network holds constant: those of `padding_idx`, which no step of torch's own training moves either."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from posterity.core.layout import ConstantRows, trainable
from posterity.errors import InvalidInput


def padding_rows(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the rows of padding of each trainable table, by its name.

    Torch leaves a lookup's row of `padding_idx` as it is, whatever it holds, so that it is no unknown: here it is the same
    numbers in every draw, and neither prior nor weight decay moves it. That holds for the whole tensor, wherever else it is
    used: in a head that shares the table, the row of the padding symbol is constant, too.

    >>> network = nn.Sequential(nn.Embedding(10, 4, padding_idx=-1), nn.Linear(4, 2))
    >>> padding_rows(network)
    {'0.weight': (9,)}
    """
    names = {id(p): n for n, p in network.named_parameters() if p.requires_grad}
    found: dict[str, set[int]] = {}
    for module in network.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None:
            name = names.get(id(module.weight))
            if name is not None:  # frozen tables are no unknowns at all
                found.setdefault(name, set()).add(module.padding_idx % module.num_embeddings)
    return {n: tuple(sorted(rows)) for n, rows in found.items()}


def constants(network: nn.Module) -> dict[str, ConstantRows]:
    """Hold the rows of padding at what they are now."""
    rows = padding_rows(network)
    return {n: ConstantRows.of(p, rows[n]) for n, p in trainable(network).items() if n in rows} if rows else {}


@contextmanager
def padding_kept(network: nn.Module) -> Iterator[None]:
    """Put the rows of padding back to what they were after the block, whatever has written into them."""
    kept = constants(network)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, rows in kept.items():
                network.get_parameter(name)[list(rows.rows)] = rows.values


class KnownLookups(TorchFunctionMode):
    """Refuses, in the block, lookups that have a row of padding of which the network's modules do not tell.

    `F.embedding(…, padding_idx=…)` tells nobody but the pass, and of a table that is computed from parameters (by a
    parametrisation, or as a transposed view) no coordinates are the row. Bags leave the row out, whatever it holds.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        tables = [m for m in network.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None]
        self.known = {(id(m.weight), m.padding_idx) for m in tables}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.embedding:
            with torch._C.DisableTorchFunction():  # to look at a weight is no use of it, which others count
                self._refuse(**_LOOKUP.bind(*args, **(kwargs or {})).arguments)
        return func(*args, **(kwargs or {}))

    def _refuse(self, weight: Tensor, padding_idx: int | None = None, **_: Any) -> None:
        if padding_idx is None or not weight.requires_grad or (id(weight), padding_idx % len(weight)) in self.known:
            return
        raise InvalidInput(
            f"A table of shape {tuple(weight.shape)} is looked up with padding_idx={padding_idx} by F.embedding, or by an "
            "nn.Embedding whose weight is computed from others, so that nobody knows which parameters the row of padding is, "
            "and draws would move it. Hold the table as it is in nn.Embedding(…, padding_idx=…) and call that; or leave "
            "padding_idx out and multiply by a mask, embedding(tokens) * (tokens != 0)[..., None]."
        )


_LOOKUP = signature(functional.embedding)


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Make groups of parameters of a network, which say what its parameters alone do not: `IVON(parameter_groups(network), …)`.

    Rows of padding (`nn.Embedding(padding_idx=…)`) are constants, without noise and decay; frozen parameters stay out.

    Returns:
        dictionaries as any optimiser takes them; `constant_rows` says which rows of a group's parameters are constants.

    Raises:
        InvalidInput: where nothing is trainable.

    >>> from posterity.optim import IVON
    >>> network = nn.Sequential(nn.Embedding(10, 4, padding_idx=0), nn.Linear(4, 2))
    >>> optimizer = IVON(parameter_groups(network), num_data=100)
    >>> with torch.no_grad(), optimizer.draw():
    ...     network[0](torch.tensor([0]))
    tensor([[0., 0., 0., 0.]])
    >>> optimizer.std(network[0].weight)[:2, 0] > 0
    tensor([False,  True])
    """
    rows = padding_rows(network)
    params = trainable(network)
    plain = [p for n, p in params.items() if n not in rows]
    groups = [{"params": [params[n]], "constant_rows": own} for n, own in rows.items()]
    return ([{"params": plain}] if plain else []) + groups
