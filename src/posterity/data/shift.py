"""Corruptions at five severities: inputs of the same kind as the training data, seen under worse conditions.

The idea is that of Hendrycks & Dietterich (2019); kinds and strengths are our own, and need torch alone. Images are float,
(B, C, H, W), in [0, 1], and stay there; tables are (B, D) with columns of mean 0 and std 1 over the training rows.

| images      | severity 1 … 5           | unit                                                                    |
|-------------|--------------------------|-------------------------------------------------------------------------|
| rotation    | 15, 30, 45, 60, 75       | degrees counterclockwise about the centre; what comes in is 0           |
| translation | .04, .08, .12, .16, .2   | of the side, in whole pixels, rounded up; up, down, left or right       |
| noise       | .1, .2, .3, .4, .5       | std of Gaussian noise on each pixel, cut to [0, 1]                      |
| blur        | .02, .03, .05, .08, .12  | std of a Gaussian, of the side                                          |
| contrast    | .75, .5, .35, .2, .1     | of each pixel's distance from the image's mean that is left             |
| pixelate    | .5, .35, .25, .18, .12   | cells per side, of the side; a cell has the mean of its pixels          |
| occlusion   | .2, .3, .4, .5, .6       | side of a square of 0.5 at a random place, of the image's side          |

| tables      | severity 1 … 5           | unit                                                                    |
|-------------|--------------------------|-------------------------------------------------------------------------|
| noise       | .25, .5, 1, 1.5, 2       | std of Gaussian noise on each value, in stds of its column              |
| dropout     | .1, .2, .35, .5, .7      | probability that a value is lost: its column's mean stands there        |
| scaling     | 1.25, 1.5, 2, 3, 4       | factor of each value's distance from its column's mean                  |

What is random of input i depends on the seed, the kind and i alone, not on its batch; the same numbers serve all severities,
so that a higher one goes further the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn import functional

from posterity.data.dataset import Dataset
from posterity.data.filters import blurred as blurred
from posterity.data.filters import pixelated as pixelated
from posterity.data.filters import rotated as rotated
from posterity.errors import InvalidInput, unknown
from posterity.train.random import derived_seed

SEVERITIES = (1, 2, 3, 4, 5)
GREY = 0.5

Corrupt: TypeAlias = Callable[[Tensor, int], Tensor]  # inputs and a severity, 0 … 5 → inputs


@dataclass(frozen=True)
class _Numbers:
    """The random numbers of each input of a batch, from its own generator."""

    seed: int
    kind: str
    rows: Sequence[int]

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), (B, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators()])

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, (B, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators()])

    def _generators(self) -> list[Generator]:
        return [Generator().manual_seed(derived_seed(self.seed, self.kind, row)) for row in self.rows]


@dataclass(frozen=True)
class _Kind:
    strengths: tuple[float, ...]
    apply: Callable[[Tensor, float, _Numbers], Tensor]


def corrupt(
    inputs: Tensor, kind: str, severity: int, *, seed: int = 0, rows: Sequence[int] | Tensor | None = None
) -> Tensor:
    """Return inputs of the same shape, corrupted by one kind at a severity of 1 (mild) to 5; 0 leaves them as they are.

    Args:
        inputs: images (B, C, H, W) in [0, 1], or rows (B, D) of a standardised table.
        kind: one of the table above.
        severity: 0 … 5.
        seed: of all that is random.
        rows: the numbers of the inputs in their data set, (B,), which their random numbers depend on; 0 … B − 1 unless given.

    Raises:
        InvalidInput: for an unknown kind or severity, and inputs that are neither images nor rows, or no floats.

    >>> image = torch.zeros(1, 1, 4, 4)
    >>> image[0, 0, 0, 0] = 1.0
    >>> corrupt(image, "contrast", 2)[0, 0, 0, :2]  # the mean is 1/16
    tensor([0.5312, 0.0312])
    """
    known = _known(tuple(inputs.shape[1:]))
    if kind not in known:
        raise unknown("kind of corruption", kind, known)
    if severity not in (0, *SEVERITIES):
        raise InvalidInput(f"severity={severity}: expected a whole number from 0 (nothing) to 5.")
    if not inputs.is_floating_point():
        raise InvalidInput(f"Expected floating-point inputs, got {inputs.dtype}; bytes of images are divided by 255.")
    if severity == 0 or not len(inputs):
        return inputs
    numbers = _Numbers(seed, kind, range(len(inputs)) if rows is None else [int(row) for row in rows])
    chosen = known[kind]
    return chosen.apply(inputs, chosen.strengths[severity - 1], numbers).to(inputs.dtype)


def kinds(input_shape: Sequence[int]) -> tuple[str, ...]:
    """Name the corruptions of inputs of a shape: of images (C, H, W), or of a table's rows (D,). Raises `InvalidInput`.

    >>> kinds((10,))
    ('noise', 'dropout', 'scaling')
    """
    return tuple(_known(tuple(input_shape)))


def corruptions(dataset: Dataset, wanted: Sequence[str] = (), seed: int = 0) -> dict[str, Corrupt]:
    """Return the wanted kinds (all, unless given) as functions (inputs, severity) → inputs, in the data set's own units.

    Images are brought back to their original units, corrupted there, and scaled as the data set's; where those units are
    not [0, 1], what counts as 0 and 1 are the smallest and largest values of the training images.

    >>> from posterity.data import load
    >>> digits = load("digits").standardised()
    >>> corruptions(digits)["blur"](digits.test_inputs, 5).shape
    torch.Size([360, 1, 8, 8])
    """
    known = kinds(dataset.input_shape)
    for kind in wanted:
        if kind not in known:
            raise unknown("kind of corruption", kind, known)
    return {kind: partial(_in_units, dataset, kind, seed) for kind in wanted or known}


def shuffled(inputs: Tensor, seed: int = 0) -> Tensor:
    """Take the order out of inputs and leave their values: an outlier that no statistic of single values can tell.

    Of an image (B, C, H, W) the pixels are shuffled, each image in its own way; of a table (B, D), each column over the rows.

    >>> shuffled(torch.arange(8.0).reshape(4, 2)).sum(0)
    tensor([12., 16.])
    """
    _known(tuple(inputs.shape[1:]))
    count = len(inputs)
    if inputs.dim() == 2:
        order = _Numbers(seed, "shuffled", range(inputs.shape[1])).uniform(count).argsort(1)
        return inputs.gather(0, order.t().to(inputs.device))
    flat = inputs.flatten(2)
    order = _Numbers(seed, "shuffled", range(count)).uniform(flat.shape[2]).argsort(1).to(inputs.device)
    return flat.gather(2, order[:, None].expand_as(flat)).reshape(inputs.shape)


def _rotation(images: Tensor, degrees: float, numbers: _Numbers) -> Tensor:
    return rotated(images, degrees)


def _translation(images: Tensor, share: float, numbers: _Numbers) -> Tensor:
    height, width = images.shape[-2:]
    down, right = ceil(share * height), ceil(share * width)
    towards = (4 * numbers.uniform()).long().to(images.device)
    moved = torch.empty_like(images)
    for index, (y, x) in enumerate(((-down, 0), (down, 0), (0, -right), (0, right))):
        own = towards == index
        moved[own] = functional.pad(images[own], [x, -x, y, -y])  # a negative margin cuts away
    return moved


def _noise(inputs: Tensor, std: float, numbers: _Numbers) -> Tensor:
    return inputs + std * numbers.normal(*inputs.shape[1:]).to(inputs)


def _image_noise(images: Tensor, std: float, numbers: _Numbers) -> Tensor:
    return _noise(images, std, numbers).clamp(0, 1)


def _blur(images: Tensor, share: float, numbers: _Numbers) -> Tensor:
    return blurred(images, share * max(images.shape[-2:]))


def _contrast(images: Tensor, left: float, numbers: _Numbers) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + left * (images - mean)


def _pixelate(images: Tensor, cells: float, numbers: _Numbers) -> Tensor:
    return pixelated(images, cells)


def _occlusion(images: Tensor, share: float, numbers: _Numbers) -> Tensor:
    """Cover a square; its place is ⌊u · (free pixels + 1)⌋ on each axis, so that a larger square holds the smaller ones."""
    covered = []
    for axis, side in enumerate(images.shape[-2:]):
        length = max(1, round(share * side))
        start = (numbers.uniform(2)[:, axis : axis + 1] * (side - length + 1)).long()
        place = torch.arange(side)
        covered.append((start <= place) & (place < start + length))
    square = covered[0][:, None, :, None] & covered[1][:, None, None, :]
    return images.masked_fill(square.to(images.device), GREY)


def _dropout(rows: Tensor, share: float, numbers: _Numbers) -> Tensor:
    return rows.masked_fill((numbers.uniform(rows.shape[1]) < share).to(rows.device), 0.0)


def _scaling(rows: Tensor, factor: float, numbers: _Numbers) -> Tensor:
    return factor * rows


_IMAGES: Mapping[str, _Kind] = MappingProxyType(
    {
        "rotation": _Kind((15.0, 30.0, 45.0, 60.0, 75.0), _rotation),
        "translation": _Kind((0.04, 0.08, 0.12, 0.16, 0.2), _translation),
        "noise": _Kind((0.1, 0.2, 0.3, 0.4, 0.5), _image_noise),
        "blur": _Kind((0.02, 0.03, 0.05, 0.08, 0.12), _blur),
        "contrast": _Kind((0.75, 0.5, 0.35, 0.2, 0.1), _contrast),
        "pixelate": _Kind((0.5, 0.35, 0.25, 0.18, 0.12), _pixelate),
        "occlusion": _Kind((0.2, 0.3, 0.4, 0.5, 0.6), _occlusion),
    }
)
_TABLES: Mapping[str, _Kind] = MappingProxyType(
    {
        "noise": _Kind((0.25, 0.5, 1.0, 1.5, 2.0), _noise),
        "dropout": _Kind((0.1, 0.2, 0.35, 0.5, 0.7), _dropout),
        "scaling": _Kind((1.25, 1.5, 2.0, 3.0, 4.0), _scaling),
    }
)


def _known(shape: tuple[int, ...]) -> Mapping[str, _Kind]:
    if len(shape) == 3:
        return _IMAGES
    if len(shape) == 1:
        return _TABLES
    raise InvalidInput(
        f"Inputs of shape {shape} have no corruptions: expected images (C, H, W), or rows (D,) of a table."
    )


def _in_units(dataset: Dataset, kind: str, seed: int, inputs: Tensor, severity: int) -> Tensor:
    """Corrupt inputs of a data set's units."""
    if inputs.dim() == 2 or severity == 0:
        return corrupt(inputs, kind, severity, seed=seed)
    low, high = _range(dataset)
    unit = corrupt((inputs - low) / (high - low), kind, severity, seed=seed)
    return unit * (high - low) + low


def _range(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return what 0 and 1 of an image are in a data set's units, each () or, for each colour, (C, 1, 1)."""
    scaling = dataset.scaling
    shift, factor = (0.0, 1.0) if scaling is None else (scaling.input_mean, scaling.input_std)
    known = dataset.train_inputs if len(dataset.train_inputs) else dataset.test_inputs
    low, high = (
        known.amin((0, 2, 3))[:, None, None] * factor + shift,
        known.amax((0, 2, 3))[:, None, None] * factor + shift,
    )
    low, high = low.min(), high.max()
    tolerance = 1e-5 * (high - low)  # of scaling there and back
    if low >= -tolerance and high <= 1 + tolerance:
        low, high = torch.zeros_like(low), torch.ones_like(high)
    return (low - shift) / factor, (high - shift) / factor
