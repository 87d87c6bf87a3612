"""`posterity compare`: runs of the same data in one table, and on one page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter
from typing import Annotated, Any

from cyclopts import Parameter

from posterity.cli.config import DataConfig
from posterity.cli.console import Voice, grid
from posterity.cli.directory import MODEL, REMOVE, TWIN, read_json, seconds_of
from posterity.cli.experiment import load_dataset, twin_of
from posterity.cli.flags import AS_TRAINED, PLAIN, Output, Use
from posterity.cli.saved import Saved, open_run, unchanged
from posterity.cli.scoring import Scored, predict, temperatures, title
from posterity.data import Dataset
from posterity.documents import damaged
from posterity.errors import InvalidInput, Mismatch
from posterity.methods.records import recorded
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Classification, Regression
from posterity.report.compare import calibration_of, grids, risk_of, scored, unfair, write_comparison
from posterity.report.contenders import Contender, Result
from posterity.report.section import Grid

MANY = 3  # settings in one name; where more differ, the run's directory says it shorter
# What makes no other contender, or is looked at apart.
ELSEWHERE = ("seed", "engine", "twin", "predictive_draws", "data")
MEGABYTE = 2**20
FEW = 4  # contenders that a table has a column for


@dataclass(frozen=True, eq=False)
class Entry:
    """A posterior that takes part: a run's own, or its twin. settings: all that makes it another contender."""

    path: Path
    saved: Saved
    which: str
    label: str
    settings: dict[str, Any]
    draws: int

    @property
    def posterior(self) -> FunctionPosterior:
        found = self.saved.posterior if self.which == MODEL else self.saved.twin
        assert found is not None
        return found

    @property
    def key(self) -> str:
        return json.dumps([self.settings, self.draws], sort_keys=True)


def compare(
    *runs: Path,
    out: Annotated[
        Path | None, Parameter(metavar="FILE", help="Write a page of tables and curves, such as compare.html.")
    ] = None,
    twins: Annotated[bool, Parameter(negative="", help="Let the runs' deterministic twins take part.")] = False,
    use: Use = AS_TRAINED,
    output: Output = PLAIN,
) -> None:
    """Score runs of the same data side by side, with what they cost.

    Runs that differ by their seeds alone share a row: mean ± standard deviation. Each is scored anew on the test data.

    Parameters
    ----------
    runs
        Run directories or posterior files, two or more.
    """
    voice = Voice(output)
    if out is not None and out.is_dir():
        raise InvalidInput(f"--out {out} is a directory; give a file in it, such as {out / 'compare.html'}.")
    if out is not None and out.suffix != ".html":
        raise InvalidInput(f"--out {out}: the page is HTML; give {out.with_suffix('.html')}.")
    saved = _opened(runs, use.trust)
    contenders = _scored([e for path, one in saved.items() for e in _entries(path, one, use, twins)], voice)
    warnings = (*unfair(contenders), *_machines(saved))
    task, data = (str(saved[runs[0]].data[key]) for key in ("task", "name"))
    count = len(contenders[0].results[0].risk.risk)
    for name, found in grids(contenders, task).items():
        caption = f"{data}, {count:,} test examples" if name == "Quality" else ""
        shown = _turned(found) if len(contenders) <= FEW else found
        bold = {(row, column + 1) for row, column in shown.best}
        voice.table(grid(caption, shown.heads, shown.rows, bold=bold))
    for warning in warnings:
        voice.note(f"Note: {warning}")
    page = None if out is None else write_comparison(contenders, task, data, warnings, out)
    if page is not None:
        voice.say(f"Page  {page}")
    values = [_values(c) for c in contenders]
    told = {"contenders": values, "warnings": warnings, "page": None if page is None else str(page)}
    voice.result({"data": data, "num_test": count, **told})


def _opened(runs: Sequence[Path], trust: bool) -> dict[Path, Saved]:
    """Open the runs. Raises `InvalidInput` for fewer than two, or one that is named twice, `Mismatch` for other data."""
    if len(runs) < 2:
        raise InvalidInput(f"{len(runs)} run{'s were' if not runs else ' was'} given; a comparison needs two or more.")
    seen: dict[Path, Path] = {}
    for path in runs:
        if path.resolve() in seen:
            raise InvalidInput(f"{path} is given twice, also as {seen[path.resolve()]}.")
        seen[path.resolve()] = path
    saved = {path: open_run(path, trust) for path in runs}
    first = runs[0]
    for path in runs[1:]:
        for what, mine, theirs in _data_of(saved[path], saved[first]):
            if mine != theirs:
                said = (
                    f"its {what}: {mine}, that of {first}: {theirs}"
                    if len(f"{mine}{theirs}") < 200
                    else f"another {what}"
                )
                raise Mismatch(f"{path} is of other data than {first}: {said}. Compare runs of the same test data.")
    return saved


def _data_of(a: Saved, b: Saved) -> Iterator[tuple[str, Any, Any]]:
    """Yield what makes test data the same, of both."""
    for key, what in (("name", "data set"), ("task", "task"), ("classes", "classes"), ("source", "files")):
        yield what, a.data[key], b.data[key]
    for key in ("split", "split_by", "target"):
        yield key, getattr(a.config.data, key), getattr(b.config.data, key)


def _entries(path: Path, saved: Saved, use: Use, twins: bool) -> Iterator[Entry]:
    """Yield a run's posterior, and its twin where it has one and twins take part."""
    config = saved.config
    draws = use.count(config.predictive_draws)
    common = config.model_dump(mode="json", exclude=set(ELSEWHERE))
    common["data"] = {
        key: getattr(config.data, key) for key in ("image_size", "standardise", "validation", "batch_size", "augment")
    }
    yield Entry(path, saved, MODEL, title(saved.posterior.provenance["method"]), common, draws)
    if twins and saved.twin is not None:
        without = {key: value for key, value in common.items() if key not in ("prior", "where")}
        settings = {**without, "method": recorded(twin_of(config))}
        yield Entry(path, saved, TWIN, title(saved.twin.provenance["method"]), settings, 1)


def _scored(entries: Sequence[Entry], voice: Voice) -> list[Contender]:
    """Score each entry, and gather those that differ by their seeds alone; equal twins of several runs count once."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        group = groups.setdefault(entry.key, [])
        if entry.which == MODEL or entry.saved.config.seed not in [e.saved.config.seed for e in group]:
            group.append(entry)
    found, loaded = [], dict[DataConfig, Dataset]()
    for name, group in zip(_names(list(groups.values())), groups.values(), strict=True):
        results = []
        for entry in group:
            voice.note(f"Scoring {entry.path}{'' if entry.which == MODEL else ', its twin'} …")
            data = entry.saved.config.data.model_copy(update={"validation": 0.0, "batch_size": 1})  # of no matter here
            if data not in loaded:
                loaded[data] = load_dataset(data)
            results.append(_result(entry, unchanged(loaded[data], entry.saved)))
        found.append(Contender(name, tuple(results)))
    return found


def _result(entry: Entry, own: Dataset) -> Result:
    """Predict the test inputs, by the clock, and score the predictions in original units."""
    seed = entry.saved.config.seed
    predict(entry.posterior, own.test_inputs, 1, seed)  # the first prediction pays for more than itself
    started = perf_counter()
    predictive = predict(entry.posterior, own.test_inputs, entry.draws, seed)
    predictive.mean.sum().item()  # an accelerator returns before it is done
    seconds = perf_counter() - started
    targets = own.test_targets
    if isinstance(predictive, Regression) and own.scaling is not None:
        predictive = predictive.rescale(own.scaling.target_mean, own.scaling.target_std)
        targets = own.scaling.restore_targets(targets)
    averaged = len(predictive.probs if isinstance(predictive, Classification) else predictive.means)
    method = entry.posterior.provenance["method"]
    one = Scored(
        entry.label, entry.posterior, predictive, scored(predictive, targets), averaged, **temperatures(method)
    )
    directory = entry.saved.directory
    rows = [] if directory is None else directory.rows(entry.which)
    costs = {
        "predict_seconds": seconds,
        "parameters": float(one.parameters),
        "megabytes": sum(t.nbytes for t in entry.posterior.tensors().values()) / MEGABYTE,
        "draws": float(averaged),
        **({"train_seconds": seconds_of(rows)} if rows else {}),
    }
    return Result(
        name=str(entry.path) if entry.which == MODEL else f"{entry.path}, twin",
        seed=seed,
        draws=entry.draws if averaged > 1 else 1,  # an ensemble averages a multiple of its members
        numbers={**one.scores, **costs},
        calibration=calibration_of(predictive, targets),
        risk=risk_of(predictive, targets),
        history=rows,
        curves=_curves(entry),
    )


def _curves(entry: Entry) -> dict[str, dict[str, Any]]:
    """Return the ROC curves that `posterity ood` kept: set → uncertainty → curve; a twin's have names of their own."""
    if entry.saved.directory is None:
        return {}
    file = entry.saved.directory.finding("ood")
    kept = (read_json(file) if file.is_file() else {}).get("curves", {})
    if not isinstance(kept, dict) or not all(isinstance(one, dict) for one in kept.values()):
        raise damaged(file, "its 'curves' are no table", REMOVE)
    twin = entry.which == TWIN
    return {
        other: {u.removeprefix("twin_"): curve for u, curve in curves.items() if u.startswith("twin_") == twin}
        for other, curves in kept.items()
    }


def _names(groups: Sequence[Sequence[Entry]]) -> list[str]:
    """Name each group by its method, and by what it needs to be told from others: network, settings, or directory."""
    flat = [{**_flat(g[0].settings), "draws": g[0].draws} for g in groups]
    labels = [g[0].label for g in groups]
    if len({f["model.name"] for f in flat}) > 1:
        labels = [f"{label}, {f['model.name']}" for label, f in zip(labels, flat, strict=True)]
    names = []
    for label, own, group in zip(labels, flat, groups, strict=True):
        alike = [f for f, other in zip(flat, labels, strict=True) if other == label]
        differing = [k for k in {k: None for f in alike for k in f} if len({str(f.get(k)) for f in alike}) > 1]
        told = ", ".join(_setting(key, own[key]) for key in differing if own.get(key) is not None)
        if len(differing) > MANY or (differing and not told):
            told = group[0].path.name
        names.append(f"{label}, {told}" if told else label)
    return [n if names.count(n) == 1 else f"{n} ({g[0].path.name})" for n, g in zip(names, groups, strict=True)]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names.

    >>> _flat({"method": {"kind": "map", "optimizer": {"lr": 0.1}}})
    {'method.kind': 'map', 'method.optimizer.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def _setting(key: str, value: Any) -> str:
    """Write one setting.

    >>> _setting("method.optimizer.lr", 0.1), _setting("prior.std", 0.5)
    ('lr 0.1', 'prior std 0.5')
    """
    short = key.removeprefix("method.").removeprefix("data.").replace("optimizer.", "")
    return f"{short} {value}".replace(".", " ", short.count(".")).replace("_", " ")


def _turned(found: Grid) -> Grid:
    """Return a table with a column per contender: few of them are read better so."""
    rows = tuple((head, *cells) for head, *cells in zip(found.heads[1:], *(row[1:] for row in found.rows), strict=True))
    return Grid((found.heads[0], *(row[0] for row in found.rows)), rows, frozenset((b, a) for a, b in found.best))


def _machines(saved: Mapping[Path, Saved]) -> tuple[str, ...]:
    """Say where training times are of other machines, devices or thread counts."""
    files = [one.directory.metrics for one in saved.values() if one.directory is not None]
    machines = [_machine(f) for f in files if f.is_file()]
    differing = sorted({k for m in machines for k in m if any(other.get(k) != m[k] for other in machines)})
    if not differing:
        return ()
    return (
        f"The runs were trained under unlike conditions ({', '.join(differing)}): their training times do not compare.",
    )


def _machine(metrics: Path) -> Mapping[str, Any]:
    found = read_json(metrics).get("machine", {})
    if not isinstance(found, dict):
        raise damaged(metrics, "its 'machine' is no table", REMOVE)
    return found


def _values(contender: Contender) -> dict[str, Any]:
    """Return what a program reads of a contender."""
    keys = dict.fromkeys(key for r in contender.results for key in r.numbers)
    numbers = {key: contender.values(key) for key in keys}
    return {
        "name": contender.name,
        "runs": [r.name for r in contender.results],
        "seeds": [r.seed for r in contender.results],
        "numbers": {
            key: {"mean": fmean(v), "std": stdev(v) if len(v) > 1 else None} for key, v in numbers.items() if v
        },
    }
