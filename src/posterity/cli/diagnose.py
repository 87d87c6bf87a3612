"""`posterity diagnose`: whether a trained posterior can be trusted, in numbers and in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from posterity.cli.console import Voice
from posterity.cli.elsewhere import opened
from posterity.cli.flags import BY_ITSELF, PLAIN, Output, Source
from posterity.cli.report import keep
from posterity.cli.saved import Saved, scored_data, training_data
from posterity.data import Dataset
from posterity.errors import InvalidInput
from posterity.posteriors.diagnosis import ChainDiagnosis, Diagnosis

PROBES = 100  # test inputs at which functions are looked at
MOST, LEAST = 1000, 100  # draws of importance ratios
EVALUATIONS = 5_000_000  # examples that all of them may take together


@Parameter(name="*")
@dataclass(frozen=True)
class Effort:
    """How much is computed."""

    draws: Annotated[
        str | None,
        Parameter(
            metavar="INT", help="Importance ratios, each a pass over the training data. [1000, fewer for many data]"
        ),
    ] = None
    trust: Annotated[bool, Parameter(negative="", help="Run the code of a module:callable network.")] = False


USUAL = Effort()


def diagnose(run: Path, /, *, effort: Effort = USUAL, source: Source = BY_ITSELF, output: Output = PLAIN) -> None:
    """Ask whether a trained posterior can be trusted: convergence, closeness to the posterior, and what to do.

    It is kept in the run's directory as findings/diagnosis.json, and the run's report.html gets a section on it.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    """
    voice, saved = Voice(output), opened(run, source, effort.trust)
    found = diagnosed(saved, effort.draws, voice)
    voice.say(str(found))
    values = {"run": str(run), "method": saved.posterior.provenance["method"]["kind"], **found.to_dict()}
    keep(saved, "diagnosis", found.to_dict(), voice)
    voice.result(values)


def diagnosed(saved: Saved, draws: str | None, voice: Voice) -> Diagnosis:
    """Diagnose a run's posterior with the data that it was trained on, as its configuration names them."""
    dataset = scored_data(saved)
    if dict(dataset.source) != saved.data["source"]:
        voice.note(f"Note: the files of '{dataset.name}' are not those that the run was trained on (checksums differ).")
    training = training_data(saved, dataset)
    count = _count(draws, training.num_data)
    few = count < MOST and draws is None
    if few:
        voice.note(f"{count} draws, each a pass over {training.num_data:,} examples; --draws {MOST} would be surer.")
    found: Diagnosis = saved.posterior.diagnose(_probes(dataset, saved), training, count)
    if isinstance(found, ChainDiagnosis) and draws is not None:
        voice.note("--draws is for posteriors with a density; chains are diagnosed by the draws that they have.")
    return found


def _probes(dataset: Dataset, saved: Saved) -> torch.Tensor:
    some = torch.linspace(0, len(dataset.test_inputs) - 1, min(PROBES, len(dataset.test_inputs))).long()
    return dataset.test_inputs[some].to(saved.posterior.device)


def _count(draws: str | None, num_data: int | float) -> int:
    if draws is None:
        return max(LEAST, min(MOST, int(EVALUATIONS // num_data)))
    if not draws.isascii() or not draws.isdigit() or int(draws) < 25:
        raise InvalidInput(f"--draws {draws}: must be a whole number, at least 25.")
    return int(draws)
