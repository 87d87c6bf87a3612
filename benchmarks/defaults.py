"""What `posterity.usual` was chosen by: candidates on tables apart from those that docs/results/tables.md scores the choice on.

    python benchmarks/defaults.py run --seeds 1    # resumable: a record for each fit
    python benchmarks/defaults.py page             # docs/results/defaults.md

Six tables are simulated, so that the least NLL is known; cars is that of the package vega_datasets, where it is installed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_friedman1

from posterity import Normal, SampledEnsemble
from posterity.bench.machine import provenance
from posterity.bench.study import read, write
from posterity.data.locate import cache_folder
from posterity.methods import Microcanonical
from posterity.sklearn import BayesianRegressor
from posterity.zoo import MLP

DOCS = Path(__file__).parent.parent / "docs" / "results"
Array = NDArray[np.float64]
Rows = tuple[Any, Array]  # inputs and targets
DEEP = (16, 16, 16, 16)  # widths of the layers
UNSEEN = 1000  # rows of a simulated table to test with


def two_sines(rng: np.random.Generator, rows: int) -> Rows:
    x = rng.uniform(-3, 3, (rows, 2))
    return x, np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.2 * rng.normal(size=rows)


def line_of_twenty(rng: np.random.Generator, rows: int) -> Rows:
    x = rng.normal(size=(rows, 20))
    return x, x[:, 0] - x[:, 1] + rng.normal(size=rows)


def noise_alone(rng: np.random.Generator, rows: int) -> Rows:
    return rng.normal(size=(rows, 5)), rng.normal(size=rows)


def growing_noise(rng: np.random.Generator, rows: int) -> Rows:
    x = rng.uniform(-2, 2, (rows, 1))
    return x, np.sin(2 * x[:, 0]) + (0.05 + 0.2 * (x[:, 0] + 2)) * rng.normal(size=rows)


def steps(rng: np.random.Generator, rows: int) -> Rows:
    x = rng.uniform(-1, 1, (rows, 3))
    return x, (x[:, 0] > 0.2) + (x[:, 1] > 0) * (x[:, 2] > 0) + 0.1 * rng.normal(size=rows)


def friedman(rng: np.random.Generator, rows: int) -> Rows:
    found: Rows = make_friedman1(rows, noise=1.0, random_state=int(rng.integers(2**31)))
    return found


SIMULATED: dict[str, tuple[Callable[[np.random.Generator, int], Rows], int]] = {
    "two sines": (two_sines, 120),
    "line of twenty": (line_of_twenty, 100),
    "noise alone": (noise_alone, 100),
    "growing noise": (growing_noise, 250),
    "steps": (steps, 400),
    "friedman": (friedman, 200),
}


def table(name: str, seed: int) -> tuple[Rows, Rows] | None:
    """Return rows to learn from and to test with; None where the package is not installed."""
    rng = np.random.default_rng(seed)
    if name in SIMULATED:
        make, rows = SIMULATED[name]
        x, y = make(rng, rows + UNSEEN)
        return (x[:rows], y[:rows]), (x[rows:], y[rows:])
    try:
        from vega_datasets import data
    except ImportError:
        return None
    cars = data.cars().dropna().drop(columns="Name")
    y = cars.pop("Miles_per_Gallon").to_numpy()
    mixed, test = rng.permutation(len(y)), len(y) // 5
    learn, unseen = mixed[test:], mixed[:test]
    return (cars.iloc[learn], y[learn]), (cars.iloc[unseen], y[unseen])


def ensemble(variance: float, warmup: int, decoherence: float) -> SampledEnsemble:
    sampler = Microcanonical(
        warmup=warmup, draws=200 - warmup, energy_variance=variance, decoherence=decoherence, precision="float32"
    )
    return SampledEnsemble(sampler=sampler)


def candidate(
    variance: float = 0.005,
    std: float = 1.5,
    shortcut: bool = True,
    activation: str = "relu",
    warmup: int = 120,
    decoherence: float = 5.0,
) -> dict[str, Any]:
    def network(columns: int, outputs: int) -> MLP:
        return MLP((columns, *DEEP, outputs), activation, shortcut)

    return {"method": ensemble(variance, warmup, decoherence), "prior": Normal(0, std, fan_in=True), "network": network}


CANDIDATES: dict[str, dict[str, Any]] = {
    "the usual one: v .005, std 1.5, ℓ 5√P": {},
    "ℓ √P": candidate(decoherence=1.0),
    "v .05": candidate(variance=0.05),
    "std 1": candidate(std=1.0),
    "std 2": candidate(std=2.0),
    "no shortcut": candidate(shortcut=False),
    "silu": candidate(activation="silu"),
    "60 of 200 to warm up": candidate(warmup=60),
}


def fitted(options: dict[str, Any], rows: Rows, unseen: Rows, seed: int) -> dict[str, float]:
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that have not arrived: the scores say what they are worth
        model = BayesianRegressor(n_draws=400, random_state=seed, device="cpu", **options).fit(*rows)
    found, targets, std = model.predictive(unseen[0]), torch.from_numpy(unseen[1].astype(float)), float(rows[1].std())
    lower, upper = found.interval(0.9)
    return {
        "rmse": float((found.mean - targets).square().mean().sqrt()) / std,
        "nll": float(-found.log_prob(targets).mean()) - float(np.log(std)),
        "coverage": float(((lower <= targets) & (targets <= upper)).double().mean()),
        "seconds": time.process_time() - started,
    }


def run(seeds: int, candidates: int, folder: Path) -> None:
    for name in (*SIMULATED, "cars"):
        for seed in range(seeds):
            parts = table(name, seed)
            for place, (title, options) in list(enumerate(CANDIDATES.items()))[:candidates]:
                path = folder / f"{name.replace(' ', '-')}_{place}_{seed}.json"
                if parts is None or path.exists():
                    continue
                scores = fitted(options, *parts, seed)
                write(path, {"table": name, "candidate": title, "seed": seed, **scores, **provenance()})
                print(name, title, seed, {key: round(value, 3) for key, value in scores.items()}, flush=True)


def page(folder: Path) -> str:
    """Write the table, and keep all records in one file beside it."""
    kept = DOCS / "defaults.json"
    records = [read(path) for path in sorted(folder.glob("*.json"))] or json.loads(kept.read_text("utf-8"))
    kept.write_text(json.dumps(records, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    done = {name: {r["candidate"] for r in records if r["table"] == name} for name in (*SIMULATED, "cars")}
    names = [name for name, titles in done.items() if titles >= set(CANDIDATES)]
    seeds, dates = len({r["seed"] for r in records}), sorted({r["date"] for r in records})
    lines = [
        "# What the ensemble of tables was chosen by",
        "",
        f"`python benchmarks/defaults.py run --seeds {seeds}`, then `… page`. "
        + "; ".join(sorted({f"{r['machine']}, {r['threads']} thread" for r in records}))
        + f"; {', '.join(dates)}.",
        "",
        "NLL in nats of standardised targets, and in brackets the share of test targets in central 90 % intervals, in %. A",
        "candidate differs from the usual one in what it is named by: v, the energy error that a step is allowed, ℓ, the way",
        "after which a direction is forgotten, the std of the weights times √fan-in, the linear map beside the layers, their",
        "activation, or how many of 200 transitions adapt instead of 120.",
        "",
        "| candidate | " + " | ".join(names) + " | mean NLL |",
        "|---" * (len(names) + 2) + "|",
    ]
    for title in CANDIDATES:
        rows = {name: [r for r in records if r["table"] == name and r["candidate"] == title] for name in names}
        means = {name: mean(r["nll"] for r in rows[name]) for name in names}
        cells = [f"{means[n]:.3f} ({100 * mean(r['coverage'] for r in rows[n]):.0f})" for n in names]
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {mean(means.values()):.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=len(CANDIDATES), help="the first so many")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "defaults")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        run(given.seeds, given.candidates, given.folder)
    else:
        (DOCS / "defaults.md").write_text(page(given.folder), encoding="utf-8")


if __name__ == "__main__":
    main()
