"""Diagnoses of every family: densities, importance ratios, gradients and contractions whose values are known exactly."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import MAP, SGLD, Engine, Ensemble, Gaussian, InvalidInput, LaplacePrior, Normal, Problem, TensorData
from posterity.cli.console import finite
from posterity.core import diagnostics, pareto
from posterity.posteriors.chains import Chains
from posterity.posteriors.contraction import contraction
from posterity.posteriors.density import has_density, log_density
from posterity.posteriors.descent import Descent
from posterity.posteriors.diagnose import diagnose
from posterity.posteriors.diagnosis import ChainDiagnosis, Convergence, GaussianDiagnosis, diagnosis_from
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.gradients import GradientSignal, gradient_signal
from posterity.posteriors.importance import log_ratios
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian, Part
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from tests.conformance.table import Conjugate

LINEAR = Conjugate.make()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(prior: object = None, where: object = None) -> Problem:
    torch.manual_seed(0)
    network = nn.Linear(2, 1).double()
    own = prior or Normal(0, LINEAR.prior_std)
    return Problem(network, own, Gaussian(std=LINEAR.noise), len(LINEAR.x), where).snapshot()


def data(batch_size: int = 24) -> TensorData:
    return TensorData(LINEAR.x, LINEAR.y, batch_size)


def exact() -> FullRankGaussian:
    return FullRankGaussian(problem(), LINEAR.mean, torch.linalg.cholesky(torch.linalg.inv(LINEAR.precision)))


def mean_field(shift: float = 0.0, widen: float = 1.0) -> DiagonalGaussian:
    std = LINEAR.precision.diagonal().rsqrt()
    return DiagonalGaussian(problem(), LINEAR.mean + shift * std, widen * std, descent=Descent())


def families() -> dict[str, tuple]:
    """Each family with its covariance, of the two random coordinates out of three."""
    own = problem(where="weight")
    loc = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    std = torch.tensor([0.5, 2.0], dtype=torch.float64)
    factor = torch.tensor([[1.0, 0.2, 0.0], [-0.7, 0.1, 3.0]], dtype=torch.float64)
    root = torch.tensor([[0.5, 0.0], [-1.5, 0.2]], dtype=torch.float64)
    return {
        "diagonal": (DiagonalGaussian(own, loc, std), std.square().diag()),
        "low rank": (LowRankGaussian(own, loc, std, factor), std.square().diag() + factor @ factor.T),
        "full rank": (FullRankGaussian(own, loc, root), root @ root.T),
    }


@pytest.mark.parametrize("name", families())
def test_densities_are_those_of_their_covariance(name: str) -> None:
    posterior, covariance = families()[name]
    thetas = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    expected = torch.distributions.MultivariateNormal(posterior.loc[1:], covariance).log_prob(thetas[:, 1:])
    torch.testing.assert_close(log_density(posterior, thetas), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_density(posterior, thetas[2]), expected[2], rtol=1e-10, atol=1e-10)
    assert has_density(posterior)


def laplaces() -> dict[str, object]:
    """Gaussians that come of curvatures, over both weights and the bias."""
    own, g = problem(), seeded(4)
    loc = torch.randn(3, generator=g, dtype=torch.float64)
    std = torch.rand(1, 3, generator=g, dtype=torch.float64) + 0.3
    left, right = (torch.randn(k, k, generator=g, dtype=torch.float64) for k in (1, 3))
    none = torch.empty(0, 0, dtype=torch.float64)
    whole = Part(torch.tensor([[0, 2], [2, 3]]), std, left, right)
    apart = (
        Part(torch.tensor([[0, 2]]), std[:, :2], none, right[:2, :2]),
        Part(torch.tensor([[2, 3]]), std[:, 2:], left, none),
    )
    basis = torch.linalg.qr(right[:, :2])[0]
    return {
        "one block": KroneckerGaussian(own, loc, (whole,)),
        "two blocks": KroneckerGaussian(own, loc, apart),
        "precision": LowRankPrecisionGaussian(own, loc, std[0], basis, torch.tensor([0.1, 0.7], dtype=torch.float64)),
    }


@pytest.mark.parametrize("name", ["one block", "two blocks", "precision"])
def test_densities_of_curvatures_are_those_of_their_covariance(name: str) -> None:
    posterior = laplaces()[name]
    thetas = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    expected = torch.distributions.MultivariateNormal(posterior.loc, posterior.covariance).log_prob(thetas)
    torch.testing.assert_close(log_density(posterior, thetas), expected, rtol=1e-9, atol=1e-9)


def test_a_linearised_posterior_is_judged_by_its_weights() -> None:
    found = Linearised(problem(), mean_field()).diagnose(data=data(), draws=30)
    assert found.khat == mean_field().diagnose(data=data(), draws=30).khat
    assert not found.gradients


def test_what_has_no_density_says_which_do() -> None:
    point = Point(problem(), LINEAR.mean)
    assert not has_density(point)
    with pytest.raises(InvalidInput, match=r"Point has no density in θ.*DiagonalGaussian"):
        log_density(point, LINEAR.mean)


@pytest.mark.parametrize("batch_size", [24, 7])
def test_ratios_of_the_exact_posterior_are_all_the_evidence(batch_size: int) -> None:
    """log p(θ, D) − log p(θ | D) = log p(D), whatever θ."""
    found = log_ratios(exact(), data(batch_size), 30, seeded())
    torch.testing.assert_close(found, torch.full((30,), LINEAR.log_evidence, dtype=torch.float64), rtol=0, atol=1e-9)


def test_ratios_of_mean_field_tell_of_its_missing_correlations() -> None:
    """log r(θ) = constant − ½ (θ − m)ᵀ (Λ − D) (θ − m), D the diagonal of Λ."""
    posterior = mean_field()
    found = log_ratios(posterior, data(), 30, seeded())
    generator = seeded()
    away = torch.stack([posterior.sample(generator) for _ in range(30)]) - LINEAR.mean
    missing = LINEAR.precision - LINEAR.precision.diagonal().diag()
    expected = -0.5 * torch.einsum("si,ij,sj->s", away, missing, away)
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=0, atol=1e-9)
    found = posterior.diagnose(data=data(), draws=30)
    assert found.khat == pytest.approx(pareto.smooth(log_ratios(posterior, data(), 30, seeded())).khat, rel=1e-9)


def test_signals_of_gradients_are_the_exact_ones() -> None:
    """∂nelbo/∂μ of a draw is (Λμ − Xᵀy/s² + H σ∘ε)/N with H = XᵀX/s²: its mean and std are known."""
    posterior, n = mean_field(shift=0.3), 1500
    hessian = LINEAR.design.T @ LINEAR.design / LINEAR.noise**2
    mean = (LINEAR.precision @ (posterior.loc - LINEAR.mean)).abs()
    noise = (hessian.square() @ posterior.std.square()).sqrt()
    weight, bias = gradient_signal(posterior, data(), n, generator=seeded())
    assert [(g.layer, g.gradients) for g in (weight, bias)] == [("weight", n), ("bias", n)]
    assert abs(weight.mean - float((mean / noise)[:2].median())) < 4 / n**0.5
    assert abs(bias.mean - float((mean / noise)[2])) < 4 / n**0.5


def test_the_pull_is_about_one_at_the_optimum_and_large_beside_it() -> None:
    pulls = [gradient_signal(mean_field(), data(), 100, generator=seeded(s))[0].pull for s in range(8)]
    # The larger of two medians of two |t|, in units of the median of one: between 0.5 and 2.5 on average.
    assert 0.5 < sum(pulls) / 8 < 2.5
    assert gradient_signal(mean_field(shift=3.0), data(), 100, generator=seeded())[0].mean > 1
    wide = gradient_signal(mean_field(widen=4.0), data(), 100, generator=seeded())[0]
    assert wide.rho > 0.3
    assert wide.pull > 3


def test_a_colder_fit_is_judged_at_its_own_temperature() -> None:
    """Without the KL nothing keeps ρ up: σ then is too large where it is 1/√Λ_ii, and ρ's gradient is not 0."""
    cold = gradient_signal(mean_field(), data(), 400, temperature=0.0, generator=seeded())[0]
    assert cold.rho > 4 / 400**0.5


def test_contraction_is_exact_for_conjugate_regression() -> None:
    variances = torch.linalg.inv(LINEAR.precision).diagonal()
    expected = float((1 - variances / LINEAR.prior_std**2).mean())
    found = contraction(problem(), exact().sample)
    own = float(sum(n * v for n, v in zip((2, 1), (found["weight"], found["bias"]), strict=True)) / 3)
    assert own == pytest.approx(expected, abs=4 * float((variances / LINEAR.prior_std**2).max()) * (2 / 400) ** 0.5)


def test_contraction_under_a_prior_that_is_not_normal() -> None:
    """Laplace(0, b) has the variance 2b²; draws of the prior itself are contracted by nothing."""
    own = problem(LaplacePrior(0, 0.5))
    tight = contraction(own, lambda g: 0.1 * torch.randn(3, generator=g, dtype=torch.float64))
    error = 0.02 * 4 * (5 / 400) ** 0.5  # of a sample variance of kurtosis 6, relative, times the ratio
    assert tight["weight"] == pytest.approx(1 - 0.01 / 0.5, abs=error)
    wide = torch.distributions.Laplace(0.0, 0.5)

    def prior(generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            return wide.sample((3,)).double()

    assert abs(contraction(own, prior)["weight"]) < 4 * 2 * (5 / 400) ** 0.5
    assert contraction(problem(posterity.Flat()), prior) == {}


def chains(seed: int = 0, count: int = 3, draws: int = 200) -> Tensor:
    noise = torch.randn(count, draws, 3, generator=seeded(seed), dtype=torch.float64)
    noise[..., 1] += 3 * torch.arange(count)[:, None]  # chains disagree on this one
    return noise


def test_chains_are_diagnosed_by_their_formulas() -> None:
    draws = chains()
    energies = torch.randn(3, 200, generator=seeded(1), dtype=torch.float64)
    posterior = Chains(problem(), draws.reshape(600, 3), energies, torch.zeros(3, 200, dtype=torch.int64))
    found = posterior.diagnose(LINEAR.x[:4])
    assert isinstance(found, ChainDiagnosis)
    assert (found.chains, found.draws, found.divergences, found.latents) == (3, 200, 0, None)
    assert torch.equal(posterior.thetas, chains().reshape(600, 3))  # it looks, and changes nothing
    assert found.weights.rhat == pytest.approx(float(diagnostics.rhat(draws).max()))
    relative = diagnostics.mcse(draws) / draws.flatten(0, 1).std(0)
    assert found.weights.mcse == pytest.approx(float(relative.max()))
    outputs = draws[..., :2] @ LINEAR.x[:4].T + draws[..., 2:]
    assert found.functions.rhat == pytest.approx(float(diagnostics.rhat(outputs).max()), rel=1e-6)
    assert found.e_bfmi == pytest.approx(float(diagnostics.e_bfmi(energies).min()))
    assert found.traces[0].name == "weight[0, 1]"
    torch.testing.assert_close(
        torch.tensor(found.traces[0].values, dtype=torch.float64), draws[..., 1], rtol=1e-4, atol=0
    )
    assert "chains disagree: do not trust them" in found.verdict


def test_an_ensemble_of_samplers_is_several_chains_and_a_sampler_one() -> None:
    draws, own = chains(), problem()
    mixed = Mixture.of(tuple(Samples(own, rows) for rows in draws)).diagnose(LINEAR.x[:4])
    assert isinstance(mixed, ChainDiagnosis)
    assert (mixed.chains, mixed.divergences, mixed.e_bfmi) == (3, None, None)
    assert mixed.weights == Convergence.of(draws)
    assert "each has found another part" in mixed.verdict
    single = Samples(own, draws[0]).diagnose()
    assert (single.chains, single.functions) == (1, None)
    assert "only another can tell" in replace(single, weights=Convergence(1.0, 500.0, 500.0, 0.04)).verdict
    assert "halves disagree" in replace(single, weights=Convergence(1.3, 5.0, 5.0, 0.4)).verdict


def test_what_never_moves_is_left_out() -> None:
    draws = chains()
    draws[..., 2] = 1.5
    assert Convergence.of(draws) == Convergence.of(draws[..., :2])
    assert Convergence.of(draws[..., 2:]).rhat != Convergence.of(draws[..., 2:]).rhat


def test_verdicts_say_what_to_do() -> None:
    fine = GaussianDiagnosis(family="full_rank_gaussian", khat=0.2, log_ratios=(0.0,) * 1000, contraction={"fc": 0.9})
    assert fine.limit == pytest.approx(2 / 3)
    assert fine.verdict.startswith("Pareto k̂ is low")
    assert replace(fine, khat=0.6).verdict.startswith("Pareto k̂ is fair")
    assert "above 0.67" in replace(fine, khat=0.8).verdict
    assert "above 0.67" in replace(fine, khat=float("nan")).verdict
    moving = replace(fine, gradients=(GradientSignal("fc", 0.05, 0.5, 100), GradientSignal("out", 0.06, 0.07, 100)))
    assert "still points somewhere in 'fc': train longer" in moving.verdict
    assert "hardly moved all layers" in replace(fine, contraction={"fc": 0.01}).verdict
    assert "diagnose(data=…)" in replace(fine, khat=None, log_ratios=()).verdict


FITTED = {
    "exact": exact,
    "mean field": mean_field,
    "point": lambda: Point(problem(), LINEAR.mean),
    "sgld": lambda: LINEAR.fit(SGLD(epochs=40, draws=12)),
    "ensemble": lambda: LINEAR.fit(Ensemble(MAP(epochs=2), 2)),
    "mixture": lambda: Mixture.of((mean_field(), exact())),
}


@pytest.mark.parametrize("name", FITTED)
def test_every_family_has_a_diagnosis_that_json_can_hold(name: str) -> None:
    found = FITTED[name]().diagnose(LINEAR.x[:3], (LINEAR.x, LINEAR.y), draws=60)
    text = json.dumps(finite(found.to_dict()), allow_nan=False)
    again = diagnosis_from(json.loads(text))
    assert type(again) is type(found)
    assert str(again) == str(found)
    assert found.verdict in str(found)


def test_gradients_are_not_asked_of_what_no_gradient_made() -> None:
    posterior = mean_field()
    assert diagnose(posterior, None, data(), 30).gradients
    assert not diagnose(replace(posterior, descent=None), None, data(), 30).gradients


def test_a_fit_that_was_cut_short_is_told_to_go_on() -> None:
    x, y = LINEAR.x.float(), LINEAR.y.float()
    torch.manual_seed(0)
    posterior = posterity.fit(
        nn.Linear(2, 1),
        (x, y),
        likelihood=Gaussian(std=0.5),
        method=posterity.MeanField(epochs=3),
        engine=Engine(progress=False, device="cpu"),
    )
    assert "train longer" in posterior.diagnose(data=(x, y), draws=30).verdict


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least 25"):
        mean_field().diagnose(data=data(), draws=20)
    with pytest.raises(InvalidInput, match="at least 4 draws"):
        Samples(problem(), torch.zeros(3, 3, dtype=torch.float64)).diagnose()
    with pytest.raises(InvalidInput, match="expected a DataLoader"):
        mean_field().diagnose(data="digits")
