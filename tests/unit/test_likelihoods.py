"""Likelihoods of counts, positive numbers, shares, grades and heavy tails, against SciPy, scoringrules and autograd."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats as st
import scoringrules as sr
import torch
from scipy.integrate import quad
from torch import Tensor, nn
from torch import distributions as dist

import posterity
from posterity import MAP, Engine, InvalidInput, Laplace, MeanField, Normal, Optimizer, average, fit
from posterity.likelihoods import (
    Beta,
    Gamma,
    Gaussian,
    Likelihood,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    suited,
)
from posterity.metrics import evaluate
from posterity.model.outputs import latent_curvature, output_curvature
from posterity.model.problem import Problem
from posterity.predict.general import General

B = 6
F = torch.randn(B, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN = 3 * F.squeeze(-1).exp().numpy()
COUNTS = torch.tensor([0, 3, 1, 40, 2, 0])
LEVELS = torch.tensor([0.05, 0.95], dtype=torch.float64)
OUTPUT, SHARE = F.squeeze(-1).numpy(), MEAN / (1 + MEAN)
POSITIVE = torch.tensor([0.01, 3.0, 1.0, 90.0, 2.0, 0.5]).double()
PROBABLE = 1 / (1 + 0.7 * MEAN)

CASES = {  # likelihood, its latents at natural values, targets, SciPy's distribution, scoringrules' score
    "poisson": (Poisson(unit=3.0), {}, COUNTS, st.poisson(MEAN), lambda y: sr.crps_poisson(y, MEAN)),
    "negative_binomial": (
        NegativeBinomial(unit=3.0),
        {"dispersion": 0.7},
        COUNTS,
        st.nbinom(1 / 0.7, PROBABLE),
        lambda y: sr.crps_negbinom(y, 1 / 0.7, PROBABLE),
    ),
    "student_t": (
        StudentT(),
        {"scale": 0.8, "df": 3.5},
        torch.tensor([0.0, 2.0, -30.0, 0.5, 0.1, 4.0]).double(),
        st.t(3.5, OUTPUT, 0.8),
        lambda y: sr.crps_t(y, 3.5, OUTPUT, 0.8),
    ),
    "log_normal": (
        LogNormal(unit=3.0),
        {"std": 0.6},
        POSITIVE,
        st.lognorm(0.6, scale=MEAN),
        lambda y: sr.crps_lognormal(y, np.log(MEAN), 0.6),
    ),
    "gamma": (
        Gamma(unit=3.0),
        {"cv": 0.8},
        POSITIVE,
        st.gamma(1 / 0.64, scale=0.64 * MEAN),
        lambda y: sr.crps_gamma(y, 1 / 0.64, 1 / (0.64 * MEAN)),
    ),
    "beta": (
        Beta(unit=3.0),
        {"spread": 0.3},
        torch.tensor([0.01, 0.5, 0.7, 0.999, 0.2, 0.9]).double(),
        st.beta(SHARE * 7 / 3, (1 - SHARE) * 7 / 3),
        lambda y: sr.crps_beta(y, SHARE * 7 / 3, (1 - SHARE) * 7 / 3),
    ),
}


def at(likelihood: Likelihood, natural: dict[str, float], *shape: int) -> dict[str, Tensor]:
    """The latents whose natural values these are."""
    return {
        n: type(likelihood).learnt[n].unconstrained(torch.full(shape, v, dtype=torch.float64))
        for n, v in natural.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_densities_moments_and_distribution_functions_are_scipys(name: str) -> None:
    likelihood, natural, y, scipy, _ = CASES[name]
    own = likelihood(F, at(likelihood, natural))
    density = scipy.logpmf if hasattr(scipy.dist, "pmf") else scipy.logpdf
    np.testing.assert_allclose(own.log_prob(y), density(y.numpy()), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(own.mean, scipy.mean(), rtol=1e-9)
    np.testing.assert_allclose(own.variance, scipy.var(), rtol=1e-9)
    np.testing.assert_allclose(own.cdf(y), scipy.cdf(y.numpy()), rtol=1e-9, atol=1e-12)
    single = likelihood(F.float(), {n: v.float() for n, v in at(likelihood, natural).items()})
    np.testing.assert_allclose(single.log_prob(y), density(y.numpy()), rtol=1e-4, atol=1e-4)


def integral(scipy: object, y: float) -> float:
    """∫(F(t) − 1[t ≥ y])² dt of the mixture of all of SciPy's distributions."""
    ends = np.concatenate([np.atleast_1d(scipy.ppf(p)) for p in (1e-11, 1e-7, 1e-3, 0.1, 0.5)])
    ends = np.concatenate([ends, *(np.atleast_1d(scipy.isf(p)) for p in (0.1, 1e-3, 1e-7, 1e-11)), [y]])

    def square(t: float) -> float:
        return float((scipy.cdf(t).mean() - (t >= y)) ** 2)

    if hasattr(scipy.dist, "pmf"):
        return sum(map(square, np.arange(0, ends.max() + 1)))
    cuts = np.unique(ends)
    return sum(quad(square, a, b, epsabs=1e-12, epsrel=1e-9)[0] for a, b in pairwise(cuts))


@pytest.mark.parametrize("name", CASES)
def test_quantiles_and_crps_of_a_mixture_are_those_of_its_distribution_function(name: str) -> None:
    likelihood, natural, y, scipy, score = CASES[name]
    alone = General(likelihood(F[None], at(likelihood, natural, 1)))
    np.testing.assert_allclose(alone.crps(y), score(y.numpy().astype(float)), rtol=1e-6)
    targets = y[:3]
    mixture = General(
        likelihood(F[:, None].expand(B, 3, 1), at(likelihood, natural, B))
    )  # B functions of 3 equal inputs
    np.testing.assert_allclose(mixture.crps(targets), [integral(scipy, float(t)) for t in targets], rtol=1e-6)
    np.testing.assert_allclose(mixture.cdf(targets), [scipy.cdf(float(t)).mean() for t in targets], rtol=1e-9)
    for level in (0.01, 0.5, 0.95):
        q = float(mixture.quantile(level)[0])
        discrete = hasattr(scipy.dist, "pmf")
        below = scipy.cdf(q - 1 if discrete else q).mean()
        assert scipy.cdf(q).mean() >= level - 1e-9
        assert below < level if discrete else below == pytest.approx(level, abs=1e-9)
    torch.testing.assert_close(torch.stack(mixture.interval(0.9)), mixture.quantile(LEVELS))
    np.testing.assert_allclose(mixture.epistemic[0], scipy.mean().var(), rtol=1e-9)
    np.testing.assert_allclose(mixture.aleatoric[0], scipy.var().mean(), rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_has_uniform_pits_and_the_expected_curvature(name: str) -> None:
    likelihood, natural, _, _, _ = CASES[name]
    n = 20_000
    f, latents = F[:1].expand(n, 1), at(likelihood, natural)
    own = likelihood(f, latents)
    torch.manual_seed(0)
    y = own.sample()
    below = own.cdf(y - 1) if own.support.is_discrete else own.cdf(y)
    pit = below + (own.cdf(y) - below) * torch.rand(n).double()  # randomised where there are steps
    assert float((pit.sort().values - (torch.arange(n) + 0.5) / n).abs().max()) < 1.95 / n**0.5  # Kolmogorov, 1 in 1000
    leaf = f.clone().requires_grad_()
    (score,) = torch.autograd.grad(likelihood(leaf, latents).log_prob(y).sum(), [leaf])
    problem = Problem(nn.Linear(1, 1).double(), Normal(0, 1), likelihood, n)
    expected = output_curvature(problem, f, y, "ggn", latents).diagonal()[0]
    error = score.square().std() / n**0.5
    assert float((score.square().mean() - expected).abs()) < 4 * float(error)
    assert float(score.mean().abs()) < 4 * float(score.std()) / n**0.5


def test_grades_are_those_of_cumulative_logits() -> None:
    cuts, grades = np.array([-1.0, 0.2, 1.7]), torch.tensor([0, 3, 1, 2, 2, 0])
    likelihood = Ordinal(4, tuple(cuts))
    latents = {"cuts": likelihood.latents()["cuts"].initial.double()}
    found = General(likelihood(F[None], {"cuts": latents["cuts"][None]}))
    below = np.concatenate([1 / (1 + np.exp(OUTPUT[:, None] - cuts)), np.ones((B, 1))], 1)
    probs = np.diff(below, prepend=0, axis=1)
    np.testing.assert_allclose(found.probs, probs, atol=1e-6)
    np.testing.assert_allclose(found.log_prob(grades), np.log(probs[range(B), grades]), rtol=1e-6)
    np.testing.assert_allclose(found.mean, (probs * np.arange(4)).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found.variance, (probs * np.arange(4) ** 2).sum(1) - found.mean.numpy() ** 2, rtol=1e-5)
    ranked = ((below - (np.arange(4) >= grades.numpy()[:, None])) ** 2).sum(1)
    np.testing.assert_allclose(found.crps(grades), ranked, rtol=1e-6)
    np.testing.assert_allclose(found.quantile(0.7), (below < 0.7).sum(1))
    assert set(found.sample(50).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    leaf = F.clone().requires_grad_()
    table = likelihood(leaf, latents).log_probs
    scores = torch.stack([torch.autograd.grad(table[:, k].sum(), [leaf], retain_graph=True)[0] for k in range(4)], -1)
    expected = (table.exp() * scores.squeeze(1).square()).sum(-1, keepdim=True)
    torch.testing.assert_close(likelihood.curvature(F, grades, latents), expected.detach(), atol=1e-9, rtol=1e-9)
    started = Ordinal(4).started(F, grades)
    shares = started(torch.zeros(1, 1), {"cuts": started.latents()["cuts"].initial}).probs
    np.testing.assert_allclose(shares, [[2.5 / 8, 1.5 / 8, 2.5 / 8, 1.5 / 8]], rtol=1e-5)


@pytest.mark.parametrize("name", ["scale", "df", "spread", "cuts"])
def test_priors_of_latents_are_densities(name: str) -> None:
    latent = {**StudentT().latents(), **Beta().latents(), **Ordinal(2).latents()}[name]
    u = torch.linspace(-60, 8 if name == "df" else 60, 8001, dtype=torch.float64)
    density = torch.stack([latent.log_prob(v.reshape(latent.initial.shape)) for v in u]).exp()
    total = torch.trapezoid(density, u)
    assert float(total) == pytest.approx(1, abs=0.02 if name == "scale" else 1e-4)  # a Cauchy's tail goes on


def test_curvature_in_the_latents_is_that_of_the_scores_and_a_gaussians_is_exact() -> None:
    likelihood = NegativeBinomial(unit=3.0)
    problem = Problem(nn.Linear(1, 1).double(), Normal(0, 1), likelihood, B)
    latents = at(likelihood, {"dispersion": 0.7})
    found = latent_curvature(problem, F, COUNTS, "ggn", latents)
    each = []
    for f, y in zip(F, COUNTS, strict=True):
        rho = latents["dispersion"].clone().requires_grad_()
        (score,) = torch.autograd.grad(likelihood(f[None], {"dispersion": rho}).log_prob(y[None]).sum(), [rho])
        each.append(score.square())
    torch.testing.assert_close(found, torch.stack(each).sum().reshape(1))


@pytest.mark.parametrize(
    ("likelihood", "targets", "said"),
    [
        (Poisson(), torch.tensor([1.0, -2.0, 0.0]), r"Target 1 is -2.0, and Poisson takes counts.*Gaussian\(\)"),
        (NegativeBinomial(), torch.tensor([1.5, 2.0, 0.2]), r"Target 0 is 1.5, and NegativeBinomial.*LogNormal\(\)"),
        (Poisson(), torch.ones(3, 2), r"Poisson needs outputs \(B, D\)"),
        (LogNormal(), torch.tensor([1.0, 0.0, 0.5]), "Target 1 is 0.0, and LogNormal takes numbers above 0.*Gaussian"),
        (Gamma(), torch.tensor([1.0, -3.0, 0.5]), "Target 1 is -3.0, and Gamma"),
        (Beta(), torch.tensor([0.5, 1.0, 0.5]), "Target 1 is 1.0, and Beta takes shares.*Smithson"),
        (StudentT(), torch.tensor([0.5, float("inf"), 0.5]), "Target 1 is inf"),
        (Ordinal(3), torch.tensor([1, 2, 3]), r"Target 2 is 3, and Ordinal\(3\) takes grades from 0 to 2"),
        (Poisson(unit=(1.0, 2.0)), torch.ones(3), "has 2 numbers for 1 outputs"),
    ],
)
def test_targets_that_do_not_fit_are_refused_with_what_would(likelihood, targets: Tensor, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        fit(nn.Linear(2, 1), (torch.zeros(3, 2), targets), likelihood=likelihood, method=MAP(epochs=1))


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.tensor([0, 1, 2, 40, 3]), "NegativeBinomial"),
        (torch.tensor([0.2, 0.9]), "Beta"),
        (torch.tensor([0.0, 0.9, 1.0]), "Smithson"),
        (torch.tensor([0.2, 9.0]), "LogNormal"),
        (torch.tensor([-0.2, 9.0]), "Gaussian"),
    ],
)
def test_the_likelihood_that_suits_is_told_from_the_values(targets: Tensor, said: str) -> None:
    assert said in suited(targets)


X = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
RATE = torch.exp(1.5 + 0.8 * X[:, 0])


def counts(seed: int) -> Tensor:
    """Counts of dispersion ½."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.poisson(dist.Gamma(2.0, 2.0 / RATE).sample())


def simulated(name: str) -> tuple[Likelihood, Tensor, dict[str, float]]:
    """A likelihood, data of it, and what is to be learnt."""
    f = X[:, 0]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        uniform = torch.rand(400)
        match name:
            case "student_t":
                return StudentT(), f + 0.3 * dist.StudentT(3.0).sample((400,)), {"scale": 0.3, "df": 3.0}
            case "log_normal":
                return LogNormal(), 1e5 * torch.exp(f + 0.5 * torch.randn(400)), {"std": 0.5}
            case "gamma":
                return Gamma(), 1e-6 * RATE * dist.Gamma(4.0, 4.0).sample((400,)), {"cv": 0.5}
            case "beta":
                shares = dist.Beta(4 * f.sigmoid(), 4 * (-f).sigmoid()).sample()
                return Beta(), shares.clamp(1e-6, 1 - 1e-6), {"spread": 0.2}
        return Ordinal(3), torch.bucketize(2 * f + uniform.logit(), torch.tensor([-1.0, 1.0])), {}


@pytest.mark.parametrize("name", ["student_t", "log_normal", "gamma", "beta", "ordinal"])
def test_what_is_learnt_is_what_was_drawn_in_any_units(name: str) -> None:
    likelihood, targets, value = simulated(name)
    posterior = fitted(likelihood, "laplace", targets)
    for latent, true in value.items():
        draws = posterior.latents[f"likelihood.{latent}"].draws
        assert float((draws.mean() - true).abs()) < 4 * float(draws.std()) + 0.05 * true
    scores = evaluate(posterior.predict(X, 2, generator=torch.Generator().manual_seed(0)), targets)
    assert {"rmse", "nll", "crps", "aleatoric_std"} <= scores.keys()
    assert all(np.isfinite(list(scores.values())))
    assert 0.86 < scores["coverage_90"] < 0.94 or name == "ordinal"
    assert name != "ordinal" or torch.allclose(
        posterior.latents["likelihood.cuts"].mean, torch.tensor([-1.0, 1.0]), atol=0.5
    )


STEPS: dict[str, Callable] = {
    "map": lambda m: m,
    "laplace": lambda m: Laplace(m, "full"),
    "mean_field": lambda m: MeanField(epochs=m.epochs, optimizer=m.optimizer),
}


def fitted(likelihood: Likelihood, how: str, targets: Tensor):
    method = STEPS[how](MAP(epochs=30, optimizer=Optimizer(lr=0.1)))
    data = posterity.TensorData(X, targets, batch_size=100)
    return fit(
        nn.Linear(2, 1), data, likelihood=likelihood, prior=Normal(0, 1), method=method, engine=Engine(progress=False)
    )


@pytest.fixture(scope="module")
def rivals() -> list[dict[str, float]]:
    """What a Poisson and a Gaussian on counts score."""
    y = counts(0)
    std, mean = torch.std_mean(y)
    plain = fitted(Gaussian(), "map", (y - mean) / std).predict(X, 1).rescale(mean, std)
    return [evaluate(found, counts(1)) for found in (fitted(Poisson(), "map", y).predict(X, 1), plain)]


@pytest.mark.parametrize("how", STEPS)
def test_a_fit_recovers_the_rate_and_beats_a_gaussian_on_overdispersed_counts(how: str, rivals, tmp_path) -> None:
    y = counts(0)
    posterior = fitted(NegativeBinomial(), how, y)
    found = posterior.predict(X, 8, generator=torch.Generator().manual_seed(0))
    assert float((found.mean / RATE - 1).abs().mean()) < 0.12  # the standard error of a slope is 0.05
    dispersion = posterior.latents["likelihood.dispersion"].draws.mean()
    assert float(dispersion) == pytest.approx(0.5, abs=0.15)
    scores = evaluate(found, counts(1))
    assert all(scores["nll"] < other["nll"] - 0.1 for other in rivals)
    assert scores["crps"] < rivals[1]["crps"]
    posterior.save(tmp_path / "p.safetensors")
    again = posterity.load(tmp_path / "p.safetensors", nn.Linear(2, 1))
    assert again.problem.likelihood == posterior.problem.likelihood
    same = again.predict(X, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(same.log_prob(y), found.log_prob(y))
    moments = average(posterior, X, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moments.variance, found.variance)
    with pytest.raises(InvalidInput, match="whole numbers, which have no other units"):
        found.rescale(0.0, 2.0)


def test_several_targets_have_a_unit_and_a_dispersion_each() -> None:
    y = torch.stack([counts(0), 100 * counts(1)], 1)
    data = posterity.TensorData(X, y, batch_size=100)
    posterior = fit(
        nn.Linear(2, 2),
        data,
        likelihood=NegativeBinomial(),
        method=MeanField(epochs=2),
        engine=Engine(progress=False),
    )
    assert posterior.problem.likelihood.unit == pytest.approx(tuple(y.mean(0).tolist()))
    assert posterior.latents["likelihood.dispersion"].draws.shape == (1000, 2)
    found = posterior.predict(X, 4)
    assert found.mean.shape == found.crps(y).shape == found.quantile(0.5).shape == (400, 2)
    assert found.log_prob(y).shape == (400,)


def test_counts_of_large_numbers_are_not_summed_one_by_one() -> None:
    mean, dispersion = 3e5, 0.5
    own = NegativeBinomial(unit=mean, dispersion=dispersion)(torch.zeros(1, 2, 1).double(), {})
    y = torch.tensor([2e5, 9e5])
    expected = sr.crps_negbinom(y.numpy().astype(float), 1 / dispersion, 1 / (1 + mean * dispersion))
    np.testing.assert_allclose(General(own).crps(y), expected, rtol=1e-6)


class Events(Likelihood):
    """A stranger's, of torch's own distribution, which has no distribution function."""

    def __call__(self, outputs: Tensor, latents) -> dist.Distribution:
        return dist.Poisson(3 * outputs.squeeze(-1).exp())

    def curvature(self, outputs: Tensor, targets: Tensor, latents) -> Tensor:
        return 3 * outputs.exp().unsqueeze(-1)  # (B, 1, 1)


def test_a_strangers_counts_have_exact_quantiles_a_crps_and_a_laplace_approximation() -> None:
    found = General(Events()(F[None], {}))
    np.testing.assert_allclose(found.crps(COUNTS), sr.crps_poisson(COUNTS.numpy().astype(float), MEAN), rtol=1e-6)
    np.testing.assert_allclose(found.quantile(0.9), st.poisson(MEAN).ppf(0.9))
    network = nn.Linear(1, 1).double()
    kinds = {"prior": Normal(0, 1), "engine": Engine(progress=False), "method": Laplace(None, "full")}
    own = [fit(network, (F, COUNTS.double()), likelihood=one, **kinds) for one in (Events(), Poisson(unit=3.0))]
    assert own[0].log_evidence == pytest.approx(own[1].log_evidence, rel=1e-9)
    torch.testing.assert_close(own[0].tensors(), own[1].tensors())


def test_a_gaussian_on_counts_says_what_would_suit() -> None:
    with pytest.warns(
        posterity.ScaleWarning, match=r"as counts do: likelihood=posterity.likelihoods.NegativeBinomial\(\)"
    ):
        fit(nn.Linear(2, 1), (X, counts(0)), likelihood=Gaussian(), method=MAP(epochs=1), engine=Engine(progress=False))


@pytest.mark.filterwarnings("ignore::posterity.errors.PosterityWarning")  # it says what is missing
def test_the_page_runs() -> None:
    names: dict = {}
    page = Path(__file__).parents[2] / "docs" / "likelihoods.md"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        exec(compile(block, page.name, "exec"), names)
    assert names["found"].family == "Exponential"
    low, high = names["posterior"].latents["likelihood.dispersion"].interval(0.9)
    assert low < 0.5 < high
