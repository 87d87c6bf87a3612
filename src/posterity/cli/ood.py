"""`posterity ood`: whether a trained posterior knows what it was not trained on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from torch import Tensor

from posterity.cli.console import Voice, grid
from posterity.cli.elsewhere import opened
from posterity.cli.flags import AS_TRAINED, BY_ITSELF, PLAIN, Output, Source, Use
from posterity.cli.outside import built_in, outside_sets
from posterity.cli.report import keep
from posterity.cli.saved import Saved, scored_data
from posterity.cli.shift import WHOLE, Part, some
from posterity.data import Dataset
from posterity.errors import InvalidInput
from posterity.posteriors.average import Averaging
from posterity.posteriors.ood import INSIDE, OutOfDistribution, label_of, out_of_distribution

TRAINING = 10_000  # inputs that the features' density is fitted to, at most
FEW = 3  # sets that are shown in full
SHORT = ("entropy", "mutual_information", "std", "epistemic_std", "feature_log_density", "twin_max_probability")
MEANS = {
    "aleatoric_softmax": "aleatoric",
    "epistemic_softmax": "epistemic",
    "aleatoric_normalized": "aleatoric, normalized",
    "epistemic_normalized": "epistemic, normalized",
    "aleatoric_std": "aleatoric std",
    "epistemic_std": "epistemic std",
}


def ood(
    run: Path,
    /,
    *,
    against: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            metavar="SET",
            help="A data set's name, a folder of images, or a .png, .npy, .npz or table; may be repeated. [the run's own "
            "test data, corrupted and shuffled]",
        ),
    ] = (),
    part: Part = WHOLE,
    use: Use = AS_TRAINED,
    source: Source = BY_ITSELF,
    output: Output = PLAIN,
) -> None:
    """Ask whether a trained posterior knows what it was not trained on, beside its deterministic twin.

    Each uncertainty should be larger for the other sets than for the run's own test data. It is kept in the run's directory
    as findings/ood.json, and the run's report.html gets a section on it.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    """
    voice, saved = Voice(output), opened(run, source, use.trust)
    averaging = Averaging(use.count(saved.config.predictive_draws), part.seeded(saved.config.seed))
    dataset, limit = scored_data(saved), part.size()
    inside = dataset.test_inputs[some(len(dataset.test_inputs), limit, averaging.seed)]
    outside = (
        outside_sets(saved, against, limit, averaging.seed) if against else built_in(dataset, inside, averaging.seed)
    )
    voice.note(f"{len(inside):,} test inputs of {dataset.name} against {', '.join(outside)} …")
    found = detected(saved, dataset, inside, outside, averaging, voice)
    _say(found, dataset.name, voice)
    values = {
        "data": dataset.name,
        "classes": list(dataset.classes),
        "seed": averaging.seed,
        "images": _images(found, inside, outside),
        **found.to_dict(),
    }
    keep(saved, "ood", values, voice)
    voice.result({"run": str(run), **{key: value for key, value in values.items() if key != "images"}})


def detected(
    saved: Saved, dataset: Dataset, inside: Tensor, outside: Mapping[str, Tensor], averaging: Averaging, voice: Voice
) -> OutOfDistribution:
    """Score a run against other sets; without penultimate features where its network has none."""
    rows = some(len(dataset.train_inputs), TRAINING, averaging.seed)
    training = dataset.train_inputs[rows], dataset.train_targets[rows]
    try:
        found = out_of_distribution(saved.posterior, inside, outside, training, saved.twin, averaging)
    except InvalidInput as error:
        voice.note(f"Note: no scores of features. {error}")
        found = out_of_distribution(saved.posterior, inside, outside, None, saved.twin, averaging)
    scaling = dataset.scaling
    if dataset.classes or scaling is None:
        return found
    means = {name: {key: value * scaling.target_std for key, value in own.items()} for name, own in found.means.items()}
    return replace(found, means=means)


def _images(found: OutOfDistribution, inside: Tensor, outside: Mapping[str, Tensor]) -> dict[str, str]:
    """Return each example's picture as a PNG data URI; of inputs that are no images there are none."""
    from posterity.report.gallery import image_like, thumbnail  # matplotlib is slow to load

    if not image_like(inside):
        return {}
    low, high = float(inside.min()), float(inside.max())
    sets = {INSIDE: inside, **outside}
    return {name: thumbnail(sets[name][example.row], low, high) for name, example in found.examples.items()}


def _say(found: OutOfDistribution, name: str, voice: Voice) -> None:
    if len(found.counts) <= FEW:
        for other, count in found.counts.items():
            rows = [
                [
                    label_of(u),
                    *(f"{100 * v:.2f} %" for v in (a.value, a.lower, a.upper, own["aupr"].value, own["fpr95"].value)),
                ]
                for u, own in found.scores[other].items()
                for a in (own["auroc"],)
            ]
            caption = f"{name}, {found.count:,} test inputs, against {count:,} of {other}"
            voice.table(grid(caption, ["", "AUROC ↑", "from", "to", "AUPR ↑", "FPR95 ↓"], rows))
    else:
        shown = [u for u in next(iter(found.scores.values())) if u in SHORT]
        rows = [[other, *(f"{100 * found.auroc(other, u):.2f} %" for u in shown)] for other in found.counts]
        voice.table(grid(f"AUROC, {name}, {found.count:,} test inputs, against", ["", *map(label_of, shown)], rows))
    names = [key for key in MEANS if key in found.means[INSIDE]]
    rows = [[name if s == INSIDE else s, *(f"{own[key]:.4g}" for key in names)] for s, own in found.means.items()]
    caption = "Mean variances, over classes and inputs" if "aleatoric_softmax" in names else "Mean stds, over inputs"
    voice.table(grid(caption, ["", *(MEANS[key] for key in names)], rows))
