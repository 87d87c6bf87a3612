"""Plain convolutional networks: convolutions with pooling, then linear layers."""

from torch import Tensor, nn
from torch.nn import functional

from posterity.zoo.images import ImageNetwork


class SmallCNN(ImageNetwork):
    """Two convolutions with pooling, then two linear layers, for 28 x 28 pixels: 160,362 parameters for grey digits.

    Wiecki: Bayesian deep learning part II: bridging PyMC3 and Lasagne to build a hierarchical neural network, 2016.
    It departs from the study in that the convolutions' biases are parameters like all others; there they stayed 0.
    Weights and biases for 1 channel and 10 classes:

        1·5²·32 + 32 = 832      32·5²·32 + 32 = 25,632      512·256 + 256 = 131,328      256·10 + 10 = 2,570

    >>> import torch
    >>> net = SmallCNN()
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in net.parameters())
    160362
    """

    side = 28

    def __init__(self, num_classes: int = 10, in_channels: int = 1, activation: str = "tanh"):
        super().__init__(num_classes, in_channels, activation)
        self.conv1 = nn.Conv2d(in_channels, 32, 5)
        self.conv2 = nn.Conv2d(32, 32, 5)
        self.fc1 = nn.Linear(32 * 4 * 4, 256)
        self.fc2 = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, 28, 28) to outputs (B, num_classes). Raises `InvalidInput` for other shapes."""
        self.check(images)
        x = functional.max_pool2d(self.activation(self.conv1(images)), 2)  # (B, 32, 12, 12)
        x = functional.max_pool2d(self.activation(self.conv2(x)), 2)  # (B, 32, 4, 4)
        x = self.activation(self.fc1(x.flatten(1)))  # (B, 256)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits


class ThreeConvThreeFC(ImageNetwork):
    """Three convolutions with overlapping pools, then three linear layers: 1,782,634 parameters for CIFAR-10.

    The third network of the code that goes with Shridhar, Laumann, Liwicki: A comprehensive guide to Bayesian
    convolutional neural network with variational inference, 2019; there with `activation="softplus"`. The third
    convolution is padded by 1, not 2. Weights and biases for 3 channels and 10 classes:

        3·5²·32 + 32 = 2,432        512·1000 + 1000 = 513,000
        32·5²·64 + 64 = 51,264      1000·1000 + 1000 = 1,001,000
        64·5²·128 + 128 = 204,928   1000·10 + 10 = 10,010

    >>> import torch
    >>> net = ThreeConvThreeFC()
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in net.parameters())
    1782634
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, activation: str = "relu"):
        super().__init__(num_classes, in_channels, activation)
        self.conv1 = nn.Conv2d(in_channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.conv3 = nn.Conv2d(64, 128, 5, padding=1)
        self.fc1 = nn.Linear(128 * 2 * 2, 1000)
        self.fc2 = nn.Linear(1000, 1000)
        self.fc3 = nn.Linear(1000, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, 32, 32) to outputs (B, num_classes). Raises `InvalidInput` for other shapes."""
        self.check(images)
        x = functional.max_pool2d(self.activation(self.conv1(images)), 3, 2)  # (B, 32, 15, 15)
        x = functional.max_pool2d(self.activation(self.conv2(x)), 3, 2)  # (B, 64, 7, 7)
        x = functional.max_pool2d(self.activation(self.conv3(x)), 3, 2)  # (B, 128, 2, 2)
        x = self.activation(self.fc1(x.flatten(1)))  # (B, 1000)
        x = self.activation(self.fc2(x))  # (B, 1000)
        logits: Tensor = self.fc3(x)  # (B, num_classes)
        return logits
