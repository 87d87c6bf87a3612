"""The sets that come inside scikit-learn: no file, no network."""

import numpy as np
import torch

from posterity.data.dataset import Dataset
from posterity.data.files import digest
from posterity.data.images import resize
from posterity.data.scale import Table, split_rows, standardised
from posterity.data.sets import DIABETES, DIGITS

DIGITS_WHITE = 16.0  # pixels count the set bits of 4 x 4 blocks
SPLIT_SEED = 0


def load_digits(image_size: int | None) -> Dataset:
    """The 1797 digits of 8 x 8 pixels, in a fixed stratified split of 1437/360; larger sizes are interpolated.

    >>> load_digits(32).test_inputs.shape
    torch.Size([360, 1, 32, 32])
    """
    from sklearn.datasets import load_digits as load  # imported here: it costs a second, and other sets do not need it

    found = load()
    raw, labels = found.images.astype(np.uint8), found.target.astype(np.int64)
    train, test = split_rows(labels, num_test=DIGITS.sizes[1], seed=SPLIT_SEED)
    images = resize(torch.from_numpy(raw[:, None].astype(np.float32)).div_(DIGITS_WHITE), image_size)
    targets = torch.from_numpy(labels)
    return Dataset(
        name=DIGITS.name,
        task="classification",
        train_inputs=images[train],
        train_targets=targets[train],
        test_inputs=images[test],
        test_targets=targets[test],
        classes=DIGITS.classes,
        source={"sklearn.datasets.load_digits": digest(raw.tobytes() + labels.tobytes())},
    )


def load_diabetes() -> Dataset:
    """The 442 patients with 10 measurements, in a fixed split of 354/88, standardised by the training rows.

    >>> load_diabetes().features[:3]
    ('age', 'sex', 'bmi')
    """
    from sklearn.datasets import load_diabetes as load

    found = load(scaled=False)
    inputs, targets = found.data.astype(np.float64), found.target.astype(np.float64)
    train, test = split_rows(np.zeros(len(targets)), num_test=DIABETES.sizes[1], seed=SPLIT_SEED)
    source = {"sklearn.datasets.load_diabetes": digest(inputs.tobytes() + targets.tobytes())}
    return standardised(Table(DIABETES.name, inputs, targets, tuple(found.feature_names), source=source), train, test)
