"""Eighteen small tasks that are alike: two moons, each task's turned by an angle of its own, fifty points to learn from.

A network for each task alone (flat), networks whose weights come from one group (hierarchical), and networks alone again
whose prior is what the group was found to be (informative), after Wiecki (2018, "Hierarchical Bayesian Neural Networks with
Informative Priors"). Mean field at temperature 1, three seeds, some minutes on one CPU thread:

    python examples/rotated_moons.py            # docs/results/rotated_moons.json, the figure, the table of the page
    python examples/rotated_moons.py --seed 100 # the scores of one other seed, printed
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Mapping
from math import log, pi, prod
from pathlib import Path

import torch
from rotated_moons_data import POINTS, TASKS, Moons, best_possible, moons
from rotated_moons_figure import figure
from torch import Generator, Size, Tensor, nn

import posterity
from posterity import Bernoulli, Engine, HalfNormal, Informative, MeanField, Normal, Optimizer, Prior, TensorData
from posterity.bench.bound import Bounds
from posterity.core.layout import Layout
from posterity.methods.records import recorded
from posterity.metrics.scores import evaluate
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.predict.predictive import Classification
from posterity.types import Batch

DOCS = Path(__file__).parent.parent / "docs"
PAGE, NUMBERS, FIGURE = (
    DOCS / "studies" / "rotated_moons.md",
    DOCS / "results" / "rotated_moons.json",
    DOCS / "figures" / "rotated_moons.svg",
)
LAYERS = ((2, 5), (5, 5), (5, 1))
SIZES = [prod(layer) for layer in LAYERS]
SEEDS = (0, 1, 2)
DRAWS = 500
RESTARTS = 5
LAST = 100  # steps that a bound is averaged over
ALONE = MeanField(
    epochs=1500, draws=2, antithetic=True, initial_std=0.1, optimizer=Optimizer(lr=0.03, schedule="one_cycle")
)
METHOD = {
    "flat": ALONE,
    "hierarchical": MeanField(
        epochs=1500,
        draws=2,
        antithetic=True,
        initial_std=0.03,
        kl_schedule="warmup",
        warmup_epochs=800,
        optimizer=Optimizer(lr=0.1, schedule="one_cycle"),
    ),
    "informative": ALONE,
}
SIGMA = (0.02, 0.02, 1.5)  # of each layer, where the group's fit starts
COLUMNS = {"accuracy": (100, 2), "nll": (1, 3)}
TITLES = {
    "flat": "flat: N(0, 1)",
    "hierarchical": "hierarchical: N(μ, σ²), both inferred",
    "informative": "informative: N(m, C) of the group of all tasks",
    "informative, other tasks": "informative: N(m, C) of the group of the other nine",
}
BEFORE = {"flat": "83.78, 86.78", "hierarchical": "89.78, 91.11", "informative": "87.11, 91.56"}


class Networks(nn.Module):
    """A tanh network 2-5-5-1 without biases for each task; `weight` (tasks, 40) holds theirs, layer after layer."""

    def __init__(self, tasks: int = TASKS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tasks, sum(SIZES)))

    def weights(self) -> Tensor:
        return self.weight

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, task = inputs[:, :2], inputs[:, 2].long()  # (B, 2), (B,)
        layers = self.weights()[task].split(SIZES, dim=1)
        for depth, (flat, layer) in enumerate(zip(layers, LAYERS, strict=True)):
            hidden = hidden.tanh() if depth else hidden
            hidden = torch.einsum("bi,bio->bo", hidden, flat.view(-1, *layer))
        return hidden  # (B, 1): the logit of class 1


class Group(Networks):
    """Networks of one group: weight = mu + σ · raw, with one σ = e^log_sigma for each layer, shared by the tasks."""

    def __init__(self, tasks: int = TASKS) -> None:
        nn.Module.__init__(self)
        self.mu = nn.Parameter(torch.randn(sum(SIZES)))
        self.raw = nn.Parameter(0.1 * torch.randn(tasks, sum(SIZES)))
        self.log_sigma = nn.Parameter(torch.tensor(SIGMA).log())

    def weights(self) -> Tensor:
        return self.mu + each_weight(self.log_sigma.exp()) * self.raw


def each_weight(of_layer: Tensor) -> Tensor:
    """Repeat each layer's number for each of its weights: (..., 3) to (..., 40)."""
    return of_layer.repeat_interleave(torch.tensor(SIZES), dim=-1)


class LogScale(Prior):
    """s ~ HalfNormal(1) for a parameter u = log s: log p(u) = ½ log(2/π) − ½ e^(2u) + u, and with u ~ N(m, v²) its mean is
    ½ log(2/π) − ½ e^(2m + 2v²) + m, which spares mean field the noise of drawing it."""

    def log_prob(self, params: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([HalfNormal(1.0).log_prob(u).reshape(-1) for u in params.values()]).sum()

    def expected_log_prob(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]) -> Tensor:
        terms = [0.5 * log(2 / pi) - 0.5 * torch.exp(2 * m + 2 * std[n].square()) + m for n, m in mean.items()]
        return torch.cat([t.reshape(-1) for t in terms]).sum()

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> dict[str, Tensor]:
        return {n: HalfNormal(1.0).sample(torch.empty(s), generator).log() for n, s in shapes.items()}


GROUP = {"mu": Normal(0, 1), "raw": Normal(0, 1), "log_sigma": LogScale()}


def fit(network: Networks, train: Batch, prior: Prior | Mapping, method: MeanField, seed: int) -> DiagonalGaussian:
    bounds = Bounds()
    engine = Engine(seed=seed, device="cpu", progress=False, on_epoch=bounds)
    data = TensorData(*train, batch_size=len(train[1]))  # a step sees all points
    posterior = posterity.fit(network, data, likelihood=Bernoulli(), prior=prior, method=method, engine=engine)
    history = bounds.histories["fit"][-LAST:]  # one step each: two draws of the weights
    posterior.provenance["nelbo"] = statistics.fmean(row["nll"] + row["kl"] for row in history)
    return posterior


def fit_group(train: Batch, seed: int) -> DiagonalGaussian:
    """Fit the group from several random starts; keep what predicts the training points best."""
    starts = []
    for number in range(RESTARTS):
        torch.manual_seed(100 * seed + number)
        network = Group(tasks_in(train))
        starts.append(fit(network, train, GROUP, METHOD["hierarchical"], 100 * seed + number))
    return min(starts, key=lambda posterior: evaluate(predicted(posterior, train[0]), train[1])["nll"])


def tasks_in(batch: Batch) -> int:
    return len(batch[1]) // (POINTS // 2)


@torch.no_grad()
def prior_of(group: DiagonalGaussian, tasks: int, seed: int) -> Informative:
    """Make N(m, C) of a new task's weights the prior of each of `tasks` networks: m, C from w = mu + σ·ε, ε ~ N(0, I)."""
    generator = Generator().manual_seed(seed)
    layout = group.problem.layout
    draws = layout.views(torch.stack([group.sample(generator) for _ in range(20 * DRAWS)]))
    noise = torch.randn(draws["mu"].shape, generator=generator)
    weights = draws["mu"] + each_weight(draws["log_sigma"].exp()) * noise  # (draws, 40)
    values, vectors = torch.linalg.eigh(torch.cov(weights.T))
    floor = values[0] / 2  # C = floor · I + factor factorᵀ, exactly
    factor = vectors * (values - floor).sqrt()
    mean = weights.mean(0).repeat(tasks)
    return Informative(
        mean,
        torch.full_like(mean, float(floor) ** 0.5),
        Layout.of({"weight": torch.empty(tasks, sum(SIZES))}),
        torch.block_diag(*[factor] * tasks),
    )


def informed(group: DiagonalGaussian, train: Batch, seed: int) -> DiagonalGaussian:
    """Fit a network to each task alone under the group's prior, from a draw of it."""
    tasks = tasks_in(train)
    prior = prior_of(group, tasks, seed)
    network = Networks(tasks)
    network.load_state_dict(prior.sample({"weight": network.weight.shape}, Generator().manual_seed(seed)))
    return fit(network, train, prior, METHOD["informative"], seed)


def predicted(posterior: DiagonalGaussian, inputs: Tensor) -> Classification:
    return posterior.predict(inputs, DRAWS, generator=Generator().manual_seed(0))


def by_halves(data: Moons, seed: int) -> tuple[dict[str, Classification], float]:
    """Predict each half of the tasks with a prior that only the other half made; return the mean −ELBO, too."""
    found: dict[str, list[Tensor]] = {"train": [], "test": []}
    bounds = []
    for own, other in ((0, 1), (1, 0)):
        group = fit_group(half(data.train, other), seed)
        posterior = informed(group, half(data.train, own), seed)
        bounds.append(posterior.provenance["nelbo"])
        for part, probs in found.items():
            probs.append(predicted(posterior, half(getattr(data, part), own)[0]).probs)
    return {part: Classification(torch.cat(probs, dim=1)) for part, probs in found.items()}, statistics.fmean(bounds)


def half(batch: Batch, which: int) -> Batch:
    """Return the points of the first nine tasks, or of the last nine, numbered from 0."""
    inputs, targets = (t.chunk(2)[which] for t in batch)
    return inputs - torch.tensor([0.0, 0.0, which * TASKS / 2]), targets


def run(seed: int) -> tuple[dict, dict[str, DiagonalGaussian]]:
    """Fit the models to one draw of the tasks; return what goes into the table, and the posteriors."""
    data, start = moons(seed), time.perf_counter()
    torch.manual_seed(seed)
    flat = fit(Networks(), data.train, Normal(0, 1), METHOD["flat"], seed)
    group = fit_group(data.train, seed)
    posteriors = {"flat": flat, "hierarchical": group, "informative": informed(group, data.train, seed)}
    predictions = {
        name: {part: predicted(posterior, getattr(data, part)[0]) for part in ("train", "test")}
        for name, posterior in posteriors.items()
    }
    bounds = {name: posterior.provenance["nelbo"] for name, posterior in posteriors.items()}
    predictions["informative, other tasks"], bounds["informative, other tasks"] = by_halves(data, seed)
    scores = {
        name: {part: evaluate(prediction, getattr(data, part)[1]) for part, prediction in parts.items()}
        for name, parts in predictions.items()
    }
    for name, bound in bounds.items():
        scores[name]["train"]["nelbo"] = bound
    quantiles = sigmas(group).quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    result = {
        "seed": seed,
        "best possible": best_possible(data),
        "scores": {
            name: {part: {c: values[c] for c in (*COLUMNS, "nelbo") if c in values} for part, values in parts.items()}
            for name, parts in scores.items()
        },
        "sigma": quantiles.T.tolist(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return result, posteriors


@torch.no_grad()
def sigmas(group: DiagonalGaussian) -> Tensor:
    """Draw the std of each layer's weights over tasks, (draws, 3)."""
    generator = Generator().manual_seed(0)
    draws = torch.stack([group.sample(generator) for _ in range(2000)])
    return group.problem.layout.views(draws)["log_sigma"].exp()


def table(results: list[dict]) -> str:
    """One line per model: mean ± standard deviation over seeds, and what was measured before."""
    lines = [
        "| prior of a task's weights | test accuracy | test NLL | training accuracy | training NLL | −ELBO | before |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        cells = [
            spread([r["scores"][name][part][c] * scale for r in results], digits)
            for part in ("test", "train")
            for c, (scale, digits) in COLUMNS.items()
        ]
        bounds = [r["scores"][name]["train"].get("nelbo") for r in results]
        cells.append("not recorded" if None in bounds else spread(bounds, 3))
        lines.append(f"| {title} | {' | '.join(cells)} | {BEFORE.get(name, '')} |")
    lines.append(f"| *the two densities known* | {spread([100 * r['best possible'] for r in results], 2)} | | | | | |")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="print the scores of one seed, write nothing")
    only = parser.parse_args().seed
    torch.set_num_threads(1)
    results: list[dict] = []
    first: dict[str, DiagonalGaussian] = {}
    for seed in SEEDS if only is None else (only,):
        result, posteriors = run(seed)
        results.append(result)
        print(json.dumps(result), flush=True)
        first = first or posteriors
    print(table(results))
    if only is None:
        drawing = figure(moons(SEEDS[0]).train, first["flat"], first["hierarchical"], [r["sigma"] for r in results])
        drawing.savefig(FIGURE)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        about = {"torch": torch.__version__, "threads": 1, "commit": commit, "date": time.strftime("%Y-%m-%d")}
        methods = {name: recorded(method) for name, method in METHOD.items()}
        NUMBERS.write_text(json.dumps({**about, "methods": methods, "seeds": results}, indent=1) + "\n")
        before, _, rest = PAGE.read_text().partition("<!-- table -->\n")
        PAGE.write_text(
            before + "<!-- table -->\n" + table(results) + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
        )


if __name__ == "__main__":
    main()
