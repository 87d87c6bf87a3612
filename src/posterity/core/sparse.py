"""Lookups whose gradients are sparse tensors, which cannot be a part of one vector."""

from typing import Any

import torch
from torch import Tensor, nn


def looked_up_sparsely(network: nn.Module) -> set[str]:
    """Name the weights whose own gradients are sparse tensors."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse}
    return {n for n, p in network.named_parameters() if id(p) in tables}


class DenseGradient(torch.autograd.Function):
    """The identity, with a gradient that can be a part of ρ's, which is one vector."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.to_dense() if grad.is_sparse else grad
