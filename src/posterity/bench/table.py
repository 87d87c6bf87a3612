"""From records to tables: for a page (Markdown), for a program (JSON), and for a terminal."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posterity.bench.study import NELBO, Column, Record, Study, read

HUGE = 1e6  # a mean that one certain and wrong prediction has made: its digits say nothing


@dataclass(frozen=True)
class Line:
    """One row of a table: of ours the records, of others what they printed."""

    title: str
    cells: tuple[str, ...]
    count: str  # of splits or seeds, or "not run"
    ours: bool


def collect(study: Study, folder: Path) -> dict[str, dict[str, list[Record]]]:
    """Read every record of the study's own sets and methods: by set, then by method, in the order of the table."""
    found: dict[str, dict[str, list[Record]]] = {}
    for data in study.sets:
        rows = {}
        for method in study.methods:
            paths = ((folder / data / f"{method}-{repeat}.json") for repeat in range(study.repeats))
            rows[method] = [read(path) for path in paths if path.exists()]
        found[data] = {method: records for method, records in rows.items() if records}
    return {data: rows for data, rows in found.items() if rows}


def lines(study: Study, data: str, rows: dict[str, list[Record]]) -> list[Line]:
    """Make the rows of one set's table: ours, then the published ones."""
    columns = study.columns[data]
    made = []
    for method, records in rows.items():
        scored = [record["scores"] for record in records if "scores" in record]
        cells = [spread([s[c.score] for s in scored if c.score in s], c, study.error) for c in columns]
        if NELBO in columns and method in study.variational:
            cells[columns.index(NELBO)] = _bound(scored, study.error)
        lost = len(records) - len(scored)
        count = f"{len(scored)}" + (f" ({lost} diverged)" if lost else "")
        made.append(Line(study.methods[method], tuple(cells), count, ours=True))
    if study.by_name:
        absent = (t for m, t in study.methods.items() if m not in rows and (data, m) not in study.left_out)
        made += [Line(title, ("",) * len(columns), "not run", ours=True) for title in absent]
    published = (
        Line(row.title, tuple(row.cells.get(c.score, "") for c in columns), "", ours=False)
        for row in study.published[data]
    )
    return [*made, *published]


def _bound(scored: Sequence[Record], error: str) -> str:
    """Write the negative ELBO of a variational row, and of how many fits it is where older records lack it."""
    values = [scores[NELBO.score] for scores in scored if NELBO.score in scores]
    if not values:
        return "not recorded"
    return spread(values, NELBO, error) + (f" (of {len(values)})" if len(values) < len(scored) else "")


def spread(values: Sequence[float], column: Column, error: str) -> str:
    """Write a mean with its standard error, or with the standard deviation of the values.

    >>> spread([1.0, 3.0], Column("nll", "NLL"), "standard error")
    '2.00 ± 1.00'
    >>> spread([1e300], Column("nll", "NLL"), "standard error")
    '1.0e+300'
    """
    values = [column.scale * v for v in values]
    if not values:
        return ""
    mean = statistics.fmean(values)
    if len(values) == 1 or not abs(mean) < HUGE:
        return _number(mean, column)
    deviation = statistics.stdev(values)
    if error == "standard error":
        deviation /= len(values) ** 0.5
    return f"{_number(mean, column)} ± {_number(deviation, column)}"


def markdown(study: Study, found: dict[str, dict[str, list[Record]]], remarks: str = "") -> str:
    """Write the page: the protocol, where it was run, remarks of people who have read it, one table for each set."""
    records = [record for rows in found.values() for own in rows.values() for record in own]
    parts = [f"# {study.title}", f"`posterity bench {study.name}`. {study.about}\n{_origin(study, records)}"]
    parts += [remarks.strip()] if remarks.strip() else []
    for data in study.sets if study.by_name else found:
        rows = found.get(data, {})
        heads = ["", f"{study.repeat}s", *(column.title for column in study.columns[data])]
        table = [f"| {' | '.join(heads)} |", f"|---|{'---|' * (len(heads) - 1)}"]
        for line in lines(study, data, rows):
            title = f"**{line.title}**" if line.ours else line.title
            table.append(f"| {' | '.join((title, line.count, *line.cells))} |")
        parts += [f"## {data}", "\n".join(table)]
    if study.ranked is not None:
        usual = {d: {m: r for m, r in rows.items() if m not in study.by_name} for d, rows in found.items()}
        parts += ["## Mean ranks", _ranks(study, usual, study.ranked)]
    return "\n\n".join(parts) + "\n"


def ranks(found: dict[str, dict[str, list[Record]]], score: str) -> dict[str, list[int]]:
    """Return the ranks of each method, 1 the least mean score, in the sets where it and another one have scores.

    >>> record = lambda nll: [{"scores": {"nll": nll}}]
    >>> ranks({"a": {"x": record(0.5), "y": record(0.1), "z": [{"scores": {}}]}}, "nll")
    {'y': [1], 'x': [2]}
    """
    of: dict[str, list[int]] = {}
    for own in found.values():
        scored = {
            m: [r["scores"][score] for r in records if score in r.get("scores", ())] for m, records in own.items()
        }
        means = {method: statistics.fmean(values) for method, values in scored.items() if values}
        if len(means) > 1:
            for rank, method in enumerate(sorted(means, key=means.__getitem__), 1):
                of.setdefault(method, []).append(rank)
    return of


def _ranks(study: Study, found: dict[str, dict[str, list[Record]]], score: str) -> str:
    of = ranks(found, score)
    rows = [
        f"| {study.methods[method]} | {len(of[method])} | {statistics.fmean(of[method]):.2f} |"
        for method in sorted(of, key=lambda method: statistics.fmean(of[method]))
    ]
    return "\n".join((f"| | sets | mean rank by {score.upper()} |", "|---|---|---|", *rows))


def summary(study: Study, found: dict[str, dict[str, list[Record]]]) -> Record:
    """Return the same for programs: of each score its mean, standard deviation and number."""
    return {data: {method: _moments(records) for method, records in rows.items()} for data, rows in found.items()}


def _moments(records: Sequence[Record]) -> Record:
    scored = [record["scores"] for record in records if "scores" in record]
    names = scored[0] if scored else ()
    moments = {}
    for name in names:
        values = [s[name] for s in scored]
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        moments[name] = {"mean": statistics.fmean(values), "std": std}
    return {"count": len(scored), "diverged": len(records) - len(scored), "scores": moments}


def _origin(study: Study, records: Sequence[Record]) -> str:
    """Say where and when the numbers were made, and what stands after ±."""
    told = {key: sorted({str(r[key]) for r in records if r.get(key)}) for key in ("machine", "commit", "date")}
    where = "; ".join(
        part for part in (*told["machine"], _listed("commit", told["commit"]), *told["date"][-1:]) if part
    )
    sources = f" Published rows, as printed: {study.sources}." if study.sources else ""
    return f"{where}. Ours (bold): mean ± {study.error} over {study.repeat}s.{sources}"


def _listed(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


def _number(value: float, column: Column) -> str:
    shown = f"{value:.{column.digits}f}" if abs(value) < HUGE else f"{value:.1e}"
    return shown.replace("-", "−")
