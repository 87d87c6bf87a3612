"""`posterity predict`: classes or values for new inputs, with the parts of their uncertainty."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Tensor

from posterity.cli.console import Voice, finite, grid
from posterity.cli.elsewhere import opened
from posterity.cli.flags import AS_TRAINED, BY_ITSELF, PLAIN, Output, Source, Use
from posterity.cli.inputs import read_inputs
from posterity.cli.promises import Promises, kept, promises_of
from posterity.cli.saved import Saved
from posterity.data import Scaling
from posterity.data.pictures import MAX_PIXELS
from posterity.errors import InvalidInput, unknown
from posterity.posteriors.average import Averaging
from posterity.predict.checks import existing
from posterity.predict.predictive import (
    AnyPredictive,
    Classification,
    General,
    Quantiles,
    Regression,
    classes_or_values,
)
from posterity.report.summary import percent
from posterity.storage import replace_text
from posterity.text import cell

FORMATS = ("table", "csv", "json")
LEVEL = 0.9
TITLES = {
    "mutual_information": "epistemic",
    "expected_entropy": "aleatoric",
    "conformal_lower": "lower",
    "conformal_upper": "upper",
    "p_value": "p",
}
REPLACED = ("probabilities", "expected_entropy", "lower_90", "upper_90")  # what a table has no room for beside promises
Record = dict[str, Any]


@Parameter(name="*")
@dataclass(frozen=True)
class Form:
    """How inputs are read and predictions written."""

    out: Annotated[Path | None, Parameter(metavar="FILE", help="Write to a .csv or .json file.")] = None
    format: Annotated[str | None, Parameter(metavar="NAME", help="table, csv or json. [table]")] = None
    invert: Annotated[
        bool, Parameter(negative="", help="Images are dark on light; the network learnt light on dark.")
    ] = False
    tempered: Annotated[
        bool,
        Parameter(negative="", help="Probabilities and entropies, or stds, by the temperature of posterity calibrate."),
    ] = False
    max_pixels: Annotated[int, Parameter(metavar="N", help="Refuse larger images. [50,000,000]")] = MAX_PIXELS


SHOWN = Form()


def predict(
    run: Path,
    /,
    *inputs: Path,
    use: Use = AS_TRAINED,
    source: Source = BY_ITSELF,
    form: Form = SHOWN,
    output: Output = PLAIN,
) -> None:
    """Predict images, tables or .npy files, with uncertainty.

    Entropies are in nats: entropy = expected_entropy (aleatoric, noise) + mutual_information (epistemic, ignorance).

    After `posterity calibrate`, each input has its set of classes or interval, whether to abstain, and a p-value: the share
    of held-out examples that were as uncertain.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    inputs
        PNG or JPEG images, tables (.csv, .parquet, …) with the training data's columns, .npy arrays.
    """
    wanted = _format(form.format, form.out, output.json)
    if not inputs:
        raise InvalidInput("No inputs were given: name images, tables or .npy files after the run.")
    saved = opened(run, source, use.trust)
    rows, promises = read_inputs(inputs, saved, form.invert, form.max_pixels), promises_of(saved)
    for note in rows.notes:
        Voice(output).note(note)
    draws = use.count(saved.config.predictive_draws if promises is None else promises.draws)
    if form.tempered and promises is None:
        raise InvalidInput(f"--tempered: this run has no temperature yet. Find it: posterity calibrate {run}")
    predictive = Averaging(draws, saved.config.seed).predict(saved.posterior, rows.inputs)
    if not isinstance(predictive, Classification):
        scaling = saved.scaling or Scaling(torch.zeros(()), torch.ones(()))
        predictive = predictive.rescale(scaling.target_mean, scaling.target_std)
    shown: AnyPredictive = predictive
    if form.tempered and promises is not None:
        shown = promises.temperature.apply(classes_or_values(predictive))
    names, labels = rows.names, saved.data["classes"]
    found = classes(shown, names, labels) if isinstance(shown, Classification) else values(shown, names)
    records = rows.named(found)
    if promises is not None:
        promised = _promised(promises, classes_or_values(predictive), saved, draws, Voice(output))
        records = [{**record, **own} for record, own in zip(records, promised, strict=True)]
    text = as_csv(records) if wanted == "csv" else as_json(records)
    if form.out is not None:
        _write(form.out, text)
        Voice(output).say(f"{len(records):,} predictions in {form.out}")
        Voice(output).result({"predictions": len(records), "file": str(form.out)})
    elif wanted == "table":
        Voice(output).table(_table(records))
    else:
        sys.stdout.write(text)


def classes(predictive: Classification, names: Sequence[str], labels: Sequence[str]) -> list[Record]:
    """Return a record per input: class, its probability, entropies in nats, and all probabilities."""
    columns = (
        predictive.labels,
        predictive.confidence,
        predictive.entropy,
        predictive.mutual_information,
        predictive.expected_entropy,
        predictive.mean,
    )
    return [
        {
            "input": name,
            "class": labels[label],
            "probability": confidence,
            "entropy": entropy,
            "mutual_information": information,
            "expected_entropy": expected,
            "probabilities": dict(zip(labels, probabilities, strict=True)),
        }
        for name, label, confidence, entropy, information, expected, probabilities in zip(
            names, *(column.tolist() for column in columns), strict=True
        )
    ]


def values(predictive: Regression | General, names: Sequence[str]) -> list[Record]:
    """Return a record per input: mean, its standard deviation and parts, and the central 90 % interval; or quantiles."""
    if isinstance(predictive, Quantiles):  # which has nothing else
        levels = torch.tensor(predictive.levels, dtype=torch.float64)
        named = zip(predictive.levels, predictive.quantile(levels), strict=True)
        return _records({f"q{level:g}": column for level, column in named}, names)
    lower, upper = predictive.interval(LEVEL)
    columns = {
        "mean": existing(lambda: predictive.mean, lower),
        "std": existing(lambda: predictive.std, lower),
        "epistemic_std": existing(lambda: predictive.epistemic.sqrt(), lower),
        "aleatoric_std": existing(lambda: predictive.aleatoric.sqrt(), lower),
        "lower_90": lower,
        "upper_90": upper,
    }
    return _records(columns, names)


def _records(columns: Mapping[str, Tensor], names: Sequence[str]) -> list[Record]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{"input": name, **dict(zip(columns, row, strict=True))} for name, row in zip(names, rows, strict=True)]


def _promised(
    promises: Promises, predictive: Classification | Regression, saved: Saved, draws: int, voice: Voice
) -> list[Record]:
    """Return what is promised of each input, and say it; other draws are other functions, of which nothing was promised."""
    own = promises.abstention
    if draws != promises.draws:
        voice.note(f"No sets and no abstention: calibrated with {promises.draws} draws, and {draws} were asked for.")
        return [{}] * len(predictive.mean)
    text = f"At least {percent(promises.conformal.level)} of the sets or intervals hold the truth."
    if own is not None:
        sure = f"{100 * own.confidence:g} % sure"
        text += f" Of what is answered, at most {percent(own.risk)} is wrong ({sure})."
    voice.note(f"{text} This is for inputs like those that the run was trained on.")
    return kept(promises, predictive, saved.data["classes"], saved.config.seed)


def as_csv(records: Sequence[Record]) -> str:
    """Write records as CSV: a column per class, and sets as their classes with | between them; no cell is a formula."""
    stream = io.StringIO(newline="")
    flat = [
        {
            **{k: "|".join(v) if isinstance(v, list) else v for k, v in r.items() if k != "probabilities"},
            **{f"p({c})": p for c, p in r.get("probabilities", {}).items()},
        }
        for r in records
    ]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([map(cell, row) for row in (flat[0], *(one.values() for one in flat))])
    return stream.getvalue()


def as_json(records: Sequence[Record]) -> str:
    """Write records as one JSON object."""
    return json.dumps(finite({"predictions": list(records)}), indent=2) + "\n"


def _table(records: Sequence[Record]) -> Any:
    keys = [key for key in records[0] if key not in (REPLACED if "p_value" in records[0] else REPLACED[:1])]
    text = sum(isinstance(records[0][key], str) for key in keys)
    body = [[str(r[k]) if i < text else _cell(r[k]) for i, k in enumerate(keys)] for r in records]
    return grid("", [TITLES.get(key, key.replace("_", " ")) for key in keys], body, left=text)


def _cell(value: Any) -> str:
    """Write one value of the table: a set, whether to abstain, or a number."""
    if isinstance(value, list):
        return "{" + ", ".join(value) + "}"
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4g}"


def _format(name: str | None, out: Path | None, as_object: bool) -> str:
    """Choose the form: `--format`, else the file's suffix, else a table; `--json` is one JSON object."""
    if name is not None and name not in FORMATS:
        raise unknown("value for --format", name, FORMATS)
    suffix = None if out is None else out.suffix.lower().removeprefix(".")
    if suffix is not None and suffix not in FORMATS[1:]:
        raise InvalidInput(f"--out {out}: expected a file that ends in .csv or .json.")
    wanted = name or suffix or ("json" if as_object else "table")
    if suffix is not None and wanted != suffix:
        raise InvalidInput(f"--out {out} and --format {name} contradict each other.")
    if as_object and suffix is None and wanted != "json":
        raise InvalidInput(f"--json and --format {name} contradict each other.")
    return wanted


def _write(path: Path, content: str) -> None:
    try:
        replace_text(path, content)
    except OSError as error:
        raise InvalidInput(f"--out {path} cannot be written: {error.strerror}. Choose another file.") from error
