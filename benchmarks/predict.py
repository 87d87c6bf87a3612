"""What a prediction costs: time per drawn function, as a ratio to one deterministic forward pass of the same network.

One run, all variants interleaved in random order, medians of repeats; batch 256; LeNet on 1×32×32 and an MLP 784-800-800-10,
each under a mean-field posterior; 1, 10 and 100 draws. Beside ours stands a plain Python loop over drawn networks: for each
draw every parameter of a copy of the network is filled with mean + std·noise, and the copy is called. Memory is the peak
resident set of one process per variant, above that of the deterministic pass.

    python benchmarks/predict.py --threads 1 2 --out docs/results/predict.md
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from steady import keep_memory, measured_apart, medians, peak
from torch import Tensor, nn

import posterity
from posterity import Categorical, Normal, Problem
from posterity.bench.machine import provenance
from posterity.posteriors.evaluation import evaluating_by
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.zoo import MLP, LeNet

NETWORKS = {"LeNet": (LeNet, (256, 1, 32, 32)), "MLP 784-800-800-10": (MLP, (256, 1, 28, 28))}
VARIANTS = {
    "deterministic": "one forward pass",
    "plain": "a Python loop over drawn networks",
    "loop": "`predict`, one function after the other",
    "batched": "`predict`, functions side by side in a pass (asked for)",
    "vmap": "`predict`, `torch.vmap` (likewise)",
    "chosen": "`predict` as it comes: the winner of a race",
    "compiled": "`predict`, its normals by a compiled kernel (`compiled_normals`)",
    "kept": "`predict` of functions that were drawn once (`draw_functions`)",
    "average": "`average`: no draw is kept",
}
DRAWS = (1, 10, 100)
MANY, INPUTS, BUDGET = 1000, 10_000, 64 * 2**20


def mean_field(network: nn.Module) -> DiagonalGaussian:
    problem = Problem(network.eval(), Normal(0, 0.1), Categorical(), 55_000)
    loc = problem.theta()
    return DiagonalGaussian(problem, loc, 0.02 * torch.ones_like(loc))


def plain(posterior: DiagonalGaussian, x: Tensor, n: int) -> Tensor:
    """Do what one would write without a library: the mean of n networks' probabilities."""
    network = copy.deepcopy(posterior.problem.network)
    means = posterior.problem.layout.views(posterior.loc)
    stds = posterior.problem.layout.views(posterior.std)
    total = torch.zeros(())
    for _ in range(n):
        for name, parameter in network.named_parameters():
            parameter.copy_(means[name] + stds[name] * torch.randn_like(parameter))
        total = total + network(x).softmax(-1)
    return total / n


def make(name: str, variant: str, n: int) -> Callable[[], object]:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = build().eval(), torch.rand(shape)
    posterior = mean_field(network)
    if variant == "deterministic":
        return lambda: network(x).softmax(-1)
    if variant == "plain":
        return lambda: plain(posterior, x, n)
    if variant == "average":
        return lambda: posterity.average(posterior, x, n).mean
    if variant == "kept":
        kept = posterity.draw_functions(posterior, n)
        return lambda: kept.predict(x, n).mean
    if variant == "chosen":
        return lambda: posterior.predict(x, n).mean

    def asked() -> Tensor:
        with posterity.compiled_normals() if variant == "compiled" else evaluating_by(variant):
            return posterior.predict(x, n).mean

    return asked


@torch.no_grad()
def many_draws(name: str) -> float:
    """Peak MiB of an average of many functions of many inputs, above what the inputs and one small call need."""
    build, shape = NETWORKS[name]
    posterior, x = mean_field(build()), torch.rand(INPUTS, *shape[1:])
    posterity.average(posterior, x[:2], 2)
    before = peak()
    posterity.average(posterior, x, MANY, max_bytes=BUDGET)
    return peak() - before


def run(threads: list[int], repeats: int) -> dict:
    rows: dict[str, dict] = {}
    for name in NETWORKS:
        memory = {variant: measured_apart(__file__, "--measure", name, variant) for variant in VARIANTS}
        rows[name] = {"times": {}}
        rows[name]["extra MiB"] = {v: round(m - memory["deterministic"], 1) for v, m in memory.items()}
        print(f"{name}: memory is measured; times need a machine that does nothing else", file=sys.stderr, flush=True)
        for count in threads:
            torch.set_num_threads(count)
            for n in DRAWS:
                calls = {variant: make(name, variant, n) for variant in VARIANTS}
                with torch.no_grad():
                    found = medians(calls, 1, max(3, repeats // n))
                once = found["deterministic"]
                ratios = {v: round(ms / (once * n), 3) for v, ms in found.items() if v != "deterministic"}
                rows[name]["times"][f"{count}/{n}"] = {"deterministic ms": round(once, 2), **ratios}
    return {
        **provenance(),
        "repeats": repeats,
        "rows": rows,
        "many": round(measured_apart(__file__, "--measure", "LeNet", "many"), 1),
    }


def table(result: dict) -> str:
    lines = [
        "# Cost of a prediction",
        "",
        f"`python benchmarks/predict.py`: time per drawn function as a ratio to one deterministic forward pass, medians of "
        f"interleaved repeats ({result['repeats']} for one draw, fewer for more), batch 256, float32, a mean-field posterior. "
        f"{result['machine']}; commit {result['commit']}; {result['date']}. Extra memory: the peak for 100 draws above that of "
        "the deterministic pass.",
    ]
    for name, row in result["rows"].items():
        keys = list(row["times"])
        heads = [f"{k.split('/')[1]} draws, {k.split('/')[0]} thread{'s' * (k[0] != '1')}" for k in keys]
        lines += ["", f"## {name}", "", f"| | {' | '.join(heads)} | extra MiB |", "|---" * (len(keys) + 2) + "|"]
        once = [f"{row['times'][k]['deterministic ms']:.2f} ms" for k in keys]
        lines.append(f"| {VARIANTS['deterministic']} | {' | '.join(once)} | |")
        for variant in list(VARIANTS)[1:]:
            cells = [f"{row['times'][k][variant]:.2f}" for k in keys]
            lines.append(f"| {VARIANTS[variant]} | {' | '.join(cells)} | {row['extra MiB'][variant]:.0f} |")
    lines += [
        "",
        f"`average` of {MANY:,} functions of {INPUTS:,} inputs, LeNet, given {BUDGET / 2**20:.0f} MiB: the peak of the "
        f"process rises by {result['many']:.0f} MiB over what loading torch and the inputs had taken.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, what = options.measure
        if what == "many":
            print(many_draws(name))
            return
        with torch.no_grad():
            make(name, what, max(DRAWS))()
        print(peak())
        return
    keep_memory()
    result = run(options.threads, options.repeats)
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table(result))
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
