"""Whether conformal sets hold the truth, and abstentions their risk, as often as they promise: on real predictions.

A network is trained on a part of the data; the pool is what it did not see. Coverage: 200 times the pool is split at random
into n examples for calibration and m for the test. For a fixed pool without equal scores, a split's coverage depends on nothing
but which ranks were drawn: it is BetaBinomial(m, k, n + 1 − k)/m, k = ⌈(n + 1) · level⌉, for every pool and every posterior.
Splits share the pool, and their coverages are independent all the same, as the splits are. So the mean of the 200 has the exact
mean k/(n + 1) and the standard deviation of one split divided by √200; its band is ± 2.576 of these (99 %). Where scores are
equal (aps and raps without a coin), and of intervals whose two ends are calibrated apart, only the lower end binds.

What this can find is a wrong quantile, score or set. It cannot find out that future inputs are of another kind: no study of one
pool can. Abstention: 1000 validation sets are drawn from the pool with replacement, so that the pool is the truth, and the risk
of a threshold is its risk on the pool. At a confidence of 95 % at most 5 % of the thresholds may exceed what was promised.
The fits are short on purpose: their −ELBO still falls, and `fit` says so. A promise holds whatever the network is worth.

    python benchmarks/conformal.py --out docs/results/conformal.md            # needs the files of MNIST and Fashion-MNIST
    python benchmarks/conformal.py --pools digits diabetes                    # needs none
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Generator, Tensor, nn

import posterity
from posterity import Categorical, Engine, Gaussian, MeanField, Normal, Optimizer, TensorData
from posterity.bench.machine import provenance
from posterity.data import load
from posterity.decide import (
    APS,
    RAPS,
    THR,
    AbsoluteResidual,
    ConformalSets,
    QuantileResidual,
    ScaledResidual,
    calibrate,
    choose_threshold,
    uncertainty,
)
from posterity.predict.predictive import Classification, Regression
from posterity.zoo import MLP, LeNet

SPLITS, LEVEL, SEED, DRAWS = 200, 0.9, 0, 16
TRIALS, CONFIDENCE = 1000, 0.95
CLASSES = (THR(), APS(randomised=True), RAPS(randomised=True), APS(), RAPS())
VALUES = (AbsoluteResidual(), ScaledResidual(), QuantileResidual(), QuantileResidual(asymmetric=True))


@dataclass(frozen=True)
class Pool:
    """A data set: how many examples train the network, for how long, how many calibrate, and what is promised."""

    train: int
    epochs: int
    calibrate: int
    size: int | None = None
    risk: float = 0.0
    validation: int = 0  # examples that an abstention is chosen on


POOLS = {
    "digits": Pool(700, 30, 400, risk=0.05, validation=500),
    "diabetes": Pool(200, 200, 120),
    "mnist": Pool(6000, 4, 1000, 32, risk=0.02, validation=2000),
    "fashion-mnist": Pool(6000, 4, 1000, 32, risk=0.1, validation=2000),
}


def predictions(name: str) -> tuple[Classification | Regression, Tensor, dict[str, float]]:
    """Train on the first examples of a shuffled set, and predict all others."""
    pool = POOLS[name]
    data = load(name, image_size=pool.size).standardised()
    images = name.endswith("mnist")
    inputs = data.test_inputs if images else torch.cat([data.train_inputs, data.test_inputs])
    targets = data.test_targets if images else torch.cat([data.train_targets, data.test_targets])
    order = torch.randperm(len(data.train_inputs if images else inputs), generator=Generator().manual_seed(SEED))
    own, other = order[: pool.train], order[pool.train :]
    training = (data.train_inputs[own], data.train_targets[own]) if images else (inputs[own], targets[own])
    torch.manual_seed(SEED)
    network: nn.Module = LeNet() if images else MLP((inputs[0].numel(), 32, data.num_classes or 1))
    posterior = posterity.fit(
        network,
        TensorData(*training, batch_size=64),
        likelihood=Categorical() if data.classes else Gaussian(),
        prior=Normal(0, 0.3),
        method=MeanField("local_reparam", epochs=pool.epochs, optimizer=Optimizer(lr=4e-3, schedule="one_cycle")),
        engine=Engine(seed=SEED, progress=False),
    )
    rest = (inputs, targets) if images else (inputs[other], targets[other])
    predictive = posterior.predict(rest[0], DRAWS, generator=Generator().manual_seed(SEED))
    return predictive, rest[1], predictive.scores(rest[1])


def part(predictive: Classification | Regression, rows: Tensor) -> Classification | Regression:
    if isinstance(predictive, Classification):
        return Classification(predictive.probs[:, rows])
    return Regression(predictive.means[:, rows], predictive.variances[:, rows])


def split(
    predictive: Classification | Regression, targets: Tensor, score: Any, n: int, rng: Generator
) -> tuple[float, float]:
    """Calibrate on n examples, and return the coverage of the others and the mean size of their sets."""
    order = torch.randperm(len(targets), generator=rng)
    found = calibrate(part(predictive, order[:n]), targets[order[:n]], LEVEL, score, generator=rng)
    test, truth = part(predictive, order[n:]), targets[order[n:]]
    if isinstance(found, ConformalSets):
        sets = found.sets(test, rng)
        held = sets.gather(1, truth[:, None])
        return held.double().mean().item(), sets.sum(1).double().mean().item()
    lower, upper = found.intervals(test)
    return ((lower <= truth) & (truth <= upper)).double().mean().item(), (upper - lower).mean().item()


def title(score: Any) -> str:
    """Name a score and what is special about it."""
    coin, ends = getattr(score, "randomised", False), getattr(score, "asymmetric", False)
    return f"{score.kind}{', a coin' * coin}{', two ends' * ends}"


def coverage(predictive: Classification | Regression, targets: Tensor, score: Any, n: int) -> dict[str, Any]:
    """Hold the coverages of 200 splits against their law."""
    rng = Generator().manual_seed(SEED + 1)
    seen = np.array([split(predictive, targets, score, n, rng) for _ in range(SPLITS)])
    m, k = len(targets) - n, ceil((n + 1) * LEVEL)
    law = stats.betabinom(m, k, n + 1 - k)
    half = 2.576 * law.std() / m / sqrt(SPLITS)
    low, high = law.ppf(0.005) / m, law.ppf(0.995) / m
    exact = getattr(score, "randomised", True) and not getattr(score, "asymmetric", False)
    mean = float(seen[:, 0].mean())
    return {
        "score": title(score),
        "n": n,
        "m": m,
        "mean": mean,
        "band": [k / (n + 1) - half, k / (n + 1) + half],
        "exact": exact,
        "kept": bool(mean >= k / (n + 1) - half and (mean <= k / (n + 1) + half or not exact)),
        "std": float(seen[:, 0].std(ddof=1)),
        "std_expected": float(law.std() / m),
        "splits_below": int((seen[:, 0] < low).sum()),
        "splits_above": int((seen[:, 0] > high).sum()),
        "size": float(seen[:, 1].mean()),
    }


def naive(scores: Tensor, losses: Tensor, risk: float) -> float:
    """The largest threshold whose observed risk is as wanted: what a promise is not."""
    ordered, order = scores.sort()
    good = (losses[order].cumsum(0) / torch.arange(1, len(scores) + 1) <= risk).nonzero()
    return -inf if not len(good) else inf if int(good[-1]) == len(scores) - 1 else float(ordered[int(good[-1]) + 1])


def abstention(predictive: Classification, targets: Tensor, pool: Pool) -> dict[str, Any]:
    """Count how often the risk on the pool exceeds what was promised from a validation set drawn from it."""
    scores, losses = uncertainty(predictive, "max_probability"), (predictive.labels != targets).double()
    rng = Generator().manual_seed(SEED + 2)
    choosers: dict[str, Callable[[Tensor, Tensor], float]] = {
        "promised": lambda s, y: choose_threshold(s, y, pool.risk, CONFIDENCE).threshold,
        "naive": lambda s, y: naive(s, y, pool.risk),
    }
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in choosers}
    for _ in range(TRIALS):
        rows = torch.randint(len(targets), (pool.validation,), generator=rng)
        for name, choose in choosers.items():
            accepted = scores < choose(scores[rows], losses[rows])
            broken = bool(accepted.any()) and losses[accepted].mean().item() > pool.risk
            found[name].append((broken, accepted.double().mean().item()))
    shares = {name: [float(x) for x in np.array(rows, dtype=float).mean(0)] for name, rows in found.items()}
    ordered = losses[scores.argsort()].cumsum(0) / torch.arange(1, len(losses) + 1)
    best = (ordered <= pool.risk).nonzero()
    return {
        "risk": pool.risk,
        "n": pool.validation,
        "error": losses.mean().item(),
        **shares,
        "best": (int(best[-1]) + 1) / len(losses),
    }


def study(names: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        **provenance(),
        "seed": SEED,
        "splits": SPLITS,
        "trials": TRIALS,
        "level": LEVEL,
        "pools": {},
    }
    for name in names:
        predictive, targets, scores = predictions(name)
        chosen = CLASSES if isinstance(predictive, Classification) else VALUES
        own = {"pool": asdict(POOLS[name]), "size": len(targets), "scores": scores}
        if isinstance(predictive, Classification):
            own["abstention"] = abstention(predictive, targets, POOLS[name])
            predictive = Classification(predictive.mean[None])  # all that a score looks at
        own["coverage"] = [coverage(predictive, targets, score, POOLS[name].calibrate) for score in chosen]
        result["pools"][name] = own
        print(name, scores, flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    head = (__doc__ or "").split("    python")[0].strip().split("\n", 1)
    lines = [
        "# Promises, and whether they are kept\n",
        head[0] + "\n" + head[1] + "\n",
        f"{result['splits']} splits, level {result['level']:g}, seed {result['seed']}; mean field by local reparameterisation, "
        f"{DRAWS} draws. {result['machine']}; commit {result['commit']}; {result['date']}.\n",
        "## Coverage\n",
        "| pool | score | n, m | mean coverage | 99 % band of the mean | kept | std of one split (expected) | splits "
        "below, above their own 99 % band (1 each expected) | mean size |\n|---|---|---|---|---|---|---|---|---|",
    ]
    for name, own in result["pools"].items():
        for row in own["coverage"]:
            low, high = row["band"]
            band = f"{low:.4f} to {high:.4f}" if row["exact"] else f"≥ {low:.4f}"
            lines.append(
                f"| {name} | {row['score']} | {row['n']:,}, {row['m']:,} | {row['mean']:.4f} | {band} | "
                f"{'yes' if row['kept'] else 'NO'} | {row['std']:.4f} ({row['std_expected']:.4f}) | {row['splits_below']}, "
                f"{row['splits_above']} | {row['size']:.3g} |"
            )
    return "\n".join([*lines, *abstention_table(result)]) + "\n"


def abstention_table(result: dict[str, Any]) -> list[str]:
    most = stats.binom.ppf(0.995, result["trials"], 1 - CONFIDENCE) / result["trials"]
    lines = [
        "\n## Abstention\n",
        f"By maximum probability, at a confidence of {CONFIDENCE:g}, {result['trials']:,} validation sets of n; by chance up "
        f"to {100 * most:.1f} % of them may break a promise that fails in 5 % of cases. Naive is the largest threshold whose "
        "observed risk is as wanted. Best is what could be accepted if the pool were known.\n",
        "| pool | error of all | promised risk | n | broken | accepted | naive: broken | naive: accepted | best |\n"
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, own in result["pools"].items():
        if "abstention" in own:
            a = own["abstention"]
            lines.append(
                f"| {name} | {100 * a['error']:.1f} % | {100 * a['risk']:g} % | {a['n']:,} | {100 * a['promised'][0]:.1f} % | "
                f"{100 * a['promised'][1]:.1f} % | {100 * a['naive'][0]:.1f} % | {100 * a['naive'][1]:.1f} % | "
                f"{100 * a['best']:.1f} % |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", nargs="+", choices=list(POOLS), default=list(POOLS))
    parser.add_argument("--out", type=Path, help="a Markdown file to write, with a JSON file beside it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = study(given.pools)
    print(table(result))
    if given.out:
        given.out.write_text(table(result), encoding="utf-8")
        given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
