"""Augmentation: other views of the same training images, drawn anew at every step (`TensorData(augment=…)`).

The likelihood still counts N examples: `num_data` is the number of images, not of views. What a fit then sees of example n is

    E_a[log p(y_n | a(x_n), θ)],      a: a random flip or shift,

estimated by one view at each step. By Jensen's inequality it is a lower bound of log E_a[p(y_n | a(x_n), θ)], the likelihood
of a network that averages over views (Nabarro et al. 2022). So the posterior is one under a modified likelihood, which says
that all views of an image have its label. Views are no further data: to multiply N by their number would claim evidence that
there is not, and make the posterior too narrow. A method whose target must stand still (HMC, NUTS) cannot use it.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from posterity.errors import InvalidInput

SHIFT = 4  # pixels; the usual choice for 32 x 32 (He et al. 2016)


def flipped(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability ½.

    >>> image = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> views = flipped(image.expand(8, 1, 1, 3), Generator().manual_seed(0))
    >>> views.flatten(1).unique(dim=0)
    tensor([[1., 2., 3.],
            [3., 2., 1.]])
    """
    _check(images)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def shifted(images: Tensor, generator: Generator, most: int = SHIFT) -> Tensor:
    """Move each image (B, C, H, W) by −most … most pixels along each axis, all equally probable; what comes in is 0.

    In a standardised set 0 is the mean of the training pixels. Raises `InvalidInput` for a `most` below 0.

    >>> image = torch.tensor([[[[1.0, 2.0]]]])
    >>> shifted(image.expand(64, 1, 1, 2), Generator().manual_seed(0), most=1).flatten(1).unique(dim=0)
    tensor([[0., 0.],
            [0., 1.],
            [1., 2.],
            [2., 0.]])
    """
    _check(images)
    if most < 0:
        raise InvalidInput(f"most={most}: expected a number of pixels, 0 or more.")
    count, _, height, width = images.shape
    down, right = torch.randint(2 * most + 1, (2, count), generator=generator).to(images.device)
    windows = functional.pad(images, [most] * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, C, m, m, H, W)
    return windows[torch.arange(count, device=images.device), :, down, right]


def flipped_and_shifted(images: Tensor, generator: Generator) -> Tensor:
    """Flip each image with probability ½, then move it by up to 4 pixels: the usual views of CIFAR (He et al. 2016).

    >>> flipped_and_shifted(torch.ones(2, 3, 32, 32), Generator()).shape
    torch.Size([2, 3, 32, 32])
    """
    return shifted(flipped(images, generator), generator)


def _check(images: Tensor) -> None:
    if images.dim() != 4:
        raise InvalidInput(f"Augmentation takes images (B, C, H, W), got inputs of shape {tuple(images.shape)}.")
