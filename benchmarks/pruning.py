"""The pruning study: how many of LeNet's weights can go on MNIST, by signal-to-noise, by evidence, by magnitude.

LeNet on 32×32 images, mean field with weight draws, Normal(0, 0.1), 16 epochs; its twin by maximum likelihood, 16 epochs.
55,000 images train, 5,000 choose the best epoch and the sparsity, and the 10,000 test images score, once. Nothing is trained
after pruning but in the rows that say so: there, mean field goes on for 2 epochs with the removed weights held at 0. Settings
were tried on seed 100. 16 draws of whole weights.

    python benchmarks/pruning.py run --seeds 0 1 2     # docs/results/pruning/lenet-SEED.json; those that are there are kept
    python benchmarks/pruning.py table                 # docs/results/pruning.md and docs/figures/pruning.svg from all of them
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import posterity
from posterity import MLE, Engine, MeanField, Normal, Optimizer, TensorData
from posterity.bench.bound import Bounds
from posterity.bench.machine import provenance
from posterity.bench.study import read, write
from posterity.compress import SparsityCurve, SparsityPoint, prune, refit, smaller, sparsity, sparsity_curve
from posterity.data import load
from posterity.posteriors.point import Point
from posterity.report.pruning import plot_pruning
from posterity.zoo import LeNet

ROOT = Path(__file__).parent.parent / "docs"
FOLDER = ROOT / "results" / "pruning"
SPARSITIES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
TABLE = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
REFITTED = (0.95, 0.97, 0.98, 0.99)
TOLERANCE, DRAWS = 0.003, 16
METHOD = MeanField(epochs=16, optimizer=Optimizer(lr=8e-3, schedule="one_cycle"))
TWIN = MLE(epochs=16, optimizer=Optimizer(lr=2e-3))
AGAIN = MeanField(epochs=2, optimizer=Optimizer(lr=2e-3, schedule="cosine"))
NAMES = {"signal_to_noise": "signal-to-noise", "kl": "KL (evidence)", "magnitude": "magnitude"}


def run(seed: int) -> dict[str, Any]:
    """Train, prune and score with one seed."""
    data = load("mnist", image_size=32).standardised()
    train = TensorData(data.train_inputs, data.train_targets).split(1 / 12, seed=123)
    assert train.held_out is not None
    bounds = Bounds()
    engine = Engine(seed=seed, device="cpu", progress=False, on_epoch=bounds)
    start = time.perf_counter()
    torch.manual_seed(seed)
    network = LeNet()
    posterior = posterity.fit(network, train, prior=Normal(0, 0.1), method=METHOD, engine=engine)
    trained, bound = time.perf_counter() - start, bounds.scores()
    twin = posterity.fit(network, train, prior=Normal(0, 0.1), method=TWIN, engine=engine)
    assert isinstance(twin, Point)
    test = (data.test_inputs, data.test_targets)
    chosen = sparsity_curve(posterior, *train.held_out, SPARSITIES, draws=DRAWS).largest(TOLERANCE)
    curves = {by: sparsity_curve(posterior, *test, SPARSITIES, by, DRAWS) for by in NAMES}
    curves["twin"] = sparsity_curve(twin, *test, SPARSITIES, "magnitude", 1)
    refitted, sizes = [], {}
    for share in REFITTED:
        again = refit(prune(posterior, share), train, AGAIN, engine)
        generator = torch.Generator().manual_seed(0)
        scores = again.predict(test[0], DRAWS, generator=generator).scores(test[1])
        refitted.append({"sparsity": sparsity(again), "draws": scores, "mean": {}})
        sizes[str(share)] = _size(again, test[0][:2])
    return {
        "seed": seed,
        "chosen": chosen,
        "curves": {name: [asdict(point) for point in curve.points] for name, curve in curves.items()},
        "refitted": refitted,
        "sizes": sizes,
        "bound": bound,
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - start, 1)},
        "fit": posterior.provenance,
        **provenance(),
    }


def _size(posterior: Any, images: torch.Tensor) -> dict[str, Any]:
    """Return what `smaller` makes of a pruned posterior: the outputs of each layer, and the weights left in its tensors."""
    network = smaller(posterior, images).problem.network
    layers = {n: len(m.weight) for n, m in network.named_modules() if hasattr(m, "weight")}
    return {"layers": layers, "parameters": sum(p.numel() for p in network.parameters())}


def page(records: Sequence[Mapping[str, Any]]) -> str:
    first = records[0]
    seeds = ", ".join(str(r["seed"]) for r in records)
    shares = " | ".join(f"{100 * s:g} %" for s in TABLE)
    lines = [
        "# Pruning LeNet",
        "",
        "`python benchmarks/pruning.py run`, then `python benchmarks/pruning.py table`. " + _about(),
        f"{first['machine']}; {first['threads']} thread; commits {', '.join(sorted({str(r['commit']) for r in records}))}; "
        f"{first['date']}. Seeds {seeds}; mean ± standard deviation over them, accuracy in per cent, NLL in nats.",
        "",
        _bound(records),
        "",
        "![Error and NLL against sparsity](../figures/pruning.svg)",
        "",
        "*Test set, mean over seeds. Solid: draws averaged; dotted: the mean network. Weights removed from the trained "
        "posterior, all layers by one threshold, nothing trained after.*",
        "",
        f"| test accuracy at sparsity | 0 % | {shares} |",
        "|---|" + "---|" * (len(TABLE) + 1),
    ]
    rows = {**{f"mean field, by {name}": (by, "draws") for by, name in NAMES.items()}}
    rows["the same, mean network, by signal-to-noise"] = ("signal_to_noise", "mean")
    rows["its twin (maximum likelihood), by magnitude"] = ("twin", "draws")
    for score, scale, digits in (("accuracy", 100, 2), ("nll", 1, 4)):
        if score == "nll":
            lines += ["", f"| test NLL at sparsity | 0 % | {shares} |", "|---|" + "---|" * (len(TABLE) + 1)]
        for title, (name, kind) in rows.items():
            own = [[scale * _at(r["curves"][name], s)[kind][score] for r in records] for s in (0, *TABLE)]
            lines.append(f"| {title} | {' | '.join(_spread(values, digits) for values in own)} |")
        own = [
            [scale * _near(r["refitted"], s)["draws"][score] for r in records] if s in REFITTED else [] for s in TABLE
        ]
        cells = ["", *(_spread(values, digits) for values in own)]
        lines.append(f"| by signal-to-noise, then 2 epochs | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_chosen(records), "", *_sizes(records)]) + "\n"


def _bound(records: Sequence[Mapping[str, Any]]) -> str:
    """Say what the negative ELBO of the posteriors was before anything was pruned."""
    values = [r["bound"]["nelbo"] for r in records if "bound" in r]
    reached = f"{_spread(values, 3)} nats per datum" if len(values) == len(records) else "not recorded by these runs"
    return (
        f"−ELBO of the posteriors before pruning: {reached}; the same network, prior, estimator and epochs at half the "
        "learning rate have 0.188 in [MNIST](mnist.md), and have nearly converged. Since these runs a batch "
        "of B data weighs B: here the last of the 430 batches of an epoch holds 88 images of 128, each of "
        "which weighed 1.45 times what it would elsewhere; the order is shuffled, so the objective was right "
        "on average, and the runs were not repeated."
    )


def _chosen(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which sparsity the validation images chose, and what it cost on the test images."""
    lines = [
        "The largest sparsity of the curve whose validation accuracy is at most 0.3 points worse than without pruning, by "
        "signal-to-noise, and what that is on the test images:",
        "",
        "| seed | chosen | test accuracy before | after | lost, points | at 90 % lost, points |",
        "|---|---|---|---|---|---|",
    ]
    for r in records:
        curve = r["curves"]["signal_to_noise"]
        before, after, ninety = (100 * _at(curve, s)["draws"]["accuracy"] for s in (0, r["chosen"], 0.9))
        lost = f"{before - after:.2f} | {before - ninety:.2f}"
        lines.append(f"| {r['seed']} | {100 * r['chosen']:g} % | {before:.2f} | {after:.2f} | {lost} |")
    return lines


def _sizes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how much smaller the tensors become where whole units are gone, after the two epochs."""
    layers = list(records[0]["sizes"][str(REFITTED[0])]["layers"])
    lines = [
        "`smaller` takes out the units and filters that lost all weights, or all readers (after the two epochs; means over "
        "seeds). Single weights that are 0 between others still take their place in memory:",
        "",
        f"| sparsity | {' | '.join(layers)} | weights in tensors, of 61,706 |",
        "|---|" + "---|" * (len(layers) + 1),
        "| 0 % | 6 | 16 | 120 | 84 | 10 | 61,706 |",
    ]
    for share in REFITTED:
        own = [r["sizes"][str(share)] for r in records]
        cells = [f"{statistics.mean(o['layers'][n] for o in own):.1f}" for n in layers]
        total = statistics.mean(o["parameters"] for o in own)
        lines.append(f"| {100 * share:g} % | {' | '.join(cells)} | {total:,.0f} |")
    return lines


def averaged(records: Sequence[Mapping[str, Any]], name: str) -> SparsityCurve:
    """Average one curve over seeds."""
    points = []
    for share in SPARSITIES:
        own = [_at(r["curves"][name], share) for r in records]
        parts = [{k: statistics.mean(o[kind][k] for o in own) for k in own[0][kind]} for kind in ("draws", "mean")]
        points.append(SparsityPoint(share, *parts))
    return SparsityCurve(name, tuple(points))


def _at(curve: Sequence[Mapping[str, Any]], share: float) -> Mapping[str, Any]:
    return next(point for point in curve if point["sparsity"] == share)


def _near(curve: Sequence[Mapping[str, Any]], share: float) -> Mapping[str, Any]:
    return min(curve, key=lambda point: abs(point["sparsity"] - share))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def _about() -> str:
    assert __doc__ is not None
    return __doc__.split("\n\n")[1].replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    some = commands.add_parser("run")
    some.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        torch.set_num_threads(1)
        for seed in options.seeds:
            path = FOLDER / f"lenet-{seed}.json"
            if not path.exists():
                write(path, run(seed))
                print(path, flush=True)
        return
    records = [read(path) for path in sorted(FOLDER.glob("lenet-*.json"))]
    curves = {name: averaged(records, by) for by, name in NAMES.items()}
    curves["twin, magnitude"] = averaged(records, "twin")
    plot_pruning(curves).savefig(ROOT / "figures" / "pruning.svg")
    FOLDER.with_suffix(".md").write_text(page(records), encoding="utf-8")
    print(page(records))


if __name__ == "__main__":
    main()
