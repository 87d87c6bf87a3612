"""The estimator's defaults on six public tables, beside what they have to beat.

`auto` is the regressor as it comes; networks, one and five, are fitted by maximum likelihood, of the same widths, each row's
noise its own, stopped where a tenth of the training rows says; boosted trees have conformal intervals, and no density.

    POSTERITY_DATA=../shared/data python benchmarks/tables.py run --splits 5     # resumable: a record for each fit
    python benchmarks/tables.py page                                             # docs/results/tables.md

NLL is of the targets in their own units, in nats; coverage the share of test targets in central 90 % intervals.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split

from posterity import MLE, Engine, Ensemble, HeteroscedasticGaussian, Optimizer, TensorData, fit
from posterity.bench.machine import provenance
from posterity.bench.study import Record, read, write
from posterity.data import load
from posterity.data.locate import cache_folder
from posterity.posteriors.base import FunctionPosterior
from posterity.sklearn import BayesianRegressor, ColumnEncoder
from posterity.zoo import MLP

DOCS = Path(__file__).parent.parent / "docs" / "results"
TABLES = ("diabetes", "uci/boston", "uci/concrete", "uci/wine", "airfoil", "uci/power")
LEVEL, STEPS, BATCH, WIDTHS, DRAWS = 0.9, 3000, 128, (16, 16, 16, 16), 400
Array = NDArray[np.float64]
Split = tuple[Array, Array, Array, Array]  # inputs and targets to learn from, and to test with
Scored = tuple[float, float | None, float]  # RMSE, NLL, coverage


def table(name: str, split: int, airfoil: Path) -> Split:
    """Return a published split of UCI's, or a tenth of the rows at random to test with."""
    if name.startswith("uci/"):
        data = load(name, split=split).unscaled()
        found = (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets)
        inputs, targets, new, truth = (part.double().numpy() for part in found)
        return inputs, targets, new, truth
    if name == "diabetes":
        inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    else:
        rows = np.genfromtxt(airfoil, delimiter=",", skip_header=1)
        inputs, targets = rows[:, :-1], rows[:, -1]
    inputs, new, targets, truth = train_test_split(inputs, targets, test_size=0.1, random_state=split)
    return inputs, targets, new, truth


def auto(data: Split, seed: int) -> Scored:
    inputs, targets, new, truth = data
    model = BayesianRegressor(n_draws=DRAWS, random_state=seed, device="cpu").fit(inputs, targets)
    return scored(model.predictive(new), truth)


def networks(count: int) -> Callable[[Split, int], Scored]:
    """Train networks by maximum likelihood, on standardised columns and targets."""

    def run(data: Split, seed: int) -> Scored:
        inputs, targets, new, truth = data
        encoder, middle, width = ColumnEncoder().fit(inputs), targets.mean(), targets.std()
        x, y = encoder.transform(inputs), ((targets - middle) / width).astype(np.float32)
        x, held, y, held_y = (
            torch.from_numpy(part) for part in train_test_split(x, y, test_size=0.1, random_state=seed)
        )
        held_out = TensorData(x, y, BATCH, held_out=(held, held_y))
        torch.manual_seed(seed)
        epochs = -(-STEPS // held_out.steps_per_epoch)
        method = MLE(epochs, Optimizer(lr=0.01, schedule="cosine"))
        posterior: FunctionPosterior = fit(
            MLP((x.shape[1], *WIDTHS, 2)),
            held_out,
            likelihood=HeteroscedasticGaussian(),
            method=method if count == 1 else Ensemble(method, count),
            engine=Engine(seed=seed, progress=False, device="cpu"),
        )
        found: Any = posterior.predict(torch.from_numpy(encoder.transform(new)), count)
        return scored(found.rescale(middle, width), truth)

    return run


def boosting(data: Split, seed: int) -> Scored:
    """Split conformal intervals: the quantile of the errors of a quarter of the rows that the trees have not seen."""
    inputs, targets, new, truth = data
    inputs, held, targets, held_y = train_test_split(inputs, targets, test_size=0.25, random_state=seed)
    trees = HistGradientBoostingRegressor(random_state=seed).fit(inputs, targets)
    errors = np.sort(np.abs(held_y - trees.predict(held)))
    reach = errors[min(len(errors) - 1, int(np.ceil((len(errors) + 1) * LEVEL)) - 1)]
    missed = truth - trees.predict(new)
    return float(np.sqrt(np.mean(missed**2))), None, float(np.mean(np.abs(missed) <= reach))


def scored(found: Any, truth: Array) -> Scored:
    targets = torch.from_numpy(truth)
    lower, upper = found.interval(LEVEL)
    rmse = (found.mean.double() - targets).square().mean().sqrt()
    covered = ((lower <= targets) & (targets <= upper)).double().mean()
    return float(rmse), float(-found.log_prob(targets).mean()), float(covered)


FITS: dict[str, Callable[[Split, int], Scored]] = {
    "auto": auto,
    "one network": networks(1),
    "five networks": networks(5),
    "boosted trees": boosting,
}


def run(splits: int, names: list[str], fits: list[str], airfoil: Path, folder: Path) -> None:
    for name in names:
        for split in range(splits):
            for fitted in fits:
                path = folder / f"{name.replace('/', '-')}_{fitted.replace(' ', '-')}_{split}.json"
                if path.exists():
                    continue
                data, started = table(name, split, airfoil), time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of fits that have not arrived: the scores say what they are worth
                    rmse, nll, coverage = FITS[fitted](data, split)
                seconds = time.process_time() - started
                record: Record = {"table": name, "fit": fitted, "split": split, "rmse": rmse, "nll": nll}
                write(path, {**record, "coverage": coverage, "seconds": seconds, **provenance()})
                print(
                    f"{name:12} {fitted:14} {split}  rmse {rmse:.4g}  nll {nll}  {coverage:.3f}  {seconds:.0f} s",
                    flush=True,
                )


def page(folder: Path) -> str:
    """Write the table, and keep all records in one file beside it."""
    records = [read(path) for path in sorted(folder.glob("*.json"))] or json.loads(
        (DOCS / "tables.json").read_text("utf-8")
    )
    (DOCS / "tables.json").write_text(json.dumps(records, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    lines = [
        "# The estimator's defaults on six tables",
        "",
        f"`python benchmarks/tables.py run --splits {len({r['split'] for r in records})}`, of some fits fewer, then `… page`. "
        + "; ".join(sorted({f"{r['machine']}, {r['threads']} thread" for r in records}))
        + ".",
        f"Commits: {_listed(records, 'commit')}; {_listed(records, 'date')}.",
        "",
        *(line.strip() for line in (__doc__ or "").splitlines()[2:4]),
        "NLL in nats of the targets in their own units; coverage of central 90 % intervals; seconds of processor time, beside",
        "other work. Mean ± std over the splits.",
        "",
        "| table | fit | splits | RMSE | NLL | coverage, % | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in TABLES:
        for fitted in FITS:
            rows = [r for r in records if r["table"] == name and r["fit"] == fitted]
            if rows:
                cells = (
                    _spread([r["rmse"] for r in rows]),
                    _spread([r["nll"] for r in rows]) if rows[0]["nll"] is not None else "none",
                    _spread([100 * r["coverage"] for r in rows]),
                    f"{mean(r['seconds'] for r in rows):.0f}",
                )
                lines.append(f"| {name} | {fitted} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _listed(records: list[Record], key: str) -> str:
    return ", ".join(sorted({str(r[key] or "not recorded") for r in records}))


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4g} ± {stdev(values):.2g}" if len(values) > 1 else f"{values[0]:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--fits", nargs="+", default=list(FITS), choices=FITS)
    parser.add_argument("--airfoil", type=Path, default=Path("../shared/data/airfoil/airfoil.csv"))
    parser.add_argument("--folder", type=Path, default=cache_folder() / "tables")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        run(given.splits, given.tables, given.fits, given.airfoil, given.folder)
    else:
        (DOCS / "tables.md").write_text(page(given.folder), encoding="utf-8")


if __name__ == "__main__":
    main()
