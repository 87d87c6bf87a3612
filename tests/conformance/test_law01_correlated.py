"""Law 1 for Gaussians with correlations: the exact covariance, and the exact log evidence, of the conjugate problem."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import posterity
from posterity import Engine, FullRank, Gaussian, InvalidInput, LowRank, Normal, Problem, TensorData
from posterity.core.covariance import CholeskyCovariance, LowRankCovariance
from posterity.model.correlated import CorrelatedDivergence
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.low_rank import LowRankGaussian
from tests.conformance.table import COUPLED_STEPS, FAST, TABLE, Conjugate

SEEDS = 8
Correlated = LowRankGaussian | FullRankGaussian
CORRELATED = [n for n, row in TABLE.items() if row.family == "correlated"]
every_correlated = pytest.mark.parametrize("name", CORRELATED)


def covariance(posterior: Correlated) -> Tensor:
    if isinstance(posterior, FullRankGaussian):
        return posterior.covariance
    return posterior.std.square().diag() + posterior.factor @ posterior.factor.T


@cache
def fitted(name: str, seed: int = 0) -> Correlated:
    return Conjugate.make().fit(TABLE[name].method, seed)


def fits(name: str) -> list[Correlated]:
    return [fitted(name, seed) for seed in range(SEEDS)]


def deviations(found: list[Correlated]) -> Tensor:
    """How many standard errors over seeds each entry of mean and covariance is from the exact one."""
    case = Conjugate.make()
    exact = torch.cat([case.mean, torch.linalg.inv(case.precision).reshape(-1)])
    rows = torch.stack([torch.cat([f.mean, covariance(f).reshape(-1)]) for f in found])
    return (rows.mean(0) - exact).abs() / (rows.std(0) / len(rows) ** 0.5 + 1e-9)


def gap(posterior: Correlated) -> float:
    """KL from the exact posterior, which is log evidence − ELBO."""
    case = Conjugate.make()
    exact = MultivariateNormal(case.mean, precision_matrix=case.precision)
    return float(kl_divergence(MultivariateNormal(posterior.mean, covariance(posterior)), exact))


@pytest.mark.slow  # in every run one seed of each must reach the evidence, which sees mean and covariance, too
@every_correlated
def test_mean_and_covariance_are_exact(name: str) -> None:
    assert (deviations(fits(name)) < 4).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, SEEDS))])
@every_correlated
def test_elbo_reaches_the_log_evidence(name: str, seed: int) -> None:
    """The ELBO of a fit, from the library's own KL, is the log evidence but for what noise in the last steps leaves."""
    case = Conjugate.make()
    independent = 0.5 * float(case.precision.diagonal().log().sum() - torch.logdet(case.precision))
    posterior = fitted(name, seed)
    sigma, d = covariance(posterior), case.design
    squares = (case.y - d @ posterior.mean).square() + ((d @ sigma) * d).sum(1)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), case.noise)
    expected = (normal.log_prob(torch.zeros(())) - squares / (2 * case.noise**2)).sum()
    root = torch.linalg.cholesky(sigma)
    q = CholeskyCovariance(posterity.core.gaussian.inverse_softplus(root.diagonal()), root.tril(-1))
    kl = CorrelatedDivergence.of(posterior.problem.coordinates).value(posterior.mean, q, posterior.mean)
    elbo = float(expected - kl)
    assert elbo == pytest.approx(case.log_evidence - gap(posterior), abs=1e-9)
    assert elbo <= case.log_evidence
    assert elbo > case.log_evidence - 0.2 * independent  # mean field's best falls short by all of it, 0.54 nats


@every_correlated
def test_predictive_variance_has_the_correlations(name: str) -> None:
    posterior = fitted(name)
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    n = 4000
    predicted = posterior.predict(x, n, generator=torch.Generator().manual_seed(1))
    design = torch.cat([x, torch.ones(2, 1, dtype=torch.float64)], 1)
    epistemic = ((design @ covariance(posterior)) * design).sum(1)
    assert ((predicted.epistemic - epistemic).abs() < 4 * (2 / n) ** 0.5 * epistemic).all()
    assert ((predicted.mean - design @ posterior.mean).abs() < 4 * (epistemic / n).sqrt()).all()
    independent = design.square() @ posterior.marginal_std.square()
    assert ((epistemic - independent).abs() > 8 * (2 / n) ** 0.5 * epistemic).all()  # the test can tell them apart


MUTATIONS = {
    "a KL that weighs twice": ("temperature", None),
    "noise twice as wide": ("noise", CholeskyCovariance),
    "an entropy that counts half": ("add_divergence_gradient", CholeskyCovariance),
}


@pytest.mark.parametrize(
    "mutation",
    [pytest.param(m, marks=() if m == "an entropy that counts half" else pytest.mark.slow) for m in MUTATIONS],
)
def test_a_factor_of_two_anywhere_fails_the_law(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, home = MUTATIONS[mutation]
    method = FullRank(epochs=COUPLED_STEPS // 3, optimizer=FAST, draws=4, antithetic=True)
    if home is None:
        method = FullRank(epochs=COUPLED_STEPS // 3, optimizer=FAST, draws=4, antithetic=True, temperature=2.0)
    elif name == "noise":
        own = home.noise
        monkeypatch.setattr(home, "noise", lambda self, generator: 2 * own(self, generator))
    else:
        whole = home.add_divergence_gradient
        monkeypatch.setattr(
            home, name, lambda self, out, weight, precision: whole(self, out, weight / 2, 2 * precision)
        )
    found = [Conjugate.make().fit(method, seed) for seed in range(3)]
    assert (deviations(found) > 8).any()


def test_a_rank_that_is_too_small_still_has_the_exact_mean_and_beats_mean_field() -> None:
    case = Conjugate.make()
    posterior = case.fit(LowRank(1, epochs=COUPLED_STEPS // 2, optimizer=FAST, draws=4, antithetic=True))
    assert posterior.factor.shape == (3, 1)
    assert gap(posterior) < 0.1


@every_correlated
def test_as_prior_is_the_fitted_gaussian(name: str) -> None:
    posterior, w = fitted(name), torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    prior = posterior.as_prior()
    exact = MultivariateNormal(posterior.mean, covariance(posterior)).log_prob(w)
    torch.testing.assert_close(prior.log_prob(posterior.problem.layout.views(w)), exact)


@every_correlated
def test_sequential_data_give_the_posterior_of_all(name: str) -> None:
    """The exact posterior of half of the data, as a prior with correlations, beside the other half: log p is that of all."""
    case = Conjugate.make()
    half = Conjugate(case.x[:12], case.y[:12])
    root = torch.linalg.cholesky(torch.linalg.inv(half.precision))
    problem = Problem(nn.Linear(2, 1).double(), Normal(0, 0.7), Gaussian(std=0.5), 12)
    first = FullRankGaussian(problem, half.mean, root).as_prior()
    torch.manual_seed(0)
    data = TensorData(case.x[12:], case.y[12:], 12)
    engine = Engine(progress=False, device="cpu")
    found = posterity.fit(
        nn.Linear(2, 1).double(),
        data,
        likelihood=Gaussian(std=0.5),
        prior=first,
        method=replace(TABLE[name].method, epochs=COUPLED_STEPS // 3),
        engine=engine,
    )
    assert gap(found) < 0.05  # a prior without correlations would be much further off
    assert ((found.mean - case.mean).abs() < 0.02).all()


def test_a_covariance_that_does_not_fit_says_its_size_and_what_does() -> None:
    network = nn.Linear(200, 100)
    with pytest.raises(InvalidInput, match=r"20,100 random coordinates takes 10\.5 GiB.*LowRank.*last_layer"):
        posterity.fit(
            network, (torch.zeros(4, 200), torch.zeros(4, dtype=torch.int64)), method=FullRank(), engine=Engine()
        )


@pytest.mark.parametrize("method", [LowRank(epochs=1), FullRank(epochs=1)])
def test_a_flat_prior_is_refused(method: object) -> None:
    data = torch.zeros(4, 2), torch.zeros(4)
    with pytest.raises(InvalidInput, match="proper prior"):
        posterity.fit(nn.Linear(2, 1), data, likelihood=Gaussian(), prior=posterity.Flat(), method=method)


def test_odd_numbers_of_antithetic_draws_are_refused() -> None:
    for method in (LowRank, FullRank):
        with pytest.raises(ValueError, match="even number"):
            method(draws=3, antithetic=True)


def test_latent_draws_are_those_of_the_whole_vector() -> None:
    """The noise level's draws have the moments of θ's last coordinate."""
    problem = Problem(nn.Linear(2, 1).double(), Normal(0, 1), Gaussian(), 10)
    generator = torch.Generator().manual_seed(0)
    factor = 0.3 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    low = LowRankGaussian(problem, torch.zeros(4).double(), torch.full((4,), 0.2).double(), factor)
    full = FullRankGaussian(problem, low.loc, torch.linalg.cholesky(covariance(low)))
    for posterior in (low, full):
        torch.testing.assert_close(posterior.marginal_std, covariance(posterior).diagonal().sqrt())
        drawn = posterior.latent_draws(20_000, generator)["likelihood.std"].reshape(-1)
        rho = posterity.core.gaussian.inverse_softplus(drawn)
        assert float(rho.std()) == pytest.approx(float(posterior.marginal_std[-1]), rel=4 / (2 * 20_000) ** 0.5)


def test_low_rank_has_rank_more_numbers_per_weight() -> None:
    q = LowRankCovariance(torch.zeros(5), torch.zeros(5, 2))
    assert q.noises == 7
