"""Censored numbers, quantiles, mixtures of densities and correlated noises, against SciPy, scoringrules and quadrature."""

import numpy as np
import pytest
import scipy.stats as st
import scoringrules as sr
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from posterity import MAP, Engine, InvalidInput, Laplace, Normal, Optimizer, TensorData, fit, load
from posterity.likelihoods import (
    Bernoulli,
    Binomial,
    Censored,
    Gamma,
    Gaussian,
    Likelihood,
    LogNormal,
    MixtureDensity,
    MultivariateGaussian,
    Quantile,
    StudentT,
    Weibull,
    ZeroInflated,
    survival,
)
from posterity.metrics import evaluate
from posterity.metrics.scores import concordance, pinball_loss
from posterity.predict.predictive import General, Quantiles, Survival, predictive

inf = float("inf")
ROWS = torch.tensor([[0.7, 0.7], [2.0, inf], [-inf, 1.5], [0.5, 3.0], [0.0, 0.2], [8.0, 8.001]]).double()
F = torch.randn(len(ROWS), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OUTPUT = F.squeeze(1).numpy()
SCALE = 2 * np.exp(OUTPUT)

CENSORED = {  # likelihood, learnt values, SciPy's distribution of the numbers
    "weibull": (Weibull(unit=2.0), {"shape": 1.6}, st.weibull_min(1.6, scale=SCALE)),
    "log_normal": (LogNormal(unit=2.0), {"std": 0.6}, st.lognorm(0.6, scale=SCALE)),
    "gamma": (Gamma(unit=2.0), {"cv": 0.7}, st.gamma(1 / 0.49, scale=0.49 * SCALE)),
    "gaussian": (Gaussian(), {"std": 0.8}, st.norm(OUTPUT, 0.8)),
    "student_t": (StudentT(), {"scale": 0.8, "df": 3.5}, st.t(3.5, OUTPUT, 0.8)),
}


def unconstrained(likelihood: Likelihood, natural: dict[str, float]) -> dict[str, Tensor]:
    """The coordinates at which latents have these values, by bisection."""
    found = {}
    for name, value in natural.items():
        low, high = torch.tensor(-40.0).double(), torch.tensor(40.0).double()
        for _ in range(80):
            middle = (low + high) / 2
            below = bool(likelihood.latents()[name].natural(middle) < value)
            low, high = (middle, high) if below else (low, middle)
        found[name] = middle
    return found


def known(scipy: object, rows: np.ndarray) -> np.ndarray:
    """SciPy's log-density, or log-probability, of each row."""
    low, high = rows.T
    mass = np.where(scipy.sf(low) < 0.5, scipy.sf(low) - scipy.sf(high), scipy.cdf(high) - scipy.cdf(low))
    return np.where(low == high, scipy.logpdf(np.where(low == high, low, 1.0)), np.log(np.maximum(mass, 1e-300)))


@pytest.mark.parametrize("name", CENSORED)
def test_what_is_known_of_a_censored_number_has_scipys_probability_and_its_slopes(name: str) -> None:
    values, natural, scipy = CENSORED[name]
    likelihood = Censored(values)
    latents = {n: v.requires_grad_() for n, v in unconstrained(likelihood, natural).items()}
    outputs = F.clone().requires_grad_()
    own = likelihood(outputs, latents).log_prob(ROWS)
    np.testing.assert_allclose(own.detach(), known(scipy, ROWS.numpy()), rtol=1e-7, atol=1e-9)
    slopes = torch.autograd.grad(own.sum(), [outputs, *latents.values()])
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    for slope, place in zip(slopes, (outputs, *latents.values()), strict=True):
        with torch.no_grad():
            ends = []
            for step in (1e-5, -1e-5):
                place += step
                ends.append(likelihood(outputs, latents).log_prob(ROWS).sum())
                place -= step
        assert float(slope.sum()) == pytest.approx(float((ends[0] - ends[1]) / 2e-5), rel=1e-5, abs=1e-7)
    bend = likelihood.curvature(F, ROWS, {n: v.detach() for n, v in latents.items()})
    with torch.no_grad():
        ends = [likelihood(F + step, latents).log_prob(ROWS) for step in (1e-3, 0.0, -1e-3)]
    expected = -(ends[0] - 2 * ends[1] + ends[2]) / 1e-6
    np.testing.assert_allclose(bend.squeeze(1), expected.clamp(min=0), rtol=1e-4, atol=1e-5)
    assert bool((bend > 0).any())


@pytest.mark.parametrize("name", CENSORED)
def test_far_tails_keep_their_digits(name: str) -> None:
    values, natural, scipy = CENSORED[name]
    rows = torch.tensor([[60.0, inf], [1e3, inf]]).double()
    own = Censored(values)(F[:2], unconstrained(values, natural)).log_prob(rows)
    expected = [float(scipy.logsf(end)[i]) for i, end in enumerate((60.0, 1e3))]
    if name == "gamma":  # SciPy's own ends at −745: the fraction of Abramowitz & Stegun 6.5.31
        shape, x = 1 / 0.49, 1e3 / (0.49 * SCALE[1])
        expected[1] = st.gamma(shape).logpdf(x) + np.log(
            quad(lambda t: np.exp(-t) * (1 + t / x) ** (shape - 1), 0, 50)[0]
        )
    np.testing.assert_allclose(own, expected, rtol=1e-8)


@pytest.mark.parametrize("name", CENSORED)
def test_a_survival_is_of_the_numbers_themselves_and_scored_by_what_is_known(name: str) -> None:
    values, natural, scipy = CENSORED[name]
    latents = {n: v.expand(len(F)) for n, v in unconstrained(values, natural).items()}
    outputs = F[:, None].expand(len(F), 3, 1)  # a mixture of all of SciPy's distributions, of 3 equal inputs
    found = predictive(Censored(values)(outputs, latents), outputs)
    assert isinstance(found, Survival)
    expected = np.outer([scipy.sf(t).mean() for t in (0.5, 3.0)], [1] * 3)
    np.testing.assert_allclose(found.survival(torch.tensor([0.5, 3.0])), expected)
    np.testing.assert_allclose(found.survival(1.0), [scipy.sf(1.0).mean()] * 3, rtol=1e-9)
    assert found.survival(-inf).tolist() == [1.0] * 3
    assert found.survival(inf).tolist() == [0.0] * 3
    rows = ROWS[1:4]
    each = np.stack([np.exp(known(scipy, row[None])) for row in rows.numpy()], 1)
    np.testing.assert_allclose(found.log_prob(rows).exp(), each.mean(0), rtol=1e-7)
    crps = []
    start = -inf if name in ("gaussian", "student_t") else 0.0
    for low, high in rows.tolist():
        below = quad(lambda t: scipy.cdf(t).mean() ** 2, start, low, limit=200)[0] if low > start else 0.0
        above = quad(lambda t: scipy.sf(t).mean() ** 2, high, inf, limit=200)[0] if high < inf else 0.0
        crps.append(below + above)
    np.testing.assert_allclose(found.crps(rows), crps, rtol=1e-6)
    exact = torch.tensor([0.3, 1.0, 4.0]).double()
    plain = General(values(outputs, latents)) if name != "gaussian" else General(found.distribution)
    torch.testing.assert_close(found.crps(exact), plain.crps(exact))
    torch.testing.assert_close(found.log_prob(exact), plain.log_prob(exact))
    scaled = found.rescale(1.0, 2.0)
    torch.testing.assert_close(scaled.log_prob(2 * rows + 1), found.log_prob(rows))
    torch.testing.assert_close(scaled.crps(2 * rows + 1), 2 * found.crps(rows))
    torch.testing.assert_close(scaled.log_prob(2 * exact + 1), found.log_prob(exact) - np.log(2))


def test_intervals_hold_censored_numbers_as_often_as_they_say() -> None:
    torch.manual_seed(0)
    n = 20_000
    true = Survival(torch.distributions.Weibull(torch.full((1, n), 2.0), torch.tensor(1.5)))
    times, ends = true.sample(1)[0], 4 * torch.rand(n)
    rows = survival(times.minimum(ends), times <= ends)
    lower, upper = true.interval(0.9)
    held = true.inside(lower, upper, rows)
    assert float(held.mean()) == pytest.approx(0.9, abs=4 * float(held.std()) / n**0.5)
    pit = true.cdf(times).sort().values
    assert float((pit - (torch.arange(n) + 0.5) / n).abs().max()) < 1.95 / n**0.5
    assert concordance(-times[:500], rows[:500]) == 0.0
    assert concordance(times[:500], rows[:500]) == 1.0


LEVELS = (0.05, 0.5, 0.95)
QUANTILES = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1))


def test_quantiles_are_the_mean_functions_and_no_density() -> None:
    found = predictive(Quantile(LEVELS, scale=1.0)(QUANTILES, {}), QUANTILES)
    y = torch.tensor([0.1, -1.0, 2.0])
    assert isinstance(found, Quantiles)
    expected = QUANTILES.mean(0).sort(-1).values
    torch.testing.assert_close(found.quantile(torch.tensor([0.05, 0.95])), expected[:, [0, 2]].T)
    losses = [pinball_loss(expected[:, i], y, level) for i, level in enumerate(LEVELS)]
    scores = evaluate(found, y)
    assert scores["pinball"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert set(scores) == {"pinball", "coverage_90", "interval_width_90"}
    assert "Quantiles(4 functions, 3 inputs; quantile 0.05" in repr(found)
    for ask in (found.log_prob, found.crps, found.cdf):
        with pytest.raises(InvalidInput, match="is no density"):
            ask(y)
    with pytest.raises(InvalidInput, match="no mean of a quantile likelihood"):
        _ = found.mean
    with pytest.raises(InvalidInput, match=r"level 0\.1 was not trained; those of 0\.05, 0\.5, 0\.95 were"):
        found.quantile(0.1)
    scaled = found.rescale(1.0, 2.0)
    torch.testing.assert_close(scaled.quantile(0.5), 2 * found.quantile(0.5) + 1)
    draws = st.laplace_asymmetric((0.95 / 0.05) ** 0.5).rvs(100_000, random_state=0)
    own = Quantile((0.05,), scale=1.0)
    density = own(torch.zeros(len(draws), 1), {}).log_prob(torch.tensor(draws / (0.05 * 0.95) ** 0.5).float())
    reference = st.laplace_asymmetric(((0.95) / 0.05) ** -0.5, scale=(0.05 * 0.95) ** -0.5)
    np.testing.assert_allclose(density[:100], reference.logpdf(draws[:100] / (0.05 * 0.95) ** 0.5), rtol=1e-4)


PARTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
MIXED = MixtureDensity(2, unit=2.0, places=(-1.0, 3.0))


def mixture_parts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits, shifts, raw = PARTS.chunk(3, -1)
    shares, means = logits.softmax(-1), torch.tensor([-1.0, 3.0]) + 2 * shifts
    return shares.numpy(), means.numpy(), (2 * (0.01 + torch.nn.functional.softplus(raw))).numpy()


def test_a_mixture_density_is_its_components_and_its_curvature_that_of_its_scores() -> None:
    shares, means, stds = mixture_parts()
    y = torch.tensor([-2.0, 0.0, 4.0, 1.0, 9.0]).double()
    found = General(MIXED(PARTS[None], {}))
    density = (shares * st.norm(means, stds).pdf(y[:, None])).sum(1)
    np.testing.assert_allclose(found.log_prob(y), np.log(density), rtol=1e-9)
    np.testing.assert_allclose(found.crps(y), sr.crps_mixnorm(y.numpy(), means, stds, shares), rtol=1e-6)
    single = General(MIXED(PARTS[None].float(), {}))
    np.testing.assert_allclose(single.crps(y.float()), found.crps(y), rtol=1e-5)
    n = 20_000
    outputs = PARTS[:1].expand(n, 6)
    torch.manual_seed(0)
    drawn = MIXED(outputs, {}).sample()
    pit = MIXED(outputs, {}).cdf(drawn).sort().values
    assert float((pit - (torch.arange(n) + 0.5) / n).abs().max()) < 1.95 / n**0.5
    leaf = outputs.clone().requires_grad_()
    (scores,) = torch.autograd.grad(MIXED(leaf, {}).log_prob(drawn).sum(), [leaf])
    products = scores.unsqueeze(1) * scores.unsqueeze(2)
    away = (products.mean(0) - MIXED.curvature(PARTS[:1], y[:1], {})[0]).abs()
    assert bool((away < 4.5 * products.std(0) / n**0.5 + 1e-6).all())


def test_correlated_noises_are_scipys_and_their_prior_is_a_density() -> None:
    covariance = np.array([[1.0, -0.5, 0.3], [-0.5, 4.0, 0.2], [0.3, 0.2, 0.25]])
    stds = np.sqrt(np.diag(covariance))
    below = tuple((covariance / np.outer(stds, stds))[np.tril_indices(3, -1)])
    likelihood = MultivariateGaussian(3, tuple(stds), below)
    start = likelihood.latents()
    latents = {name: latent.initial.double() for name, latent in start.items()}
    np.testing.assert_allclose(start["correlation"].natural(latents["correlation"]), below, rtol=1e-5)
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    y = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    expected = [st.multivariate_normal(mean, covariance).logpdf(t) for mean, t in zip(outputs, y, strict=True)]
    np.testing.assert_allclose(likelihood(outputs, latents).log_prob(y), expected, rtol=1e-5)
    np.testing.assert_allclose(likelihood.curvature(outputs, y, latents)[1], np.linalg.inv(covariance), rtol=1e-4)
    found = General(likelihood(outputs[None], {n: v[None] for n, v in latents.items()}))
    np.testing.assert_allclose(found.crps(y), sr.crps_normal(y.numpy(), outputs.numpy(), stds), rtol=1e-5)
    np.testing.assert_allclose(found.quantile(0.95), outputs.numpy() + 1.6448536 * stds, rtol=1e-5)
    u = torch.linspace(-12, 12, 4001).double()
    prior = MultivariateGaussian(2).latents()["correlation"].log_prob
    total = torch.trapezoid(torch.stack([prior(v[None]) for v in u]).exp(), u)
    assert float(total) == pytest.approx(1, abs=1e-4)


X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def simulated(name: str) -> tuple[Likelihood, Tensor, dict[str, object]]:
    """A likelihood, data of it, and what is to be learnt."""
    f, normal = X[:, 0], torch.randn(200, 2)
    match name:
        case "censored":
            times, ends = torch.distributions.Weibull(3 * f.exp(), torch.tensor(1.5)).sample(), 8 * torch.rand(200)
            return Censored(Weibull()), survival(times.minimum(ends), times <= ends), {"shape": 1.5}
        case "tobit":
            y = f + 0.5 * normal[:, 0]
            return Censored(Gaussian()), torch.stack([y.clamp(max=0.8), torch.where(y > 0.8, inf, y)], 1), {"std": 0.5}
        case "quantile":
            return Quantile(), f + 0.5 * normal[:, 0], {}
        case "mixture":
            return MixtureDensity(2), f + 0.3 * normal[:, 0] + torch.where(normal[:, 1] > 0, 1e3, 1e3 + 4), {}
        case "correlated":
            noise = torch.stack([normal[:, 0], 0.6 * normal[:, 0] + 0.8 * normal[:, 1]], 1)
            return (
                MultivariateGaussian(2),
                torch.stack([f, -f], 1) + 0.5 * noise,
                {"std": (0.5, 0.5), "correlation": 0.6},
            )
        case "binomial":
            return Binomial(12), torch.distributions.Binomial(12, f.sigmoid()).sample(), {}
        case "labels":
            return Bernoulli(), (torch.stack([f, -f], 1) + 0.3 * normal > 0).float(), {}
    counts = torch.poisson(torch.exp(1.5 + 0.5 * f))
    return ZeroInflated(), torch.where(normal[:, 0] > 0.5, 0.0, counts), {"zeros": 0.31}


@pytest.mark.parametrize(
    "name", ["censored", "tobit", "quantile", "mixture", "correlated", "binomial", "zeros", "labels"]
)
def test_what_is_learnt_is_what_was_drawn_and_its_scores_are_there(name: str, tmp_path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        likelihood, targets, value = simulated(name)
    width = 2 if name == "labels" else likelihood.width(2 if name == "correlated" else 1)
    posterior = fit(
        nn.Linear(2, width),
        TensorData(X, targets, batch_size=50).split(0.1),
        likelihood=likelihood,
        prior=Normal(0, 1),
        method=Laplace(MAP(epochs=25, optimizer=Optimizer(lr=0.1)), "full"),
        engine=Engine(progress=False),
    )
    for latent, true in value.items():
        draws = posterior.latents[f"likelihood.{latent}"].draws
        away = (draws.mean(0) - torch.tensor(true)).abs()
        assert bool((away < 4 * draws.std(0) + 0.1 * torch.tensor(true)).all())
    found = posterior.predict(X, 4, generator=torch.Generator().manual_seed(0))
    scores = evaluate(found, targets)
    assert np.isfinite(list(scores.values())).all()
    if name in ("censored", "tobit", "quantile", "mixture"):
        assert 0.84 < scores["coverage_90"] < 0.98
    posterior.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors", nn.Linear(2, width))
    assert again.problem.likelihood == posterior.problem.likelihood


@pytest.mark.parametrize(
    ("likelihood", "width", "targets", "said"),
    [
        (Censored(), 1, torch.ones(3), r"Censored needs one output.*rows \(low, high\).*survival\(times, events\)"),
        (
            Censored(),
            1,
            torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, inf]]),
            r"Target 1 is \[2.0, 1.0\]; it is \(low, high\)",
        ),
        (
            Censored(),
            1,
            torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [1.0, inf]]),
            "Target 1 misses some of its numbers",
        ),
        (
            Censored(),
            1,
            torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, inf]]),
            "Target 0 is 0.0, and Weibull takes",
        ),
        (Censored(), 1, torch.tensor([[-inf, inf], [0.0, inf], [0.0, inf]]), "nothing to learn from"),
        (Quantile(), 1, torch.ones(3), r"Quantile of 5 levels needs outputs \(B, 5\)"),
        (MixtureDensity(2), 2, torch.ones(3), r"MixtureDensity of 2 components needs outputs \(B, 6\)"),
        (MultivariateGaussian(2), 3, torch.ones(3, 3), r"MultivariateGaussian\(2\) needs outputs \(B, 2\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused_with_what_would(
    likelihood, width: int, targets: Tensor, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        fit(nn.Linear(2, width), (torch.zeros(3, 2), targets), likelihood=likelihood, method=MAP(epochs=1))


def test_options_that_contradict_each_other_are_refused() -> None:
    for make, said in (
        (lambda: Quantile((0.5, 0.1)), "each is above the last"),
        (lambda: Quantile((0.1, 0.5), scale=(1.0,)), "1 numbers for 2 levels"),
        (lambda: MixtureDensity(2, places=(0.0,)), "1 numbers for 2 components"),
        (lambda: MultivariateGaussian(2, initial_std=(1.0,)), "1 numbers for 2 targets"),
        (lambda: MultivariateGaussian(3, initial_correlation=(0.9, 0.9, -0.9)), "no correlation matrix"),
        (lambda: survival(torch.ones(2), torch.tensor([1, 2])), "1 where one was seen"),
    ):
        with pytest.raises(InvalidInput, match=said):
            make()
