"""`posterity shift`: how a trained posterior does as its inputs get worse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from posterity.cli.console import Voice, grid
from posterity.cli.elsewhere import opened
from posterity.cli.flags import AS_TRAINED, BY_ITSELF, PLAIN, Output, Source, Use
from posterity.cli.report import keep
from posterity.cli.saved import scored_data
from posterity.cli.scoring import title, written
from posterity.data import Dataset
from posterity.data.shift import corruptions
from posterity.errors import InvalidInput
from posterity.posteriors.average import Averaging
from posterity.posteriors.shift import SEVERITIES, Shift, under_shift

LIMIT = 2000  # inputs
SHOWN = {
    "accuracy": "accuracy",
    "rmse": "RMSE",
    "nll": "NLL",
    "ece": "ECE",
    "coverage_90": "90 % coverage",
    "entropy": "entropy",
    "mutual_information": "mutual information",
    "epistemic_std": "epistemic std",
    "aleatoric_std": "aleatoric std",
}
WORST = ("accuracy", "rmse", "nll", "ece", "coverage_90", "mutual_information", "epistemic_std")


@Parameter(name="*")
@dataclass(frozen=True)
class Part:
    """Which part of the data is taken, and by which random numbers."""

    limit: Annotated[
        str | None, Parameter(metavar="INT", help=f"Inputs of each set at most, chosen at random. [{LIMIT}]")
    ] = None
    seed: Annotated[str | None, Parameter(metavar="INT", help="Of what is random. [the run's]")] = None

    def size(self) -> int:
        """Read `--limit`. Raises `InvalidInput`."""
        return LIMIT if self.limit is None else _number("limit", self.limit, 20)

    def seeded(self, default: int) -> int:
        """Read `--seed`. Raises `InvalidInput`."""
        return default if self.seed is None else _number("seed", self.seed, 0)


WHOLE = Part()


def shift(
    run: Path,
    /,
    *,
    kinds: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            metavar="NAME",
            help="Of images: rotation, translation, noise, blur, contrast, pixelate, occlusion; of tables: noise, dropout, "
            "scaling. [all]",
        ),
    ] = (),
    part: Part = WHOLE,
    use: Use = AS_TRAINED,
    source: Source = BY_ITSELF,
    output: Output = PLAIN,
) -> None:
    """Score a trained posterior on its test data, corrupted at five severities, beside its deterministic twin.

    It is kept in the run's directory as findings/shift.json, and the run's report.html gets a section on it.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    """
    voice, saved = Voice(output), opened(run, source, use.trust)
    averaging = Averaging(use.count(saved.config.predictive_draws), part.seeded(saved.config.seed))
    dataset, wanted = scored_data(saved), part.size()
    chosen = corruptions(dataset, kinds, averaging.seed)
    rows = some(len(dataset.test_inputs), wanted, averaging.seed)
    inputs, targets = dataset.test_inputs[rows], dataset.test_targets[rows]
    found = {}
    for posterior in (p for p in (saved.posterior, saved.twin) if p is not None):
        name = title(posterior.provenance["method"])
        told = _told(chosen, name, voice)
        found[name] = _original(under_shift(posterior, inputs, targets, told, averaging), dataset)
    _say(found, dataset, voice)
    values = {
        "data": dataset.name,
        "seed": averaging.seed,
        "models": {name: one.to_dict() for name, one in found.items()},
    }
    keep(saved, "shift", values, voice)
    voice.result({"run": str(run), **values})


def some(count: int, limit: int, seed: int) -> Tensor:
    """Return the row numbers of at most `limit` inputs, chosen at random, in their order."""
    if count <= limit:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


def _told(
    chosen: Mapping[str, Callable[[Tensor, int], Tensor]], name: str, voice: Voice
) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Say on stderr when a kind begins."""

    def told(kind: str, apply: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
        def corrupt(inputs: Tensor, severity: int) -> Tensor:
            if severity == 1:
                voice.note(f"{name}: {kind} …")
            return apply(inputs, severity)

        return corrupt

    return {kind: told(kind, apply) for kind, apply in chosen.items()}


def _original(found: Shift, dataset: Dataset) -> Shift:
    return found if dataset.classes or dataset.scaling is None else found.rescale(dataset.scaling.target_std)


def _say(found: Mapping[str, Shift], dataset: Dataset, voice: Voice) -> None:
    first = next(iter(found.values()))
    voice.say(f"{dataset.name}, {first.count:,} test inputs, {len(first.scores)} corruptions")
    for name, one in found.items():
        rows = [[SHOWN[n], *(written(n, v) for v in one.mean[n])] for n in SHOWN if n in one.mean]
        voice.table(grid(f"{name}: mean over corruptions, by severity", ["", *map(str, SEVERITIES)], rows))
    names = [name for name in WORST if name in first.mean]
    for name, one in found.items():
        rows = [[kind, *(written(n, own[n][-1]) for n in names)] for kind, own in one.scores.items()]
        voice.table(grid(f"{name}: at severity {SEVERITIES[-1]}", ["", *(SHOWN[n] for n in names)], rows))


def _number(flag: str, value: str, least: int) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise InvalidInput(f"--{flag} {value}: must be a whole number, at least {least}.")
    return int(value)
