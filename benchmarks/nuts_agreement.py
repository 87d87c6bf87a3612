"""Whether our NUTS and NumPyro's sample the same posteriors: means and stds within 4 Monte-Carlo standard errors.

Targets, each written down twice, once for either program:
- `network`: 13-50-1 with tanh on the first split of Boston housing, 455 rows, noise 0.3, Normal(0, 0.3) prior; its outputs
  at the first 50 test inputs are compared.
- `schools`: eight schools, non-centred (Rubin 1981; Gelman 2006): mean, log τ and the eight η.
- `funnel`: v ~ N(0, 1), five x ~ N(0, e^v) (Neal 2003, milder); `banana`: a ~ N(0, 1), b ~ N(a²/2, ½²).

A difference is counted in standard errors of both sides together, √(MCSE² + MCSE′²); that of a std is by its delta method,
MCSE(x − mean)²/(2 std).

    python benchmarks/nuts_agreement.py --numpyro ENVIRONMENT/bin/python --out docs/results/nuts_agreement.md
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers import NumPyro
from torch import Tensor, nn

import posterity
from posterity import NUTS, Engine, Gaussian, Normal, Prior, TensorData
from posterity.bench.machine import provenance
from posterity.core.diagnostics import mcse, rhat
from posterity.data import load
from posterity.posteriors.chains import Chains
from posterity.types import Params

EFFECTS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)
NOISE, DEPTH = 0.3, 10


@dataclass(frozen=True)
class Run:
    """How long both run."""

    warmup: int
    draws: int
    accept: float
    chains: int = 4


RUNS = {
    "network": Run(300, 300, 0.8),
    "schools": Run(500, 1000, 0.9),
    "funnel": Run(500, 2000, 0.95),
    "banana": Run(500, 2000, 0.9),
}


def schools(w: Tensor) -> Tensor:
    """Mean ~ N(0, 5²), τ ~ HalfCauchy(5) by u = log τ with its Jacobian, η ~ N(0, 1), effects ~ N(mean + τη, errors²)."""
    mean, u, eta = w[0], w[1], w[2:]
    residuals = (EFFECTS.to(w) - mean - u.exp() * eta) / ERRORS.to(w)
    prior = -0.5 * (mean / 5).square() - torch.log1p((u.exp() / 5).square()) + u - 0.5 * eta.square().sum()
    return prior - 0.5 * residuals.square().sum()


def funnel(w: Tensor) -> Tensor:
    v, x = w[0], w[1:]
    return -0.5 * v.square() - 0.5 * (x.square().sum() * (-v).exp() + len(x) * v)


def banana(w: Tensor) -> Tensor:
    return -0.5 * w[0].square() - 2 * (w[1] - 0.5 * w[0].square()).square()


DENSITIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "schools": (schools, 10),
    "funnel": (funnel, 6),
    "banana": (banana, 2),
}


class Density(Prior):
    """A target as a prior."""

    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density

    def log_prob(self, params: Params) -> Tensor:
        return self.log_density(params["w"])

    def sample(self, shapes: Mapping[str, torch.Size], generator: torch.Generator | None = None) -> Params:
        raise NotImplementedError


class Constant(nn.Module):
    """A network whose parameters do nothing, so that its posterior is its prior."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.w[0] * x


def ours(name: str, run: Run) -> tuple[Tensor, Chains]:
    """Return the values that are compared, (chains, draws, K), and the posterior."""
    method = NUTS(
        chains=run.chains,
        warmup=run.warmup,
        draws=run.draws,
        target_accept=run.accept,
        max_depth=DEPTH,
        precision="float32" if name == "network" else "float64",
        compiled=True,
    )
    torch.manual_seed(0)
    if name == "network":
        data, network = load("uci/boston", split=0), nn.Sequential(nn.Linear(13, 50), nn.Tanh(), nn.Linear(50, 1))
        batches: Any = TensorData(data.train_inputs, data.train_targets, 455)
        prior: Prior = Normal(0, 0.3)
    else:
        density, size = DENSITIES[name]
        zeros = torch.zeros(4, 1, dtype=torch.float64)
        batches, network, prior = TensorData(zeros, zeros[:, 0], 4), Constant(size), Density(density)  # type: ignore[assignment]
    engine = Engine(progress=False, device="cpu")
    posterior = posterity.fit(
        network, batches, likelihood=Gaussian(std=NOISE), prior=prior, method=method, engine=engine
    )
    assert isinstance(posterior, Chains)
    return (outputs(posterior, data.test_inputs[:50]) if name == "network" else posterior.by_chain), posterior


def outputs(posterior: Chains, probes: Tensor) -> Tensor:
    network, layout = posterior.problem.network, posterior.problem.layout
    with torch.no_grad():
        rows = [torch.func.functional_call(network, layout.views(t), (probes,))[:, 0] for t in posterior.thetas]
    return torch.stack(rows).reshape(*posterior.energies.shape, -1)


def settings(name: str, run: Run) -> dict[str, Any]:
    """What NumPyro is told."""
    given: dict[str, Any] = {
        "warmup": run.warmup,
        "draws": run.draws,
        "chains": run.chains,
        "depth": DEPTH,
        "accept": run.accept,
        "seed": 0,
        "rehearse": False,
    }
    if name == "network":
        data = load("uci/boston", split=0)
        arrays = {"x": data.train_inputs, "y": data.train_targets, "probes": data.test_inputs[:50]}
        given |= {k: v.numpy() for k, v in arrays.items()} | {"noise": NOISE}
    return given


def moments(values: Tensor) -> dict[str, Tensor]:
    """Means and stds of (chains, draws, K), with their standard errors."""
    values = values.double()
    mean = values.mean((0, 1))
    squares = (values - mean).square()
    std = squares.mean((0, 1)).sqrt()
    return {"mean": mean, "mean_mcse": mcse(values), "std": std, "std_mcse": mcse(squares) / (2 * std)}


def compared(name: str, run: Run, python: Path) -> dict[str, Any]:
    started = time.perf_counter()
    with NumPyro(python, name, settings(name, run)) as process:
        own, posterior = ours(name, run)  # meanwhile NumPyro warms up
        version, drawn = process.read()["numpyro"], process.draw()
        peer = torch.as_tensor(process.values())
    a, b = moments(own), moments(peer)
    gaps = {
        k: (a[k] - b[k]).abs() / (a[f"{k}_mcse"].square() + b[f"{k}_mcse"].square()).sqrt() for k in ("mean", "std")
    }
    return {
        **vars(run),
        "values": own.shape[-1],
        "rhat": {"posterity": float(rhat(own).max()), "numpyro": float(rhat(peer.double()).max())},
        "divergences": {"posterity": int(posterior.divergent.sum()), "numpyro": drawn["divergences"]},
        "largest difference in MCSE": {k: float(v.max()) for k, v in gaps.items()},
        "beyond 2 MCSE": {k: float((v > 2).double().mean()) for k, v in gaps.items()},
        "posterity": {k: v.tolist() for k, v in a.items()},
        "numpyro": {k: v.tolist() for k, v in b.items()},
        "version": version,
        "seconds": time.perf_counter() - started,
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        "# NUTS agrees with NumPyro's\n",
        (__doc__ or "").split("    python")[0].strip() + "\n",
        "| target | values | draws each | mean: largest difference | std: largest difference | R-hat, ours · NumPyro's | "
        "divergences |\n|---|---|---|---|---|---|---|",
    ]
    for name, r in results["targets"].items():
        gap, rhats, diverged = r["largest difference in MCSE"], r["rhat"], r["divergences"]
        lines.append(
            f"| {name} | {r['values']} | {r['chains']} × {r['draws']} | {gap['mean']:.2f} MCSE | {gap['std']:.2f} MCSE | "
            f"{rhats['posterity']:.4f} · {rhats['numpyro']:.4f} | {diverged['posterity']} · {diverged['numpyro']} |"
        )
    version = next(iter(results["targets"].values()))["version"]
    lines.append(f"\nNumPyro {version}; {results['machine']}; commit {results['commit']}; {results['date']}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numpyro", type=Path, required=True, help="Python of an environment that has numpyro")
    parser.add_argument("--targets", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--chains", type=int, help="another number of them, for a short look")
    parser.add_argument("--transitions", type=int, nargs=2, help="other numbers of warm-up transitions and draws")
    parser.add_argument("--out", type=Path, help="a Markdown file to write, with a JSON file beside it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {**provenance(), "targets": {}}
    for name in given.targets:
        warmup, draws = given.transitions or (RUNS[name].warmup, RUNS[name].draws)
        run = Run(warmup, draws, RUNS[name].accept, given.chains or RUNS[name].chains)
        results["targets"][name] = compared(name, run, given.numpyro)
        print(table(results), flush=True)
        if given.out:
            given.out.write_text(table(results))
            given.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
