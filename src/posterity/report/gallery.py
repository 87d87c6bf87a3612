"""Single inputs and what is said of them: the least certain, the most certain, and the sure mistakes."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import floor, log10
from typing import TypeAlias

import torch
from torch import Tensor

from posterity.predict.predictive import Classification
from posterity.report.cells import Cells, as_written
from posterity.report.figures_regression import Bands
from posterity.report.summary import digits, percent
from posterity.text import short

CARDS, ROWS = 4, 6  # examples per group, as images (twice that in the first) and as rows of a table
CLASSES_ON_CARD, CLASSES_IN_ROW = 10, 4
FEATURES, NAME = 6, 30  # columns of a table that are shown, and characters of their names and cells
PIXELS = 96  # no thumbnail is larger
Columns: TypeAlias = tuple[
    tuple[str, ...], Callable[[int], tuple[str, ...]]
]  # what is said of an input beside predictions
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
    inputs: Tensor, predictive: Classification, targets: Tensor, classes: Sequence[str], columns: Columns | None = None
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

    return _gather(inputs, picked, remark, columns)


def regression_groups(
    inputs: Tensor, bands: Bands, targets: Tensor, columns: Columns | None = None
) -> tuple[Group, ...]:
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

    return _gather(inputs, {"Least certain": order.flip(0), "Most certain": order}, remark, columns)


def shown_columns(inputs: Tensor, cells: Cells | None, first: Sequence[str] = ()) -> Columns:
    """Choose the columns of a table that are shown, the most important `first`; of other inputs their first numbers."""
    if cells is not None:
        names = tuple(first or cells.columns)[:FEATURES]
        return ("", *(short(name, NAME) for name in names)), lambda i: (
            cells.rows[i],
            *(cells.text(name, i) for name in names),
        )
    values = inputs.detach().reshape(len(inputs), -1)[:, :FEATURES].double()
    largest = values.abs().amax(0).tolist()
    names = tuple(f"x{j + 1}" for j in range(values.shape[1]))
    return names, lambda i: tuple(map(as_written, values[i].tolist(), largest))


def _gather(
    inputs: Tensor, picked: Mapping[str, Tensor], remark: Callable[[int], Remark], columns: Columns | None
) -> tuple[Group, ...]:
    """Show the first few of each pick: as images where they are images, else by their columns."""
    images = image_like(inputs)
    low, high = (float(inputs.min()), float(inputs.max())) if images else (0.0, 1.0)
    names, texts = ((), lambda _: ()) if images else columns or shown_columns(inputs, None)

    def entry(i: int) -> Entry:
        return Entry(thumbnail(inputs[i], low, high) if images else "", texts(i), remark(i))

    groups = []
    for rank, (title, indices) in enumerate(picked.items()):
        room = (CARDS if rank else 2 * CARDS) if images else ROWS
        entries = tuple(map(entry, indices[:room].tolist()))
        groups.append(Group(title, names, entries))
    return tuple(group for group in groups if group.entries)
