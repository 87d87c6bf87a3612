"""The MNIST study: mean field by three estimators, priors, temperatures, the deterministic twin, and an ensemble.

Every run trains on 55,000 images, watches 5,000 for the best epoch, and touches the test set once, at its end. Images are
padded to 32×32 and standardised by the training pixels' mean and std; there is no augmentation. 32 draws of whole weights.

    python benchmarks/mnist.py run local_reparam --seed 0     # one run: docs/results/mnist/local_reparam-0.json
    python benchmarks/mnist.py table                          # docs/results/mnist.md from all of them
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import posterity
from posterity import MLE, Engine, Ensemble, MeanField, Normal, Optimizer, TensorData
from posterity.bench.bound import fall, kept, nelbo
from posterity.bench.machine import commit, machine
from posterity.data import load
from posterity.metrics.scores import evaluate
from posterity.zoo import MLP, LeNet

FOLDER = Path(__file__).parent.parent / "docs" / "results" / "mnist"
REMARKS = FOLDER / "remarks.md"  # of people who have read the table
COLUMNS = {"accuracy": (100, 2), "nll": (1, 4), "ece": (100, 2)}


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    title: str
    method: object
    prior: object
    network: type = LeNet
    asked: str = ""


def mean_field(estimator: str = "local_reparam", epochs: int = 16, **settings: object) -> MeanField:
    optimizer = settings.pop("optimizer", Optimizer(lr=4e-3, schedule="one_cycle"))
    return MeanField(estimator, epochs=epochs, optimizer=optimizer, **settings)


SLOW = mean_field(epochs=16, initial_std=0.005, std_lr=0.1, optimizer=Optimizer(lr=2e-3, schedule="one_cycle"))
TIGHT = Normal(0, 0.1)
CHOSEN = Normal(0, 0.3)
MAXIMUM = MLE(epochs=16, optimizer=Optimizer(lr=2e-3))
RUNS = {
    "mle": Run("LeNet, maximum likelihood (the twin)", MAXIMUM, TIGHT),
    "local_reparam": Run("LeNet, local reparameterisation, Normal(0, 0.1)", mean_field(), TIGHT, asked="≥ 99.0 %"),
    "flipout": Run("LeNet, Flipout, Normal(0, 0.1)", mean_field("flipout"), TIGHT, asked="≥ 99.0 %"),
    "weight": Run("LeNet, weight draws, Normal(0, 0.1)", mean_field("weight"), TIGHT, asked="≥ 98.5 %"),
    "chosen": Run(
        "LeNet, weight draws, Normal(0, 0.3): chosen on validation",
        mean_field("weight", 20),
        CHOSEN,
        asked="≥ 99.2 %, ≤ .030, ≤ 1.0 %",
    ),
    "mlp": Run("MLP 800-800, local reparameterisation, slow std, Normal(0, 0.3)", SLOW, CHOSEN, MLP, "≥ 98.3 %"),
    "ensemble": Run(
        "LeNet, ensemble of 5 by maximum likelihood",
        Ensemble(MLE(epochs=8, optimizer=Optimizer(lr=2e-3)), 5),
        TIGHT,
        asked="NLL ≤ .022",
    ),
}
RUNS.update(
    {
        f"chosen-{t}": Run(f"the same at temperature {t}", mean_field("weight", 20, temperature=t), CHOSEN)
        for t in (0.3, 0.1, 0.03)
    }
)


def run(name: str, seed: int) -> dict:
    """Train and test one row with one seed."""
    chosen = RUNS[name]
    data = load("mnist", image_size=28 if chosen.network is MLP else 32).standardised()
    train = TensorData(data.train_inputs, data.train_targets).split(1 / 12, seed=123)
    torch.manual_seed(seed)
    network = MLP((784, 800, 800, 10)) if chosen.network is MLP else chosen.network()
    history: list[dict] = []
    engine = Engine(
        seed=seed, device="cpu", validation_draws=4, progress=False, on_epoch=lambda _, row: history.append(row)
    )
    start = time.perf_counter()
    posterior = posterity.fit(network, train, prior=chosen.prior, method=chosen.method, engine=engine)
    seconds = time.perf_counter() - start
    scores = {}
    for part, (x, y) in {"validation": train.held_out, "test": (data.test_inputs, data.test_targets)}.items():
        predictive = posterior.predict(x, 32, generator=torch.Generator().manual_seed(seed))
        scores[part] = evaluate(predictive, y)
    return {
        "name": name,
        "title": chosen.title,
        "seed": seed,
        **scores,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "provenance": posterior.provenance,
        "prior": repr(chosen.prior),
        "history": history,
        "machine": machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def table() -> str:
    """One line per row: mean ± standard deviation over seeds on the test set."""
    results = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    first = results[0]
    lines = [
        "# MNIST",
        "",
        "`python benchmarks/mnist.py run NAME --seed SEED`, then `python benchmarks/mnist.py table`. "
        + __doc__.split("\n\n")[1].replace("\n", " "),
        f"{first['machine']}; commits {', '.join(sorted({r['commit'] for r in results}))}; {first['date']}. Temperature 1 "
        "where nothing else is said. Mean ± standard deviation over seeds; accuracy and ECE (15 bins) in per cent, NLL in "
        "nats. −ELBO = expected NLL of the training data + KL/N, in nats per datum, in the epoch that was kept, at temperature "
        "1 whatever the fit's own was; falls by: what it lost over the last quarter of the epochs. Training seconds are those "
        "of a machine that did other work beside.",
        "",
        REMARKS.read_text().strip(),
        "",
        "| | seeds | accuracy | NLL | ECE | −ELBO | falls by | asked for | training s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, chosen in RUNS.items():
        rows = [r for r in results if r["name"] == name]
        if rows:
            cells = [spread([r["test"][c] * scale for r in rows], digits) for c, (scale, digits) in COLUMNS.items()]
            seconds = statistics.mean(r["seconds"] for r in rows)
            cells += bounds(rows)
            lines.append(f"| {chosen.title} | {len(rows)} | {' | '.join(cells)} | {chosen.asked} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def bounds(rows: list[dict]) -> list[str]:
    """Write −ELBO in the epoch that was kept, and what it lost at the end; of points nothing."""
    if "kl" not in rows[0]["history"][-1]:
        return ["", ""]
    histories = [r["history"] for r in rows]
    return [spread([nelbo(kept(h)) for h in histories], 3), spread([fall(h) for h in histories], 3)]


def spread(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("name", choices=RUNS)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--threads", type=int, default=2)
    commands.add_parser("table")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.command == "run":
        torch.set_num_threads(options.threads)
        result = run(options.name, options.seed)
        (FOLDER / f"{options.name}-{options.seed}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(options.name, options.seed, {k: result["test"][k] for k in COLUMNS}, f"{result['seconds']:.0f} s")
    else:
        FOLDER.with_suffix(".md").write_text(table())
        print(table())


if __name__ == "__main__":
    main()
