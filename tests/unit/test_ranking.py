"""Importance of weights, against quadrature, exact evidences and torch's distributions."""

from math import log

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

import posterity
from posterity import Gaussian, InvalidInput, Problem
from posterity.compress.ranking import importance, log_prior_at_zero
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.point import Point

MEAN, STD = [0.5, -0.02, 1.5, 0.0], [0.25, 0.4, 0.01, 0.3]


def posterior(prior: posterity.Prior, where: str | None = None) -> DiagonalGaussian:
    problem = Problem(nn.Linear(3, 1), prior, Gaussian(std=0.1), 10, where).snapshot()
    start = problem.coordinates.start
    mean = torch.tensor([*MEAN], dtype=torch.float32)
    return DiagonalGaussian(problem, mean, torch.tensor(STD)[: 4 - start])


def test_signal_to_noise_and_magnitude() -> None:
    q = posterior(posterity.Normal(0, 1))
    torch.testing.assert_close(importance(q), torch.tensor([2.0, 0.05, 150.0, 0.0]))
    torch.testing.assert_close(importance(q, "magnitude"), torch.tensor(MEAN).abs())


def test_signal_to_noise_orders_as_graves_does() -> None:
    """exp(−μ²/2σ²) is q(0) over q's greatest density."""
    q = posterior(posterity.Normal(0, 1))
    own = Normal(q.loc, q.std)
    graves = (own.log_prob(torch.zeros(4)) - own.log_prob(q.loc)).exp()
    assert torch.equal(importance(q).argsort(), graves.argsort(descending=True))


@pytest.mark.parametrize(
    ("prior", "own"),
    [
        (posterity.Normal(0.2, 0.7), stats.norm(0.2, 0.7)),
        (posterity.LaplacePrior(0.1, 0.3), stats.laplace(0.1, 0.3)),
        (posterity.StudentT(3.0, 0.1, 0.3), stats.t(3, 0.1, 0.3)),
    ],
)
def test_kl_is_what_removal_does_to_the_evidence(prior: posterity.Prior, own: object) -> None:
    """With q(w) ∝ L(w) p(w), the evidence is ∫ L p dw = ∫ q dw · c, and without the weight L(0) = c q(0)/p(0)."""
    found = importance(posterior(prior), "kl").double()
    for i, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        q = stats.norm(mean, std)

        def likelihood(w: float, q=q) -> float:
            return q.pdf(w) / own.pdf(w)

        points = [mean - 9 * std, mean + 9 * std]
        evidence = integrate.quad(lambda w, f=likelihood: f(w) * own.pdf(w), *points)[0]
        expected = log(evidence) - (q.logpdf(0) - own.logpdf(0))
        assert found[i].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_kl_of_an_exact_posterior_is_the_ratio_of_evidences() -> None:
    """Orthogonal inputs make the exact posterior independent: then log p(D) − log p(D | w_i = 0) is known in closed form."""
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(9, 3, dtype=torch.float64))[0]
    noise, width = 0.3, 0.8
    y = x @ torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64) + noise * torch.randn(9, dtype=torch.float64)
    precision = 1 / noise**2 + 1 / width**2
    network = nn.Linear(3, 1, bias=False).double()
    problem = Problem(network, posterity.Normal(0, width), Gaussian(std=noise), 9).snapshot()
    std = torch.full((3,), precision**-0.5, dtype=torch.float64)
    found = importance(DiagonalGaussian(problem, x.T @ y / noise**2 / precision, std), "kl")

    def log_evidence(columns: Tensor) -> Tensor:
        covariance = noise**2 * torch.eye(9, dtype=torch.float64) + width**2 * columns @ columns.T
        return MultivariateNormal(torch.zeros(9, dtype=torch.float64), covariance).log_prob(y)

    for i in range(3):
        expected = log_evidence(x) - log_evidence(x[:, [k for k in range(3) if k != i]])
        assert found[i].item() == pytest.approx(expected.item(), abs=1e-9)
    assert found[2] < 0 < found[0]  # a weight that does nothing costs evidence
    both = log_evidence(x) - log_evidence(x[:, :1])
    assert (found[1] + found[2]).item() == pytest.approx(
        both.item(), abs=1e-9
    )  # a sum is that of removing them together


def test_kl_is_no_difference_of_divergences() -> None:
    """The KL that a removal saves, KL(q‖p), says nothing of what the data lose; the two must not be confused."""
    q = posterior(posterity.Normal(0, 1))
    saved = kl_divergence(Normal(q.loc, q.std), Normal(torch.zeros(4), torch.ones(4)))
    assert not torch.equal(importance(q, "kl").argsort(), saved.argsort())


def test_the_prior_at_zero_goes_with_its_own_weights() -> None:
    prior = {"bias": posterity.LaplacePrior(0.3, 0.5), "*": posterity.Normal(0.2, 0.7)}
    q = posterior(posterity.model.priors.as_prior(prior))
    expected = [*[Normal(0.2, 0.7).log_prob(torch.tensor(0.0))] * 3, Laplace(0.3, 0.5).log_prob(torch.tensor(0.0))]
    torch.testing.assert_close(log_prior_at_zero(q.problem), torch.tensor(expected))
    part = posterior(posterity.Normal(0, {"bias": 2.0, "*": 0.5}), where="weight")  # θ: bias, then weights
    torch.testing.assert_close(log_prior_at_zero(part.problem), Normal(0.0, 0.5).log_prob(torch.zeros(3)))
    torch.testing.assert_close(importance(part), torch.tensor(MEAN[1:]).abs() / torch.tensor(STD[:3]))


def test_what_has_gone_comes_first() -> None:
    q = posterior(posterity.Normal(0, 1))
    q.loc[2] = q.std[2] = 0.0
    for by in ("signal_to_noise", "kl", "magnitude"):
        values = importance(q, by)
        assert values[2] == -torch.inf
        assert values[[0, 1, 3]].isfinite().all()


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match=r"Did you mean 'signal_to_noise'"):
        importance(posterior(posterity.Normal(0, 1)), "signal_noise")
    with pytest.raises(InvalidInput, match=r"Hierarchical does not give the density of one weight.*signal_to_noise"):
        importance(_hierarchical(True), "kl")
    assert importance(_hierarchical(True)).shape == (4,)
    with pytest.raises(InvalidInput, match="centered=True"):
        importance(_hierarchical(False))
    point = Point(posterior(posterity.Normal(0, 1)).problem, torch.tensor(MEAN))
    torch.testing.assert_close(importance(point, "magnitude"), _magnitudes())
    with pytest.raises(InvalidInput, match="by='magnitude'"):
        importance(point)


def _magnitudes() -> Tensor:
    values = torch.tensor(MEAN).abs()
    values[3] = -torch.inf  # a point's weight that is 0 already
    return values


def _hierarchical(centered: bool) -> DiagonalGaussian:
    prior = posterity.Hierarchical(per="network", centered=centered)
    problem = Problem(nn.Linear(3, 1), prior, Gaussian(std=0.1), 10).snapshot()
    return DiagonalGaussian(problem, torch.tensor([*MEAN, -1.0]), torch.tensor([*STD, 0.1]))
