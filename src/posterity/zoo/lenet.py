"""LeNet-5 for images of 32 x 32 pixels, with max pooling."""

from torch import Tensor, nn
from torch.nn import functional

from posterity.zoo.images import ImageNetwork


class LeNet(ImageNetwork):
    """Two convolutions with pooling, then three linear layers: 61,706 parameters for 10 classes of grey images.

    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998. It departs from the
    paper as most later code does: max pooling, all maps connected, and a plain linear output (logits).

    >>> import torch
    >>> net = LeNet()
    >>> net(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in net.parameters())
    61706
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, activation: str = "relu"):
        super().__init__(num_classes, in_channels, activation)
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, 32, 32) to outputs (B, num_classes). Raises `InvalidInput` for other shapes."""
        self.check(images)
        x = functional.max_pool2d(self.activation(self.conv1(images)), 2)  # (B, 6, 14, 14)
        x = functional.max_pool2d(self.activation(self.conv2(x)), 2)  # (B, 16, 5, 5)
        x = self.activation(self.fc1(x.flatten(1)))  # (B, 120)
        x = self.activation(self.fc2(x))  # (B, 84)
        logits: Tensor = self.fc3(x)  # (B, num_classes)
        return logits
