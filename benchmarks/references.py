"""References, long runs of NUTS on four small problems, and how close every other method comes to them.

    python benchmarks/references.py make                 # NUTS again: writes src/posterity/references/*.safetensors
    python benchmarks/references.py table                # every method, seed by seed: docs/results/references.md and .json

`table` goes on where it stopped: what the .json holds is not computed again. One process, one thread. Nothing is tuned on a
reference: learning rates and lengths are the same for all four problems, and all training data are used for training.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

import posterity
from posterity import (
    HMC,
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Diverged,
    Engine,
    Ensemble,
    FullRank,
    InvalidInput,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Optimizer,
)
from posterity.bench.bound import Bounds
from posterity.bench.machine import commit, machine
from posterity.methods.records import recorded
from posterity.metrics.agreement import compare_predictives
from posterity.posteriors.compare import functions_of
from posterity.predict.predictive import predictive
from posterity.references import TASKS, Reference, reference, task

FILES = Path(posterity.__file__).parent / "references"
OUT = Path("docs/results/references.json")
SEEDS, FUNCTIONS, STEPS, BATCH = 3, 256, 3000, 128
ADAM = Optimizer(lr=1e-2, schedule="cosine")
LONG = {
    "cubic": NUTS(chains=4, warmup=200, draws=400, max_depth=8),
    "moons": NUTS(chains=4, warmup=500, draws=1500, max_depth=8),
    "boston": NUTS(chains=4, warmup=200, draws=300, max_depth=8),
    "digits": NUTS(chains=4, warmup=200, draws=300, max_depth=8),
}


def methods(epochs: int) -> Mapping[str, object]:
    """List every method that is compared, each with so many epochs that it takes `STEPS` steps: add new ones here."""
    return {
        "MAP": MAP(epochs, ADAM),
        "Ensemble of 5 MAP": Ensemble(MAP(epochs, ADAM), 5),
        "MeanField, weight": MeanField("weight", epochs=epochs, optimizer=ADAM),
        "MeanField, local_reparam": MeanField("local_reparam", epochs=epochs, optimizer=ADAM),
        "MeanField, flipout": MeanField("flipout", epochs=epochs, optimizer=ADAM),
        "IVON": IVON(epochs=epochs),
        "LowRank(10)": LowRank(10, epochs=epochs, optimizer=ADAM),
        "FullRank": FullRank(epochs=epochs, optimizer=ADAM),
        "Laplace, full": Laplace(MAP(epochs, ADAM), "full"),
        "Laplace, kron": Laplace(MAP(epochs, ADAM), "kron"),
        "MCDropout(0.1)": MCDropout(0.1, epochs, ADAM),
        "SWAG": SWAG(epochs=epochs),
        "SGLD": SGLD(epochs=2 * epochs),
        "SGHMC": SGHMC(epochs=2 * epochs),
        "Cyclical SGHMC": Cyclical(SGHMC(epochs=2 * epochs, lr=0.03)),
        "HMC(32)": HMC(chains=2, warmup=100, draws=100, steps=32),
    }


def make(name: str) -> None:
    """Run NUTS and write the reference, however its diagnostics are: they are in it."""
    own, method, started = task(name), LONG[name], time.process_time()
    posterior = _fit(own, method, seed=0)
    seconds = time.process_time() - started
    diagnosis = posterior.diagnose(own.data()[2])
    facts = {"method": recorded(method), "seed": 0, "cpu_seconds": round(seconds), "machine": machine()}
    facts |= {"diagnosis": asdict(diagnosis), "versions": {"torch": torch.__version__}}
    facts["diagnosis"].pop("traces", None)
    Reference.of(name, posterior, facts).save(FILES / f"{name}.safetensors")
    print(f"{name}: {seconds:.0f} s\n{diagnosis}", flush=True)


def table(names: list[str], out: Path) -> None:
    """Compare every method with every reference, and write both files after each fit."""
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        known = reference(name)
        rows = results.setdefault(name, {"floor": floor(known), "reference": dict(known.facts), "methods": {}})
        epochs = STEPS // task(name).training(BATCH).steps_per_epoch
        for title, method in methods(epochs).items():
            for seed in range(SEEDS):
                found = rows["methods"].setdefault(title, {})
                if str(seed) not in found:
                    found[str(seed)] = compared(known, method, seed)
                    write(results, out)
    write(results, out)


def made() -> list[str]:
    """Name the references that there are."""
    return [name for name in TASKS if (FILES / f"{name}.safetensors").is_file()]


def compared(known: Reference, method: object, seed: int) -> dict:
    """Fit one method with one seed and compare it with the reference at its probes."""
    own, started, bounds = known.task, time.process_time(), Bounds()
    try:
        posterior = _fit(own, method, seed, bounds)
    except InvalidInput as error:
        return {"refused": str(error)}
    except Diverged as error:
        return {"diverged": str(error)}
    seconds = time.process_time() - started
    functions = functions_of(posterior, known.inputs, FUNCTIONS, torch.Generator().manual_seed(seed))
    scores = _without_weights(asdict(compare_predictives(functions, known.predictive)))
    print(f"{known.name}, {type(method).__name__}, seed {seed}: {seconds:.0f} s", flush=True)
    return {**scores, **bounds.scores(), "cpu_seconds": round(seconds, 1)}


def floor(known: Reference) -> dict:
    """Compare the first two chains of a reference with the last two: what Monte-Carlo error alone does."""
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        outputs = known.outputs[part].flatten(0, 1).float()
        latents = {n: v[part].flatten(0, 1) for n, v in known.latents.items()}
        halves.append(predictive(known.task.likelihood(outputs, latents), outputs))
    return _without_weights(asdict(compare_predictives(*halves)))


def _without_weights(scores: dict) -> dict:
    return {name: value for name, value in scores.items() if name != "weights_w2"}


def _fit(own: object, method: object, seed: int, bounds: Bounds | None = None) -> object:
    return posterity.fit(
        own.network(seed),
        own.training(BATCH),
        likelihood=own.likelihood,
        prior=own.prior,
        method=method,
        engine=Engine(seed=seed, device="cpu", progress=False, on_epoch=bounds),
    )


COLUMNS = {
    "top1": "same class ↑",
    "total_variation": "total variation ↓",
    "rmse_of_means": "RMSE of means ↓",
    "std_ratio": "predictive std → 1",
    "epistemic_std_ratio": "epistemic std → 1",
    "function_w2": "W2 of functions ↓",
    "symmetric_kl": "symmetric KL, nats ↓",
    "nelbo": "−ELBO, nats per datum",
    "cpu_seconds": "CPU, s",
}


def write(results: dict, out: Path) -> None:
    """Write the numbers and the page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    lines = ["# How close each method comes to the posterior", "", *introduction()]
    for name, rows in results.items():
        columns = {k: v for k, v in COLUMNS.items() if k in rows["floor"] or k in ("nelbo", "cpu_seconds")}
        lines += ["", f"## {task(name).title}", "", *described_run(rows["reference"]), ""]
        lines += [f"| | {' | '.join(columns.values())} |", "|---|" + "---|" * len(columns)]
        lines.append(f"| *NUTS, half against half* | {' | '.join(cell([rows['floor']], c) for c in columns)} |")
        for title, seeds in rows["methods"].items():
            known = [s for s in seeds.values() if "cpu_seconds" in s]
            lost = [s for s in seeds.values() if "diverged" in s]
            nothing = f"diverged, {len(lost)} of {len(seeds)} seeds" if lost else "not applicable"
            cells = [cell(known, c) for c in columns] if known else [nothing] + [""] * (len(columns) - 1)
            lines.append(f"| {title} | {' | '.join(cells)} |")
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def introduction() -> list[str]:
    return [
        "`python benchmarks/references.py table`. Each method against functions drawn by long runs of NUTS, at fixed probes; "
        f"mean ± standard deviation over {SEEDS} seeds. Optimisers take {STEPS:,} steps (Adam, lr 0.01, cosine; IVON and SWAG "
        f"with their own defaults), stochastic-gradient samplers {2 * STEPS:,} with their defaults, batches of {BATCH}; "
        f"{FUNCTIONS} functions each; temperature 1; prior Normal(0, 1/√fan-in). Nothing was tuned on a reference. Ratios are "
        "the method's over the reference's: below 1 it is too sure. The first row is NUTS against itself: what is not larger "
        "is Monte-Carlo error.",
        "−ELBO: of the training data, averaged over the last epoch, one draw of the weights a step. Diverged: a default "
        "step that is too large for this posterior, which ends with an error that says so.",
        f"{machine()}; commit {commit()}.",
    ]


def described_run(facts: dict) -> list[str]:
    method, worst = facts["method"], facts["diagnosis"]["functions"]
    return [
        f"NUTS: {method['chains']} chains of {method['draws']} draws after {method['warmup']}, trees of at most "
        f"2^{method['max_depth']} − 1 steps; {facts['cpu_seconds']} s; worst R-hat of functions {worst['rhat']:.3f}, least "
        f"bulk ESS {worst['ess_bulk']:.0f}; {facts['diagnosis']['divergences']} divergences."
    ]


def cell(seeds: list[dict], column: str) -> str:
    values = [s[column] for s in seeds if s.get(column) is not None]
    if not values:
        return ""
    mean, spread = _rounded(statistics.mean(values), 3), ""
    if len(values) > 1 and column != "cpu_seconds":
        spread = f" ± {_rounded(statistics.stdev(values), 2)}"
    return mean + spread


def _rounded(value: float, digits: int) -> str:
    return "0" if abs(value) < 1e-6 else f"{value:.{digits}g}"  # float32 knows no better


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("make", "run NUTS and write the reference files"), ("table", "compare every method")):
        own = commands.add_parser(command, help=text)
        own.add_argument("names", nargs="*", help=f"{', '.join(TASKS)} [all]")
        own.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "make":
        for name in options.names or TASKS:
            make(name)
    else:
        table(options.names or made(), options.out)


if __name__ == "__main__":
    main()
