"""`posterity evaluate`: the scores of a trained posterior on test data."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.console import Voice
from posterity.cli.flags import Output
from posterity.cli.saved import Saved, open_run, test_data
from posterity.cli.scoring import score, table
from posterity.data import Dataset
from posterity.errors import InvalidInput


def evaluate(
    run: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(metavar="NAME", help="Another data set's test part. [the run's own]")] = None,
    draws: Annotated[str | None, Parameter(metavar="INT", help="Functions averaged. [as in training]")] = None,
    trust: Annotated[bool, Parameter(negative="", help="Run the code of a module:callable network.")] = False,
    output: Output = Output(),
) -> None:
    """Score a trained posterior on test data.

    Parameters
    ----------
    run
        A run directory, or a posterior file.
    """
    voice, count = Voice(output), number_of_draws(draws)
    saved = open_run(run, trust)
    dataset = test_data(saved, data)
    if data is None:
        _warn_of_change(saved, dataset, voice)
    posteriors = [p for p in (saved.posterior, saved.twin) if p is not None]
    scored = [score(p, dataset, count or saved.config.predictive_draws, saved.config.seed) for p in posteriors]
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


def number_of_draws(text: str | None) -> int | None:
    """Read `--draws`. Raises `InvalidInput`.

    >>> number_of_draws("8"), number_of_draws(None)
    (8, None)
    """
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidInput(f"--draws {text}: must be a whole number, at least 1.")
    return int(text)


def _warn_of_change(saved: Saved, dataset: Dataset, voice: Voice) -> None:
    if dict(dataset.source) != saved.data["source"]:
        voice.note(f"Note: the files of '{dataset.name}' are not those that the run was trained on (checksums differ).")
