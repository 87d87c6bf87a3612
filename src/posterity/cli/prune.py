"""`posterity prune`: how many weights a trained posterior can do without, and the posterior without them."""

from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from torch import Tensor

from posterity.cli.console import Voice, grid
from posterity.cli.flags import OUTPUT, PLAIN, Output, Use
from posterity.cli.report import keep
from posterity.cli.saved import Saved, open_run, scored_data, training_data
from posterity.cli.scoring import predict
from posterity.compress import SparsityCurve, SparsityPoint, sparsity, sparsity_curve
from posterity.compress import prune as without
from posterity.compress.prune import SPARSITIES, mean_network, removed
from posterity.compress.ranking import CRITERIA, importance
from posterity.data import Dataset
from posterity.errors import InvalidInput, unknown
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.contraction import layer_of
from posterity.posteriors.statistics import with_statistics
from posterity.predict.predictive import Regression
from posterity.types import Scores

DRAWS = 8  # of each of some forty scores; those on the test data take as many as in training
Counts = dict[str, tuple[int, int]]


@Parameter(name="*")
@dataclass(frozen=True)
class Cut:
    """How much is removed, and by what."""

    sparsity: Annotated[
        float | None,
        Parameter(
            metavar="SHARE", help="Of the weights to remove. [the largest within --tolerance on validation data]"
        ),
    ] = None
    tolerance: Annotated[
        float,
        Parameter(metavar="POINTS", help="Accuracy that may be lost, in points of 100, or per cent of RMSE. [0.3]"),
    ] = 0.3
    by: Annotated[str | None, Parameter(metavar="NAME", help="signal_to_noise, kl or magnitude. [signal_to_noise]")] = (
        None
    )
    out: Annotated[
        Path | None, Parameter(group=OUTPUT, metavar="FILE", help="Save the pruned posterior, a .safetensors file.")
    ] = None


USUAL, FEW = Cut(), Use()


def prune(run: Path, /, *, cut: Cut = USUAL, use: Use = FEW, output: Output = PLAIN) -> None:
    """Remove the weights that matter least, and show what that costs.

    Curves to 99 % by signal-to-noise, KL and magnitude are scored on the examples that the run held out, the choice on its
    test data. They are kept in the run's directory as findings/prune.json, and its report.html gets a section.

    Parameters
    ----------
    run
        A run directory, or a posterior file.
    """
    voice, saved = Voice(output), open_run(run, use.trust)
    by = _criterion(saved.posterior, cut)
    dataset = scored_data(saved)
    scored_on, held = _held_out(saved, dataset, cut)
    curves = _curves(saved, dataset, held, cut, use.count(DRAWS), voice)
    chosen = curves[by].largest(cut.tolerance / 100) if cut.sparsity is None else cut.sparsity
    pruned = with_statistics(without(saved.posterior, chosen, by), training_data(saved, dataset))
    values = {
        "by": by,
        "sparsity": chosen,
        "tolerance": None if cut.sparsity is not None else cut.tolerance,
        "scored_on": scored_on,
        "curves": {name: [asdict(point) for point in curve.points] for name, curve in curves.items()},
        "test": _tested(saved, pruned, dataset, use.count(saved.config.predictive_draws)),
        "layers": layers(pruned),
    }
    voice.table(_table(curves[by], scored_on, chosen))
    _say(values, voice)
    if cut.out is not None:
        pruned.save(cut.out)
        voice.say(f"Pruned  {cut.out}, {100 * sparsity(pruned):.4g} % of its weights are 0")
    keep(saved, "prune", values, voice)
    voice.result({"run": str(run), "out": None if cut.out is None else str(cut.out), **values})


def layers(posterior: FunctionPosterior) -> Counts:
    """Return for each layer how many of its random weights are left, and how many there are; members add up.

    >>> import torch
    >>> from posterity import Gaussian, Normal, Problem
    >>> from posterity.posteriors.point import Point
    >>> problem = Problem(torch.nn.Sequential(torch.nn.Linear(2, 1)), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> layers(Point(problem, torch.tensor([1.0, 0.0, 2.0])))
    {'0': (2, 3)}
    """
    found: Counts = {}
    for part in posterior.leaves:
        where, gone = part.problem.coordinates, removed(part)
        own = gone.split(list(where.random_layout.numels))
        for name, places in zip(where.random_names, own, strict=True):
            kept, total = found.get(layer_of(name), (0, 0))
            found[layer_of(name)] = (kept + int((~places).sum()), total + len(places))
    return found


def _criterion(posterior: FunctionPosterior, cut: Cut) -> str:
    """Check the flags, and choose what to prune by; a point has magnitudes alone."""
    if cut.by is not None and cut.by not in CRITERIA:
        raise unknown("value for --by", cut.by, CRITERIA)
    if cut.sparsity is not None and not 0 <= cut.sparsity < 1:
        raise InvalidInput(f"--sparsity {cut.sparsity:g}: a share of at least 0 and below 1, as 0.9.")
    if not 0 <= cut.tolerance < 100:
        raise InvalidInput(f"--tolerance {cut.tolerance:g}: points of at least 0 and below 100, as 0.3.")
    if cut.out is not None and cut.out.suffix != ".safetensors":
        raise InvalidInput(f"--out {cut.out}: a posterior file ends in .safetensors.")
    if cut.out is not None and cut.out.exists():
        raise InvalidInput(f"--out {cut.out} exists already; give another name, or remove it.")
    members = posterior.leaves
    by = cut.by or ("magnitude" if all(m.single for m in members) else "signal_to_noise")
    for member in members:
        importance(member, by)
    return by


def _held_out(saved: Saved, dataset: Dataset, cut: Cut) -> tuple[str, tuple[Tensor, Tensor]]:
    """Return what the curves are scored on: what the run held out of its training, else the test data."""
    whole = training_data(saved, dataset)
    if whole.held_out is not None:
        return "validation", whole.held_out[:2]
    if cut.sparsity is None:
        raise InvalidInput(
            "This run was trained without a validation share, on which a sparsity would be chosen. Choose it: --sparsity 0.9"
        )
    return "test", (dataset.test_inputs, dataset.test_targets)


def _curves(
    saved: Saved, dataset: Dataset, held: tuple[Tensor, Tensor], cut: Cut, draws: int, voice: Voice
) -> dict[str, SparsityCurve]:
    """Score by each criterion that the posterior has."""
    shares = SPARSITIES if cut.sparsity is None else (*SPARSITIES, cut.sparsity)
    curves = {}
    for by in CRITERIA:
        voice.note(f"By {by.replace('_', '-')} …")
        try:
            curves[by] = _restored(sparsity_curve(saved.posterior, *held, shares, by, draws), dataset)
        except InvalidInput as error:
            if by == cut.by:
                raise
            voice.note(f"Left out: {error}")
    return curves


def _restored(curve: SparsityCurve, dataset: Dataset) -> SparsityCurve:
    """Bring RMSE and NLL of standardised targets to original units."""
    if dataset.scaling is None or dataset.classes:
        return curve
    std = dataset.scaling.target_std

    def own(scores: Scores) -> Scores:
        return {name: value * std if name == "rmse" else value + log(std) for name, value in scores.items()}

    return SparsityCurve(curve.by, tuple(SparsityPoint(p.sparsity, own(p.draws), own(p.mean)) for p in curve.points))


def _tested(saved: Saved, pruned: FunctionPosterior, dataset: Dataset, draws: int) -> dict[str, Scores]:
    """Score the test data with all weights, with those that are left, and by the mean network of these."""
    found = {}
    for name, posterior in {"before": saved.posterior, "after": pruned, "mean": mean_network(pruned)}.items():
        predictive = predict(posterior, dataset.test_inputs, draws, saved.config.seed)
        targets = dataset.test_targets
        if isinstance(predictive, Regression) and dataset.scaling is not None:
            predictive = predictive.rescale(dataset.scaling.target_mean, dataset.scaling.target_std)
            targets = dataset.scaling.restore_targets(targets)
        found[name] = predictive.scores(targets)
    return found


def _table(curve: SparsityCurve, scored_on: str, chosen: float) -> Table:
    score = "accuracy" if "accuracy" in curve.points[0].draws else "rmse"
    heads = ["removed", score, "mean network", "NLL", "mean network", ""]
    rows = []
    for point in curve.points:
        pairs = [written(key, part[key]) for key in (score, "nll") for part in (point.draws, point.mean)]
        rows.append([f"{100 * point.sparsity:.4g} %", *pairs, "←" if point.sparsity == chosen else ""])
    return grid(f"By {curve.by.replace('_', '-')}, {scored_on} data", heads, rows)


def written(key: str, value: float) -> str:
    """Write a score.

    >>> written("accuracy", 0.9912), written("nll", 0.03123)
    ('99.12 %', '0.03123')
    """
    return f"{100 * value:.2f} %" if key == "accuracy" else f"{value:.4g}"


def _say(values: dict[str, Any], voice: Voice) -> None:
    from posterity.report.pruning import verdict  # matplotlib is slow to load

    voice.say(verdict(values))
