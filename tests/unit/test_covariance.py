"""Covariances by tensors against dense algebra and torch's distributions; KL and its gradient; Gaussian posteriors."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from posterity import Categorical, Gaussian, Hierarchical, Normal, Problem, ScaleMixture
from posterity.core.covariance import CholeskyCovariance, Covariance, LowRankCovariance
from posterity.core.gaussian import inverse_softplus
from posterity.model.correlated import CorrelatedDivergence

N, K = 7, 3
GENERATOR = torch.Generator().manual_seed(0)
STD = 0.1 + torch.rand(N, generator=GENERATOR, dtype=torch.float64)
FACTOR = torch.randn(N, K, generator=GENERATOR, dtype=torch.float64)
LOWER = torch.randn(N, N, generator=GENERATOR, dtype=torch.float64).tril(-1)
DRAWS = 1000  # of an estimate whose error is measured beside it
MEAN = torch.randn(N, generator=GENERATOR, dtype=torch.float64)
FAMILIES = {
    "low rank": (lambda rho, rest: LowRankCovariance(rho, rest), FACTOR),
    "more directions than weights": (lambda rho, rest: LowRankCovariance(rho, rest), torch.cat([FACTOR] * 4, 1)),
    "cholesky": (lambda rho, rest: CholeskyCovariance(rho, rest), LOWER),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def made(name: str) -> Covariance:
    make, rest = FAMILIES[name]
    return make(inverse_softplus(STD), rest.clone())


def dense(covariance: Covariance) -> Tensor:
    """Σ by the definition, differentiable in the tensors."""
    std = nn.functional.softplus(covariance.tensors["rho"])
    if isinstance(covariance, LowRankCovariance):
        return std.square().diag() + covariance.factor @ covariance.factor.T
    root = std.diag() + covariance.lower.tril(-1)
    return root @ root.T


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(N - 1, 1).double()


@every_family
def test_deviations_have_the_covariance(name: str) -> None:
    covariance = made(name)
    # A deviation is linear in its noise: its matrix, row by row, is a root of Σ.
    root = torch.stack([covariance.deviation(unit) for unit in torch.eye(covariance.noises, dtype=torch.float64)], 1)
    torch.testing.assert_close(root @ root.T, dense(covariance))
    torch.testing.assert_close(covariance.variance(), dense(covariance).diagonal())
    torch.testing.assert_close(covariance.log_det(), torch.logdet(dense(covariance)))


@every_family
def test_gradients_equal_autograd(name: str) -> None:
    covariance = made(name)
    noise = covariance.noise(torch.Generator().manual_seed(1))
    gradient, precision = torch.randn(N, dtype=torch.float64), torch.rand(N, dtype=torch.float64)
    leaves = {n: t.clone().requires_grad_() for n, t in covariance.tensors.items()}
    twin = type(covariance)(*leaves.values())
    sigma = dense(twin)
    loss = gradient @ twin.deviation(noise) + 0.3 * 0.5 * (precision @ sigma.diagonal() - torch.logdet(sigma))
    loss.backward()
    out = {n: torch.zeros_like(t) for n, t in covariance.tensors.items()}
    covariance.add_draw_gradient(out, gradient, noise)
    covariance.add_divergence_gradient(out, 0.3, precision)
    for key, leaf in leaves.items():
        expected = leaf.grad.tril(-1) if key == "lower" else leaf.grad
        torch.testing.assert_close(out[key], expected)


def test_a_factor_much_wider_than_the_std_keeps_its_determinant_in_float32() -> None:
    factor = 1e3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    covariance = LowRankCovariance(inverse_softplus(torch.full((200,), 0.1)), factor)
    exact = LowRankCovariance(inverse_softplus(torch.full((200,), 0.1).double()), factor.double())
    assert float(covariance.log_det()) == pytest.approx(float(exact.log_det()), rel=1e-5)
    out = {n: torch.zeros_like(t) for n, t in covariance.tensors.items()}
    covariance.add_divergence_gradient(out, 1.0, torch.zeros(200))
    assert all(t.isfinite().all() for t in out.values())


@every_family
def test_kl_to_a_normal_equals_torch(name: str) -> None:
    where = Problem(network(), Normal(0.2, {"bias": 2.0, "*": 0.5}), Categorical(), 10).coordinates
    divergence, covariance = CorrelatedDivergence.of(where), made(name)
    assert not divergence.drawn
    prior_mean, prior_std = where.normal
    expected = kl_divergence(
        MultivariateNormal(MEAN, dense(covariance)), MultivariateNormal(prior_mean, prior_std.square().diag())
    )
    torch.testing.assert_close(divergence.value(MEAN, covariance, MEAN), expected)
    own = covariance.tensors
    at_prior = type(covariance)(inverse_softplus(prior_std), torch.zeros_like(list(own.values())[1]))
    assert float(divergence.value(prior_mean, at_prior, MEAN)) == pytest.approx(0, abs=1e-10)
    leaf = MEAN.clone().requires_grad_()
    divergence.value(leaf, covariance, MEAN).backward()
    grad = torch.zeros(N, dtype=torch.float64)
    divergence.add_mean_gradient(1.0, MEAN, grad)
    torch.testing.assert_close(grad, leaf.grad)


@every_family
def test_drawn_kl_is_unbiased(name: str) -> None:
    """A mixture of two equal components is a Normal, whose KL and gradient are known."""
    drawn, closed = (
        CorrelatedDivergence.of(Problem(network(), p, Categorical(), 10).coordinates)
        for p in (ScaleMixture(0.5, 0.6, 0.6), Normal(0, 0.6))
    )
    covariance, generator = made(name), torch.Generator().manual_seed(0)
    exact = {n: torch.zeros_like(t) for n, t in {"mean": MEAN, **covariance.tensors}.items()}
    closed.add_mean_gradient(1.0, MEAN, exact["mean"])
    covariance.add_divergence_gradient(exact, 1.0, closed.precision)
    values, gradients = [], []
    for _ in range(DRAWS):
        noise = covariance.noise(generator)
        theta = MEAN + covariance.deviation(noise)
        values.append(drawn.value(MEAN, covariance, theta))
        out = {n: torch.zeros_like(t) for n, t in exact.items()}
        score = drawn.score(theta)
        out["mean"].add_(score)
        covariance.add_draw_gradient(out, score, noise)
        covariance.add_divergence_gradient(out, 1.0, drawn.precision)
        gradients.append(torch.cat([t.reshape(-1) for t in out.values()]))
    found = torch.stack(gradients)
    expected = torch.cat([t.reshape(-1) for t in exact.values()])
    error = found.std(0) / DRAWS**0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * error + 1e-9).all()
    value = torch.stack(values)
    assert abs(value.mean() - closed.value(MEAN, covariance, MEAN)) < 4 * value.std() / DRAWS**0.5


def test_latents_and_hierarchical_scales_are_taken_at_draws() -> None:
    """−log p of the prior and the latents at one draw, minus the exact entropy: by hand."""
    for prior in (Normal(0, 0.5), Hierarchical()):
        where = Problem(network(), prior, Gaussian(), 10, where="bias").coordinates
        n = where.layout.size - where.start
        covariance = LowRankCovariance(torch.zeros(n).double(), torch.ones(n, 1).double())
        mean, noise = where.theta(), covariance.noise(torch.Generator().manual_seed(0))
        theta = mean.clone()
        theta[where.start :] += covariance.deviation(noise)
        entropy = MultivariateNormal(torch.zeros(n).double(), dense(covariance)).entropy()
        expected = -where.log_prior(theta) - entropy
        if where.normal is not None:  # all but the noise level in closed form
            point, bias = where.layout.views(mean)["weight"], where.layout.views(mean)["bias"]
            p, q = torch.distributions.Normal(0.0, 0.5), covariance.variance()[0]
            latent = where.log_prob_of_latents(where.layout.views(theta))
            expected = -p.log_prob(point).sum() - p.log_prob(bias).sum() + q / (2 * 0.25) - latent - entropy
        torch.testing.assert_close(CorrelatedDivergence.of(where).value(mean, covariance, theta), expected)
