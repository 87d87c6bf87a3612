"""Does a posterior know what it was not trained on? Inputs of other kinds against its own test data, score by score."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Generator, Tensor, nn

from posterity.errors import InvalidInput
from posterity.metrics.bootstrap import Interval
from posterity.metrics.ood import ood_roc
from posterity.metrics.ood_intervals import ood_estimates
from posterity.options import require
from posterity.posteriors.asked import check_posterior, check_sets
from posterity.posteriors.average import USUAL, Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.features import FeatureDensity, features, mean_networks
from posterity.predict.decomposition import chi_square, drawn_labels, entropy, mutual_information, precise
from posterity.predict.predictive import Classification, Regression, classes_or_values
from posterity.train.random import derived_seed

TWIN = "twin_"
INSIDE = "inside"
LABELS = {
    "entropy": "entropy",
    "mutual_information": "mutual information",
    "max_probability": "max-probability",
    "epistemic_variance": "epistemic variance",
    "chi_square": "label-count χ²",
    "std": "total std",
    "epistemic_std": "epistemic std",
    "feature_log_density": "feature log-density",
    "relative_mahalanobis": "relative Mahalanobis",
}
Form: TypeAlias = Literal["softmax", "normalized"]
POINTS, BINS = 200, 40
TAIL = 0.005  # of the values on each side that a histogram's outermost bins take in


@dataclass(frozen=True)
class Curve:
    """A ROC curve, thinned to at most 200 of its points."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """How a score is distributed inside and outside: the share of each in every bin; the outermost take in the tails."""

    edges: tuple[float, ...]
    inside: tuple[float, ...]
    outside: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """One input and what is predicted of it; variances of each class's indicator, by form: (C,)."""

    row: int
    label: int
    probability: float
    entropy: float
    mutual_information: float
    aleatoric: Mapping[str, tuple[float, ...]]
    epistemic: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class OutOfDistribution:
    """How well each uncertainty tells other sets from the data that a posterior was trained for.

    count, draws: test inputs inside, and functions averaged; counts: inputs of each other set.
    scores: set → uncertainty → measure (`auroc`, `aupr`, `fpr95`; positive: outside) → its value and 95 % interval.
        Uncertainties of a deterministic twin begin with `twin_`.
    curves, histograms: set → uncertainty → its ROC curve, and its distribution.
    means: `inside` or set → `aleatoric_softmax`, `epistemic_softmax`, `aleatoric_normalized`, `epistemic_normalized`: the
        class-wise variances, averaged over classes and inputs; of a regression `aleatoric_std` and `epistemic_std`.
    examples: `inside` or set → the input of median mutual information (for a point, of median entropy); classifications.
    """

    count: int
    draws: int
    counts: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    curves: Mapping[str, Mapping[str, Curve]]
    histograms: Mapping[str, Mapping[str, Histogram]]
    means: Mapping[str, Mapping[str, float]]
    examples: Mapping[str, Example]

    def auroc(self, against: str, uncertainty: str) -> float:
        """Return the AUROC of one uncertainty against one set."""
        return self.scores[against][uncertainty]["auroc"].value

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON can hold them; `ood_from` reads them."""
        from pydantic import TypeAdapter

        return dict(TypeAdapter(OutOfDistribution).dump_python(self, mode="json"))


def ood_from(values: Mapping[str, Any]) -> OutOfDistribution:
    """Read what `OutOfDistribution.to_dict` returned; other entries are passed over."""
    from pydantic import TypeAdapter

    return TypeAdapter(OutOfDistribution).validate_python(dict(values))


@torch.no_grad()
def out_of_distribution(
    posterior: FunctionPosterior,
    inside: Tensor,
    outside: Mapping[str, Tensor],
    training: tuple[Tensor, Tensor] | None = None,
    twin: FunctionPosterior | None = None,
    averaging: Averaging = USUAL,
) -> OutOfDistribution:
    """Ask how well uncertainty tells inputs of other kinds from those that a posterior was trained for.

    Uncertainties of a classification: `entropy`, `mutual_information`, `max_probability` (1 − max_c p̄_c; Hendrycks & Gimpel
    2017), `epistemic_variance` (Σ_c of the class-wise ones), `chi_square` (minus that of the counts of labels, one drawn from
    each function; Wiecki 2016 in the form on counts); of a regression: `epistemic_std`, `std`. With `training`, two of
    the last layer's inputs, which need no posterior: `feature_log_density` (minus log p(z), see `FeatureDensity`) and
    `relative_mahalanobis` (Ren et al. 2021); of an ensemble, their mean over members. A point's one function has none of
    what compares functions, and what is the same for all inputs is left out.

    Args:
        posterior: of the network.
        inside: test inputs (B, ...), scaled as the network's training inputs were.
        outside: by name, other inputs (M, ...), scaled likewise.
        training: inputs (N, ...) and targets (N,) of the training set, or some thousands of them.
        twin: a deterministic network of the same task, to compare with.
        averaging: number and seed of the functions, the same for all inputs.

    Raises:
        InvalidInput: for no or empty sets, inputs that do not fit the network, and networks without penultimate features.
    """
    check_posterior(posterior)
    require(averaging=(averaging, Averaging))
    check_sets(inside, outside, training, twin, INSIDE)
    densities = [] if training is None else _densities(posterior, *training)
    known, means, examples = {}, {}, {}
    for name, inputs in {INSIDE: inside, **outside}.items():
        predictive = classes_or_values(averaging.predict(posterior, inputs))
        labels = Generator(device=posterior.device).manual_seed(derived_seed(averaging.seed, "labels"))
        known[name] = (
            uncertainties(predictive, labels) | _of_features(densities, inputs) | _of_twin(twin, inputs, averaging)
        )
        means[name] = mean_variances(predictive)
        if isinstance(predictive, Classification) and predictive.probs.dim() == 3:
            examples[name] = _typical(predictive)
    told = [u for u in known[INSIDE] if not _constant(u, known.values())]
    if not told:
        raise InvalidInput(
            "All uncertainties are the same for all inputs, as those of one function with one noise are: they tell nothing. "
            "Give training=… for distances in the last layer's inputs, or a posterior with a width."
        )
    familiar = known.pop(INSIDE)

    def each(measure: Callable[[Tensor, Tensor], Any]) -> dict[str, dict[str, Any]]:
        return {name: {u: measure(familiar[u], own[u]) for u in told} for name, own in known.items()}

    estimates = each(partial(ood_estimates, seed=averaging.seed))
    counts = {name: len(inputs) for name, inputs in outside.items()}
    draws = len(predictive.probs if isinstance(predictive, Classification) else predictive.means)
    return OutOfDistribution(len(inside), draws, counts, estimates, each(_curve), each(_histogram), means, examples)


def label_of(uncertainty: str) -> str:
    """Name an uncertainty for people.

    >>> label_of("twin_max_probability")
    'twin: max-probability'
    """
    own = uncertainty.removeprefix(TWIN)
    return LABELS[own] if own == uncertainty else f"twin: {LABELS[own]}"


def uncertainties(predictive: Classification | Regression, generator: Generator | None = None) -> dict[str, Tensor]:
    """Return every measure of uncertainty that a predictive has, by name, each (B,) in float64; larger is less sure.

    `generator` draws the labels whose counts are held against even ones, one from each function. Where an example has many
    labels, of tokens or pixels, its uncertainty is their mean.

    >>> one, other = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    >>> found = uncertainties(Classification(torch.stack([one, other])), torch.Generator().manual_seed(0))
    >>> {name: round(value.item(), 4) for name, value in found.items() if name != "chi_square"}
    {'entropy': 0.6931, 'max_probability': 0.5, 'mutual_information': 0.1308, 'epistemic_variance': 0.125}
    """
    if isinstance(predictive, Regression):
        parts = {"std": predictive.variance}
        if len(predictive.means) > 1 or bool(predictive.epistemic.any()):
            parts["epistemic_std"] = predictive.epistemic
        return {name: precise(part).flatten(1).sum(1).sqrt().cpu() for name, part in _columns(parts).items()}
    probs = precise(predictive.probs)
    mean = probs.mean(0)
    others = mean.scatter(-1, mean.argmax(-1, keepdim=True), 0.0)  # 1 − max_c p̄_c would be rounded to 0
    found = {"entropy": entropy(mean), "max_probability": others.sum(-1)}
    if len(probs) > 1:
        found["mutual_information"] = mutual_information(probs)
        found["epistemic_variance"] = precise(predictive.epistemic).sum(-1)
        found["chi_square"] = -chi_square(drawn_labels(probs, generator), probs.shape[-1])
    return {name: value.flatten(1).double().mean(1).cpu() for name, value in _columns(found).items()}


def mean_variances(predictive: Classification | Regression) -> dict[str, float]:
    """Return the class-wise variances averaged over classes and inputs, of each form; of a regression the mean stds.

    It is the average that the published .0096 and .0026 of LeNet on MNIST are read as (Shridhar et al. 2019): of the arrays
    (B, C) of aleatoric and epistemic variances, over both axes. Summed over classes, as `metrics.scores.evaluate` has them,
    they are C times as large.
    """
    if isinstance(predictive, Regression):
        parts = {"aleatoric_std": predictive.aleatoric, "epistemic_std": predictive.epistemic}
        return {name: precise(part).sqrt().mean().item() for name, part in parts.items()}
    found = {}
    for form in _forms(predictive):
        aleatoric, epistemic = predictive.classwise(form)
        found[f"aleatoric_{form}"] = precise(aleatoric).mean().item()
        found[f"epistemic_{form}"] = precise(epistemic).mean().item()
    return found


def _densities(posterior: FunctionPosterior, inputs: Tensor, targets: Tensor) -> list[tuple[nn.Module, FeatureDensity]]:
    """Fit the features' density of each network that stands for a posterior; a regression has one Gaussian."""
    labels = None if targets.is_floating_point() else targets
    networks = mean_networks(posterior)
    return [(network, FeatureDensity.fit(features(network, inputs), labels)) for network in networks]


def _of_features(densities: Sequence[tuple[nn.Module, FeatureDensity]], inputs: Tensor) -> dict[str, Tensor]:
    if not densities:
        return {}
    rows = [(density, features(network, inputs)) for network, density in densities]
    return {
        "feature_log_density": -torch.stack([density.log_density(z) for density, z in rows]).mean(0),
        "relative_mahalanobis": torch.stack([density.relative_distance(z) for density, z in rows]).mean(0),
    }


def _constant(measure: str, sets: Iterable[Mapping[str, Tensor]]) -> bool:
    """Say whether a measure is the same for all inputs, as one noise for all is, and a distance relative to itself."""
    values = torch.cat([own[measure] for own in sets])
    return bool((values.max() - values.min()).abs() <= 1e-9 * values.abs().max())


def _of_twin(twin: FunctionPosterior | None, inputs: Tensor, averaging: Averaging) -> dict[str, Tensor]:
    if twin is None:
        return {}
    return {
        TWIN + name: value for name, value in uncertainties(classes_or_values(averaging.predict(twin, inputs))).items()
    }


def _columns(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give values (B,) an axis for what an input has several of."""
    return {name: value.unsqueeze(-1) if value.dim() == 1 else value for name, value in values.items()}


def _forms(predictive: Classification) -> tuple[Form, ...]:
    return ("softmax",) if predictive.outputs is None else ("softmax", "normalized")


def _typical(predictive: Classification) -> Example:
    """Describe the input of median mutual information, or entropy where there is one function."""
    measure = predictive.mutual_information if len(predictive.probs) > 1 else predictive.entropy
    row = int(measure.argsort(stable=True)[(len(measure) - 1) // 2])
    parts = {form: predictive.classwise(form) for form in _forms(predictive)}
    aleatoric, epistemic = ({str(form): tuple(part[i][row].tolist()) for form, part in parts.items()} for i in (0, 1))
    return Example(
        row,
        int(predictive.labels[row]),
        float(predictive.confidence[row]),
        float(predictive.entropy[row]),
        float(predictive.mutual_information[row]),
        aleatoric,
        epistemic,
    )


def _curve(inside: Tensor, outside: Tensor) -> Curve:
    """Thin a ROC curve to points that are evenly spread along it."""
    whole = ood_roc(inside, outside)
    along = whole.fpr + whole.tpr
    kept = torch.searchsorted(along, torch.linspace(0, 2, POINTS, dtype=along.dtype)).clamp(max=len(along) - 1).unique()
    return Curve(tuple(whole.fpr[kept].tolist()), tuple(whole.tpr[kept].tolist()))


def _histogram(inside: Tensor, outside: Tensor) -> Histogram:
    both = torch.cat([inside, outside])
    low, high = (float(both.quantile(level)) for level in (TAIL, 1 - TAIL))
    high = high if high > low else low + 1.0
    shares = (
        tuple((torch.histc(values.clamp(low, high), BINS, low, high) / len(values)).tolist())
        for values in (inside, outside)
    )
    return Histogram(tuple(torch.linspace(low, high, BINS + 1).tolist()), *shares)
