"""AlexNet for images of 32 x 32 pixels, whole and with half of its filters."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from posterity.errors import InvalidInput
from posterity.zoo.images import ImageNetwork

FILTERS = (64, 192, 384, 256, 128)
HALF = (32, 96, 192, 128, 64)


class AlexNet(ImageNetwork):
    """Five convolutions, three of them pooled, then one linear layer: 2,175,946 parameters for 3 channels, 10 classes.

    Shridhar, Laumann, Liwicki: A comprehensive guide to Bayesian convolutional neural network with variational
    inference, 2019, after Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks,
    2012. Weights and biases for CIFAR-10:

        3·11²·64 + 64 = 23,296      192·3²·384 + 384 = 663,936      256·3²·128 + 128 = 295,040
        64·5²·192 + 192 = 307,392   384·3²·256 + 256 = 884,992      128·10 + 10 = 1,290

    The guide's Bayesian networks use `activation="softplus"`; its ordinary twin is not the same network but
    `AlexNet(filters=(64, 192, 384, 256, 256), dropout=0.5)`, of 2,472,266 parameters.

    Args:
        num_classes, in_channels, activation: see `ImageNetwork`.
        filters: of the five convolutions.
        dropout: probability that a value after the first, third or fifth activation is dropped in training.

    Raises:
        InvalidInput: for filters that are not five counts of 1 or more, for a dropout outside [0, 1), and as
            `ImageNetwork`.

    >>> import torch
    >>> net = AlexNet()
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in net.parameters())
    2175946
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        activation: str = "relu",
        filters: Sequence[int] = FILTERS,
        dropout: float = 0.0,
    ):
        super().__init__(num_classes, in_channels, activation)
        if len(filters) != 5 or min(filters) < 1:
            raise InvalidInput(f"AlexNet: filters={tuple(filters)}; expected five counts, each 1 or more.")
        if not 0 <= dropout < 1:
            raise InvalidInput(f"AlexNet: dropout={dropout}; expected a probability of 0 or more, and below 1.")
        first, second, third, fourth, fifth = filters
        self.conv1 = nn.Conv2d(in_channels, first, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 3, padding=1)
        self.conv5 = nn.Conv2d(fourth, fifth, 3, padding=1)
        self.fc = nn.Linear(fifth, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, 32, 32) to outputs (B, num_classes). Raises `InvalidInput` for other shapes."""
        self.check(images)
        x = self.dropout(self.activation(self.conv1(images)))  # (B, 64, 8, 8)
        x = self.activation(self.conv2(functional.max_pool2d(x, 2)))  # (B, 192, 4, 4)
        x = self.dropout(self.activation(self.conv3(functional.max_pool2d(x, 2))))  # (B, 384, 2, 2)
        x = self.activation(self.conv4(x))  # (B, 256, 2, 2)
        x = self.dropout(self.activation(self.conv5(x)))  # (B, 128, 2, 2)
        logits: Tensor = self.fc(functional.max_pool2d(x, 2).flatten(1))  # (B, 128) to (B, num_classes)
        return logits


class AlexNetHalf(AlexNet):
    """AlexNet with half of each convolution's filters: 550,378 parameters for 3 channels and 10 classes.

    The guide's pruned network (Shridhar, Laumann, Liwicki 2019): with two numbers per weight, a mean and a std, it is
    still half the size of the ordinary `AlexNet`. Arguments and errors are `AlexNet`'s, less `filters`.

    >>> sum(p.numel() for p in AlexNetHalf().parameters())
    550378
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, activation: str = "relu", dropout: float = 0.0):
        super().__init__(num_classes, in_channels, activation, HALF, dropout)
