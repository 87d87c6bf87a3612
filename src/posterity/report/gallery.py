"""Single inputs and what is said of them: the least certain, the most certain, and the sure mistakes."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import torch
from torch import Tensor

from posterity.predict.predictive import Classification
from posterity.report.figures_regression import Bands
from posterity.report.summary import digits, percent

CARDS = 8  # per group: two rows of four
ROWS = 6  # of a table, per group
SHOWN_CLASSES = 10
SHOWN_FEATURES = 6
PIXELS = 96  # no thumbnail is larger


@dataclass(frozen=True)
class Bar:
    """One class of one input: mean probability, its 90 % interval over draws, variances; all as % of the bar's room."""

    name: str
    true: bool
    text: str
    probability: float
    lower: float
    upper: float
    aleatoric: float
    epistemic: float


@dataclass(frozen=True)
class Card:
    """One image with its facts and, for a classification, a bar per class."""

    image: str
    facts: tuple[str, ...]
    wrong: bool
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Group:
    """A row of the gallery: cards where inputs are images, else a table."""

    title: str
    cards: tuple[Card, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def image_like(inputs: Tensor) -> bool:
    """Tell whether inputs are (B, 1 or 3, H, W)."""
    return inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 1


def thumbnail(image: Tensor, low: float, high: float) -> str:
    """Return a PNG data URI of an image (1 or 3, H, W), grey levels from `low` (black) to `high` (white)."""
    from PIL import Image

    scaled = ((image.detach().cpu().float() - low) / max(high - low, 1e-12)).clamp(0, 1) * 255
    levels = scaled.round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    picture.thumbnail((PIXELS, PIXELS))
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def classification_groups(
    inputs: Tensor, predictive: Classification, targets: Tensor, classes: Sequence[str]
) -> tuple[Group, ...]:
    """Return the gallery of a classification, by entropy of the mean probabilities."""
    order = predictive.entropy.detach().cpu().argsort(stable=True)
    wrong = predictive.labels.cpu() != targets.cpu()
    picked = {
        "Least certain": order.flip(0),
        "Wrong, and sure of it": order[wrong[order]],
        "Most certain": order,
    }
    if image_like(inputs):
        low, high = float(inputs.min()), float(inputs.max())
        return tuple(
            Group(title, tuple(_card(i, inputs[i], (low, high), predictive, targets, classes) for i in found[:CARDS].tolist()))
            for title, found in picked.items()
            if len(found)
        )
    header = (*_feature_names(inputs), "true", "predicted", "probability", "entropy", "mutual information")
    return tuple(
        Group(title, (), header, tuple(_class_row(i, inputs, predictive, targets, classes) for i in found[:ROWS].tolist()))
        for title, found in picked.items()
        if len(found)
    )


def regression_groups(inputs: Tensor, bands: Bands, targets: Tensor) -> tuple[Group, ...]:
    """Return the gallery of a regression, by predicted standard deviation."""
    order = torch.from_numpy(bands.std).argsort(stable=True)
    picked = {"Least certain": order.flip(0), "Most certain": order}
    names = ("true", "predicted", "90 % interval", "aleatoric std", "epistemic std")
    if image_like(inputs):
        low, high = float(inputs.min()), float(inputs.max())
        return tuple(
            Group(title, tuple(_value_card(thumbnail(inputs[i], low, high), names, _values(i, bands, targets)) for i in found))
            for title, found in ((title, found[:CARDS].tolist()) for title, found in picked.items())
        )
    return tuple(
        Group(title, (), (*_feature_names(inputs), *names), tuple((*_features(inputs[i]), *_values(i, bands, targets)) for i in found))
        for title, found in ((title, found[:ROWS].tolist()) for title, found in picked.items())
    )
