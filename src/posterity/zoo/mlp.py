"""A multi-layer perceptron of any widths."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.zoo.activations import activation_named


class MLP(nn.Module):
    """Linear layers `layers.0`, `layers.1`, … with an activation between them; its input is flattened.

    Args:
        widths: of the input, the hidden layers, and the output.
        activation: by its name.
        shortcut: whether a linear map of the inputs, without a bias, is added to the outputs: what is linear need not be
            learnt by the layers.

    >>> import torch
    >>> net = MLP((784, 50, 10))
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> [name for name, _ in MLP((2, 3), shortcut=True).named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'shortcut.weight']
    >>> [name for name, _ in net.named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    """

    def __init__(self, widths: Sequence[int] = (784, 800, 800, 10), activation: str = "relu", shortcut: Any = False):
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise InvalidInput(f"MLP: widths={tuple(widths)}; expected two or more, input first, each 1 or more.")
        if not isinstance(shortcut, bool):
            raise InvalidInput(f"MLP: shortcut={shortcut!r}; expected true or false.")
        self.widths = tuple(widths)
        self.activation = activation_named(activation)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.shortcut = nn.Linear(widths[0], widths[-1], bias=False) if shortcut else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ...) of widths[0] values each to (B, widths[-1]). Raises `InvalidInput` for other shapes."""
        flat = inputs.flatten(1) if inputs.ndim > 1 else inputs
        if flat.ndim != 2 or flat.shape[1] != self.widths[0]:
            raise InvalidInput(f"MLP takes inputs (B, ...) of {self.widths[0]} values each, got {tuple(inputs.shape)}.")
        *hidden, last = self.layers
        x = flat
        for layer in hidden:
            x = self.activation(layer(x))
        outputs: Tensor = last(x)
        return outputs if self.shortcut is None else outputs + self.shortcut(flat)
