"""A folder of pictures: a folder for each class, folders `train` and `test` of such, or a table that says what each shows.

Pictures are PNG and JPEG of any size, mode and turn. All are brought to S × S as `posterity predict` brings new ones: upright,
the longer side resized to S, the rest black; grey where all of them are. One that cannot be read is refused by its name.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterity.data.dataset import Dataset, Options
from posterity.data.images import MAX_SIZE
from posterity.data.pictures import padded, picture
from posterity.data.scale import split_rows
from posterity.data.shown import Labels, Shown, natural, shown_in
from posterity.data.tables import encode_targets
from posterity.errors import CorruptFile, InvalidInput, PosterityError
from posterity.text import short, some

SIDE = 64  # pixels, where nobody says otherwise and the pictures are larger
LEAST = 4  # pixels
TEST_FRACTION, LEAST_PICTURES = 0.2, 5
COPIES = 3  # of all pixels, while they are scaled


def load_folder(folder: Path, split: int, image_size: int | None, options: Options) -> Dataset:
    """Read a folder of pictures as float32 (N, C, S, S) in [0, 1], with 1 channel where all are grey and 3 elsewhere.

    S is `image_size`, or the longer side of the first picture, 64 at most. A fifth of each class, drawn with the seed
    `split`, is the test part, or the folder `test` beside `train` is. Folders within a class are of that class; `val` is
    trained on. A table beside the pictures has a column of their names, and `options.target`, or its last other column,
    says what they show.

    Raises:
        InvalidInput: where there are too few pictures or classes, a size that cannot be, or more pixels than memory.
        CorruptFile: with the names of pictures that cannot be read.
        DataNotFound: where the folder holds no pictures, and where a table names one that is not there.
    """
    shown = shown_in(folder, options.target)
    if len(shown.paths) < LEAST_PICTURES:
        raise InvalidInput(f"Folder '{folder}' has {len(shown.paths)} pictures: at least {LEAST_PICTURES} are needed.")
    targets, classes = _targets(shown.labels, options, folder)
    train, test, said = _parted(shown, targets, classes, split)
    side = _side(image_size, shown.paths)
    pixels = _pixels(shown.paths, side, folder)
    digests = [hashlib.sha256(one.numpy().tobytes()).digest() for one in pixels]
    pixels = pixels if _coloured(pixels) else pixels[:, :1].contiguous()
    names = [path.relative_to(folder).as_posix() for path in shown.paths]
    values = torch.from_numpy(targets if classes else targets.astype(np.float32))
    return Dataset(
        name=folder.name,
        task="classification" if classes else "regression",
        train_inputs=pixels[train],
        train_targets=values[train],
        test_inputs=pixels[test],
        test_targets=values[test],
        classes=classes,
        source={folder.name: hashlib.sha256("\n".join(names).encode() + b"".join(digests)).hexdigest()},
        notes=(_said(folder, pixels, targets, classes), *shown.notes, said, *_twice(digests, targets, train, test)),
        test_names=tuple(names[row] for row in test),
    )


def _targets(labels: Labels, options: Options, folder: Path) -> tuple[Labels, tuple[str, ...]]:
    if labels.dtype.kind == "U" and options.task != "regression":
        names = sorted(set(labels.tolist()), key=natural)
        if len(names) < 2:
            raise InvalidInput(
                f"All {len(labels):,} pictures of '{folder}' are of class '{short(names[0])}': there is nothing to learn."
            )
        place = {name: index for index, name in enumerate(names)}
        return np.array([place[label] for label in labels.tolist()], np.int64), tuple(names)
    return encode_targets(labels, options.task, folder.name)


def _parted(
    shown: Shown, targets: Labels, classes: tuple[str, ...], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    count = len(shown.paths)
    if shown.tested is not None:
        if seed:
            raise InvalidInput(f"--split {seed}: these pictures are split by their folders. Leave it out.")
        train, test = np.flatnonzero(~shown.tested), np.flatnonzero(shown.tested)
        return train, test, f"Tested on: {len(test):,} of {count:,} pictures, those of their own folder."
    few = [name for name, number in zip(classes, np.bincount(targets) if classes else (), strict=True) if number < 2]
    if few:
        raise InvalidInput(
            f"Class '{short(few[0])}' has one picture: one to train on and one to test on are the least."
        )
    labels = targets if classes else np.zeros(count)
    train, test = split_rows(labels, num_test=max(1, round(TEST_FRACTION * count)), seed=seed)
    share = ", each class by its share" * bool(classes)
    return train, test, f"Tested on: {len(test):,} of {count:,} pictures, drawn with seed {seed}{share}."


def _side(image_size: int | None, paths: Sequence[Path]) -> int:
    side = min(SIDE, _longest(paths)) if image_size is None else image_size
    if not LEAST <= side <= MAX_SIZE:
        raise InvalidInput(f"image_size={side}: expected from {LEAST} to {MAX_SIZE} pixels.")
    needed, there = COPIES * 12 * len(paths) * side**2, _memory()
    if needed > there:
        fits = int((there / (COPIES * 12 * len(paths))) ** 0.5)
        raise InvalidInput(
            f"{len(paths):,} pictures of {side} x {side} pixels take {needed / 2**30:,.0f} GiB while they are scaled, and this "
            f"machine has {there / 2**30:,.0f}. Smaller ones: image_size={fits} (--image-size {fits})."
        )
    return side


def _longest(paths: Sequence[Path]) -> int:
    """Return the longer side of the first picture that can be read; those that cannot are refused once all are known."""
    for path in paths:
        with suppress(PosterityError):
            return max(picture(path, 1).shape[1:])
    return SIDE


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _pixels(paths: Sequence[Path], side: int, folder: Path) -> Tensor:
    """Read all pictures as (N, 3, S, S); of those that cannot be read, all are found before any is named."""
    pixels, wrong = torch.empty(len(paths), 3, side, side), []
    fit = partial(padded, size=(side, side), inner=side)
    for row, path in enumerate(paths):
        try:
            pixels[row] = picture(path, 3, fit=fit)
        except PosterityError as error:
            wrong.append(str(error))
    if wrong:
        more = f" And {len(wrong) - 3:,} more." if len(wrong) > 3 else ""
        raise CorruptFile(
            f"{len(wrong):,} of {len(paths):,} pictures in '{folder}' cannot be read; mend them, or take them away. "
            f"{' '.join(wrong[:3])}{more}"
        )
    return pixels


def _coloured(pixels: Tensor) -> bool:
    return any(not torch.equal(part[:, 0], part[:, place]) for part in pixels.split(64) for place in (1, 2))


def _said(folder: Path, pixels: Tensor, targets: Labels, classes: tuple[str, ...]) -> str:
    counts = np.bincount(targets, minlength=len(classes)) if classes else ()
    named = [f"{short(name)} {number:,}" for name, number in zip(classes, counts, strict=True)]
    what = (
        f"{len(classes)} classes ({some(named, 8)})"
        if classes
        else f"targets from {targets.min():g} to {targets.max():g}"
    )
    colours, side = ("grey", "in colours")[pixels.shape[1] > 1], pixels.shape[-1]
    return (
        f"{folder.name}: {len(pixels):,} pictures, {colours}, {what}; brought to {side} x {side} pixels, the longer side "
        "resized and the rest black."
    )


def _twice(digests: Sequence[bytes], targets: Labels, train: Labels, test: Labels) -> tuple[str, ...]:
    """Say which pictures are there twice, where that flatters the test or contradicts itself."""
    seen = {digests[row] for row in train}
    both = sum(digests[row] in seen for row in test)
    labels: dict[bytes, set[float]] = {}
    for digest, target in zip(digests, targets.tolist(), strict=True):
        labels.setdefault(digest, set()).add(target)
    torn = sum(len(found) > 1 for found in labels.values())
    notes = []
    if both:
        notes.append(
            f"{both:,} pictures of the test part are in the training part, too: their scores say nothing of new ones."
        )
    if torn:
        notes.append(f"{torn:,} pictures are there with several labels.")
    return tuple(notes)
