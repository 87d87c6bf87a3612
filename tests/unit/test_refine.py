"""One method after another: where the second starts, that its optimum stays, what it saves, and resuming."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
from posterity import (
    IVON,
    MAP,
    MLE,
    SWAG,
    Categorical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    Hierarchical,
    Interrupted,
    Laplace,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    Refine,
    TensorData,
)
from posterity.data import load
from posterity.methods.mean_field import MeanFieldInference
from posterity.methods.refine import started, stds_of
from posterity.posteriors.statistics import validated
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import FAST, Conjugate, small_classification, small_network
from tests.conformance.test_law06_resume import Stopper, data

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here

QUIET = {"progress": False, "device": "cpu"}
STILL = Optimizer("SGD", lr=1e-30, schedule="constant")


def first_nelbo(method: object) -> float:
    """The mean nelbo of the last stage's one epoch on digits."""
    digits, rows = load("digits").standardised(), []
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    engine = Engine(on_epoch=lambda name, row: rows.append(row), **QUIET)
    posterity.fit(network, TensorData(digits.train_inputs, digits.train_targets, 64), method=method, engine=engine)
    return rows[-1]["nelbo"]


def test_a_refined_epoch_beats_a_cold_one() -> None:
    one = MeanField(epochs=1)
    cold = first_nelbo(one)
    assert first_nelbo(Refine(one, after=MAP(epochs=5))) < 0.9 * cold
    # And stds that are already there save more than the mean alone does.
    still = MeanField(epochs=1, optimizer=STILL)
    with_stds, without = (first_nelbo(Refine(still, after=after)) for after in (MeanField(epochs=5), MAP(epochs=5)))
    assert with_stds < 0.9 * without


@pytest.mark.parametrize("after", [MLE(epochs=30, optimizer=FAST), FullRank(epochs=30, optimizer=FAST)])
def test_the_conjugate_result_is_unchanged(after: object) -> None:
    case, seeds = Conjugate.make(), 4
    method = MeanField(epochs=300, optimizer=FAST, draws=2, antithetic=True)
    fits = [case.fit(Refine(method, after=after), seed) for seed in range(seeds)]
    means, stds = torch.stack([f.mean for f in fits]), torch.stack([f.std for f in fits])
    assert ((means.mean(0) - case.mean).abs() < 4 * means.std(0) / seeds**0.5 + 1e-4).all()
    exact = case.precision.diagonal().rsqrt()
    assert ((stds.mean(0) - exact).abs() < 4 * stds.std(0) / seeds**0.5 + 1e-3 * exact).all()


@pytest.mark.parametrize(
    "after",
    [MeanField(epochs=3), IVON(epochs=3), FullRank(epochs=3), SWAG(epochs=4, iterates=10)],
    ids=lambda m: m.kind,
)
def test_mean_and_std_start_at_the_first_posterior_s(after: object) -> None:
    """A second stage whose steps are too small to see returns what it started from, running statistics included."""
    x, y = small_classification()
    problem = Problem(small_network(), Normal(0, 0.3), Categorical(), 40)
    engine = Engine(**QUIET)
    source = TensorData(x, y, 20)
    first = after.infer(problem.snapshot(), source, engine.fork("stage-1"))
    last = Refine(MeanField(epochs=1, optimizer=STILL), after=after).infer(problem.snapshot(), source, engine)
    torch.testing.assert_close(last.mean, first.mean, rtol=0, atol=0)
    wanted = torch.cat([s.reshape(-1) for s in stds_of(first).values()])
    torch.testing.assert_close(last.std, wanted.clamp(min=1e-5), rtol=1e-5, atol=0)
    assert len(wanted.unique()) > 50
    own = MeanField(epochs=1, optimizer=STILL).infer(started(problem, first), source, engine)
    torch.testing.assert_close(own.std, torch.full_like(own.std, 0.02))


def test_latents_of_likelihood_and_prior_are_carried_over() -> None:
    x = torch.linspace(-1, 1, 30)[:, None]
    for centered in (True, False):
        problem = Problem(nn.Linear(1, 1), Hierarchical(centered=centered), Gaussian(), 30)
        method = MAP(epochs=30, optimizer=Optimizer(lr=0.05))
        found = method.infer(problem.snapshot(), TensorData(x, x.squeeze()), Engine(**QUIET))
        torch.testing.assert_close(started(problem, found).theta(), found.mean)
        assert (found.mean - problem.theta()).abs().min() > 1e-3
        # Maximum likelihood knows no prior: its scale stays where it starts, the noise and the weights do not.
        blind = MLE(epochs=30, optimizer=Optimizer(lr=0.05)).infer(
            problem.snapshot(), TensorData(x, x.squeeze()), Engine(**QUIET)
        )
        own, fresh = started(problem, blind), problem.snapshot()
        for name, value in own.layout.views(own.coordinates.weights(own.theta())).items():
            if name.startswith("prior."):
                assert torch.equal(value, fresh.layout.views(fresh.theta())[name])
            else:
                torch.testing.assert_close(value, blind.problem.layout.views(blind.mean)[name])


@pytest.mark.parametrize("structure", ["full", "kron", "diag", "low_rank"])
def test_stds_of_a_laplace_approximation_are_those_of_its_covariance(structure: str) -> None:
    x, y = small_classification()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    problem = Problem(network, Normal(0, 0.5), Categorical(), 40)
    start = Laplace(MAP(epochs=5), structure, rank=4)
    posterior = start.infer(problem, TensorData(x.double(), y, 20), Engine(**QUIET))
    found = torch.cat([s.reshape(-1) for s in stds_of(posterior).values()])
    weights = posterior.weights
    covariance = torch.diag(weights.std.square()) if structure == "diag" else weights.covariance
    torch.testing.assert_close(found, covariance.diagonal().sqrt(), rtol=1e-8, atol=0)
    assert found.max() / found.min() > 1.05


def test_the_first_problem_is_left_alone() -> None:
    problem = Problem(small_network(), Normal(0, 0.3), Categorical(), 40)
    before = {n: v.clone() for n, v in problem.network.state_dict().items()}
    found = MAP(epochs=1).infer(problem.snapshot(), TensorData(*small_classification()), Engine(**QUIET))
    started(problem, found)
    assert all(torch.equal(v, before[n]) for n, v in problem.network.state_dict().items())


def test_part_of_a_network_keeps_its_points() -> None:
    problem = Problem(small_network(), Normal(0, 0.3), Categorical(), 40, where="last_layer")
    source = TensorData(*small_classification(), 20)
    method = Refine(MeanField(epochs=1, optimizer=STILL), after=MeanField(epochs=4))
    found = method.infer(problem, source, Engine(**QUIET))
    assert found.std.shape == (48 * 2 + 2,)
    expected = method.after.infer(
        Problem(small_network(), Normal(0, 0.3), Categorical(), 40, where="last_layer"),
        source,
        Engine(**QUIET).fork("stage-1"),
    )
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=0)
    torch.testing.assert_close(found.std, expected.std, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:The network normalises:posterity.errors.PosterityWarning")  # as infer alone does
@pytest.mark.parametrize("step", [3, 15, 22])
def test_resumed_equals_uninterrupted_in_either_stage(step: int, tmp_path: Path) -> None:
    method = Refine(MeanField(epochs=2), after=MAP(epochs=2))  # 12 steps, then 12 steps

    def run(engine: Engine, source):
        engine = engine.validating(partial(validated, data=data()))
        return method.infer(Problem(small_network(), Normal(0, 0.3), Categorical(), 60), source, engine)

    whole = run(Engine(directory=tmp_path / "whole", **QUIET), data())
    engine = Engine(directory=tmp_path / "cut", **QUIET)
    with pytest.raises(Interrupted, match="run again with resume"):
        run(engine, Stopper(data(), step))
    resumed = run(replace(engine, resume=True), data())
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[key]), key


def test_an_ensemble_of_refinements_has_members_of_its_own() -> None:
    x, y = small_classification()
    method = Ensemble(Refine(MeanField(epochs=1), after=MLE(epochs=2)), 2)
    posterior = posterity.fit(small_network(), TensorData(x, y, 20), method=method, engine=Engine(**QUIET))
    first, second = (c.mean for c in posterior.components)
    assert (first - second).abs().max() > 0.1
    assert posterior.provenance["method"]["method"]["after"]["kind"] == "mle"


def test_a_mapping_of_stds_is_what_mean_field_starts_from() -> None:
    problem = Problem(nn.Linear(2, 1), Normal(0, 1), Gaussian(std=1.0), 10)
    stds = {"weight": torch.tensor([[0.1, 0.2]]), "bias": torch.tensor([0.3])}
    inference = MeanFieldInference(problem, MeanField(), Budget(1, 1), stds)
    state = inference.init(NamedStreams(0, "t"))
    torch.testing.assert_close(inference.posterior(state).std, torch.tensor([0.1, 0.2, 0.3]))
