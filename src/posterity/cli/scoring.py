"""Posteriors scored on test data, in the units that a reader knows, and the table that shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from posterity.cli.console import Voice, grid
from posterity.data import Dataset
from posterity.methods.records import restored
from posterity.metrics.scores import evaluate
from posterity.posteriors.average import Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.mixture import Mixture
from posterity.predict.predictive import AnyPredictive, Classification, Regression, classes_or_values

LABELS = {
    "accuracy": "Accuracy ↑",
    "rmse": "RMSE ↓",
    "nll": "NLL ↓",
    "ece": "ECE, 15 bins ↓",
    "brier": "Brier ↓",
    "pinball": "Pinball loss, no density ↓",
    "crps": "CRPS ↓",
    "coverage_90": "90 % coverage → 90 %",
    "interval_width_90": "90 % interval width",
    "entropy": "Entropy, nats",
    "mutual_information": "Mutual information, nats",
    "aleatoric_std": "Aleatoric std",
    "epistemic_std": "Epistemic std",
}
SHARES = ("accuracy", "ece", "coverage_90")
NETWORK = {"network": "Network as it is"}  # what no method made
TEMPERATURES = {
    "temperature": "Temperature of the likelihood",
    "joint_temperature": "Temperature of likelihood and prior",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """One posterior, what it predicts of the test inputs (original units), and how good that is."""

    name: str
    posterior: FunctionPosterior
    predictive: AnyPredictive
    scores: dict[str, float]
    draws: int
    temperature: float | None
    joint_temperature: float | None = None

    @property
    def parameters(self) -> int:
        """Trained numbers: what the posterior keeps of θ; see `FunctionPosterior.size`."""
        return self.posterior.size

    @property
    def tempered(self) -> dict[str, str]:
        """Its temperatures, each under a name that says of what."""
        return tempered({"temperature": self.temperature, "joint_temperature": self.joint_temperature})


def title(method: dict[str, Any]) -> str:
    """Name a method for people.

    >>> title({"kind": "ensemble", "n": 5, "method": {"kind": "mle"}})
    'Ensemble of 5 × maximum likelihood'
    """
    return NETWORK.get(str(method["kind"])) or restored(method).title


def temperatures(method: dict[str, Any]) -> dict[str, float | None]:
    """Return T of p(D|θ)^(1/T) p(θ), and T of (p(D|θ) p(θ))^(1/T), of a fit; None for a method without.

    >>> temperatures({"kind": "ensemble", "method": {"kind": "sgld", "temperature": 0.5, "joint_temperature": 1}})
    {'temperature': 0.5, 'joint_temperature': 1.0}
    """
    member = restored(method).member
    values = {name: getattr(member, name, None) for name in TEMPERATURES}
    return {name: None if value is None else float(value) for name, value in values.items()}


def tempered(values: Mapping[str, float | None]) -> dict[str, str]:
    """Write the temperatures that there are, under names that say of what; the likelihood's even where there is none.

    >>> tempered({"temperature": 1.0, "joint_temperature": 0.5})
    {'Temperature of the likelihood': '1', 'Temperature of likelihood and prior': '0.5'}
    """
    written = {TEMPERATURES[name]: f"{value:g}" for name, value in values.items() if value is not None}
    return written or {TEMPERATURES["temperature"]: "–"}


def predict(posterior: FunctionPosterior, inputs: Tensor, draws: int, seed: int) -> Classification | Regression:
    """Average so many functions, drawn from the seed; a point has one function."""
    return classes_or_values(Averaging(draws, seed).predict(posterior, inputs))


def score(posterior: FunctionPosterior, dataset: Dataset, draws: int, seed: int) -> Scored:
    """Score a posterior on a data set's test part, in original units."""
    predictive, targets = Averaging(draws, seed).predict(posterior, dataset.test_inputs), dataset.test_targets
    if not isinstance(predictive, Classification) and dataset.scaling is not None:
        predictive = predictive.rescale(dataset.scaling.target_mean, dataset.scaling.target_std)
        targets = dataset.scaling.restore_targets(targets)
    method = posterior.provenance["method"]
    scores = evaluate(predictive, targets)
    return Scored(title(method), posterior, predictive, scores, predictive.count, **temperatures(method))


def remarks(scored: Scored) -> list[str]:
    """Return what its fit had to say of its own arrival; nothing of files that were written before fits did."""
    return list(scored.posterior.provenance.get("remarks", []))


def tell_remarks(voice: Voice, scored: Sequence[Scored]) -> None:
    """Print the remarks below the scores."""
    for one in scored:
        for remark in remarks(one):
            voice.say(f"{one.name}: {remark}")


def table(caption: str, scored: Sequence[Scored]) -> Table:
    """Show scores side by side, then what explains them."""
    rows = [
        [label, *(written(key, s.scores[key]) for s in scored)]
        for key, label in LABELS.items()
        if all(key in s.scores for s in scored)
    ]
    each = [s.tempered for s in scored]
    rows += [
        [name, *(one.get(name, "–") for one in each)] for name in TEMPERATURES.values() if any(name in o for o in each)
    ]
    rows.append(["Draws", *(str(s.draws) for s in scored)])
    rows.append(["Trained numbers", *(counted(s.posterior) for s in scored)])
    return grid(caption, ["", *(s.name for s in scored)], rows)


def counted(posterior: FunctionPosterior) -> str:
    """Say how many numbers a posterior keeps: so many for each of the parameters, where it keeps equally many of each.

    >>> import torch
    >>> from posterity import Categorical, Normal, Problem
    >>> from posterity.posteriors.samples import Samples
    >>> counted(Samples(Problem(torch.nn.Linear(4, 2), Normal(0, 1), Categorical(), 9), torch.zeros(50, 10)))
    '500 = 50 × 10'
    """
    size, each = posterior.size, posterior.problem.layout.size
    unlike = isinstance(posterior, Mixture) and not posterior.alike
    return f"{size:,}" if unlike or size == each or size % each else f"{size:,} = {size // each:,} × {each:,}"


def written(key: str, value: float) -> str:
    """Write a score: fractions in percent, anything else with four significant digits.

    >>> written("accuracy", 0.98611), written("nll", 0.06612)
    ('98.61 %', '0.06612')
    """
    return f"{100 * value:.2f} %" if key in SHARES else f"{value:.0f}" if abs(value) >= 10_000 else f"{value:#.4g}"
