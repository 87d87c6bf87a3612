"""Whether a fit has arrived: each remark by itself, and fits that earn it or do not."""

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import (
    IVON,
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    HalfNormal,
    Hierarchical,
    Laplace,
    LowRank,
    MeanField,
    Normal,
    Optimizer,
    Refine,
    TensorData,
    fit,
)
from posterity.errors import InvalidInput, NotArrived
from posterity.methods import arrival, outcome
from posterity.methods.arrival import Remark
from posterity.methods.mixing import chain_remarks, hamiltonian_remarks, swinging
from posterity.methods.stiffness import sharpness, stiff
from posterity.posteriors.base import FunctionPosterior

QUIET = Engine(progress=False, device="cpu")


def kinds(posterior: FunctionPosterior) -> set[str]:
    return {remark.kind for remark in posterior.provenance["remarks"]}


def rows(**columns: list[float]) -> list[dict[str, Any]]:
    """Make rows of these columns; those that are no Info are watched."""
    count = len(next(iter(columns.values())))
    plain = ("nelbo", "nll", "kl", "log_prior")
    return [
        {
            "epoch": i + 1,
            **{k: v[i] for k, v in columns.items() if k in plain},
            "watched": {k.replace("__", "."): v[i] for k, v in columns.items() if k not in plain},
        }
        for i in range(count)
    ]


def wave(level: float, size: float, count: int = 30) -> list[float]:
    """Noise without a trend."""
    noise = torch.randn(count, generator=torch.Generator().manual_seed(count)) * size
    return (level + noise).tolist()


def line(first: float, last: float, count: int = 30) -> list[float]:
    return torch.linspace(first, last, count).tolist()


def test_an_objective_that_falls_is_told_from_noise() -> None:
    assert arrival.falling(rows(nelbo=line(3.0, 1.0)))
    assert not arrival.falling(rows(nelbo=wave(1.0, 0.3)))
    assert not arrival.falling(rows(nelbo=line(1.0, 3.0)))
    assert not arrival.falling(rows(nelbo=line(1.0, 0.99)))
    assert arrival.falling(rows(nelbo=[3.0, 2.0, 1.0]))  # too few for a line: the last two
    assert not arrival.falling(rows(nelbo=[3.0, 1.0, 1.0]))
    assert not arrival.falling(rows(nelbo=[3.0]))
    assert not arrival.falling([])
    assert arrival.falling(rows(nll=line(3.0, 1.0), log_prior=line(0.0, 0.0)), "log_prior")
    text = str(arrival.falling(rows(nelbo=line(3.0, 1.0)))[0])
    assert "1 nats per datum" in text
    assert "10 of 30 epochs" in text
    assert "epochs=90" in text


def test_a_large_objective_is_not_let_off_for_its_size() -> None:
    """69 nats per datum that fall to 68.5 are a fit that has hardly begun."""
    assert arrival.falling(rows(nelbo=line(70.0, 68.5)))


def test_a_divergence_moves_either_way() -> None:
    for first, last in ((1.0, 2.0), (2.0, 1.0)):
        assert arrival.moving_divergence(rows(kl=line(first, last), nelbo=wave(1.0, 0.01)))
    assert not arrival.moving_divergence(rows(kl=wave(1.0, 0.01), nelbo=wave(1.0, 0.01)))


@pytest.mark.parametrize("name", ["likelihood__std", "prior__scale__fc"])
def test_a_latent_that_moves_is_named(name: str) -> None:
    moving, still = line(1.0, 0.4), wave(1.0, 0.02)
    (said,) = arrival.moving_latents(rows(**{name: moving}))
    assert name.replace("__", ".") in said
    assert not arrival.moving_latents(rows(**{name: still}))
    assert not arrival.moving_latents(rows(stds=moving))  # no latent


def test_a_resumed_run_of_an_earlier_version_has_nothing_watched() -> None:
    assert not arrival.moving_latents([{"epoch": i, "nll": 1.0} for i in range(9)])
    assert not arrival.still_stds([{"epoch": i, "nll": 1.0} for i in range(9)])
    assert not chain_remarks([{"epoch": i, "nll": 1.0} for i in range(12)], [True] * 12, 0.0, False)


def test_stds_at_their_start() -> None:
    assert arrival.still_stds(rows(nelbo=[1.0], still=[0.97], stds=[1.03], pull=[0.9]))
    assert arrival.still_stds(rows(nelbo=line(2.0, 1.0), still=[0.97] * 30, stds=[1.03] * 30, pull=[0.0] * 30))
    assert not arrival.still_stds(
        rows(nelbo=[1.0] * 30, still=[0.97] * 30, stds=[1.03] * 30, pull=[0.0] * 30)
    )  # chance
    assert not arrival.still_stds(rows(still=[0.1], stds=[4.0], pull=[0.1]))
    assert not arrival.still_stds(rows(still=[0.1], stds=[4.0]))  # an optimiser that remembers no pull
    assert arrival.still_stds(rows(still=[0.97], stds=[1.03]))
    for pulled in (rows(still=[0.1], stds=[4.0], pull=[0.9]), rows(stds=[4.0], pull=[0.9])):
        (said,) = arrival.still_stds(pulled)
        assert "still went one way" in said
    assert not arrival.still_stds(rows(stds=[1.0]))  # a start that was no guess


def test_a_fit_that_validation_stopped_early_is_a_near_point() -> None:
    run = rows(nelbo=line(60.0, 20.0, 12), kl=line(60.0, 20.0, 12), stds=line(1.0, 2.0, 12), still=[0.0] * 12)
    (said,) = arrival.variational(run, best=3)
    assert said.kind == "validation"
    assert "epoch 3 of 12" in said
    assert "1.18 times" in said
    flat = rows(nelbo=wave(1.0, 0.005), kl=wave(0.5, 0.001), stds=[2.0] * 30, still=[0.0] * 30)
    assert not arrival.variational(flat, best=20)
    assert not arrival.variational(flat, best=30)


def test_a_chain_that_ran_away_and_one_that_drifts() -> None:
    kept = [False] * 10 + [True] * 20
    calm = {"weights": [1.0] * 30}
    assert not chain_remarks(rows(nll=[3.0] * 10 + wave(1.0, 0.1, 20), **calm), kept, 0.1, False)
    (said,) = chain_remarks(rows(nll=[3.0] * 10 + [143670.0] * 20, **calm), kept, 0.1, False)
    assert said.kind == "step"
    assert "143,670" in said
    assert "smaller lr" in said
    (said,) = chain_remarks(rows(nll=[3.0] * 10 + line(1.6, 1.0, 20), **calm), kept, 0.5, False)
    assert said.kind == "drift"
    few = rows(nll=line(1.6, 1.0, 6), weights=[1.0] * 6)  # a slope widens its own halves
    assert [remark.kind for remark in chain_remarks(few, [True] * 6, 0.5, False)] == ["drift"]
    assert not chain_remarks(rows(nll=[3.0] * 10 + line(1.6, 1.0, 20), **calm), kept, 0.5, True)  # cycles differ
    (said,) = chain_remarks(rows(nll=[1.0] * 30, weights=line(1.0, 3.0)), kept, 0.1, False)
    assert "grew" in said


def test_draws_that_swing_more_than_their_own_width() -> None:
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0))
    assert not swinging("likelihood.std", (noise / 20).exp(), 200)
    assert swinging("likelihood.std", noise.exp(), 200)
    assert not swinging("prior.scale.bias", (0.7 * noise).exp(), 1)  # one weight says little of its scale
    assert not swinging("likelihood.shift", noise, 200)  # no scale


def test_energies_of_chains() -> None:
    noise = torch.randn(4, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calm = torch.zeros(4, 200)
    assert not hamiltonian_remarks(noise, calm)
    assert {r.kind for r in hamiltonian_remarks(noise + torch.arange(4)[:, None], calm)} == {"energy"}
    assert {r.kind for r in hamiltonian_remarks(noise, calm + 1)} == {"divergences"}
    assert "bfmi" in {r.kind for r in hamiltonian_remarks(noise.cumsum(1), calm)}


def test_members_that_say_the_same_say_it_once() -> None:
    said = arrival.merged([[Remark("a", "one 3 %")], [Remark("b", "two")], [Remark("a", "one 4 %")]])
    assert said == ["Members 1 and 3 of 3: one 3 %", "Member 2 of 3: two"]
    assert arrival.merged([[Remark("a", "one")], [Remark("a", "one")]]) == ["All 2 members: one"]
    assert arrival.merged([[], []]) == []


def test_a_remark_is_a_string_that_copies() -> None:
    remark = Remark("kl", "It moves.")
    for other in (copy.deepcopy(remark), pickle.loads(pickle.dumps(remark))):
        assert (other, other.kind) == ("It moves.", "kl")
    assert json.loads(json.dumps([remark])) == ["It moves."]


# Fits.


def line_of_data(count: int = 200, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 5, generator=generator)
    return x, x @ torch.randn(5, generator=generator) + noise * torch.randn(count, generator=generator)


def fitted(method: Any, likelihood: Any = None, network: nn.Module | None = None, **options: Any) -> FunctionPosterior:
    torch.manual_seed(0)
    data = TensorData(*line_of_data(), 50)
    options = {"prior": Normal(0, 1), "engine": QUIET, **options}
    return fit(network or nn.Linear(5, 1), data, likelihood=likelihood or Gaussian(std=0.5), method=method, **options)


FAST = Optimizer(lr=0.03, schedule="one_cycle")
LONG = {
    "map": MAP(epochs=60, optimizer=FAST),
    "weight": MeanField(epochs=80, std_lr=3, optimizer=FAST),
    "local_reparam": MeanField(epochs=80, std_lr=3, optimizer=FAST, estimator="local_reparam"),
    "flipout": MeanField(epochs=80, std_lr=3, optimizer=FAST, estimator="flipout"),
    "ivon": IVON(epochs=100, hessian_momentum=0.99),
    "swag": SWAG(epochs=60),
    "sgld": SGLD(epochs=100),
    "sghmc": SGHMC(epochs=100),
    "cyclical": Cyclical(SGHMC(epochs=100, lr=0.03, draws=40)),
    "low_rank": LowRank(rank=2, epochs=100),
    "full_rank": FullRank(epochs=100),
    "laplace": Laplace(MAP(epochs=60, optimizer=FAST)),
    "refine": Refine(MeanField(epochs=60, optimizer=FAST), after=MAP(epochs=60, optimizer=FAST)),
    "ensemble": Ensemble(MAP(epochs=60, optimizer=FAST), n=2),
}
STEADY = Optimizer(lr=3e-3, schedule="constant")
SHORT = {
    "map": (MAP(epochs=20, optimizer=STEADY), {"objective"}),
    "mean_field": (MeanField(epochs=20, std_lr=0.1, optimizer=STEADY), {"objective", "stds"}),
    "flipout": (MeanField(epochs=20, std_lr=0.1, optimizer=STEADY, estimator="flipout"), {"objective", "stds"}),
    "one cycle": (MeanField(epochs=20, optimizer=Optimizer(lr=0.01, schedule="one_cycle")), {"stds"}),  # ends flat
    "ivon": (IVON(epochs=4, lr=0.01, schedule="constant"), {"objective"}),
    "low_rank": (LowRank(epochs=2, std_lr=0.01), {"stds"}),
    "full_rank": (FullRank(epochs=2, std_lr=0.01), {"stds"}),
    "ensemble": (Ensemble(MAP(epochs=20, optimizer=STEADY), n=3), {"objective"}),
    "laplace": (Laplace(MAP(epochs=20, optimizer=STEADY)), {"objective"}),
}


@pytest.mark.parametrize("name", LONG)
def test_nothing_is_said_of_a_fit_that_has_arrived(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotArrived)
        assert fitted(LONG[name]).provenance["remarks"] == []


@pytest.mark.parametrize("name", SHORT)
def test_a_fit_that_has_not_arrived_says_so_once(name: str) -> None:
    method, wanted = SHORT[name]
    with pytest.warns(NotArrived) as told:
        posterior = fitted(method)
    assert wanted <= kinds(posterior)
    assert len(told) == 1
    for remark in posterior.provenance["remarks"]:
        assert remark in str(told[0].message)


def test_a_noise_level_that_moves_is_named() -> None:
    posterior = fitted(MAP(epochs=40, optimizer=Optimizer(lr=0.01, schedule="constant")), Gaussian(initial_std=2.0))
    assert any("likelihood.std" in r for r in posterior.provenance["remarks"] if "still moved" in r)


def test_remarks_stay_with_the_file(tmp_path: Path) -> None:
    posterior = fitted(MeanField(epochs=12))
    posterior.save(tmp_path / "posterior.safetensors")
    again = posterity.load(tmp_path / "posterior.safetensors", nn.Linear(5, 1))
    assert again.provenance["remarks"] == posterior.provenance["remarks"] != []


def test_a_resumed_fit_says_the_same(tmp_path: Path) -> None:
    """The rows are in the checkpoint: a run that is finished has nothing to train, and the same to say."""
    engine = Engine(progress=False, device="cpu", directory=tmp_path, resume=True)
    first, second = (fitted(MeanField(epochs=12), engine=engine) for _ in range(2))
    assert first.provenance["remarks"] == second.provenance["remarks"] != []


def test_an_engine_of_ones_own_that_hands_no_rows_on() -> None:
    for remarks in (arrival.variational([], None), arrival.point([], None), chain_remarks([], [], 0.0, False)):
        assert remarks == []


def test_a_fit_that_ends_at_its_prior() -> None:
    """A strong prior on a wide network, and so little data that the KL outweighs them."""
    network = nn.Sequential(nn.Linear(5, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 1))
    method = MeanField(epochs=60, std_lr=10, initial_std=0.1, optimizer=FAST)
    posterior = fitted(method, Gaussian(std=3.0), network, prior=Normal(0, 0.1))
    assert "prior" in kinds(posterior)


def test_a_fit_that_destroys_what_the_network_knew() -> None:
    network = nn.Linear(5, 1)
    x, y = line_of_data()
    exact = torch.linalg.lstsq(torch.cat([x, torch.ones(200, 1)], 1), y[:, None]).solution.T
    with torch.no_grad():
        network.weight.copy_(exact[:, :5])
        network.bias.copy_(exact[0, 5:])
    assert kinds(fitted(MAP(epochs=200, optimizer=FAST), network=network, prior=Normal(0, 0.01))) == {"destroyed"}
    assert kinds(fitted(MAP(epochs=20), network=network)) == set()  # it knew, and still does


def test_a_chain_with_too_large_a_step() -> None:
    """The steps of N(0, σ²) by gradients of curvature h swing, but do not diverge, while lr · h < 2."""
    x = torch.cat([line_of_data()[0], torch.ones(200, 1)], 1)
    large = 1.9 * 0.5**2 * 200 / float(torch.linalg.eigvalsh(x.T @ x)[-1])
    assert kinds(fitted(SGLD(epochs=60, lr=0.1 * large))) == set()
    assert kinds(fitted(SGLD(epochs=60, lr=1.06 * large))) & {"step", "nothing", "drift"}


def test_draws_that_their_steps_alone_make_wide() -> None:
    """lr · h/2 of the stationary law of SGLD, lr · h/(2 (2 − α)) of SGHMC, at the largest curvature h of XᵀX/(N s²)."""
    x = torch.cat([line_of_data()[0], torch.ones(200, 1)], 1)
    curvature = float(torch.linalg.eigvalsh(x.T @ x)[-1]) / 200 / 0.5**2
    data = TensorData(*line_of_data(), 200)  # whole: those of parts are of other curvatures
    batch = data.inputs, data.targets
    for share, said in ((0.65, False), (0.85, True)):
        for method in (SGLD(epochs=120, lr=share * 2 / curvature), SGHMC(epochs=120, lr=share * 3.8 / curvature)):
            likelihood = Gaussian(std=0.5)
            posterior = fit(
                nn.Linear(5, 1), data, likelihood=likelihood, prior=Normal(0, 1), method=method, engine=QUIET
            )
            assert sharpness(posterior.problem, posterior.mean, batch) == pytest.approx(curvature, rel=0.02)
            assert [r.kind for r in stiff(posterior, batch, method.stable_curvature)] == ["step"] * said
            assert ("step" in kinds(posterior)) == said
    assert SGLD(lr=1e-3, preconditioner="rmsprop").stable_curvature is None
    assert SGLD(schedule="cosine").stable_curvature is None


@pytest.mark.parametrize("two", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_noise_level_is_that_of_the_residuals_of_its_own_functions(two: bool) -> None:
    """It lags behind them where epochs are few; the second of two targets is in units of its own, and lags for longer."""
    x, y = line_of_data(noise=0.02)
    second = 100 * y + torch.randn(200, generator=torch.Generator().manual_seed(1))
    long = Optimizer(lr=0.05, schedule="one_cycle")
    both = ((torch.stack([y, second], 1), 400, True),)
    for targets, epochs, said in both if two else ((y, 30, True), (y, 400, False)):
        torch.manual_seed(0)
        network, method = nn.Linear(5, targets[:1].numel()), MAP(epochs=epochs, optimizer=long if epochs > 30 else FAST)
        data = TensorData(x, targets, 50)
        posterior = fit(network, data, likelihood=Gaussian(), prior=Normal(0, 300), method=method, engine=QUIET)
        assert ("residuals" in kinds(posterior)) == said


def test_a_curvature_around_a_network_that_knows_nothing() -> None:
    """`Laplace(None)` trains nothing: whoever forgot to load the weights hears of it."""
    torch.manual_seed(0)
    data = TensorData(torch.randn(100, 5), torch.arange(100) % 3)
    for structure in ("diag", "kron"):
        posterior = fit(nn.Linear(5, 3), data, method=Laplace(None, structure), engine=QUIET)
        assert kinds(posterior) == {"nothing"}


@pytest.mark.parametrize("centered", [True, False])
def test_cyclical_runs_at_its_defaults_on_a_small_table(centered: bool) -> None:
    x, y = line_of_data(353)
    method, prior = Cyclical(), Hierarchical(centered=centered)
    posterior = fit(nn.Linear(5, 1), (x, y), likelihood=Gaussian(), prior=prior, method=method, engine=QUIET)
    noise = posterior.latents["likelihood.std"].mean.item()
    assert noise == pytest.approx(0.5, rel=0.4) or "residuals" in kinds(posterior)  # 150 steps are few
    with pytest.raises(InvalidInput, match=r"50 draws were asked of 26 sampling steps.* 110 say"):
        fit(nn.Linear(5, 1), (x, y), likelihood=Gaussian(), method=Cyclical(SGHMC(lr=0.03)), engine=QUIET)
    fit(nn.Linear(5, 1), (x, y), likelihood=Gaussian(), method=Cyclical(SGHMC(lr=0.03, epochs=110)), engine=QUIET)


def test_a_refinement_of_running_statistics_is_judged_by_functions_that_have_their_own() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(Refine(MeanField(epochs=1), after=MAP(epochs=1)), network=network)
    assert {w.category for w in caught if "posterity" in w.category.__module__} == {NotArrived}


def test_a_kl_that_has_moved_by_little_of_itself_is_settled() -> None:
    """That of a cold posterior is large beside its objective."""
    assert not arrival.moving_divergence(rows(nelbo=[0.4] * 9, kl=[8.30 + 0.01 * i for i in range(9)]))
    assert arrival.moving_divergence(rows(nelbo=[0.4] * 9, kl=[8.3 + 0.1 * i for i in range(9)]))


def test_a_noise_level_that_comes_down_until_steps_are_hardly_stable() -> None:
    """sin 3x with a noise of .05: at a rate that squared errors alone are hardly stable at, SGLD settles at a noise of .5."""
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(300, 1, generator=generator) - 2
    y = torch.sin(3 * x).squeeze() + 0.05 * torch.randn(300, generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    posterior = fit(network, TensorData(x, y, 32), likelihood=Gaussian(), method=SGLD(draws=20, lr=0.4), engine=QUIET)
    assert posterior.latents["likelihood.std"].mean > 0.3
    assert kinds(posterior) & {"step", "swing:likelihood"}


def test_knowledge_of_targets() -> None:
    y = torch.tensor([0, 1, 2, 0])
    sure = torch.distributions.Categorical(logits=50.0 * nn.functional.one_hot(y, 3)[None].float())
    assert outcome.known(sure, y, draws=True) == pytest.approx(1.0)
    shares = torch.tensor([0.5, 0.25, 0.25]).expand(1, 4, 3)
    assert outcome.known(torch.distributions.Categorical(probs=shares), y, draws=True) == pytest.approx(0.0, abs=1e-6)
    targets = torch.tensor([1.0, 2.0, 3.0])
    assert outcome.known(torch.distributions.Normal(targets.mean().expand(2, 3), 1.0), targets, draws=True) == 0.0
    assert outcome.known(torch.distributions.Normal(targets, 1.0), targets, draws=False) == 1.0
    assert outcome.known(torch.distributions.Normal(targets[:1], 1.0), targets[:1], draws=False) is None


def test_a_scale_that_has_converged_is_the_rms_of_its_weights() -> None:
    """Given q of n weights, log s has its mode at log rms and a width of 1/√(2n); the half-normal prior of s adds little."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 20, generator=generator)
    y = x @ (0.4 * torch.randn(20, 10, generator=generator)) + 0.1 * torch.randn(300, 10, generator=generator)
    torch.manual_seed(0)
    method = MeanField(epochs=60, std_lr=3, optimizer=Optimizer(lr=0.02, schedule="one_cycle"))
    prior = Hierarchical(scale=HalfNormal(1.0), per="tensor")
    network, n = nn.Linear(20, 10, bias=False), 200
    posterior = fit(
        network, TensorData(x, y, 50), likelihood=Gaussian(std=0.1), prior=prior, method=method, engine=QUIET
    )
    scale = posterior.latents["prior.scale.weight"]
    rms = (posterior.mean[:n].square() + posterior.std[:n].square()).mean().sqrt()
    assert scale.mean.item() == pytest.approx(rms.item(), rel=0.1)
    assert (scale.std / scale.mean).item() == pytest.approx((2 * n) ** -0.5, rel=0.3)
    assert posterior.provenance["remarks"] == []


def test_a_scale_that_is_not_that_of_its_weights_is_named() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 20, generator=generator)
    y = x @ (0.2 * torch.randn(20, 10, generator=generator)) + 0.3 * torch.randn(300, 10, generator=generator)
    torch.manual_seed(0)
    network, data = nn.Linear(20, 10, bias=False), TensorData(x, y, 50)
    for method, said in (
        (SWAG(), True),
        (SGLD(epochs=100), False),
    ):  # SWAG is drawn to the mode of z and log s, far from s
        posterior = fit(network, data, likelihood=Gaussian(std=0.3), prior=Hierarchical(), method=method, engine=QUIET)
        assert ("scale" in kinds(posterior)) == said
