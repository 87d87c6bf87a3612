"""What a study is: methods on data sets, again and again, each fit one small file, so that it can be stopped and extended."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posterity.documents import content, parsed
from posterity.errors import Diverged
from posterity.storage import replace_text

Record = dict[str, Any]  # plain JSON values


@dataclass(frozen=True)
class Job:
    """One fit of a study: a method on a data set; `repeat` is the number of the split, or the seed."""

    data: str
    method: str
    repeat: int

    @property
    def file(self) -> Path:
        """Where its record is, below the study's folder.

        >>> Job("boston", "map", 3).file.as_posix()
        'boston/map-3.json'
        """
        return Path(self.data) / f"{self.method}-{self.repeat}.json"


@dataclass(frozen=True)
class Column:
    """One score of the table: its name in the records, its heading, what it is multiplied by, and its digits."""

    score: str
    title: str
    scale: float = 1.0
    digits: int = 2


NELBO = Column("nelbo", "−ELBO", digits=3)  # in nats per datum of the training data


@dataclass(frozen=True)
class Published:
    """A row that others have printed: its source, and cells by the score's name, as they print them."""

    title: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Study:
    """A table to be filled.

    Args:
        name: what the command calls it.
        title: the heading of its page.
        about: the protocol, in sentences.
        sets: names of its data sets.
        methods: names of its rows, and their titles.
        repeats: how many splits, or seeds, there are at most; usual: how many are run unless asked otherwise.
        repeat: what one of them is called: `split` or `seed`.
        error: what stands after ±: `standard error` or `standard deviation`.
        columns: of the table, for each set.
        published: rows of others, for each set; sources: where they are from.
        run: fits one job, and returns its record; the folder holds what jobs share.
        left_out: (set, method) that are not run.
        variational: methods that descend a negative ELBO, whose value their rows must show.
        by_name: sets and methods that are run only where they are asked for by name; the page lists what has not been run.
        ranked: the score, the lower the better, by whose mean the page ranks methods over its sets.
    """

    name: str
    title: str
    about: str
    sets: tuple[str, ...]
    methods: Mapping[str, str]
    repeats: int
    usual: int
    repeat: str
    error: str
    columns: Mapping[str, Sequence[Column]]
    published: Mapping[str, Sequence[Published]]
    sources: str
    run: Callable[[Job, Path], Record]
    left_out: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    by_name: frozenset[str] = field(default_factory=frozenset)
    variational: frozenset[str] = field(default_factory=frozenset)
    ranked: str | None = None

    def jobs(self, sets: Sequence[str], methods: Sequence[str], repeats: int) -> list[Job]:
        """List the fits in the order of their work: repeat by repeat, so that an early stop leaves whole tables."""
        return [
            Job(data, method, repeat)
            for repeat in range(repeats)
            for data in sets
            for method in methods
            if (data, method) not in self.left_out
        ]


def work(study: Study, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, Record]]:
    """Run the jobs that have no record yet, write each one's, and yield it.

    A fit that diverges is recorded with its `error` and without scores; it is not tried again.
    """
    for job in jobs:
        path = folder / job.file
        if not path.exists():
            try:
                record = study.run(job, folder)
            except Diverged as error:
                record = {"error": str(error)}
            write(path, {"data": job.data, "method": job.method, study.repeat: job.repeat, **record})
            yield job, record


def remaining(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Return the jobs that have no record yet."""
    return [job for job in jobs if not (folder / job.file).exists()]


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        CorruptFile: where it is no JSON object.
    """
    return parsed(content(path), path, "Delete it; its fit is then run again")


def write(path: Path, record: Record) -> None:
    """Write a record so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(record, indent=1, allow_nan=True) + "\n")
