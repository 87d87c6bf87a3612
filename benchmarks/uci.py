"""The UCI study: one hidden layer of 50 units on the standard splits, in the units of the raw targets.

Every method trains on 90 % of a split's training rows and watches the other 10 % for its best epoch; the split's test rows
are touched once. Inputs and targets are standardised by the training rows. 100 draws of whole weights.

    python benchmarks/uci.py --sets boston concrete --splits 5 --out docs/results/uci.md
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from train_step import commit, machine

import posterity
from posterity import MAP, Engine, Ensemble, Gaussian, HeteroscedasticGaussian, MeanField, Normal, Optimizer, TensorData
from posterity.data import load
from posterity.metrics.scores import evaluate
from posterity.zoo import MLP

OPTIMIZER = Optimizer(lr=1e-2, schedule="cosine")
METHODS = {
    "MAP, learnt noise": (MAP(epochs=200, optimizer=OPTIMIZER), Gaussian()),
    "mean field, learnt noise": (MeanField("local_reparam", epochs=400, optimizer=OPTIMIZER), Gaussian()),
    "mean field, heteroscedastic": (
        MeanField("local_reparam", epochs=400, optimizer=OPTIMIZER),
        HeteroscedasticGaussian(),
    ),
    "ensemble of 5 MAP, learnt noise": (Ensemble(MAP(epochs=200, optimizer=OPTIMIZER), 5), Gaussian()),
}
PUBLISHED = {  # RMSE, log-likelihood (± as printed), all splits; see the docs for the sources
    "boston": {
        "PBP (Hernández-Lobato & Adams 2015)": ("3.01 ± 0.18", "−2.57 ± 0.09"),
        "MC dropout (Gal & Ghahramani, 2018 code)": ("2.90 ± 0.18", "−2.40 ± 0.04"),
        "deep ensemble (Lakshminarayanan et al. 2017)": ("3.28 ± 1.00", "−2.41 ± 0.25"),
        "mean-field VI (uncertainty-baselines)": ("", "−3.12"),
    },
    "concrete": {
        "PBP (Hernández-Lobato & Adams 2015)": ("5.67 ± 0.09", "−3.16 ± 0.02"),
        "MC dropout (Gal & Ghahramani, 2018 code)": ("4.82 ± 0.16", "−2.93 ± 0.02"),
        "deep ensemble (Lakshminarayanan et al. 2017)": ("6.03 ± 0.58", "−3.06 ± 0.18"),
        "mean-field VI (uncertainty-baselines)": ("", "−3.22"),
    },
}


def run(name: str, split: int, method: object, likelihood: object) -> dict[str, float]:
    """Fit one split and score it on its test rows, in original units."""
    data = load(f"uci/{name}", split=split)
    train = TensorData(data.train_inputs, data.train_targets, batch_size=64).split(0.1, seed=split)
    torch.manual_seed(split)
    outputs = 2 if isinstance(likelihood, HeteroscedasticGaussian) else 1
    network = MLP((data.input_shape[0], 50, outputs))
    engine = Engine(seed=split, device="cpu", progress=False)
    prior = Normal(0, 1, fan_in=True)
    posterior = posterity.fit(network, train, likelihood=likelihood, prior=prior, method=method, engine=engine)
    predictive = posterior.predict(data.test_inputs, 100, generator=torch.Generator().manual_seed(split))
    scaling = data.scaling
    predictive = predictive.rescale(scaling.target_mean, scaling.target_std)
    return evaluate(predictive, scaling.restore_targets(data.test_targets))


def table(results: dict, splits: int) -> str:
    lines = [
        "# UCI regression",
        "",
        f"`python benchmarks/uci.py --splits {splits}`. " + __doc__.split("\n\n")[1].replace("\n", " "),
        f"{machine()}; commit {commit()}; {time.strftime('%Y-%m-%d')}.",
        f"Ours: first {splits} splits, mean ± standard error; temperature 1; prior Normal(0, 1/√fan-in). Published rows: all "
        "20 splits, ± as their authors print it; they are no strict comparison.",
    ]
    for name, rows in results.items():
        lines += ["", f"## {name}", "", "| | RMSE | log-likelihood | CRPS | 90 % coverage |", "|---|---|---|---|---|"]
        for title, scores in rows.items():
            nll = [-s["nll"] for s in scores]
            cells = [spread([s["rmse"] for s in scores]), spread(nll), spread([s["crps"] for s in scores])]
            cells.append(spread([s["coverage_90"] for s in scores]))
            lines.append(f"| **{title}** | {' | '.join(cells)} |")
        lines += [f"| {title} | {rmse} | {ll} | | |" for title, (rmse, ll) in PUBLISHED.get(name, {}).items()]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.2f} ± {error:.2f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["boston", "concrete"])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict = {}
    for name in options.sets:
        for title, (method, likelihood) in METHODS.items():
            start = time.perf_counter()
            scores = [run(name, split, method, likelihood) for split in range(options.splits)]
            results.setdefault(name, {})[title] = scores
            rmse, nll = (statistics.mean(s[k] for s in scores) for k in ("rmse", "nll"))
            print(f"{name}, {title}: RMSE {rmse:.3f}, NLL {nll:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table(results, options.splits))
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, options.splits))


if __name__ == "__main__":
    main()
