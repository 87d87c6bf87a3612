"""ResNet-20 for small images, with batch normalisation or filter response normalisation."""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from posterity.errors import unknown
from posterity.zoo.activations import Activation
from posterity.zoo.images import ImageNetwork

ACTIVATION_OF = {"batch": "relu", "frn": "silu"}  # of each normalisation, unless another is asked for


class FilterResponseNorm(nn.Module):
    """Normalise each channel of each example by its own mean square; nothing depends on the rest of the batch.

        z = max(γ · x / √(ν² + ε) + β, τ),      ν² = mean of x² over height and width

    x: (B, channels, H, W); γ, β, τ: `weight`, `bias`, `threshold`, (channels,) each, which start at 1, 0, 0; ε = 1e-6.
    Singh, Krishnan: Filter response normalization layer, 2020, with its thresholded linear unit. It departs from the
    paper in that ε is not learnt: that is for maps of one pixel.

    >>> norm = FilterResponseNorm(1)
    >>> norm(torch.tensor([[[[3.0, 4.0], [-5.0, 0.0]]]]))
    tensor([[[[0.8485, 1.1314], [0.0000, 0.0000]]]], grad_fn=...)
    """

    epsilon = 1e-6

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias, self.threshold = (nn.Parameter(torch.empty(channels)) for _ in range(3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set γ, β, τ to 1, 0, 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        weight, bias, threshold = (p[:, None, None] for p in (self.weight, self.bias, self.threshold))
        scale = torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + self.epsilon)
        return torch.maximum(weight * (x * scale) + bias, threshold)


class Convolution(nn.Conv2d):
    """A convolution that starts at w ~ N(0, 2 / fan-in), b = 0 (He et al. 2015), also when it is drawn afresh."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Block(nn.Module):
    """Two normalised 3 x 3 convolutions beside a shortcut, y = act(second(act(first(x))) + shortcut(x)).

    Where the shape changes, the shortcut is a strided copy with zeros for the new channels under batch normalisation
    (option A of He et al. 2016: no parameters), and a normalised 1 x 1 convolution under filter response normalisation.
    """

    def __init__(self, before: int, after: int, norm: str, activation: Activation):
        super().__init__()
        self.activation = activation
        self.extra, self.stride = after - before, 1 if after == before else 2
        self.first = _normalised(before, after, 3, self.stride, norm)
        self.second = _normalised(after, after, 3, 1, norm)
        self.shortcut = _normalised(before, after, 1, 2, norm) if self.extra and norm == "frn" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, H, W) to (B, after, H / stride, W / stride), sizes rounded up."""
        residual = self.second(self.activation(self.first(x)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.extra:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return self.activation(residual + x)


class ResNet20(ImageNetwork):
    """One convolution, three stages of three blocks with 16, 32 and 64 channels, a global mean, one linear layer.

    `norm="batch"`: He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2016, its form for CIFAR-10, with
    ReLU and shortcuts without parameters. Convolutions have no biases, each channel has a scale and a shift:

        3·3²·16 + 6·16·3²·16 + (16 + 5·32)·3²·32 + (32 + 5·64)·3²·64 = 267,696     convolutions
        2·(7·16 + 6·32 + 6·64) = 1,376     normalisations      64·10 + 10 = 650     linear      269,722 in all

    `norm="frn"`: Izmailov, Vikram, Hoffman, Wilson: What are Bayesian neural network posteriors really like?, 2021,
    whose Hamiltonian Monte Carlo needs a likelihood that factorises over examples, which a batch's mean and variance would
    couple: filter response normalisation with Swish (`silu`), biases, and 1 x 1 convolutions in the two shortcuts that
    change the shape:

        267,696 + (16·32 + 32·64 = 2,560)     convolutions      650     linear      274,042 in all
        4·(7·16 + 7·32 + 7·64) = 3,136     bias, scale, shift and threshold of each channel

    It departs from the study's code where it halves the size: padding is symmetric there too.

    Args:
        num_classes, in_channels: see `ImageNetwork`.
        activation: a name of `ACTIVATIONS`; None: `relu` with batch normalisation, `silu` without.
        norm: `batch` or `frn`.

    Raises:
        InvalidInput: for an unknown norm, and as `ImageNetwork`.

    Scales start at 1, so a prior centred at 0 pulls them down; `Normal({"*.norm.weight": 1.0, "*": 0.0}, 0.3)` does not.

    >>> net = ResNet20()
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> [sum(p.numel() for p in ResNet20(norm=norm).parameters()) for norm in ("batch", "frn")]
    [269722, 274042]
    """

    side = 8  # so that normalisations see at least 2 x 2 values
    larger = True

    def __init__(self, num_classes: int = 10, in_channels: int = 3, activation: str | None = None, norm: str = "batch"):
        if norm not in ACTIVATION_OF:
            raise unknown("norm", norm, ACTIVATION_OF)
        super().__init__(num_classes, in_channels, ACTIVATION_OF[norm] if activation is None else activation)
        self.stem = _normalised(in_channels, 16, 3, 1, norm)
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        self.blocks = nn.Sequential(*(Block(*pair, norm, self.activation) for pair in pairwise(widths)))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W), sizes of 8 or more, to outputs (B, num_classes). Raises `InvalidInput`."""
        self.check(images)
        x = self.blocks(self.activation(self.stem(images)))  # (B, 64, H / 4, W / 4)
        logits: Tensor = self.fc(x.mean((-2, -1)))  # (B, num_classes)
        return logits


def _normalised(before: int, after: int, size: int, stride: int, norm: str) -> nn.Sequential:
    """Make a padded convolution and its normalisation; a bias would be lost in a batch's mean."""
    frn = norm == "frn"
    conv = Convolution(before, after, size, stride, size // 2, bias=frn)
    return nn.Sequential(OrderedDict(conv=conv, norm=FilterResponseNorm(after) if frn else nn.BatchNorm2d(after)))
