"""Linear changes of images (B, C, H, W) that are exact in what they keep: they stay in the range of 0 and the image."""

from collections.abc import Callable
from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn import functional


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Rotate images (B, C, H, W) counterclockwise about their centre, bilinearly; what comes in from outside is 0.

    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> rotated(image, 90.0).round()  # of [[0, 1], [2, 3]]
    tensor([[[[1., 3.],
              [0., 2.]]]])
    """
    height, width = images.shape[-2:]
    c, s = cos(radians(degrees)), sin(radians(degrees))
    turn = torch.tensor([[c, -s * height / width, 0.0], [s * width / height, c, 0.0]], dtype=torch.float64)
    turn = turn.to(images.device).expand(len(images), 2, 3)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    turned = functional.grid_sample(images.double(), grid, align_corners=False)
    return turned.to(images.dtype)


def blurred(images: Tensor, std: float) -> Tensor:
    """Blur images (B, C, H, W) by the discrete Gaussian of a std in pixels, with edges that nothing crosses.

    It is the heat flow exp(½ std² Δ) of the grid, Δ its Laplacian (Lindeberg 1990): each axis is multiplied by a matrix that
    is not negative and whose rows and columns sum to 1. So the mean stays, the range is not left, and blurs add up:
    std² = std₁² + std₂².

    >>> round(blurred(torch.eye(4).reshape(1, 1, 4, 4), 1.0).mean().item(), 6)
    0.25
    """

    def flow(side: int) -> Tensor:
        steps = torch.diag(torch.ones(side - 1, dtype=torch.float64), 1)
        neighbours = steps + steps.t()
        laplacian = neighbours - torch.diag(neighbours.sum(0))
        heat: Tensor = torch.linalg.matrix_exp(std**2 / 2 * laplacian)
        return heat

    return _separable(images, flow)


def pixelated(images: Tensor, cells: float) -> Tensor:
    """Show images (B, C, H, W) in fewer, larger pixels: round(cells · side) a side, each the mean of what it covers.

    >>> pixelated(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), 0.5)
    tensor([[[[1.5000, 1.5000],
              [1.5000, 1.5000]]]])
    """

    def means(side: int) -> Tensor:
        count = max(1, round(cells * side))
        cell = torch.arange(side) * count // side
        together = (cell[:, None] == cell).double()
        return together / together.sum(1, keepdim=True)

    return _separable(images, means)


def _separable(images: Tensor, matrix: Callable[[int], Tensor]) -> Tensor:
    """Multiply each image's columns and rows by a matrix of their length."""
    down, along = (matrix(side).to(images.device) for side in images.shape[-2:])
    return (down @ images.double() @ along.t()).to(images.dtype)
