"""What `posterity calibrate` found and promises of a run, as its findings/calibrate.json keeps it and `predict` says it."""

import json
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Generator

from posterity.cli.directory import read_json
from posterity.cli.saved import Saved
from posterity.decide import Abstention, ConformalIntervals, ConformalSets, Temperature, p_value, uncertainty
from posterity.errors import CorruptFile, Mismatch
from posterity.options import dataclass
from posterity.predict.predictive import Classification, Regression
from posterity.train.random import derived_seed

NAME = "calibrate"
Record = dict[str, Any]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="strings"))
class Promises:
    """Everything that is needed to keep them: for which posterior, by which draws, and what was chosen.

    Args:
        posterior: SHA-256 of the posterior's file.
        draws: functions that every prediction averages; they and the seed make the scores what they were at calibration.
        temperature, conformal: see `posterity.decide`.
        abstention: None where nothing could be promised.
        measure: of uncertainty; `usual` are its values for the calibration inputs, sorted.
    """

    posterior: str
    draws: int
    temperature: Temperature
    conformal: ConformalSets | ConformalIntervals
    abstention: Abstention | None
    measure: str
    usual: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold: an infinite threshold is a word."""
        values: dict[str, Any] = json.loads(TypeAdapter(Promises).dump_json(self))
        return values


def promises_of(saved: Saved) -> Promises | None:
    """Return what was promised of a run; None where it was never calibrated, or a lone posterior file was opened.

    Raises:
        CorruptFile: where the file cannot be read; Mismatch: where it is about another posterior than the run's.
    """
    if saved.directory is None or not saved.directory.finding(NAME).is_file():
        return None
    file = saved.directory.finding(NAME)
    try:
        found = TypeAdapter(Promises).validate_python(read_json(file)["promises"])
    except (KeyError, ValidationError) as error:
        raise CorruptFile(
            f"{file} is not what `posterity calibrate` wrote. Run it again, or remove the file."
        ) from error
    if found.posterior != checksum(saved.directory.posterior()):
        raise Mismatch(
            f"{file} was made for another posterior than the one that is there now: its promises do not hold. Calibrate "
            f"again: posterity calibrate {saved.directory.path}"
        )
    return found


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def coins(seed: int) -> Generator:
    """Return where a randomised score's coins come from: the same for the same inputs in the same order."""
    return Generator().manual_seed(derived_seed(seed, "conformal"))


def kept(promises: Promises, predictive: Classification | Regression, labels: list[str], seed: int) -> list[Record]:
    """Return for each input its set or interval, whether to abstain, and how unusual it is (a p-value)."""
    columns: dict[str, list[Any]] = {}
    if isinstance(predictive, Classification):
        assert isinstance(promises.conformal, ConformalSets)
        sets = promises.conformal.sets(predictive, coins(seed)).tolist()
        columns["set"] = [[label for label, inside in zip(labels, row, strict=True) if inside] for row in sets]
    else:
        assert isinstance(promises.conformal, ConformalIntervals)
        lower, upper = promises.conformal.intervals(predictive)
        columns |= {"conformal_lower": lower.tolist(), "conformal_upper": upper.tolist()}
    if promises.abstention is not None:
        columns["abstains"] = (~promises.abstention.accepts(predictive)).tolist()
    scores = uncertainty(predictive, promises.measure)
    columns["p_value"] = p_value(scores, scores.new_tensor(promises.usual)).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
