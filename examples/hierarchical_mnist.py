"""Flat or hierarchical? MNIST with a prior whose scales are given, and with one whose scales are inferred.

Two networks of a study by Wiecki (2016, "Bridging PyMC3 and Lasagne"), an MLP 784-800-800-10 and a CNN 32-32-256, with tanh.
Flat: w ~ N(0, 0.1²). Hierarchical: w ~ N(0, s²), s ~ HalfNormal(1), one s for each tensor. Mean field at temperature 1;
54,000 images to train on, 6,000 held out, the test set once, 32 draws of whole weights.

    python examples/hierarchical_mnist.py run mlp hierarchical --seed 0    # one fit, to its end
    python examples/hierarchical_mnist.py run mlp flat --recipe early      # stopped early, as this study first had it
    python examples/hierarchical_mnist.py page                             # docs/studies/hierarchical_mnist.md from all fits
"""

import argparse
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from hierarchical_mnist_page import figure, page
from torch import Tensor

import posterity
from posterity import Engine, HalfNormal, Hierarchical, MeanField, Normal, Optimizer, Prior, TensorData
from posterity.bench.machine import provenance
from posterity.bench.study import Record, read, write
from posterity.core.activation import Flipout, LocalReparam
from posterity.core.estimators import WeightDraw
from posterity.core.gaussian import inverse_softplus
from posterity.data import load
from posterity.metrics.scores import evaluate
from posterity.model.divergence import Divergence
from posterity.model.elbo import NegativeElbo
from posterity.model.noncentred import NonCentred
from posterity.model.priors import as_prior
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.zoo import MLP, SmallCNN

DOCS = Path(__file__).parent.parent / "docs"
RESULTS, PAGE = DOCS / "results" / "hierarchical", DOCS / "studies" / "hierarchical_mnist.md"
READING = RESULTS / "reading.md"  # by people who have read the tables
NETWORKS = {"mlp": lambda: MLP((784, 800, 800, 10), activation="tanh"), "cnn": SmallCNN}
ESTIMATORS = {"weight": WeightDraw, "local_reparam": LocalReparam, "flipout": Flipout}


@dataclass(frozen=True)
class Recipe:
    """How one network is fitted under one prior.

    Args:
        start: the initial std of each weight, and of log s.
        lr, std_lr: the steps of μ, and of ρ as a multiple of them.
        settle: epochs in the centred form after those of the non-centred one (see `settled`).
        best: whether the epoch that predicts the held-out images best is taken; otherwise the last is.
    """

    estimator: str
    epochs: int
    start: float
    lr: float
    std_lr: float
    settle: int = 0
    best: bool = False

    def method(self) -> MeanField:
        return MeanField(
            self.estimator,
            epochs=self.epochs,
            initial_std=self.start,
            std_lr=self.std_lr,
            optimizer=Optimizer(lr=self.lr, schedule="cosine"),
        )


PRIORS: dict[str, Prior] = {
    "flat": Normal(0, 0.1),
    "hierarchical": Hierarchical(scale=HalfNormal(1.0), per="tensor", centered=False, initial_std=0.1),
}
# Converged: ρ moves so fast that every std is where the ELBO wants it long before training ends. Early: stds start at 0.003 and
# hardly grow. Starts and steps are those of the weights, in both forms of the hierarchy.
RECIPES = {
    ("converged", "mlp", "flat"): Recipe("local_reparam", 10, 0.02, 1e-3, 10),
    ("converged", "mlp", "hierarchical"): Recipe("local_reparam", 8, 0.02, 1e-3, 30, settle=4),
    ("converged", "cnn", "flat"): Recipe("flipout", 4, 0.02, 1e-3, 10),
    ("converged", "cnn", "hierarchical"): Recipe("flipout", 4, 0.02, 1e-3, 30, settle=2),
    ("early", "mlp", "flat"): Recipe("local_reparam", 10, 0.003, 1e-3, 0.05, best=True),
    ("early", "mlp", "hierarchical"): Recipe("local_reparam", 10, 0.003, 5e-4, 0.1, best=True),
    ("early", "cnn", "flat"): Recipe("weight", 8, 0.003, 1.5e-3, 0.05, best=True),
    ("early", "cnn", "hierarchical"): Recipe("weight", 8, 0.003, 7.5e-4, 0.1, best=True),
}


def run(name: str, prior: str, recipe: str, seed: int) -> Record:
    """Train and test one network with one prior."""
    settings = RECIPES[recipe, name, prior]
    data = load("mnist", image_size=28).standardised()
    train = TensorData(data.train_inputs, data.train_targets, batch_size=128).split(0.1, seed=123)
    held_out = train.held_out
    if not settings.best:
        train = replace(train, held_out=None)
    torch.manual_seed(seed)
    histories: dict[str, list[Record]] = {}
    engine = Engine(
        seed=seed,
        device="cpu",
        validation_draws=4,
        on_epoch=lambda part, row: histories.setdefault(part, []).append(row),
    )
    start = time.perf_counter()
    posterior = posterity.fit(NETWORKS[name](), train, prior=PRIORS[prior], method=settings.method(), engine=engine)
    if settings.settle:
        posterior = settled(posterior, settings, train, engine.fork("centred"))
    seconds = time.perf_counter() - start
    scores = {}
    for part, (x, y) in {"validation": held_out, "test": (data.test_inputs, data.test_targets)}.items():
        scores[part] = evaluate(posterior.predict(x, 32, generator=torch.Generator().manual_seed(seed)), y)
    return {
        "network": name,
        "prior": prior,
        "recipe": recipe,
        "seed": seed,
        **scores,
        "seconds": round(seconds, 1),
        "tensors": tensors(posterior, train, settings.estimator),
        "histories": histories,
        "history": list(histories.values())[-1],
        "fit": posterior.provenance,
        **provenance(),
    }


def settled(posterior: DiagonalGaussian, recipe: Recipe, train: TensorData, engine: Engine) -> DiagonalGaussian:
    """Go on in the centred form, w instead of z = w/s, from the q of the non-centred one.

    The non-centred form finds scales fast: a step of log s moves all weights of a tensor. The centred one crawls, as s and the
    stds of the weights follow each other, but in it q(log s) can be what p(log s | w) is: its width begins at 1/√(2n).
    """
    where = posterior.problem.coordinates
    mean, std = where.layout.views(posterior.loc), where.layout.views(posterior.std)
    scales = {n: float(mean[f"prior.scale.{n}"].exp()) for n in where.random_names}
    prior = as_prior({n: Hierarchical(scale=HalfNormal(1.0), per="tensor", initial_std=s) for n, s in scales.items()})
    start = {n: s * std[n] for n, s in scales.items()}
    start |= {f"prior.scale.{n}": torch.tensor(2.0 * mean[n].numel()).rsqrt() for n in scales}
    method = replace(recipe.method(), epochs=recipe.settle, std_lr=10, optimizer=Optimizer(lr=1e-3, schedule="cosine"))
    problem = replace(posterior.problem, network=posterior.network(), prior=prior)
    return method.infer(problem, train, engine, initial=start)


def tensors(posterior: DiagonalGaussian, train: TensorData, estimator: str) -> dict[str, dict[str, float]]:
    """Of each tensor w = s·z (z = w, or with s = 1 its own prior): the root of E_q[mean w²], and what q says of s.

    `balance` is 1 + N·mean over the tensor of σ ∂nelbo/∂σ: 1 where its stds have arrived, near 0 where they are far too small.
    """
    where = posterior.problem.coordinates
    assert not where.start  # everything is random
    mean, std, balance = (
        where.layout.views(v) for v in (posterior.loc, posterior.std, balances(posterior, train, estimator))
    )
    found = {}
    for name in where.random_names:
        rms = (mean[name].square() + std[name].square()).mean().sqrt()
        row = {"count": mean[name].numel(), "rms": float(rms), "balance": float(balance[name].mean())}
        if (latent := f"prior.scale.{name}") in where.latents:
            draws = posterior.latents[latent].draws
            row |= {"scale": float(draws.mean()), "width": float(std[latent])}
            row["rms"] *= row["scale"] if where.noncentred else 1.0
        found[name] = row
    return found


@torch.no_grad()
def balances(posterior: DiagonalGaussian, train: TensorData, estimator: str, batches: int = 100) -> Tensor:
    """Return 1 + N·σ ∂nelbo/∂σ of each coordinate, (P,), averaged over batches of the training data."""
    problem, where = posterior.problem, posterior.problem.coordinates
    gradients = ESTIMATORS[estimator](where.params, where.start)
    elbo = NegativeElbo(NonCentred(gradients, where) if where.noncentred else gradients, Divergence.of(where))
    q = posterior.loc, inverse_softplus(posterior.std)
    out, total, generator = (
        tuple(torch.empty_like(v) for v in q),
        torch.zeros_like(q[1]),
        torch.Generator().manual_seed(0),
    )
    seen = list(islice(train.batches(0, generator), batches))
    for batch in seen:
        with torch.enable_grad():
            elbo.gradient(lambda batch=batch: problem.nll(batch)[0], q, 1 / problem.num_data, out, generator)
        total += out[1]
    return 1 + problem.num_data * posterior.std * total / len(seen) / torch.sigmoid(q[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("network", choices=NETWORKS)
    one.add_argument("prior", choices=PRIORS)
    one.add_argument("--recipe", choices=("converged", "early"), default="converged")
    one.add_argument("--seed", type=int, default=0)
    commands.add_parser("page")
    options = parser.parse_args()
    if options.command == "run":
        path = RESULTS / f"{options.network}-{options.prior}-{options.recipe}-{options.seed}.json"
        if path.exists():
            print(f"{path} is there.")
            return
        result = run(options.network, options.prior, options.recipe, options.seed)
        write(path, result)
        print(result["test"], f"{result['seconds']:.0f} s")
        return
    results = [read(path) for path in sorted(RESULTS.glob("*.json"))]
    about = " ".join((__doc__ or "").split("\n\n")[1].split("\n"))
    figure(results, DOCS / "figures" / "hierarchical_mnist.svg")
    PAGE.write_text(page(results, about, READING.read_text()))


if __name__ == "__main__":
    main()
