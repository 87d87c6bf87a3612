"""Weights, missing targets, ignored and soft labels: a whole number is so many equal data, 0 and NaN are no datum."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from posterity import (
    IVON,
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Bernoulli,
    Categorical,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    HeteroscedasticGaussian,
    Laplace,
    LowRank,
    MeanField,
    Normal,
    Problem,
    Refine,
    TensorData,
    fit,
)
from posterity.errors import InvalidInput, PosterityWarning
from posterity.likelihoods import Gamma, Likelihood, NegativeBinomial, Ordinal, Poisson, StudentT
from posterity.methods.hamiltonian import FullBatch
from posterity.metrics import evaluate
from posterity.train.batches import LoaderData, as_data
from posterity.weighing import log_probs, size

pytestmark = pytest.mark.filterwarnings("ignore::posterity.errors.PosterityWarning")
ENGINE = Engine(progress=False, device="cpu")
G = torch.Generator().manual_seed(0)
X = torch.randn(12, 2, generator=G, dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.3 * torch.randn(12, generator=G, dtype=torch.float64)
W = torch.tensor([0, 1, 2, 3, 1, 1, 2, 0, 1, 1, 4, 1])
AGAIN = torch.repeat_interleave(torch.arange(12), W)
LABELS = torch.arange(12) % 3


def linear(width: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, width).double()


def fitted(data: Any, method: Any, likelihood: Any = None, width: int = 1) -> Any:
    likelihood = likelihood or Gaussian(std=0.5)
    return fit(linear(width), data, likelihood=likelihood, prior=Normal(0, 1), method=method, engine=ENGINE)


FAMILIES: dict[str, tuple[Likelihood, int, Any]] = {
    "gaussian": (Gaussian(), 1, Y),
    "several": (Gaussian(initial_std=(0.5, 2.0)), 2, torch.stack([Y, 2 * Y], 1)),
    "shared": (Gaussian(shared=True), 2, torch.stack([Y, 2 * Y], 1)),
    "heteroscedastic": (HeteroscedasticGaussian(), 2, Y),
    "student": (StudentT(), 1, Y),
    "counts": (NegativeBinomial(), 1, LABELS.double()),
    "poisson": (Poisson(), 2, torch.stack([LABELS, LABELS + 1], 1).double()),
    "gamma": (Gamma(), 1, Y.exp()),
    "grades": (Ordinal(3), 1, LABELS),
    "classes": (Categorical(), 3, LABELS),
    "binary": (Bernoulli(), 1, LABELS % 2),
    "soft": (Categorical(), 3, functional.one_hot(LABELS, 3) * 0.7 + 0.1),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("structure", "curvature"), [("full", "ggn"), ("kron", "fisher")])
def test_whole_weights_are_repeated_data_in_density_and_curvature(family: str, structure: Any, curvature: Any) -> None:
    likelihood, width, targets = FAMILIES[family]
    method = Laplace(None, structure, curvature=curvature)
    one = fitted(TensorData(X, targets, weights=W), method, likelihood, width)
    other = fitted((X[AGAIN], targets[AGAIN]), method, likelihood, width)
    assert one.problem.num_data == len(AGAIN)
    assert one.problem.likelihood == other.problem.likelihood
    assert one.log_evidence == pytest.approx(other.log_evidence, rel=1e-9)
    theta = one.mean
    own = one.problem.log_joint(theta, (X, targets, W.double()))
    torch.testing.assert_close(own, other.problem.log_joint(theta, (X[AGAIN], targets[AGAIN])))


FEW: dict[str, Any] = {
    "map": MAP(epochs=3),
    "mean_field": MeanField(epochs=3),
    "full_rank": FullRank(epochs=3),
    "low_rank": LowRank(1, epochs=3),
    "ivon": IVON(epochs=3),
    "swag": SWAG(epochs=4, rank=2),
    "sgld": SGLD(epochs=8, draws=2),
    "sghmc": SGHMC(epochs=8, draws=2),
    "cyclical": Cyclical(SGLD(epochs=40, draws=2), cycles=2),
    "ensemble": Ensemble(MAP(epochs=2), 2),
    "refine": Refine(MeanField(epochs=2), after=MAP(epochs=2)),
    "laplace": Laplace(MAP(epochs=3)),
}


@pytest.mark.parametrize("method", FEW)
def test_every_method_takes_the_same_steps_by_weights_and_by_repeated_data(method: str) -> None:
    one = fitted(TensorData(X, Y, 100, weights=W), FEW[method], Gaussian())
    other = fitted(TensorData(X[AGAIN], Y[AGAIN], 100), FEW[method], Gaussian())
    seed = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(2):
        torch.testing.assert_close(one.sample(seed[0]), other.sample(seed[1]), rtol=1e-7, atol=1e-9)


def test_batches_of_an_epoch_add_up_to_the_whole_and_hamiltonian_methods_take_it() -> None:
    data = TensorData(X, Y, 5, weights=W / 2)
    problem = Problem(linear(), Normal(0, 1), Gaussian(std=0.5), data.num_data, mean_batch_size=data.mean_batch_size)
    parts = [problem.nll(batch)[0] for batch in data.batches(0, torch.Generator().manual_seed(0))]
    whole = log_probs(problem.predict(X), (X, Y, W / 2)).sum()
    torch.testing.assert_close(torch.stack(parts).mean() * problem.num_data, -whole)
    taken = FullBatch.of(problem, data, 10, torch.float64)
    assert float(size(taken.batch)) == float(W.sum()) / 2
    expected = whole + problem.log_prior(problem.theta())
    torch.testing.assert_close(problem.log_joint(problem.theta(), taken.batch), expected)


@pytest.mark.parametrize("loader", [False, True])
def test_a_missing_target_is_no_datum(loader: bool) -> None:
    targets = Y.clone()
    targets[[2, 5, 11]] = math.nan
    known = ~targets.isnan()
    data: Any = DataLoader(TensorDataset(X, targets), 12) if loader else (X, targets)
    other = fitted((X[known], Y[known]), Laplace(None, "full"), Gaussian())
    with pytest.warns(PosterityWarning, match=r"3 of 12 targets are missing \(NaN\)"):
        found = fitted(data, MAP(epochs=1), Gaussian())
    assert loader or found.problem.num_data == 9
    found = fitted(data, Laplace(None, "full"), Gaussian())
    assert found.problem.likelihood == other.problem.likelihood
    assert found.log_evidence == pytest.approx(other.log_evidence, rel=1e-9)


@pytest.mark.parametrize("family", ["several", "poisson"])
def test_a_missing_number_is_that_number_alone(family: str) -> None:
    likelihood, _, targets = FAMILIES[family]
    likelihood = type(likelihood)()
    some = targets.clone()
    some[1, 0] = some[4, 1] = some[7] = math.nan
    both = fitted((X, some), Laplace(None, "full"), likelihood, 2)
    total = 0.0
    for column in range(2):
        known = ~some[:, column].isnan()
        network = nn.Linear(2, 1).double()
        wide = linear(2)
        network.load_state_dict({n: p[column : column + 1].detach() for n, p in wide.named_parameters()})
        data = X[known], targets[known, column]
        method = Laplace(None, "full")
        total += fit(
            network, data, likelihood=likelihood, prior=Normal(0, 1), method=method, engine=ENGINE
        ).log_evidence
    assert both.log_evidence == pytest.approx(total, rel=1e-9)


def test_a_loader_of_triples_says_that_it_is_weighted() -> None:
    triples = DataLoader(TensorDataset(X, Y, W.double()), 5)
    with pytest.raises(InvalidInput, match=r"LoaderData\(loader, weighted=True\)"):
        fitted(triples, MAP(epochs=1))
    with pytest.raises(InvalidInput, match=r"TensorData\(data\[0\], data\[1\], weights=data\[2\]\)"):
        fitted((X, Y, W), MAP(epochs=1))
    source = as_data(LoaderData(triples, weighted=True))
    assert source.num_data == pytest.approx(float(W.sum()))
    found = fitted(LoaderData(triples, weighted=True), Laplace(None, "full"))
    other = fitted(TensorData(X, Y, weights=W), Laplace(None, "full"))
    assert found.log_evidence == pytest.approx(other.log_evidence, rel=1e-9)
    with pytest.raises(InvalidInput, match="a batch must be \\(inputs, targets, weights\\)"):
        as_data(LoaderData(DataLoader(TensorDataset(X, Y), 5), weighted=True))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (torch.ones(3), "give one for each"),
        (torch.ones(12, 1), "give one for each"),
        (-torch.ones(12), "Weight 0 is -1.*at least 0"),
        (torch.full((12,), math.nan), "Weight 0 is nan"),
        (torch.zeros(12), "All weights are 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights: torch.Tensor, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        TensorData(X, Y, weights=weights)


def test_weights_that_leave_nothing_of_the_data_are_said() -> None:
    with pytest.warns(PosterityWarning, match="The weights of 12 data sum to 1:"):
        fitted(TensorData(X, Y, weights=torch.full((12,), 1 / 12, dtype=torch.float64)), MAP(epochs=1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_labels_count_as_torch_has_it(smoothing: float, weights: Any) -> None:
    likelihood = Categorical(ignore_index=7, class_weights=weights, label_smoothing=smoothing)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = LABELS.clone()
    labels[3] = 7
    own = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    arguments = {"weight": own, "label_smoothing": smoothing, "reduction": "none"}
    found = likelihood(logits, {}).log_prob(labels)
    torch.testing.assert_close(-found, functional.cross_entropy(logits, labels, ignore_index=7, **arguments))
    soft = functional.one_hot(LABELS, 3) * 0.7 + 0.1
    torch.testing.assert_close(
        -likelihood(logits, {}).log_prob(soft), functional.cross_entropy(logits, soft, **arguments)
    )
    sites = Categorical("BCT", class_weights=weights, label_smoothing=smoothing)
    by_site = sites(logits.T[None], {}).log_prob(LABELS[None])
    torch.testing.assert_close(-by_site[0], functional.cross_entropy(logits, LABELS, **arguments).sum())
    hessian = torch.func.hessian(lambda f: -likelihood(f[None], {}).log_prob(labels[:1])[0])(logits[0])
    torch.testing.assert_close(likelihood.curvature(logits[:1], labels[:1], {}).total(), hessian)


def test_an_ignored_label_is_no_datum_and_is_not_scored() -> None:
    labels = LABELS.clone()
    labels[[3, 8]] = 255
    keep = labels != 255
    likelihood = Categorical(ignore_index=255)
    found = fitted((X, labels), Laplace(None, "full"), likelihood, 3)
    other = fitted((X[keep], labels[keep]), Laplace(None, "full"), likelihood, 3)
    assert found.problem.num_data == 10
    assert found.log_evidence == pytest.approx(other.log_evidence, rel=1e-12)
    both, alone = (p.predict(X, 4, generator=torch.Generator().manual_seed(0)) for p in (found, other))
    with pytest.warns(PosterityWarning, match="2 of 12 targets are missing and were not scored"):
        scores = evaluate(both, labels)
    expected = fitted((X[keep], labels[keep]), Laplace(None, "full"), likelihood, 3)
    few = expected.predict(X[keep], 4, generator=torch.Generator().manual_seed(0))
    assert scores["brier"] == pytest.approx(evaluate(few, labels[keep])["brier"])
    assert (
        scores["nll"] == pytest.approx(alone.scores(labels)["nll"]) == pytest.approx(evaluate(few, labels[keep])["nll"])
    )


@pytest.mark.parametrize("likelihood", [Gaussian(std=0.5), StudentT(scale=0.5, df=4.0)])
def test_missing_targets_are_not_scored(likelihood: Any) -> None:
    posterior = fitted((X, Y), MAP(epochs=1), likelihood)
    targets = Y.clone()
    targets[[0, 7]] = math.nan
    keep = ~targets.isnan()
    with pytest.warns(PosterityWarning, match="2 of 12 targets are missing and were not scored"):
        found = evaluate(posterior.predict(X), targets)
    alone = evaluate(posterior.predict(X[keep]), Y[keep])
    for name in ("rmse", "nll", "crps", "coverage_90"):
        assert found[name] == pytest.approx(alone[name], rel=1e-6)
    with pytest.raises(InvalidInput, match="All targets are NaN"):
        evaluate(posterior.predict(X), torch.full_like(Y, math.nan))


def test_validation_counts_as_the_data_do() -> None:
    rows: list[Any] = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    for held in ((X, Y, W.double()), (X[AGAIN], Y[AGAIN])):
        data = TensorData(X, Y, held_out=held)
        fit(linear(), data, likelihood=Gaussian(std=0.5), method=MAP(epochs=1), engine=engine)
    first, second = (row["validation"] for row in rows)
    assert first == pytest.approx(second)


class Joint(Likelihood):
    """Two numbers with one density."""

    def __call__(self, outputs: Any, latents: Any) -> Any:
        return torch.distributions.MultivariateNormal(outputs, torch.eye(2, dtype=outputs.dtype), validate_args=False)


def test_a_part_of_a_joint_target_is_refused_and_the_whole_is_left_out() -> None:
    targets = torch.stack([Y, Y], 1)
    targets[3] = math.nan
    assert fitted((X, targets), MAP(epochs=1), Joint(), 2).problem.num_data == 11
    targets[5, 1] = math.nan
    with pytest.raises(InvalidInput, match="Target 5 misses some of its numbers, and Joint"):
        fitted((X, targets), MAP(epochs=1), Joint(), 2)
