"""How many gradients of the log joint NUTS computes in a second, and what its draws are worth; beside NumPyro's.

A 13-50-1 network with tanh, 455 points, full batch, float32, one thread, one chain: Gaussian noise of std 0.3, Normal(0, 0.3)
prior. All take turns in one run: plain steps, compiled steps, and NumPyro's NUTS on the same data, in a process of its own.
Gradients are leapfrog steps within transitions, trees and bookkeeping included; effective sample sizes are those of the
network's outputs at 50 probes, of all draws together. The plain sampler starts from what the compiled one has learnt.

    python benchmarks/nuts.py --numpyro ENVIRONMENT/bin/python --out docs/results/nuts.md
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from peers import NumPyro
from torch import Tensor, nn

from posterity import NUTS, Gaussian, Normal, Problem
from posterity.bench.machine import provenance
from posterity.core.diagnostics import ess_bulk, rhat
from posterity.core.hamiltonian import Transition
from posterity.methods.hamiltonian import HamiltonianInference
from posterity.train.random import NamedStreams
from posterity.types import Batch

NOISE, DEPTH, MOST = 0.3, 10, 4000


def problem() -> tuple[Problem, Batch]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(13, 50), nn.Tanh(), nn.Linear(50, 1))
    x = torch.randn(455, 13)
    y = torch.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * torch.randn(455)
    return Problem(network, Normal(0, 0.3), Gaussian(std=NOISE), 455), (x, y)


class Ours:
    """One chain, whose transitions are counted and timed."""

    def __init__(self, warmup: int, compiled: bool) -> None:
        self.problem, self.batch = problem()
        self.method = NUTS(chains=1, warmup=warmup, draws=MOST, precision="float32", max_depth=DEPTH, compiled=compiled)
        self.inference = HamiltonianInference(self.problem, self.method)
        self.state = self.inference.init(NamedStreams(0, "benchmark"))
        self._transition, self._gradients = self.method.transition, 0
        object.__setattr__(self.method, "transition", self._counted)

    def _counted(self, *arguments: Any) -> Transition:
        moved = self._transition(*arguments)
        self._gradients += moved.steps
        return moved

    def advance(self, transitions: int, seconds: float = float("inf")) -> dict[str, float]:
        """Make so many transitions, or fewer where the time is over."""
        self._gradients, count, started, processor = 0, 0, time.perf_counter(), time.process_time()
        while count < transitions and time.perf_counter() - started < seconds:
            self.inference.update(self.state, self.batch)
            count += 1
        return {
            "gradients": self._gradients,
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - processor,
        }

    def step_seconds(self, steps: int = 500) -> float:
        """Processor time of one leapfrog step alone: the least of five attempts."""
        system = self.inference._system(self.state, self.batch, 0)
        point = system.kicked(system.position(self.state["theta"][0]), None)
        attempts = []
        for _ in range(5):
            started = time.process_time()
            for _ in range(steps // 5):
                system.leapfrog(point, 1e-3)
            attempts.append((time.process_time() - started) / (steps // 5))
        return min(attempts)

    def values(self) -> Tensor:
        """The outputs at the probes, (1, draws, 50)."""
        thetas = self.state["thetas"][: int(self.state["step"]) - self.method.warmup]
        with torch.no_grad():
            outputs = [
                torch.func.functional_call(self.problem.network, self.problem.layout.views(t), (self.batch[0][:50],))
                for t in thetas
            ]
        return torch.stack(outputs)[None, :, :, 0]


def settings(warmup: int, draws: int) -> dict[str, Any]:
    x, y = problem()[1]
    data = {"x": x.numpy(), "y": y.numpy(), "probes": x[:50].numpy(), "noise": NOISE}
    number = {"warmup": warmup, "draws": draws, "chains": 1, "depth": DEPTH, "accept": 0.8, "seed": 0, "rehearse": True}
    return {**number, **data}


def row(rounds: list[dict[str, float]], values: Tensor) -> dict[str, float]:
    """Summarise: the median round's gradients per second; effective draws of all rounds together."""
    gradients, seconds = (sum(r[k] for r in rounds) for k in ("gradients", "seconds"))
    effective = ess_bulk(values)
    rate = statistics.median(r["gradients"] / r["seconds"] for r in rounds)
    per_gradient = {"least": float(effective.min()) / gradients, "median": float(effective.median()) / gradients}
    return {
        "draws": values.shape[1],
        "gradients per draw": gradients / values.shape[1],
        "gradients/s": rate,
        "gradients per second of processor time": gradients / sum(r["processor_seconds"] for r in rounds),
        "ESS per 1,000 gradients, least": 1000 * per_gradient["least"],
        "ESS per 1,000 gradients, median": 1000 * per_gradient["median"],
        "ESS/s, least": rate * per_gradient["least"],
        "ESS/s, median": rate * per_gradient["median"],
        "R-hat, largest": float(rhat(values).max()),
        "seconds": seconds,
    }


def measured(python: Path, warmup: int, draws: int, rounds: int) -> dict[str, Any]:
    compiled, plain = Ours(warmup, True), Ours(warmup, False)
    times: dict[str, list[dict[str, float]]] = {"compiled": [], "plain": [], "NumPyro": []}
    with NumPyro(python, "network", settings(warmup, draws)) as peer:  # both warm up at once; what is timed takes turns
        compiled.advance(warmup)
        plain.state = {k: v.clone() for k, v in compiled.state.items()}
        version = peer.read()["numpyro"]
        for _ in range(rounds):
            times["compiled"].append(compiled.advance(draws))
            times["NumPyro"].append(peer.draw())
            times["plain"].append(plain.advance(draws, seconds=times["compiled"][-1]["seconds"]))
            print({k: f"{v[-1]['gradients'] / v[-1]['seconds']:,.0f}/s" for k, v in times.items()}, flush=True)
        drawn = {"compiled": compiled.values(), "plain": plain.values(), "NumPyro": torch.as_tensor(peer.values())}
    rows = {name: row(times[name], drawn[name]) for name in times}
    steps = {"compiled": compiled.step_seconds(), "plain": plain.step_seconds()}
    return {**provenance(), "numpyro": version, "warmup": warmup, "rows": rows, "step_seconds": steps, "rounds": times}


def table(result: dict[str, Any]) -> str:
    rows, peer = result["rows"], result["rows"]["NumPyro"]
    lines = [
        "# NUTS, beside NumPyro's\n",
        (__doc__ or "").split("    python")[0].strip() + "\n",
        f"{len(result['rounds']['compiled'])} interleaved rounds after {result['warmup']} transitions of warm-up; gradients "
        "per second of the median round. Where a machine does other work, seconds of processor time say more than rates. "
        f"{result['machine']}; NumPyro {result['numpyro']}; commit {result['commit']}; {result['date']}.\n",
        "| | gradients/s | to NumPyro's | per processor second | to NumPyro's | ESS/s, least · median | to NumPyro's | "
        "ESS per 1,000 gradients | draws | gradients per draw | R-hat |\n|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        label = name if name == "NumPyro" else f"`NUTS(compiled={name == 'compiled'})`"
        processor = "gradients per second of processor time"
        ess = [r[f"ESS/s, {k}"] / peer[f"ESS/s, {k}"] for k in ("least", "median")]
        lines.append(
            f"| {label} | {r['gradients/s']:,.0f} | {r['gradients/s'] / peer['gradients/s']:.2f} | "
            f"{r[processor]:,.0f} | {r[processor] / peer[processor]:.2f} | "
            f"{r['ESS/s, least']:.1f} · {r['ESS/s, median']:.1f} | {ess[0]:.2f} · {ess[1]:.2f} | "
            f"{r['ESS per 1,000 gradients, least']:.1f} · {r['ESS per 1,000 gradients, median']:.1f} | {r['draws']} | "
            f"{r['gradients per draw']:.0f} | {r['R-hat, largest']:.3f} |"
        )
    steps = {k: 1e6 * v for k, v in result["step_seconds"].items()}
    whole = {k: 1e6 / rows[k]["gradients per second of processor time"] for k in steps}
    lines.append(
        "\nWhere the time goes, in µs of processor time for each gradient: "
        + "; ".join(f"{k}, {steps[k]:.0f} in the step and {whole[k] - steps[k]:.0f} in all else" for k in steps)
        + ". All else is the tree: dot products that tell whether it turns, choices, and what surrounds a transition."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numpyro", type=Path, required=True, help="Python of an environment that has numpyro")
    parser.add_argument("--warmup", type=int, default=300, help="transitions before what is measured")
    parser.add_argument("--draws", type=int, default=100, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a Markdown file to write, with a JSON file beside it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(given.numpyro, given.warmup, given.draws, given.rounds)
    print(table(result))
    if given.out:
        given.out.write_text(table(result))
        given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
