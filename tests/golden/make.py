"""Made the golden files beside it, once, with the version whose files they stand for: do not run it again.

A later version reads them and predicts what this one did: `expected.json`. A new family gets a file of its own by a script
of its own; these files stay as they are.
"""

import json
from pathlib import Path

import torch

import posterity
from posterity import Categorical, Engine, Gaussian, Normal, Problem
from posterity.model.hierarchical import Hierarchical
from posterity.posteriors.chains import Chains
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.posteriors.statistics import with_statistics
from tests.golden.networks import FILES, inputs, network

HERE = Path(__file__).parent
QUIET = Engine(progress=False)
torch.manual_seed(0)
X, Y = torch.randn(24, 2), torch.arange(24) % 2
VALUES = (X, torch.tanh(X[:, 0]) + 0.1 * torch.randn(24))
PROVENANCE = {"method": {"kind": "golden"}, "seed": 3, "log_evidence": -12.5}


def problem(name: str, where=None, prior=None, which: int = 0) -> Problem:
    own = network(name)[which].eval()
    kind = FILES[name][which]
    likelihood = Gaussian() if kind in ("values", "wide", "double") else Categorical()
    return Problem(own, prior or Normal(0, 1), likelihood, 24, where)


def diagonal(own: Problem, **more) -> DiagonalGaussian:
    count = own.coordinates.layout.size - own.coordinates.start
    std = torch.rand(count, dtype=own.theta().dtype) * 0.3 + 0.05
    return DiagonalGaussian(own, own.theta() + 0.1, std, provenance=dict(PROVENANCE), **more)


def fitted(name: str, method, data=None) -> posterity.posteriors.base.FunctionPosterior:
    own = network(name)[0]
    kind = FILES[name][0]
    given = data or ((X, Y) if kind in ("classes", "normalised", "dropped") else VALUES)
    given = tuple(v.double() for v in given) if kind == "double" else given
    likelihood = None if kind in ("classes", "normalised", "dropped") else Gaussian()
    return posterity.fit(own, given, method=method, likelihood=likelihood, engine=QUIET)


def few(own: Problem, count: int = 6) -> torch.Tensor:
    return own.theta() + 0.2 * torch.randn(count, own.layout.size, dtype=own.theta().dtype)


def posteriors() -> dict:
    made = {"point": Point(p := problem("point"), p.theta(), provenance=dict(PROVENANCE))}
    made["dropout"] = Dropout(p := problem("dropout"), p.theta(), {"1": 0.3, "3": 0.2})
    made["diagonal_gaussian"] = diagonal(problem("diagonal_gaussian"))
    made["diagonal_gaussian_of_a_part"] = diagonal(problem("diagonal_gaussian_of_a_part", where="2*"))
    earlier = diagonal(problem("point"))
    made["diagonal_gaussian_informed"] = diagonal(problem("point", prior=earlier.as_prior()))
    own = diagonal(problem("diagonal_gaussian_with_functions"))
    made["diagonal_gaussian_with_functions"] = with_statistics(own, (X, Y), 4)
    made["diagonal_gaussian_with_padding"] = diagonal(problem("diagonal_gaussian_with_padding"))
    made["diagonal_gaussian_fitted"] = fitted("diagonal_gaussian_fitted", posterity.MeanField(epochs=3))
    p = problem("low_rank_gaussian")
    own = diagonal(p)
    low = LowRankGaussian(p, own.loc, own.std, 0.2 * torch.randn(len(own.std), 2))
    made["low_rank_gaussian"] = low
    p = problem("low_rank_gaussian", prior=low.as_prior())
    made["low_rank_gaussian_informed"] = LowRankGaussian(p, own.loc, own.std, low.factor)
    p = problem("full_rank_gaussian")
    lower = torch.randn(p.layout.size, p.layout.size, dtype=torch.float64).tril() * 0.1
    lower.diagonal().copy_(torch.rand(p.layout.size) + 0.1)
    made["full_rank_gaussian"] = FullRankGaussian(p, p.theta(), lower)
    made["samples"] = Samples(p := problem("samples"), few(p))
    made["samples_with_statistics"] = with_statistics(Samples(p := problem("samples_with_statistics"), few(p)), (X, Y))
    made["samples_hierarchical"] = Samples(p := problem("samples", prior=Hierarchical()), few(p))
    p = problem("chains")
    made["chains"] = Chains(p, few(p), torch.randn(2, 3), torch.tensor([[0.0, 1, 0], [0, 0, 0]]))
    made |= laplaces() | mixtures(made)
    return made


def laplaces() -> dict:
    def one(name: str, structure: str, prediction: str):
        method = posterity.Laplace(posterity.MAP(epochs=20), structure=structure, prediction=prediction, rank=4)
        return fitted(name, method)

    return {
        "kronecker_gaussian": one("kronecker_gaussian", "kron", "sampled"),
        "low_rank_precision_gaussian": one("low_rank_precision_gaussian", "low_rank", "sampled"),
        "linearised": one("linearised", "kron", "linearised"),
        "linearised_diagonal": one("linearised_diagonal", "diag", "linearised"),
        "linearised_full": one("linearised_full", "full", "linearised"),
        "linearised_low_rank": one("linearised_low_rank", "low_rank", "linearised"),
    }


def mixtures(made: dict) -> dict:
    statistics = made["samples_with_statistics"]
    points = [Point(problem("samples_with_statistics").snapshot(), theta) for theta in statistics.thetas[:2]]
    mixed = Mixture.of([*points, made["diagonal_gaussian_with_functions"]])
    own = [Point(made["point"].problem, theta) for theta in few(made["point"].problem, 4)]
    networks = [
        diagonal(problem("mixture_of_networks", which=0)),
        Point(p := problem("mixture_of_networks", which=1), p.theta()),
    ]
    return {
        "mixture": mixed,
        "mixture_of_mixtures": Mixture.of([Mixture.of(own[:2]), Mixture.of(own[2:])]),
        "mixture_of_networks": Mixture.of(networks),
        "mixture_of_informed": Mixture.of([made["diagonal_gaussian_informed"], made["low_rank_gaussian_informed"]]),
    }


def expected(posterior, name: str) -> list:
    return posterior.draw(inputs(name), 4, generator=torch.Generator().manual_seed(1)).tolist()


if __name__ == "__main__":
    every = posteriors()
    assert every.keys() == FILES.keys(), every.keys() ^ FILES.keys()
    for name, posterior in every.items():
        posterior.save(HERE / f"{name}.safetensors")
    (HERE / "expected.json").write_text(json.dumps({n: expected(p, n) for n, p in every.items()}) + "\n")
