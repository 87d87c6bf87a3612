"""A trained network made Bayesian: what it is worth at once, and after two epochs of variational inference.

A LeNet is trained on MNIST by maximum likelihood: 54,000 images, ten epochs, the best by the NLL of the 6,000 images held
out. Then it is converted. At once: `bayesianize` at its weights w, with stds σ that are a constant, a fraction of |w|, or what
the curvature allows; nothing is trained. After: `fit` from its weights for two epochs, by each estimator. Stds, priors and
learning rates were chosen on the images held out, with a LeNet of another seed; each row then touches the test set once per
seed, with 32 draws of whole weights.

    python benchmarks/conversion.py run --seed 0   # trains the LeNet if --networks does not have it
    python benchmarks/conversion.py choose         # the held-out scores that the choices were made on
    python benchmarks/conversion.py table          # docs/results/conversion.md
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from mnist import COLUMNS, spread
from torch import Generator, nn

import posterity
from posterity import (
    MLE,
    Categorical,
    Engine,
    Informative,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    Relative,
    TensorData,
    bayesianize,
    curvature_std,
    deterministic,
)
from posterity.bench.bound import Bounds
from posterity.bench.machine import commit, machine
from posterity.data import load
from posterity.metrics.scores import evaluate
from posterity.posteriors.base import FunctionPosterior
from posterity.types import Prior
from posterity.zoo import LeNet

NUMBERS = Path(__file__).parent.parent / "docs" / "results" / "conversion.json"
NETWORK = "the LeNet itself"
MAXIMUM = MLE(epochs=10, optimizer=Optimizer(lr=2e-3, schedule="one_cycle"))
DRAWS, CHOICE_SEED = 32, 100


@dataclass(frozen=True)
class Start:
    """Where a conversion starts: the stds, as `MeanField` calls them, and the prior's std."""

    initial: str
    std: float
    prior_std: float
    at_weights: bool = True  # whether the prior's mean is the trained weights, or 0

    def prior(self, network: nn.Module) -> Prior:
        return Informative.at(network, self.prior_std) if self.at_weights else Normal(0, self.prior_std)

    def __str__(self) -> str:
        std = {"constant": f"{self.std:g}", "relative": f"{self.std:g}·\\|w\\|", "curvature": "from the curvature"}
        return f"σ {std[self.initial]}, prior N({'w' if self.at_weights else '0'}, {self.prior_std:g}²)"


@dataclass(frozen=True)
class Trained:
    """Two epochs of mean field from a start."""

    estimator: str
    start: Start
    lr: float = 1e-3
    std_lr: float = 1.0

    def __str__(self) -> str:
        faster = "" if self.std_lr == 1 else f", of ρ {self.std_lr:g} times that"
        return f"two epochs, {self.estimator}: {self.start}, learning rate {self.lr:g}{faster}"

    def method(self) -> MeanField:
        return MeanField(
            self.estimator,
            epochs=2,
            initial=self.start.initial,
            initial_std=self.start.std,
            std_lr=self.std_lr,
            optimizer=Optimizer(lr=self.lr, schedule="one_cycle"),
        )


CHOSEN = Start("constant", 0.02, 0.03)
AT_ONCE = (CHOSEN, Start("relative", 0.2, 0.1), Start("curvature", 1.0, 0.03))
AFTER = tuple(Trained(estimator, CHOSEN) for estimator in ("weight", "local_reparam", "flipout"))
CANDIDATES: tuple[Start | Trained, ...] = (
    Start("constant", 0.005, 0.3, False),
    Start("constant", 0.01, 0.3, False),
    Start("constant", 0.02, 0.3, False),
    Start("relative", 0.1, 0.1),
    Start("relative", 0.2, 0.1),
    Start("curvature", 1.0, 0.1),
    Start("curvature", 1.0, 0.03),
    Trained("weight", Start("curvature", 1.0, 0.1), 5e-4, 10.0),
    Trained("weight", Start("curvature", 1.0, 0.1), 5e-4),
    Trained("weight", Start("relative", 0.2, 0.1), std_lr=10.0),
    Trained("weight", Start("relative", 0.2, 0.3, False), std_lr=10.0),
    Trained("weight", Start("constant", 0.02, 0.3, False), 2e-3),
    *AFTER,
)


def data() -> tuple[TensorData, tuple]:
    """Return MNIST on 32×32 pixels with 6,000 training images held out, and the test set."""
    mnist = load("mnist", image_size=32).standardised()
    train = TensorData(mnist.train_inputs, mnist.train_targets, batch_size=128).split(0.1, seed=123)
    return train, (mnist.test_inputs, mnist.test_targets)


def engine(seed: int, bounds: Bounds | None = None) -> Engine:
    return Engine(seed=seed, device="cpu", validation_draws=4, progress=False, on_epoch=bounds)


def trained(train: TensorData, seed: int, folder: Path) -> FunctionPosterior:
    """Return the LeNet of a seed, all mass on its weights; train it if the folder does not have it."""
    path = folder / f"lenet-{seed}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        posterity.fit(LeNet(), train, method=MAXIMUM, engine=engine(seed)).save(path)
    return posterity.load(path, LeNet())


def converted(network: nn.Module, start: Start, train: TensorData) -> tuple[FunctionPosterior, bool]:
    """Convert a network and train nothing; return the posterior, and whether its mean computes what the network did."""
    prior = start.prior(network)
    init = {"constant": start.std, "relative": Relative(start.std)}.get(start.initial)
    if init is None:
        problem = Problem(network, prior, Categorical(), train.num_data)
        init = curvature_std(problem, islice(train.batches(0, Generator().manual_seed(0)), 50))
    bnn = bayesianize(network, prior=prior, init=init)
    images = train.inputs[:1000]
    return posterity.posterior(bnn), torch.equal(deterministic(bnn)(images), network(images))


def refined(
    network: nn.Module, row: Trained, train: TensorData, seed: int
) -> tuple[FunctionPosterior, dict[str, float]]:
    """Fit for two epochs; return the posterior, and what its bound reached."""
    prior, bounds = row.start.prior(network), Bounds()
    posterior = posterity.fit(network, train, prior=prior, method=row.method(), engine=engine(seed, bounds))
    return posterior, bounds.scores()


def scores(posterior: FunctionPosterior, batch: tuple, seed: int) -> dict:
    found = evaluate(posterior.predict(batch[0], DRAWS, generator=Generator().manual_seed(seed)), batch[1])
    return {name: found[name] for name in COLUMNS}


def measured(row: Start | Trained, network: nn.Module, train: TensorData, batch: tuple, seed: int) -> dict:
    """Convert the network as the row says, and score it."""
    begin = time.perf_counter()
    if isinstance(row, Trained):
        posterior, bound = refined(network, row, train, seed)
        extra = {"seconds": round(time.perf_counter() - begin, 1), **bound}
    else:
        posterior, same = converted(network, row, train)
        extra = {"same": same}
    return {"seed": seed, "name": str(row), **extra, **scores(posterior, batch, seed)}


def run(rows: tuple[Start | Trained, ...], seed: int, folder: Path, test: bool) -> list[dict]:
    """Score the LeNet of one seed and its conversions, on the test set or on the images held out."""
    train, unseen = data()
    batch = unseen if test else train.held_out
    point = trained(train, seed, folder)
    found = [{"seed": seed, "name": NETWORK, **scores(point, batch, seed)}]
    for row in rows:
        found.append(measured(row, point.network(), train, batch, seed))
        print(found[-1], flush=True)
    return found


def table(record: dict) -> str:
    """One line per row: mean ± standard deviation over seeds on the test set, then what the choices were made on."""
    about = record["about"]
    lines = [
        "# Conversion of a trained network",
        "",
        " ".join((__doc__ or "").partition("    python")[0].split()),
        "",
        "`python benchmarks/conversion.py run --seed SEED`, then `python benchmarks/conversion.py table`. "
        f"{about['machine']}, one thread; commit {about['commit']}; {about['date']}. Temperature 1. Mean ± standard deviation "
        "over seeds; accuracy and ECE (15 bins) in per cent, NLL in nats; −ELBO of the second epoch, in nats "
        "per datum, where the record has it. Two epochs are a short fit, near the trained network and far "
        "from the ELBO's maximum: these rows say what they predict, not what the posterior is. Since these "
        "runs a batch of B data weighs B: here the last of the 422 batches of an epoch holds 112 images of "
        "128, shuffled, which moves nothing that these digits show. Before any training, the mean of each "
        "conversion "
        f"gives the network's outputs to the bit: {'yes' if all(r.get('same', True) for r in record['test']) else 'NO'}.",
        "",
        *grid(record["test"]),
        "",
        verdict(record["test"]),
        "",
        f"The choices: 6,000 held-out images, seed {CHOICE_SEED}.",
        "",
        *grid(record["choice"]),
    ]
    return "\n".join(lines) + "\n"


def verdict(rows: list[dict]) -> str:
    """Say what conversion did to the networks' scores, seed by seed."""
    before = {r["seed"]: r for r in rows if r["name"] == NETWORK}
    at_once = [100 * (r["accuracy"] - before[r["seed"]]["accuracy"]) for r in rows if "same" in r]
    after = [r for r in rows if "seconds" in r]
    better = {c: sum(r[c] < before[r["seed"]][c] for r in after) for c in ("nll", "ece")}
    return (
        f"At once, accuracy is {min(at_once):+.2f} to {max(at_once):+.2f} points from the network's (asked: within 0.1 of it). "
        f"After two epochs the NLL is below the network's in {better['nll']} of {len(after)} fits, the ECE in {better['ece']} "
        "(asked: one of them, by each estimator)."
    )


def grid(rows: list[dict]) -> list[str]:
    lines = ["| | seeds | accuracy | NLL | ECE | −ELBO | seconds |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["name"] for r in rows):
        own = [r for r in rows if r["name"] == name]
        cells = [spread([r[c] * scale for r in own], digits) for c, (scale, digits) in COLUMNS.items()]
        seconds = f"{statistics.mean(r['seconds'] for r in own):.0f}" if "seconds" in own[0] else ""
        bounds = [r["nelbo"] for r in own if "nelbo" in r]
        cells.append(spread(bounds, 3) if bounds else "not recorded" if name.startswith("two epochs") else "")
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {seconds} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "choose", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=Path, default=Path(tempfile.gettempdir()) / "posterity-conversion")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {"about": {}, "test": [], "choice": []}
    if options.command == "choose":
        record["choice"] = run(CANDIDATES, CHOICE_SEED, options.networks, test=False)
    elif options.command == "run":
        kept = [r for r in record["test"] if r["seed"] != options.seed]
        record["test"] = kept + run((*AT_ONCE, *AFTER), options.seed, options.networks, test=True)
    if options.command != "table":
        record["about"] = {"machine": machine(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
        NUMBERS.write_text(json.dumps(record, indent=1) + "\n")
    NUMBERS.with_suffix(".md").write_text(table(record))


if __name__ == "__main__":
    main()
