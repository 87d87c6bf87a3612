"""`posterity bench`: every method on the same data with the same means, in one table."""

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from posterity.bench import STUDIES, Study
from posterity.bench.study import Job, Record, remaining, work, write
from posterity.bench.table import collect, lines, markdown, summary
from posterity.cli.console import Voice, finite, grid
from posterity.cli.flags import OUTPUT, PLAIN, Output
from posterity.errors import Interrupted, InvalidInput, unknown
from posterity.storage import replace_text


@Parameter(name="*")
@dataclass(frozen=True)
class Choice:
    """Which part of a study is run."""

    sets: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, metavar="NAME", help="Data sets. [all; of cifar cifar-10]"),
    ] = ()
    methods: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, metavar="NAME", help="Methods. [all; of cifar not AlexNet]"),
    ] = ()
    splits: Annotated[
        str | None, Parameter(metavar="INT", help="Of uci and tables: how many of the 20 splits. [20; 5]")
    ] = None
    seeds: Annotated[str | None, Parameter(metavar="INT", help="Of images and cifar: how many seeds. [3]")] = None
    threads: Annotated[str | None, Parameter(metavar="INT", help="Processor threads. [torch's choice]")] = None


ALL = Choice()


def bench(
    study: str,
    /,
    *,
    choice: Choice = ALL,
    out: Annotated[
        Path | None, Parameter(group=OUTPUT, metavar="DIR", help="Folder of the results. [runs/bench/STUDY]")
    ] = None,
    table: Annotated[bool, Parameter(negative="", group=OUTPUT, help="Run nothing: only make the table.")] = False,
    output: Output = PLAIN,
) -> None:
    """Run methods on the same data and print one table; what is done already is not run again.

    The page, DIR.md, has what you write into DIR/remarks.md above its tables.

    Parameters
    ----------
    study
        tables (the estimators beside rivals), uci (regression on the standard splits), images (MNIST and Fashion-MNIST) or
        cifar (Bayesian networks and their twins; AlexNet and CIFAR-100 only by --methods and --sets).
    """
    if study not in STUDIES:
        raise unknown("study", study, STUDIES)
    voice, chosen = Voice(output), STUDIES[study]
    jobs = _jobs(chosen, choice)
    folder = out or Path("runs") / "bench" / study
    if choice.threads is not None:
        torch.set_num_threads(_count("threads", choice.threads, os.cpu_count() or 1))
    if not table:
        _run(chosen, jobs, folder, voice)
    found = collect(chosen, folder)
    if not found:
        raise InvalidInput(
            f"There are no results of '{study}' in {folder}; run the study without --table, or name its --out."
        )
    page, numbers = folder.with_suffix(".md"), folder.with_suffix(".json")
    remarks = folder / "remarks.md"
    told = remarks.read_text(encoding="utf-8") if remarks.exists() else ""
    replace_text(page, markdown(chosen, found, told))
    write(numbers, finite(summary(chosen, found)))
    for data, rows in found.items():
        heads = ["", f"{chosen.repeat}s", *(column.title for column in chosen.columns[data])]
        cells = [[line.title, line.count, *line.cells] for line in lines(chosen, data, rows)]
        voice.table(grid(data, heads, cells))
    voice.say(f"Page  {page}\nJSON  {numbers}")
    voice.result({"study": study, "folder": str(folder), "page": str(page), "sets": summary(chosen, found)})


def _jobs(study: Study, choice: Choice) -> list[Job]:
    """List what was asked for.

    Raises:
        InvalidInput: for an unknown set or method, and a number of repeats that there is not.
    """
    for what, names, known in (("set", choice.sets, study.sets), ("method", choice.methods, tuple(study.methods))):
        for name in names:
            if name not in known:
                raise unknown(what, name, known)
    given = {"split": choice.splits, "seed": choice.seeds}
    asked = given.pop(study.repeat)
    for other, value in given.items():
        if value is not None:
            raise InvalidInput(f"--{other}s {value}: the study '{study.name}' has {study.repeat}s: --{study.repeat}s.")
    repeats = study.usual if asked is None else _count(f"{study.repeat}s", asked, study.repeats)
    sets, methods = (
        [name for name in known if (name in asked_for if asked_for else name not in study.by_name)]
        for known, asked_for in ((study.sets, choice.sets), (study.methods, choice.methods))
    )
    return study.jobs(sets, methods, repeats)


def _count(flag: str, text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise InvalidInput(f"--{flag} {text}: must be a whole number from 1 to {most}.")
    return int(text)


def _run(study: Study, jobs: Sequence[Job], folder: Path, voice: Voice) -> None:
    """Run what is left, with a line for each fit.

    Raises:
        Interrupted: after Ctrl-C; the message says how to go on.
    """
    left = remaining(jobs, folder)
    voice.note(f"{study.title}: {len(jobs) - len(left)} of {len(jobs)} fits are in {folder}, {len(left)} to run.")
    start = time.perf_counter()
    try:
        for done, (job, record) in enumerate(work(study, left, folder), start=1):
            seconds = (time.perf_counter() - start) / done * (len(left) - done)
            voice.note(f"{_told(study, job, record)}; {done} of {len(left)}, {_duration(seconds)} left")
    except KeyboardInterrupt as error:
        command = f"posterity bench {study.name} --out {shlex.quote(str(folder))}"
        kept = len(left) - len(remaining(left, folder))  # one may have been written, and not yet been counted
        raise Interrupted(
            f"Interrupted after {kept} of {len(left)} fits, which are kept. The same command goes on from there; "
            f"{command} --table makes the table of what is there."
        ) from error


def _told(study: Study, job: Job, record: Record) -> str:
    what = f"{job.data}, {study.repeat} {job.repeat}, {study.methods[job.method]}"
    if "scores" not in record:
        return f"{what}: {record['error']}"
    scores = record["scores"]
    first = [c for c in study.columns[job.data] if c.score in scores][:2]
    shown = ", ".join(f"{c.title} {scores[c.score] * c.scale:.{c.digits}f}" for c in first)
    return f"{what}: {shown}, {record['seconds']:.0f} s"


def _duration(seconds: float) -> str:
    """Write a duration as people say it.

    >>> _duration(5000.0), _duration(200.0), _duration(12.0)
    ('1 h 23 min', '3 min', '12 s')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
