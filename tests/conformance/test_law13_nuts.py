"""Laws 1, 6, 8, 11 and 13 for NUTS and HMC as methods: exact posteriors, resumed runs, files, refusals, diagnoses."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import (
    HMC,
    NUTS,
    Engine,
    Gaussian,
    HalfNormal,
    Hierarchical,
    Interrupted,
    InvalidInput,
    Normal,
    TensorData,
)
from posterity.core import diagnostics
from posterity.methods import whole
from posterity.methods.hamiltonian import HamiltonianInference
from posterity.methods.whole import FullBatch
from posterity.posteriors.chains import Chains
from tests.conformance.table import Conjugate, small_classification
from tests.conformance.test_hierarchical_inference import NOISE, quadrature, regression

QUIET = {"progress": False, "device": "cpu"}
METHODS = {
    "nuts-diag": NUTS(chains=2, warmup=150, draws=250),
    "nuts-dense": NUTS(chains=2, warmup=150, draws=250, mass="dense"),
    "hmc": HMC(chains=2, warmup=150, draws=400, steps=10),
}
BRIEF = {"nuts": NUTS(chains=2, warmup=30, draws=20, max_depth=4), "hmc": HMC(chains=2, warmup=30, draws=20, steps=4)}


def within(draws: Tensor, exact: Tensor, errors: float = 4.0) -> bool:
    """Whether the means of (C, S, K) are the exact (K,) within so many of their own standard errors."""
    return bool(((draws.mean((0, 1)) - exact).abs() < errors * diagnostics.mcse(draws)).all())


@pytest.mark.parametrize("name", ["nuts-diag", pytest.param("nuts-dense", marks=pytest.mark.slow), "hmc"])
def test_the_conjugate_posterior_is_exact(name: str) -> None:
    case = Conjugate.make()
    posterior = case.fit(METHODS[name])
    draws = posterior.by_chain
    covariance = torch.linalg.inv(case.precision)
    assert within(draws, case.mean)
    centred = draws - case.mean
    assert within((centred[..., :, None] * centred[..., None, :]).flatten(2), covariance.flatten())
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    design = torch.cat([x, torch.ones(2, 1, dtype=torch.float64)], 1)
    predicted = posterior.predict(x, len(posterior.thetas))
    exact = (design @ covariance * design).sum(1)
    spread = (draws @ design.T - design @ case.mean).square()
    assert within(spread, exact)
    assert ((predicted.epistemic - exact).abs() < 4 * diagnostics.mcse(spread) + 0.02 * exact).all()
    diagnosis = posterior.diagnose(x)
    assert diagnosis.divergences == 0
    assert diagnosis.functions.rhat < 1.05
    assert diagnosis.e_bfmi > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("centered", [True, False])
def test_a_hierarchical_scale_is_that_of_quadrature(centered: bool) -> None:
    """The data determine these weights, so that the non-centred form mixes slowly: it is given more draws."""
    exact_mean, exact_std = quadrature()
    warmup, draws = (120, 150) if centered else (200, 400)
    torch.manual_seed(0)
    posterior = posterity.fit(
        nn.Linear(10, 1, bias=False).double(),
        regression(),
        likelihood=Gaussian(std=NOISE),
        prior=Hierarchical(scale=HalfNormal(1.0), centered=centered),
        method=NUTS(chains=2, warmup=warmup, draws=draws),
        engine=Engine(**QUIET),
    )
    u = posterior.by_chain[..., -1:]
    moments = torch.cat([u, (u - exact_mean).square()], -1)
    assert within(moments, torch.tensor([exact_mean, exact_std**2], dtype=torch.float64))
    assert posterior.diagnose().latents.ess_bulk > 2 * draws / 8
    low, high = posterior.latents["prior.scale.weight"].interval(0.9)
    assert low < torch.tensor(exact_mean).exp() < high


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 2))


def brief(name: str, engine: Engine | None = None) -> Chains:
    return posterity.fit(network(), small_classification(), method=BRIEF[name], engine=engine or Engine(**QUIET))


@pytest.mark.parametrize("step", [7, 40])
@pytest.mark.parametrize("name", BRIEF)
def test_resumed_equals_uninterrupted(name: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = brief(name)
    own, left = HamiltonianInference.update, [step]

    def update(self: HamiltonianInference, state: object, batch: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return own(self, state, batch)

    monkeypatch.setattr(HamiltonianInference, "update", update)
    engine = Engine(**QUIET, directory=tmp_path)
    with pytest.raises(Interrupted, match="run again with resume"):
        brief(name, engine)
    resumed = brief(name, replace(engine, resume=True))
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[key]), key


def test_chains_are_saved_and_restored(tmp_path: Path) -> None:
    posterior = brief("nuts")
    assert posterior.thetas.dtype == torch.float32
    assert posterior.by_chain.shape == (2, 20, posterior.problem.layout.size)
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", network())
    assert isinstance(loaded, Chains)
    inputs = small_classification()[0]
    draws = [p.draw(inputs, 5, generator=torch.Generator().manual_seed(1)) for p in (posterior, loaded)]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert str(loaded.diagnose(inputs)) == str(posterior.diagnose(inputs))


def test_draws_are_spread_over_chains() -> None:
    posterior = brief("nuts")
    marked = replace(posterior, thetas=torch.arange(40.0)[:, None].expand(-1, posterior.thetas.shape[1]))
    chosen = torch.stack([marked.thetas[k, 0] for k in marked._spread(4, torch.Generator().manual_seed(0))])
    assert (chosen < 20).sum() == 2
    assert (chosen.diff() == 10).all()


def test_dropout_is_off() -> None:
    """Two evaluations of the density at one place are equal, though the network was given in training mode."""
    problem = posterity.Problem(network().train(), Normal(0, 0.3), posterity.Categorical(), 40)
    inference = HamiltonianInference(problem, BRIEF["nuts"])
    batch = FullBatch.of(problem, TensorData(*small_classification(), 7), 1, torch.float64).batch
    theta = problem.theta().double()
    values = [float(inference.working.log_joint(theta, batch)) for _ in range(2)]
    assert values[0] == values[1]
    # and it is the density of all 40 data, though they came in batches of 7
    whole = tuple(v.double() if v.is_floating_point() else v for v in small_classification())
    assert values[0] == pytest.approx(float(inference.working.log_joint(theta, whole)), rel=1e-12)


def test_points_are_refused_with_the_fix() -> None:
    normed = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    for where in (None, "last_layer"):
        with pytest.raises(
            InvalidInput, match=r"NUTS samples every trainable parameter, and .* are points.*requires_grad_"
        ):
            posterity.fit(normed, small_classification(), method=NUTS(), where=where, engine=Engine(**QUIET))
    posterior = posterity.fit(normed, small_classification(), method=BRIEF["hmc"], where="*", engine=Engine(**QUIET))
    assert posterior.thetas.shape[1] == 36 * 3 + 3 + 3 + 3 + 6 + 2


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="Take fewer draws or chains"):
        posterity.fit(network(), small_classification(), method=NUTS(max_bytes=1000), engine=Engine(**QUIET))
    monkeypatch.setattr(whole, "BATCH_BYTES", 1000)
    with pytest.raises(InvalidInput, match="a method that takes batches"):
        posterity.fit(network(), small_classification(), method=NUTS(), engine=Engine(**QUIET))


def test_chains_that_disagree_are_called_so() -> None:
    posterior = brief("nuts")
    thetas = torch.randn(40, posterior.thetas.shape[1], generator=torch.Generator().manual_seed(0))
    thetas[20:] += 2
    text = str(replace(posterior, thetas=thetas, divergent=torch.ones_like(posterior.divergent)).diagnose())
    assert "2 chains of 20 draws, 40 divergences" in text
    assert "raise target_accept" in text
    assert "the chains disagree: do not trust them" in text
    many = torch.randn(2, 2000, 3, generator=torch.Generator().manual_seed(1))
    energies = torch.randn(2, 2000, generator=torch.Generator().manual_seed(2))
    linear = posterity.Problem(nn.Linear(2, 1), Normal(0, 1), Gaussian(std=0.1), 3)
    fine = Chains(linear, many.reshape(4000, 3), energies, torch.zeros(2, 2000, dtype=torch.int64)).diagnose()
    assert fine.verdict == "The chains agree, and there are enough draws."


def test_the_network_of_the_user_is_left_as_it_was() -> None:
    own = network()
    before = {k: v.clone() for k, v in own.state_dict().items()}
    posterity.fit(own, small_classification(), method=BRIEF["nuts"], engine=Engine(**QUIET))
    assert own.training
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in own.state_dict().items())
