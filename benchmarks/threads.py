"""Predictions from several threads: are they the serial ones, and how many come in a second.

Requests of 20 to 200 rows go round every family of posteriors, each with a generator of its own. They are answered by one
thread, and then by pools of several; answers are compared to rounding, and the network is looked at afterwards: its
weights, buffers, hooks and modes must be what they were.

    python benchmarks/threads.py --requests 10000 --threads 1 2 4 --out docs/results/threads.md
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

import posterity
from posterity import Categorical, Normal, Problem
from posterity.bench.machine import provenance
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian, Part
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples

WIDTH, CLASSES, DRAWS = 64, 3, 8
X = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))


def problem(*layers: nn.Module) -> Problem:
    network = nn.Sequential(nn.Linear(8, WIDTH), *layers, nn.Linear(WIDTH, CLASSES))
    return Problem(network.eval(), Normal(0, 1), Categorical(), num_data=400)


def families() -> dict[str, FunctionPosterior]:
    torch.manual_seed(0)
    own, normed = problem(nn.ReLU(), nn.Dropout(0.3)), problem(nn.BatchNorm1d(WIDTH), nn.ReLU())
    theta, size, other = own.theta(), own.layout.size, normed.theta()
    std, factor = torch.full((size,), 0.1), 0.1 * torch.randn(size, 4)
    gaussian = DiagonalGaussian(own, theta, std)
    part = Part(torch.tensor([[0, size]]), std[None], torch.empty(0, 0), torch.empty(0, 0))
    statistics = {"1.running_mean": torch.randn(20, WIDTH), "1.running_var": torch.rand(20, WIDTH) + 0.5}
    found: dict[str, FunctionPosterior] = {
        "point": Point(own, theta),
        "diagonal Gaussian": gaussian,
        "low rank": LowRankGaussian(own, theta, std, factor),
        "full rank": FullRankGaussian(own, theta, 0.1 * torch.eye(size)),
        "Kronecker": KroneckerGaussian(own, theta, (part,)),
        "low-rank precision": LowRankPrecisionGaussian(own, theta, std, torch.eye(size)[:, :4], torch.full((4,), 0.5)),
        "dropout": Dropout(own, theta, {"2": 0.3}),
        "samples": Samples(own, theta + 0.1 * torch.randn(50, size)),
        "samples with statistics": Samples(normed, other + 0.1 * torch.randn(20, len(other)), statistics=statistics),
        "linearised": Linearised(own, gaussian),
        "linearised, probit": Linearised(own, gaussian, "probit"),
    }
    components = [found[name] for name in ("diagonal Gaussian", "point", "dropout", "linearised")]
    return {**found, "mixture": Mixture.of(components)}


def answer(posterior: FunctionPosterior, i: int) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    inputs = X[i % 200 : i % 200 + 20 * (1 + i % 10)]
    if i % 5 == 0:
        return posterity.average(posterior, inputs, DRAWS, generator=generator).mean
    if i % 5 == 1:
        return posterior.draw(inputs, DRAWS, generator=generator)
    return posterior.predict(inputs, DRAWS, generator=generator).mean


def state(posterior: FunctionPosterior) -> list[object]:
    network = posterior.problem.network
    tensors = [(p.data_ptr(), p.sum().item()) for p in [*network.parameters(), *network.buffers()]]
    return [*tensors, *((m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules())]


def pooled(job: Callable[[int], Tensor], count: int, threads: int) -> tuple[list[Tensor | Exception], float]:
    def tried(i: int) -> Tensor | Exception:
        try:
            return job(i)
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        found = list(pool.map(tried, range(count)))
    return found, time.perf_counter() - start


def measured(posterior: FunctionPosterior, count: int, threads: list[int]) -> dict:
    before = state(posterior)
    for i in range(10):
        answer(posterior, i)  # races are run, copies made
    start = time.perf_counter()
    serial = [answer(posterior, i) for i in range(count)]
    row: dict = {"serial": count / (time.perf_counter() - start), "wrong": 0, "exceptions": 0, "pooled": {}}
    for number in threads:
        found, seconds = pooled(lambda i: answer(posterior, i), count, number)
        row["pooled"][str(number)] = count / seconds
        row["exceptions"] += sum(isinstance(one, Exception) for one in found)
        pairs = [(a, b) for a, b in zip(found, serial, strict=True) if isinstance(a, Tensor)]
        row["wrong"] += sum(not torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    row["as it was"] = state(posterior) == before
    return row


def table(result: dict) -> str:
    rows, threads = result["rows"], result["pools"]
    wrong, failed = (sum(row[name] for row in rows.values()) for name in ("wrong", "exceptions"))
    lines = [
        "# Predictions from several threads",
        "",
        f"`python benchmarks/threads.py`: {result['requests']:,} requests a pool, of 20 to 200 rows and {DRAWS} functions, "
        f"round every family of posteriors, by `predict`, `draw` and `average`; {wrong} wrong, {failed} exceptions. An MLP "
        f"8-{WIDTH}-{CLASSES}, float32, {result['threads']} thread of torch's own. {result['machine']}; commit "
        f"{result['commit']}; {result['date']}.",
        "",
        "A request takes 0.4 to 4 ms here, most of it in the interpreter, which one thread has at a time: threads take turns "
        "by stretches of 10 ms (`core/threads.py`). Serial is a loop without a pool.",
        "",
        f"| | wrong | exceptions | network as it was | serial, 1/s | {' | '.join(f'{n} threads, 1/s' for n in threads)} |",
        "|---" * (5 + len(threads)) + "|",
    ]
    for name, row in rows.items():
        cells = [f"{row['pooled'][str(n)]:,.0f}" for n in threads]
        kept = "yes" if row["as it was"] else "no"
        lines.append(
            f"| {name} | {row['wrong']} | {row['exceptions']} | {kept} | {row['serial']:,.0f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    posteriors = families()
    count = -(-options.requests // len(posteriors))
    rows = {}
    for name, posterior in posteriors.items():
        rows[name] = measured(posterior, count, options.threads)
        print(name, rows[name], flush=True)
    result = {**provenance(), "requests": count * len(posteriors), "pools": options.threads, "rows": rows}
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table(result))
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
