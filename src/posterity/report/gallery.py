"""Single inputs and what is said of them: the least certain, the most certain, and the sure mistakes."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import floor, log10

import torch
from torch import Tensor

from posterity.predict.predictive import Classification
from posterity.report.figures_regression import Bands
from posterity.report.summary import digits, percent

CARDS, ROWS = 4, 6  # examples per group, as images (twice that in the first) and as rows of a table
CLASSES_ON_CARD, CLASSES_IN_ROW = 10, 4
FEATURES = 6
PIXELS = 96  # no thumbnail is larger
LARGEST_VARIANCE = 0.25  # of a class's indicator


@dataclass(frozen=True)
class Bar:
    """One class of one input: mean probability, its 90 % interval over draws, and both variances, as % of their room."""

    name: str
    true: bool
    text: str
    probability: float
    lower: float
    upper: float
    aleatoric: float
    epistemic: float


@dataclass(frozen=True)
class Remark:
    """What the model says of one input: facts (name, value) and, for a classification, a bar per class."""

    facts: tuple[tuple[str, str], ...]
    wrong: bool = False
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One input, as an image or as its first features, and what is said of it."""

    image: str
    features: tuple[str, ...]
    remark: Remark


@dataclass(frozen=True)
class Group:
    """A handful of inputs with something in common."""

    title: str
    feature_names: tuple[str, ...]
    entries: tuple[Entry, ...]


def image_like(inputs: Tensor) -> bool:
    """Tell whether inputs are (B, 1 or 3, H, W)."""
    return inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 1


def thumbnail(image: Tensor, low: float, high: float) -> str:
    """Return a PNG data URI of an image (1 or 3, H, W), its levels from `low` (black) to `high` (white)."""
    from PIL import Image

    scaled = ((image.detach().cpu().float() - low) / max(high - low, 1e-12)).clamp(0, 1) * 255
    levels = scaled.round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    picture.thumbnail((PIXELS, PIXELS))
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def classification_groups(
    inputs: Tensor, predictive: Classification, targets: Tensor, classes: Sequence[str], features: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the gallery of a classification, by entropy of the mean probabilities."""
    order = predictive.entropy.detach().cpu().argsort(stable=True)
    wrong = predictive.labels.cpu() != targets.cpu()
    picked = {"Least certain": order.flip(0), "Wrong, and sure of it": order[wrong[order]], "Most certain": order}
    lower, upper = predictive.interval(0.9)
    room = CLASSES_ON_CARD if image_like(inputs) else CLASSES_IN_ROW

    def remark(i: int) -> Remark:
        said, true = int(predictive.labels[i]), int(targets[i])
        facts = (
            ("true", classes[true]),
            ("predicted", f"{classes[said]} ({percent(float(predictive.mean[i, said]))})"),
            ("entropy", f"{float(predictive.entropy[i]):.2g}"),
            ("mutual information", f"{float(predictive.mutual_information[i]):.2g}"),
        )
        columns = (predictive.mean, lower, upper, predictive.aleatoric, predictive.epistemic)
        probability, low, high, aleatoric, epistemic = (100 * column[i].detach().cpu() for column in columns)
        shown = range(len(classes)) if len(classes) <= room else probability.topk(room).indices.tolist()
        bars = tuple(
            Bar(
                classes[c], c == true, f"{probability[c]:.0f}", float(probability[c]), float(low[c]), float(high[c]),
                float(aleatoric[c]) / LARGEST_VARIANCE, float(epistemic[c]) / LARGEST_VARIANCE,
            )
            for c in shown
        )  # fmt: skip
        return Remark(facts, said != true, bars)

    return _gather(inputs, picked, remark, features)


def regression_groups(inputs: Tensor, bands: Bands, targets: Tensor, features: Sequence[str] = ()) -> tuple[Group, ...]:
    """Return the gallery of a regression, by predicted standard deviation."""
    order = torch.from_numpy(bands.std).argsort(stable=True)
    places = max(1 - floor(log10(float(bands.std.min()))), 0)  # a digit more than the smallest error bar has

    def remark(i: int) -> Remark:
        facts = (
            ("true", f"{float(targets[i]):.{places}f}"),
            ("predicted", f"{bands.mean[i]:.{places}f}"),
            ("90 % interval", f"{bands.lower[i]:.{places}f} to {bands.upper[i]:.{places}f}"),
            ("aleatoric std", digits(bands.aleatoric_std[i])),
            ("epistemic std", digits(bands.epistemic_std[i])),
        )
        return Remark(facts, wrong=not bands.lower[i] <= float(targets[i]) <= bands.upper[i])

    return _gather(inputs, {"Least certain": order.flip(0), "Most certain": order}, remark, features)


def as_written(value: float, largest: float) -> str:
    """Write a number of a column as its file would: six digits of the largest, beyond which float32 only rounds.

    >>> as_written(1250.0001, 20000.0), as_written(-4.77e-07, 22.2), as_written(0.0228253, 0.058)
    ('1250', '0', '0.0228253')
    """
    places = 5 - floor(log10(largest)) if largest > 0 else 0
    if not 0 <= places <= 12:
        return f"{value:.6g}"
    text = f"{value:.{places}f}"
    shorter = text.rstrip("0").rstrip(".") if places else text
    return "0" if not float(shorter) else shorter


def _gather(
    inputs: Tensor, picked: Mapping[str, Tensor], remark: Callable[[int], Remark], features: Sequence[str]
) -> tuple[Group, ...]:
    """Show the first few of each pick: as images where they are images, else by their first features."""
    images = image_like(inputs)
    low, high = (float(inputs.min()), float(inputs.max())) if images else (0.0, 1.0)
    count = min(inputs[0].numel(), FEATURES)
    names = () if images else tuple(features[:count]) or tuple(f"x{j + 1}" for j in range(count))

    columns = inputs.detach().reshape(len(inputs), -1)[:, :count].double()
    largest = [0.0] * count if images else columns.abs().amax(0).tolist()

    def entry(i: int) -> Entry:
        values = tuple(as_written(value, most) for value, most in zip(columns[i].tolist(), largest, strict=True))
        return Entry(thumbnail(inputs[i], low, high) if images else "", values, remark(i))

    groups = []
    for rank, (title, indices) in enumerate(picked.items()):
        room = (CARDS if rank else 2 * CARDS) if images else ROWS
        entries = tuple(map(entry, indices[:room].tolist()))
        groups.append(Group(title, names, entries))
    return tuple(group for group in groups if group.entries)
