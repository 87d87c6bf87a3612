"""How many gradients of the log joint HMC and NUTS compute in a second, and what their draws are worth.

A 13-50-1 network with tanh, 455 points, full batch, one thread: Gaussian noise of std 0.3, Normal(0, 0.3) prior. `gradient`
is one evaluation of log π and ∇ log π; `NUTS` are leapfrog steps within transitions, trees, adaptation and bookkeeping
included, once in each precision; effective sample sizes are of functions, the least of 50 probes.

    python benchmarks/nuts.py --seconds 10
"""

import argparse
import time

import torch
from torch import nn

from posterity import NUTS, Gaussian, Normal, Problem
from posterity.core.diagnostics import ess_bulk
from posterity.core.hamiltonian import differentiated
from posterity.methods.hamiltonian import HamiltonianInference
from posterity.train.random import NamedStreams
from posterity.types import Batch

MOST = 2000  # transitions


def problem() -> tuple[Problem, Batch]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(13, 50), nn.Tanh(), nn.Linear(50, 1))
    x = torch.randn(455, 13)
    y = torch.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * torch.randn(455)
    return Problem(network, Normal(0, 0.3), Gaussian(std=0.3), 455), (x, y)


def gradients_per_second(precision: str, seconds: float) -> float:
    own, batch = problem()
    inference = HamiltonianInference(own, NUTS(precision=precision))
    dtype = getattr(torch, precision)
    theta, data = own.theta().to(dtype), (batch[0].to(dtype), batch[1].to(dtype))
    count, started = 0, time.perf_counter()
    while (now := time.perf_counter() - started) < seconds:
        differentiated(lambda t: inference.working.log_joint(t, data), theta)
        count += 1
    return count / now


def sampling(precision: str, seconds: float) -> tuple[float, float, float]:
    """Return gradients per second, effective draws per 1,000 gradients, and those per second, after a short warm-up."""
    own, (x, y) = problem()
    method = NUTS(chains=1, warmup=100, draws=MOST, precision=precision, max_depth=8)
    inference = HamiltonianInference(own, method)
    dtype = getattr(torch, precision)
    state, batch = inference.init(NamedStreams(0, "benchmark")), (x.to(dtype), y.to(dtype))
    transition, steps = method.transition, [0]

    def counted(*arguments: object) -> object:
        moved = transition(*arguments)
        steps[0] += moved.steps
        return moved

    object.__setattr__(method, "transition", counted)
    for _ in range(method.warmup):
        inference.update(state, batch)
    kept, steps[0], started = 0, 0, time.perf_counter()
    while kept < MOST and (kept < 20 or time.perf_counter() - started < seconds):
        inference.update(state, batch)
        kept += 1
    elapsed = time.perf_counter() - started
    probes = x[:50]
    with torch.no_grad():
        functions = [
            torch.func.functional_call(own.network, own.layout.views(t), (probes,)) for t in state["thetas"][:kept]
        ]
    effective = float(ess_bulk(torch.stack(functions)[None]).min())
    return steps[0] / elapsed, 1000 * effective / steps[0], effective / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="for each measurement, after warm-up")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    print("| | gradients/s | ESS per 1,000 gradients | ESS/s |\n|---|---|---|---|")
    for precision in ("float32", "float64"):
        print(f"| gradient, {precision} | {gradients_per_second(precision, seconds / 4):,.0f} | | |", flush=True)
        rate, per_gradient, per_second = sampling(precision, seconds)
        print(f"| NUTS, {precision} | {rate:,.0f} | {per_gradient:.1f} | {per_second:.1f} |", flush=True)


if __name__ == "__main__":
    main()
