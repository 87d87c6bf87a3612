"""Whether a learnt noise level arrives at the truth: every method on lines with noise of 0.01, 0.1 and 1.

    python benchmarks/noise.py run                 # resumable: a record for each fit; --only METHOD, --networks, --doors
    python benchmarks/noise.py page                # docs/results/noise.md

y = 2x + 1 + noise · N(0, 1), x ~ N(0, 1), 300 rows, `Gaussian()`, by `fit` and by `BayesianRegressor`. Options are each
method's own, but for epochs: those of methods that are made for images would be sixty steps here.
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from posterity import MAP, MLE, Engine, Ensemble, Gaussian, InvalidInput, Laplace, MeanField, TensorData, fit
from posterity.bench.machine import provenance
from posterity.bench.study import read, write
from posterity.data.locate import cache_folder
from posterity.methods import (
    HMC,
    IVON,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    FullRank,
    LowRank,
    MCDropout,
    Microcanonical,
    Refine,
    SampledEnsemble,
)
from posterity.posteriors.base import FunctionPosterior
from posterity.sklearn import BayesianRegressor
from posterity.storage import replace_text
from posterity.zoo import MLP

DOCS = Path(__file__).parent.parent / "docs" / "results"
NOISES = (0.01, 0.1, 1.0)
ROWS, BATCH, EPOCHS = 300, 150, 600
STD = "likelihood.std"
WITHIN = 0.1  # of the truth

METHODS: dict[str, Any] = {
    "MAP": MAP(epochs=EPOCHS),
    "MLE": MLE(epochs=EPOCHS),
    "mean field, weight": MeanField("weight", epochs=EPOCHS),
    "mean field, local_reparam": MeanField("local_reparam", epochs=EPOCHS),
    "mean field, flipout": MeanField("flipout", epochs=EPOCHS),
    "low rank": LowRank(epochs=EPOCHS),
    "full rank": FullRank(epochs=EPOCHS),
    "IVON": IVON(epochs=EPOCHS),
    "SWAG": SWAG(epochs=EPOCHS),
    "Laplace": Laplace(MAP(epochs=EPOCHS)),
    "MC dropout": MCDropout(0.01, epochs=EPOCHS),
    "SGLD": SGLD(epochs=EPOCHS),
    "SGLD, rmsprop": SGLD(epochs=EPOCHS, lr=3e-3, preconditioner="rmsprop"),
    "SGHMC": SGHMC(epochs=EPOCHS),
    "cyclical": Cyclical(SGHMC(epochs=EPOCHS, lr=0.03, draws=24)),
    "HMC": HMC(chains=2, warmup=200, draws=200),
    "NUTS": NUTS(chains=2, warmup=200, draws=200),
    "microcanonical": Microcanonical(),
    "refine": Refine(Microcanonical(warmup=60, draws=60), after=MLE(epochs=EPOCHS)),
    "sampled ensemble": SampledEnsemble(),
    "ensemble of MAP": Ensemble(MAP(epochs=EPOCHS), 3),
}


def line(noise: float, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return inputs (N, 1), targets (N,), and the std that least squares leaves of them."""
    generator = Generator().manual_seed(seed)
    x = torch.randn(ROWS, 1, generator=generator)
    y = 2 * x.squeeze() + 1 + noise * torch.randn(ROWS, generator=generator)
    columns = torch.cat([x, torch.ones_like(x)], 1).double()
    left = y.double() - columns @ torch.linalg.lstsq(columns, y.double()[:, None]).solution.squeeze()
    return x, y, float((left.square().sum() / (ROWS - 2)).sqrt())


def level(posterior: FunctionPosterior) -> float:
    """Return the median of the noise level's draws; a noise that was tuned is no latent."""
    if STD not in posterior.problem.coordinates.latents:
        return float(posterior.problem.likelihood.std)
    return float(posterior.latent_draws(400, Generator().manual_seed(0))[STD].double().median())


def networks(name: str, columns: int = 1, outputs: int = 1) -> nn.Module:
    return nn.Linear(columns, outputs) if name == "line" else MLP((columns, 20, outputs))


def fitted(method: Any, network: str, door: str, data: tuple[Tensor, Tensor], seed: int) -> tuple[float, list[str]]:
    """Return the learnt noise level in units of the targets, and the remarks on the fit."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if door == "fit":
            engine = Engine(progress=False, seed=seed, device="cpu")
            found = fit(
                networks(network),
                TensorData(*data, batch_size=BATCH),
                likelihood=Gaussian(),
                method=method,
                engine=engine,
            )
            return level(found), found.provenance["remarks"]
        model = BayesianRegressor(
            method,
            likelihood=Gaussian(),
            network=lambda columns, outputs: networks(network, columns, outputs),
            batch_size=BATCH,
            random_state=seed,
            device="cpu",
        )
        model.fit(data[0].numpy(), data[1].numpy())
        return level(model.posterior_) * float(model.target_std_), model.posterior_.provenance["remarks"]


def run(given: argparse.Namespace) -> None:
    for place, (title, method) in enumerate(METHODS.items()):
        for network, door, noise in product(given.networks, given.doors, given.noises):
            path = given.folder / f"{place:02d}_{network}_{door}_{noise:g}_{given.seed}.json"
            if (given.only and given.only not in title) or path.exists():
                continue
            x, y, left = line(noise, given.seed)
            started = time.process_time()
            try:
                std, remarks = fitted(method, network, door, (x, y), given.seed)
            except InvalidInput as error:  # a line has no layer to drop from
                print(title, network, door, noise, error, flush=True)
                continue
            kinds = [getattr(remark, "kind", "") for remark in remarks]
            found = {"method": title, "network": network, "door": door, "noise": noise, "seed": given.seed, "std": std}
            found |= {"left": left, "remarks": kinds, "seconds": time.process_time() - started}
            write(path, {**found, **provenance()})
            print(title, network, door, noise, round(std / left, 3), kinds, round(found["seconds"], 1), flush=True)


def page(folder: Path) -> str:
    """Write the table, and keep all records in one file beside it."""
    kept = DOCS / "noise.json"
    records = [read(path) for path in sorted(folder.glob("*.json"))] or json.loads(kept.read_text("utf-8"))
    replace_text(kept, json.dumps(records, indent=0, sort_keys=True) + "\n")
    lines = [
        "# Whether a learnt noise level arrives",
        "",
        "`python benchmarks/noise.py run`, so far of the rows that are here, then `… page`. "
        + "; ".join(sorted({f"{r['machine']}, {r['threads']} thread" for r in records}))
        + f"; {', '.join(sorted({r['date'] for r in records}))}.",
        "",
        f"y = 2x + 1 + noise · N(0, 1), {ROWS} rows, `Gaussian()`: the learnt std over what least squares leaves of the rows.",
        "In brackets the kinds of the remarks that the fit gave; **bold** is off by more than a tenth and says nothing.",
        "",
        "| method | network | by | " + " | ".join(f"{noise:g}" for noise in NOISES) + " |",
        "|---" * (3 + len(NOISES)) + "|",
    ]
    for title in METHODS:
        for network, door in product(("line", "network"), ("fit", "estimator")):
            rows = {r["noise"]: r for r in records if (r["method"], r["network"], r["door"]) == (title, network, door)}
            if rows:
                cells = [_cell(rows.get(noise)) for noise in NOISES]
                lines.append(f"| {title} | {network} | {door} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    share, kinds = record["std"] / record["left"], record["remarks"]
    if kinds:
        return f"{share:.3g} ({', '.join(kinds)})"
    return f"{share:.3g}" if abs(share - 1) <= WITHIN else f"**{share:.3g}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--only", default="")
    parser.add_argument("--networks", nargs="+", default=["line", "network"])
    parser.add_argument("--doors", nargs="+", default=["fit", "estimator"])
    parser.add_argument("--noises", nargs="+", type=float, default=NOISES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=cache_folder() / "noise")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        run(given)
    else:
        replace_text(DOCS / "noise.md", page(given.folder))


if __name__ == "__main__":
    main()
