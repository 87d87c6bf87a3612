"""What a report is made of: the test data, the Bayesian model, its deterministic twin where there is one, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from posterity.errors import InvalidInput
from posterity.predict.predictive import AnyPredictive, Classification, General, Regression
from posterity.report.cells import Cells
from posterity.report.effects import Effects
from posterity.types import Latent

Epoch = Mapping[str, Any]
"""One epoch of training, means in nats per datum: {"epoch": 1, "nelbo", "nll", "kl" (KL/N, free of temperature),
"accuracy" or "rmse", "validation": {"nll", "expected_nll", "accuracy" or "rmse"}, "seconds"}; any but epoch may lack."""


@dataclass(frozen=True, eq=False)
class Model:
    """One trained model: its predictions on the test inputs, their scores (`metrics.evaluate`), and how it was trained."""

    name: str
    predictive: AnyPredictive
    scores: Mapping[str, float]
    history: Sequence[Epoch]
    parameters: int
    train_seconds: float
    num_draws: int
    remarks: Sequence[str] = ()  # what its fit says of its own arrival


@dataclass(frozen=True, eq=False)
class LearntLatent:
    """A latent of the problem: its posterior's draws in natural units, (n, *shape), and what it was before the data."""

    draws: Tensor
    latent: Latent


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that `render` puts on the page.

    inputs: (B, ...), image-like where (B, 1 or 3, H, W). targets: (B,), or (B, D) for regression.
    target_scaling: (mean, std) where the predictives and targets are standardised; they are drawn as mean + std·y.
    Scores are printed as they come: give them in the units that the reader should see.
    notes: on the data, in sentences: what was left out of them, and which files are not the published ones.
    features: names of a table's columns. cells: of its test rows, as its file has them; effects: what its columns did.
     signal_to_noise: |μ|/σ of every weight, any shape.
    command: the command line that made this run.
    latents: by full name, `prior.scale.fc` or `likelihood.std`, in the units that the network was trained in.
    findings: what later commands found, by name, as `posterity.report.findings` lists them.
    Raises `InvalidInput` where task, predictives, inputs and targets do not belong together.
    """

    title: str
    task: str
    inputs: Tensor
    targets: Tensor
    bayesian: Model
    twin: Model | None = None
    classes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    signal_to_noise: Tensor | None = None
    target_scaling: tuple[float, float] | None = None
    command: str = ""
    latents: Mapping[str, LearntLatent] = field(default_factory=dict)
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cells: Cells | None = None
    effects: Effects | None = None

    def __post_init__(self) -> None:
        kinds = {"classification": (Classification,), "regression": (Regression, General)}
        if self.task not in kinds:
            raise InvalidInput(f"Unknown task '{self.task}'. Choices: {', '.join(kinds)}.")
        for model in self.models:
            if not isinstance(model.predictive, kinds[self.task]):
                raise InvalidInput(f"A report of {self.task} needs a {kinds[self.task][0].__name__} of '{model.name}'.")
            own = model.predictive
            batch = own.distribution.batch_shape[1] if isinstance(own, General) else own.quantile(0.5).shape[0]
            if not batch == len(self.targets) == len(self.inputs):
                counts = (
                    f"{len(self.inputs)} inputs, {len(self.targets)} targets, {batch} predictions of '{model.name}'"
                )
                raise InvalidInput(f"Inputs, targets and predictions must be equally many, got {counts}.")
        if self.twin is not None and self.twin.name == self.bayesian.name:
            raise InvalidInput(f"The two models of a report need two names; both are '{self.twin.name}'.")
        if self.task == "classification" and len(self.classes) != self.bayesian.predictive.mean.shape[1]:
            counts = f"{len(self.classes)} names for {self.bayesian.predictive.mean.shape[1]} classes"
            raise InvalidInput(f"Every class needs its name, got {counts}.")

    @property
    def models(self) -> tuple[Model, ...]:
        """The Bayesian model, then its twin where there is one."""
        return (self.bayesian,) if self.twin is None else (self.bayesian, self.twin)
