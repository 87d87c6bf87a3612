"""What loading returns: a data set as plain tensors, and the scaling that leads back to the original units."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from posterity.data.dates import Order
from posterity.data.form import TableForm
from posterity.data.numerals import Decimal
from posterity.data.splits import Blocks, By
from posterity.errors import unknown
from posterity.train.digest import digest

Task: TypeAlias = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class Scaling:
    """The mean and standard deviation of each column over the TRAINING rows, already applied to a data set's tensors.

    A std divides by N, not by N − 1. Class targets are not scaled: `target_mean` 0, `target_std` 1.

    >>> import torch
    >>> scaling = Scaling(torch.tensor([10.0]), torch.tensor([2.0]), target_mean=100.0, target_std=5.0)
    >>> scaling.scale_inputs(torch.tensor([[12.0], [8.0]])).flatten().tolist()
    [1.0, -1.0]
    >>> scaling.restore_targets(torch.tensor([0.0, 2.0])).tolist()
    [100.0, 110.0]
    """

    input_mean: Tensor  # (D,) float32; of images () for all pixels, or (C, 1, 1) for the pixels of each colour
    input_std: Tensor  # likewise, > 0
    target_mean: float = 0.0
    target_std: float = 1.0

    def scale_inputs(self, inputs: Tensor) -> Tensor:
        """Bring new inputs (..., D) of the original units to those of the data set."""
        return (inputs - self.input_mean) / self.input_std

    def scale_targets(self, targets: Tensor) -> Tensor:
        """Bring targets of the original units to mean 0 and std 1; a std is scaled by dividing by `target_std`."""
        return (targets - self.target_mean) / self.target_std

    def restore_targets(self, targets: Tensor) -> Tensor:
        """Bring targets or predictions back to the original units; a std is brought back by `target_std` alone."""
        return targets * self.target_std + self.target_mean


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Inputs and targets of a training and a test part, as tensors on the CPU.

    Inputs are float32, (N, C, H, W) in [0, 1] for images and (N, D) with mean 0 and std 1 over the training rows for
    tables. Targets are int64 class indices (N,), or float32 (N,) with mean 0 and std 1 over the training rows.
    A set that has no training part (notMNIST) has training tensors of 0 rows.

    >>> from posterity.data import load
    >>> digits = load("digits")
    >>> digits
    Dataset('digits', classification, 1437 train, 360 test, inputs (1, 8, 8), 10 classes)
    >>> digits.num_classes, digits.input_shape
    (10, (1, 8, 8))
    """

    name: str
    task: Task
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: tuple[str, ...] = ()  # class names, classification only
    features: tuple[str, ...] = ()  # names of what the network takes of a table: its columns, `sex = male`, …
    scaling: Scaling | None = None  # tables, and images once standardised
    source: Mapping[str, str] = field(default_factory=dict)  # file name -> SHA-256 of the file that was read
    notes: tuple[str, ...] = ()  # what was left out or changed, in sentences
    form: TableForm | None = None  # of a text table: how its columns were read, and what became of them
    blocks: Blocks | None = None  # of the training rows, where the test rows are whole ones too
    test_names: tuple[str, ...] = ()  # of a table's test rows, as people find them in the file: row 1, row 5, …
    digests: Mapping[str, str] = field(default_factory=dict)  # of the tensors as they were read, where a run needs them

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.test_inputs.shape[1:])

    def digested(self) -> dict[str, str]:
        """Return a digest of each of the four tensors: what tells these data from others of the same name and shape.

        And of their scaling: a table in other units has the same standardised numbers.

        >>> from posterity.data import load
        >>> load("digits").digested()["train targets"]
        '1,437 int64, sha256 ...'
        """
        parts = {"train": (self.train_inputs, self.train_targets), "test": (self.test_inputs, self.test_targets)}
        found = {
            f"{part} {what}": digest(values)
            for part, pair in parts.items()
            for what, values in zip(("inputs", "targets"), pair, strict=True)
        }
        if self.scaling is not None:
            mean, std = self.scaling.input_mean.flatten(), self.scaling.input_std.flatten()
            of_target = mean.new_tensor([self.scaling.target_mean, self.scaling.target_std])
            found["scaling"] = digest(torch.cat([mean, std, of_target]))
        return found

    def standardised(self) -> "Dataset":
        """Give images mean 0 and std 1 over all training pixels, and remember the scaling; tables already have it.

        Of images in several colours, each colour gets mean 0 and std 1.

        A network's first layer then meets inputs of the scale that initialisations and priors assume.

        >>> from posterity.data import load
        >>> digits = load("digits").standardised()
        >>> abs(digits.train_inputs.mean().item()) < 1e-5, round(digits.train_inputs.std().item(), 4)
        (True, 1.0)
        """
        if self.scaling is not None or len(self.train_inputs) == 0:
            return self
        inputs = self.train_inputs
        colours = inputs.dim() == 4 and inputs.shape[1] > 1
        std, mean = torch.std_mean(inputs, (0, 2, 3) if colours else None, correction=0)
        std = torch.where(std > 0, std, 1.0)
        scaling = Scaling(mean[:, None, None], std[:, None, None]) if colours else Scaling(mean, std)
        train, test = scaling.scale_inputs(inputs), scaling.scale_inputs(self.test_inputs)
        return replace(self, train_inputs=train, test_inputs=test, scaling=scaling)

    def unscaled(self) -> "Dataset":
        """Bring inputs and targets back to the original units, for a network that was trained in these.

        >>> from posterity.data import load
        >>> raw = load("digits").standardised().unscaled()
        >>> round(raw.train_inputs.max().item(), 4), raw.scaling is None
        (1.0, True)
        """
        scaling = self.scaling
        if scaling is None:
            return self
        inputs = [part * scaling.input_std + scaling.input_mean for part in (self.train_inputs, self.test_inputs)]
        targets = [self.train_targets, self.test_targets]
        if not self.classes:
            targets = [scaling.restore_targets(part) for part in targets]
        return replace(
            self,
            train_inputs=inputs[0],
            test_inputs=inputs[1],
            train_targets=targets[0],
            test_targets=targets[1],
            scaling=None,
        )

    def __repr__(self) -> str:
        sizes = f"{len(self.train_inputs)} train, {len(self.test_inputs)} test, inputs {self.input_shape}"
        classes = f", {self.num_classes} classes" if self.classes else ""
        return f"Dataset({self.name!r}, {self.task}, {sizes}{classes})"


@dataclass(frozen=True)
class Options:
    """What is seldom needed when a data set is loaded.

    `target` (name of the target column), `task` and `table` concern your own files; `keep_flawed` keeps the all-white and
    duplicate images of notMNIST; `progress` shows a download's progress on stderr (None: where stderr is a terminal).
    Raises `InvalidInput` for a task that is neither.
    """

    target: str | None = None  # None: the last column
    task: str | None = None  # None: told from the target's values
    table: "Reader" = field(default_factory=lambda: Reader())
    keep_flawed: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in get_args(Task):
            raise unknown("task", self.task, get_args(Task))


@dataclass(frozen=True)
class Reader:
    """How a text table is read where the guess is wrong; None leaves it to the cells.

    >>> Reader(drop=("PassengerId",), decimal=",").decimal
    ','
    """

    drop: tuple[str, ...] = ()  # columns that are not read at all
    keep: tuple[str, ...] = ()  # inputs that stay, though they seem to say nothing
    category: tuple[str, ...] = ()  # numbers that are names, as postal codes are
    header: bool | None = None  # whether the first row holds names
    decimal: Decimal | None = None  # what stands before decimals, where both readings fit
    dates: Order | None = None  # the order of day, month and year, where several fit
    missing: tuple[str, ...] = ()  # further words that stand for missing cells
    test: str | None = None  # the path of a table that is the test part; None: a fifth of this one
    split_by: str | None = None  # time:COLUMN or group:COLUMN; None: rows are drawn, each class by its share
    form: TableForm | None = None  # of a run: its table's, by which this one is read

    @property
    def by(self) -> By | None:
        """What rows are parted by."""
        return None if self.split_by is None else By.read(self.split_by)

    def __post_init__(self) -> None:
        _ = self.by  # is one
        for what, value, known in (("decimal mark", self.decimal, Decimal), ("order of dates", self.dates, Order)):
            if value is not None and value not in get_args(known):
                raise unknown(what, value, get_args(known))
