"""What the zoo's networks for images have in common: options, sizes, and the refusal of other shapes."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.zoo.activations import activation_named


class ImageNetwork(nn.Module):
    """A network that maps images (B, in_channels, height, width) to outputs (B, num_classes).

    Args:
        num_classes: number of outputs, 1 or more.
        in_channels: of the images, 1 or more.
        activation: a name of `ACTIVATIONS`.

    Raises:
        InvalidInput: for counts below 1 and for an unknown activation.
    """

    side: ClassVar[int] = 32  # pixels, the images' height and width
    larger: ClassVar[bool] = False  # whether it takes larger images and oblong ones too

    def __init__(self, num_classes: int, in_channels: int, activation: str):
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise InvalidInput(
                f"{type(self).__name__}: num_classes={num_classes}, in_channels={in_channels}; both must be 1 or more."
            )
        self.in_channels = in_channels
        self.activation = activation_named(activation)

    @classmethod
    def takes(cls, size: Sequence[int]) -> bool:
        """Whether images of this (height, width) will do."""
        return min(size) >= cls.side if cls.larger else tuple(size) == (cls.side, cls.side)

    @classmethod
    def expected(cls, leading: str) -> str:
        """Say the shape that is expected, after its leading dimensions."""
        sizes = f"H, W) with H and W of {cls.side} or more" if cls.larger else f"{cls.side}, {cls.side})"
        return f"({leading}, {sizes}"

    def check(self, images: Tensor) -> None:
        """Raise `InvalidInput` for a batch of any other shape."""
        if images.ndim != 4 or images.shape[1] != self.in_channels or not self.takes(images.shape[2:]):
            raise InvalidInput(
                f"{type(self).__name__} takes images of shape {self.expected(f'B, {self.in_channels}')}, "
                f"got {tuple(images.shape)}; known data sets come in this size with image_size={self.side}."
            )
