"""`posterity prior`: what a network's prior says of the data's inputs, before any training."""

from dataclasses import dataclass
from math import log
from pathlib import Path
from textwrap import fill
from typing import Annotated

import torch
from cyclopts import Parameter
from rich.table import Table
from torch import Tensor

from posterity.cli import config as files
from posterity.cli.config import RunConfig
from posterity.cli.console import Voice, grid
from posterity.cli.experiment import Experiment, prepare
from posterity.cli.flags import OUTPUT, PLAIN, Output, given
from posterity.cli.merge import merge, refuse_code
from posterity.cli.problem_flags import RUN, ProblemSettings
from posterity.cli.report import words
from posterity.cli.usual import usual
from posterity.data import Dataset
from posterity.errors import InvalidInput, suggest
from posterity.methods import MLE
from posterity.metrics.prior import prior_scores
from posterity.posteriors.prior import prior_predictive
from posterity.predict.predictive import Classification, Regression, classes_or_values
from posterity.text import file_name
from posterity.train.random import derived_seed
from posterity.types import Scores

MOST = 500  # inputs to look at
CAPTION = 120  # characters of a line above the picture
KINDS = (".svg", ".png", ".pdf")
LABELS = {
    "max_probability": "Largest probability, mean",
    "entropy": "Entropy of a function, nats",
    "saturated": "Saturated functions",
    "commonest_class": "Inputs in the commonest class",
    "function_std": "Std of a function over inputs",
    "predicted_std": "Std of predicted targets",
    "target_std": "Std of the targets",
}
SHARES = ("max_probability", "saturated", "commonest_class")


@Parameter(name="*")
@dataclass(frozen=True)
class Look:
    """How many functions are drawn, and where their picture goes."""

    n: Annotated[str, Parameter(group=RUN, metavar="INT", help="Functions to draw. [100]")] = "100"
    config: Annotated[
        Path | None, Parameter(group=RUN, metavar="FILE", help="The prior of a run.toml; flags override it.")
    ] = None
    trust: Annotated[
        bool, Parameter(negative="", group=RUN, help="Run the code of a module:callable network that a file names.")
    ] = False
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, metavar="FILE", help="Picture, .svg, .png or .pdf. [prior-DATA-PRIOR.svg]"),
    ] = None


UNSET, USUAL = ProblemSettings(), Look()


def prior(
    data: str | None = None, /, *, settings: ProblemSettings = UNSET, look: Look = USUAL, output: Output = PLAIN
) -> None:
    """Draw functions from the prior and say how sure, flat or wild they are, before any training.

    Parameters
    ----------
    data
        A known data set (posterity data lists them), or your own table (.csv, .parquet, …), .npz or folder of
        pictures, of which the training inputs are looked at.
    """
    voice, count = Voice(output), _count(look.n)
    values = given(settings)
    if data is not None:
        values["data.name"] = ("DATA", data)
    file = {} if look.config is None else files.read(look.config)
    config = merge(file, values, str(look.config or "run.toml"))
    refuse_code(config, values, look.trust, str(look.config))
    experiment = prepare(config.model_copy(update={"twin": False}), _untrained)
    path = _picture(look.out, experiment)
    predictive, inputs, targets = predicted(experiment, count)
    scores = prior_scores(predictive, None if experiment.dataset.classes else targets)
    _draw(predictive, inputs, targets, title(experiment.config), path)
    voice.say(f"{title(experiment.config)}; {count} functions of {len(inputs)} training inputs")
    voice.table(_table(scores, predictive))
    voice.say(f"Picture  {path}")
    named = {"data": experiment.dataset.name, "model": experiment.config.model.name, "seed": config.seed}
    kinds = {"prior": words(experiment.config.prior), "likelihood": words(experiment.config.likelihood)}
    voice.result({**named, **kinds, "n": count, "num_inputs": len(inputs), **scores, "picture": str(path)})


def _untrained(config: RunConfig, dataset: Dataset) -> tuple[RunConfig, Dataset]:
    """Choose what `train` would, but for the method: none is asked for a prior."""
    config, dataset = usual(config, dataset)
    return config.model_copy(update={"method": MLE()}), dataset


def predicted(experiment: Experiment, n: int) -> tuple[Classification | Regression, Tensor, Tensor]:
    """Predict training inputs from the prior; predictions, inputs and targets in the units of the data set."""
    dataset = experiment.dataset
    some = torch.linspace(0, len(dataset.train_inputs) - 1, min(MOST, len(dataset.train_inputs))).long()
    inputs, targets = dataset.train_inputs[some], dataset.train_targets[some]
    generator = torch.Generator().manual_seed(derived_seed(experiment.config.seed, "prior"))
    predictive = classes_or_values(prior_predictive(experiment.problem, inputs, n, generator=generator))
    return _restored(predictive, inputs, targets, dataset)


def title(config: RunConfig) -> str:
    """Name a prior with its network and data."""
    return f"{config.data.name}, {config.model.name}, {words(config.prior)}"


def _restored(
    predictive: Classification | Regression, inputs: Tensor, targets: Tensor, dataset: Dataset
) -> tuple[Classification | Regression, Tensor, Tensor]:
    scaling = dataset.scaling
    if scaling is None:
        return predictive, inputs, targets
    inputs = inputs * scaling.input_std + scaling.input_mean
    if isinstance(predictive, Classification):
        return predictive, inputs, targets
    return predictive.rescale(scaling.target_mean, scaling.target_std), inputs, scaling.restore_targets(targets)


def _draw(predictive: Classification | Regression, inputs: Tensor, targets: Tensor, caption: str, path: Path) -> None:
    from posterity.report.figures_prior import plot_prior_predictive
    from posterity.report.style import INK, save

    figure = plot_prior_predictive(predictive, inputs, targets)
    figure.suptitle(fill(caption, CAPTION), x=0.01, ha="left", fontsize=10, color=INK)
    try:
        save(figure, path)
    except OSError as error:
        raise InvalidInput(f"--out {path} cannot be written: {error.strerror or error}.") from error


def _table(scores: Scores, predictive: Classification | Regression) -> Table:
    """Show each number; of classes, beside what it is of functions that say nothing."""
    written = {k: f"{100 * v:.4g} %" if k in SHARES else f"{v:.4g}" for k, v in scores.items()}
    if isinstance(predictive, Regression):
        return grid("", ["", "before any data"], [[LABELS[k], text] for k, text in written.items()])
    classes = predictive.probs.shape[-1]
    even = f"{100 / classes:.4g} %"
    blank = {"max_probability": even, "entropy": f"{log(classes):.4g}", "saturated": "0 %", "commonest_class": even}
    rows = [[LABELS[k], text, blank[k]] for k, text in written.items()]
    return grid("", ["", "before any data", "undecided, balanced"], rows)


def _picture(out: Path | None, experiment: Experiment) -> Path:
    """Return where the picture goes; its kind is checked before anything is computed."""
    name = f"prior-{file_name(Path(experiment.dataset.name).stem)}-{experiment.config.prior.kind}.svg"
    path = Path(name) if out is None else out
    if path.suffix.lower() not in KINDS:
        raise InvalidInput(f"--out {path}: a picture is one of {', '.join(KINDS)}.{suggest(path.suffix, KINDS)}")
    return path


def _count(n: str) -> int:
    if not n.isascii() or not n.isdigit() or int(n) < 1:
        raise InvalidInput(f"--n {n}: must be a whole number, at least 1.")
    return int(n)
