"""`posterity evaluate`: the scores of a trained posterior on test data."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.console import Voice
from posterity.cli.flags import AS_TRAINED, PLAIN, Output, Use
from posterity.cli.saved import Saved, open_run, scored_data
from posterity.cli.scoring import score, table
from posterity.data import Dataset


def evaluate(
    run: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(metavar="NAME", help="Another data set's test part. [the run's own]")] = None,
    use: Use = AS_TRAINED,
    output: Output = PLAIN,
) -> None:
    """Score a trained posterior on test data.

    Parameters
    ----------
    run
        A run directory, or a posterior file.
    """
    voice, saved = Voice(output), open_run(run, use.trust)
    draws = use.count(saved.config.predictive_draws)
    dataset = scored_data(saved, data)
    if data is None:
        _warn_of_change(saved, dataset, voice)
    posteriors = [p for p in (saved.posterior, saved.twin) if p is not None]
    scored = [score(p, dataset, draws, saved.config.seed) for p in posteriors]
    voice.table(table(f"{dataset.name}, {len(dataset.test_inputs):,} test examples", scored))
    names = ("model", "twin")
    voice.result(
        {
            "data": dataset.name,
            "num_test": len(dataset.test_inputs),
            "seed": saved.config.seed,
            **{
                name: {"method": s.name, "test": s.scores, "temperature": s.temperature, "draws": s.draws}
                for name, s in zip(names, scored, strict=False)
            },
        }
    )


def _warn_of_change(saved: Saved, dataset: Dataset, voice: Voice) -> None:
    if dict(dataset.source) != saved.data["source"]:
        voice.note(f"Note: the files of '{dataset.name}' are not those that the run was trained on (checksums differ).")
