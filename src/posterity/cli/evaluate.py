"""`posterity evaluate`: the scores of a trained posterior on test data."""

from dataclasses import replace
from pathlib import Path

from posterity.cli.console import Voice
from posterity.cli.elsewhere import opened, says_itself
from posterity.cli.flags import AS_TRAINED, BY_ITSELF, PLAIN, Output, Source, Use
from posterity.cli.saved import Saved, scored_data
from posterity.cli.scoring import remarks, score, table, tell_remarks
from posterity.data import Dataset


def evaluate(
    run: Path,
    /,
    *,
    use: Use = AS_TRAINED,
    source: Source = BY_ITSELF,
    output: Output = PLAIN,
) -> None:
    """Score a trained posterior on test data.

    Parameters
    ----------
    run
        A run directory, which --data scores on another data set's test part, or a file: a posterior, or a plain network's
        weights.
    """
    other = source.data if says_itself(run) else None
    voice, saved = Voice(output), opened(run, replace(source, data=None) if other else source, use.trust)
    draws = use.count(saved.config.predictive_draws)
    dataset = scored_data(saved, other)
    if other is None:
        _warn_of_change(saved, dataset, voice)
    posteriors = [p for p in (saved.posterior, saved.twin) if p is not None]
    scored = [score(p, dataset, draws, saved.config.seed) for p in posteriors]
    voice.table(table(f"{dataset.name}, {len(dataset.test_inputs):,} test examples", scored))
    tell_remarks(voice, scored)
    names = ("model", "twin")
    voice.result(
        {
            "data": dataset.name,
            "num_test": len(dataset.test_inputs),
            "seed": saved.config.seed,
            **{
                name: {
                    "method": s.name,
                    "test": s.scores,
                    "temperature": s.temperature,
                    "draws": s.draws,
                    "remarks": remarks(s),
                }
                for name, s in zip(names, scored, strict=False)
            },
        }
    )


def _warn_of_change(saved: Saved, dataset: Dataset, voice: Voice) -> None:
    if dict(dataset.source) != saved.data["source"]:
        voice.note(f"Note: the files of '{dataset.name}' are not those that the run was trained on (checksums differ).")
