"""Informative priors against `torch.distributions`, and what they refuse."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size, nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

import posterity
from posterity import Engine, Gaussian, Informative, InvalidInput, MeanField, Mismatch, Product
from posterity.core.layout import Layout
from posterity.model.priors import Normal, normal_form

LAYOUT = Layout(("fc.weight", "fc.bias", "out.weight"), (Size([2, 3]), Size([2]), Size([1, 2])))
SHAPES = LAYOUT.named_shapes()
GENERATOR = torch.Generator().manual_seed(0)
MEAN = torch.randn(10, generator=GENERATOR, dtype=torch.float64)
STD = 0.1 + torch.rand(10, generator=GENERATOR, dtype=torch.float64)
FACTOR = torch.randn(10, 3, generator=GENERATOR, dtype=torch.float64)
W = torch.randn(10, generator=GENERATOR, dtype=torch.float64)
PRIORS = {
    "independent": Informative(MEAN, STD, LAYOUT),
    "one factor": Informative(MEAN, STD, LAYOUT, FACTOR[:, :1]),
    "three factors": Informative(MEAN, STD, LAYOUT, FACTOR),
    "more factors than weights": Informative(MEAN, STD, LAYOUT, torch.cat([FACTOR] * 4, 1)),
    "a factor without width": Informative(MEAN, STD, LAYOUT, 0 * FACTOR),
}


def covariance(prior: Informative) -> torch.Tensor:
    factor = torch.zeros(10, 1, dtype=torch.float64) if prior.factor is None else prior.factor
    return torch.diag(prior.std.square()) + factor @ factor.T


@pytest.mark.parametrize("name", PRIORS)
def test_log_densities_equal_torch(name: str) -> None:
    prior = PRIORS[name]
    exact = MultivariateNormal(MEAN, covariance(prior))
    torch.testing.assert_close(prior.log_prob(LAYOUT.views(W)), exact.log_prob(W), rtol=1e-12, atol=1e-12)
    single = prior.log_prob(LAYOUT.views(W.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact.log_prob(W), rtol=1e-5, atol=1e-4)


def test_a_factor_much_wider_than_the_std_costs_no_digits() -> None:
    """Woodbury's difference of two sums of squares, here 4e9 each, would have lost hundreds of nats in float32."""
    factor = 1e3 * torch.ones(10, 1)
    prior = Informative(torch.zeros(10), torch.full((10,), 0.1), LAYOUT, factor)
    w = 2e3 * torch.ones(10)  # two stds along the factor: 2e4 of the independent ones
    exact = LowRankMultivariateNormal(torch.zeros(10).double(), factor.double(), torch.full((10,), 1e-2).double())
    # What float32 leaves of 2e4 in each of ten coordinates, 1e-3, enters squared; the log-determinant is good to 1e-5.
    assert float(prior.log_prob(LAYOUT.views(w))) == pytest.approx(float(exact.log_prob(w.double())), abs=1e-4)


@pytest.mark.parametrize("name", PRIORS)
def test_what_it_is_not_asked_about_is_integrated_out(name: str) -> None:
    prior = PRIORS[name]
    rows = [8, 9, 6, 7]  # in the order asked
    asked = {n: LAYOUT.views(W)[n] for n in ("out.weight", "fc.bias")}
    exact = MultivariateNormal(MEAN[rows], covariance(prior)[rows][:, rows])
    torch.testing.assert_close(prior.log_prob(asked), exact.log_prob(W[rows]), rtol=1e-12, atol=1e-12)
    drawn = prior.sample({n: p.shape for n, p in asked.items()})
    assert {n: p.shape for n, p in drawn.items()} == {n: p.shape for n, p in asked.items()}


@pytest.mark.parametrize("name", PRIORS)
def test_draws_have_its_moments(name: str) -> None:
    prior = PRIORS[name]
    generator, again = (torch.Generator().manual_seed(1) for _ in range(2))
    drawn = torch.stack([LAYOUT.flatten(dict(prior.sample(SHAPES, generator))) for _ in range(4000)]).double()
    assert torch.equal(drawn[0].float(), LAYOUT.flatten(dict(prior.sample(SHAPES, again))))
    # Whitened by the exact covariance they are independent standard normals.
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance(prior)), (drawn - MEAN).T, upper=False)
    assert all(stats.kstest(row.numpy(), "norm").pvalue > 1e-4 for row in white)
    correlation = np.corrcoef(white.numpy()) - np.eye(10)
    assert np.abs(correlation).max() < 5 / 4000**0.5


@pytest.mark.parametrize("name", PRIORS)
def test_expected_log_densities_are_exact(name: str) -> None:
    """E[log p] = log p(mean) + ½ Σ std² ∂²log p/∂w², since log p is quadratic."""
    prior = PRIORS[name]
    std = 0.05 + torch.rand(10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    curvature = -torch.linalg.inv(covariance(prior)).diagonal()
    expected = MultivariateNormal(MEAN, covariance(prior)).log_prob(W) + 0.5 * (std.square() * curvature).sum()
    torch.testing.assert_close(
        prior.expected_log_prob(LAYOUT.views(W), LAYOUT.views(std)), expected, rtol=1e-11, atol=0
    )
    q = [v.clone().requires_grad_() for v in (W, std)]
    assert torch.autograd.gradcheck(lambda m, s: prior.expected_log_prob(LAYOUT.views(m), LAYOUT.views(s)), q)
    assert torch.autograd.gradcheck(lambda w: prior.log_prob(LAYOUT.views(w)), q[:1])


def test_the_normal_form_is_that_of_independent_normals_alone() -> None:
    like = torch.zeros(1)
    turned = dict(reversed(SHAPES.items()))
    mean, std = normal_form(PRIORS["independent"], turned, like)
    rows = [8, 9, 6, 7, 0, 1, 2, 3, 4, 5]
    assert torch.equal(mean, MEAN[rows].float())
    assert torch.equal(std, STD[rows].float())
    assert normal_form(PRIORS["one factor"], SHAPES, like) is None


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def test_at_a_network_and_with_another_head() -> None:
    trained = network()
    own = {n: p.detach().clone() for n, p in trained.named_parameters()}
    prior = Informative.at(trained, {"*.bias": 0.5, "*": 0.2})
    moved = {n: p + 0.1 for n, p in own.items()}
    expected = sum(Normal(0.1, 0.5 if "bias" in n else 0.2).log_prob({n: torch.zeros_like(p)}) for n, p in own.items())
    assert float(prior.log_prob(moved)) == pytest.approx(float(expected), rel=1e-5)
    with torch.no_grad():
        trained[0].weight.zero_()
    assert float(prior.log_prob(moved)) == pytest.approx(float(expected), rel=1e-5)  # a copy of the weights
    head = Product({"2.*": Normal(0, 1), "*": prior})
    other = {"0.weight": own["0.weight"], "2.weight": torch.zeros(5, 2)}
    expected = Normal(0, 0.2).log_prob({"w": torch.zeros(6)}) + Normal(0, 1).log_prob({"w": torch.zeros(10)})
    assert float(head.log_prob(other)) == pytest.approx(float(expected), rel=1e-5)


def test_another_posterior_becomes_a_prior() -> None:
    """Its noise level and the batch norm's points are no part of what is asked about later."""
    x = torch.linspace(-1, 1, 40)[:, None].repeat(1, 3)
    engine = Engine(progress=False)
    first = posterity.fit(
        nn.Linear(3, 1), (x, x[:, 0]), likelihood=Gaussian(), method=MeanField(epochs=5), engine=engine
    )
    prior = Informative(first.mean, first.std, first.problem.layout)
    second = posterity.fit(
        nn.Linear(3, 1), (x, x[:, 0]), likelihood=Gaussian(), prior=prior, method=MeanField(epochs=1), engine=engine
    )
    q = torch.distributions.Normal(first.mean[:4], first.std[:4])
    assert float(second.problem.prior.log_prob({"weight": torch.ones(1, 3), "bias": torch.zeros(1)})) == pytest.approx(
        float(q.log_prob(torch.tensor([1.0, 1.0, 1.0, 0.0])).sum()), rel=1e-5
    )


def test_tensors_go_into_a_file_and_back() -> None:
    for prior in PRIORS.values():
        again = Informative.from_tensors(prior.layout, prior.tensors())
        assert torch.equal(again.log_prob(LAYOUT.views(W)), prior.log_prob(LAYOUT.views(W)))
        assert torch.equal(copy.deepcopy(prior).log_prob(LAYOUT.views(W)), prior.log_prob(LAYOUT.views(W)))


def test_names_and_shapes_that_it_does_not_know_are_refused() -> None:
    prior = PRIORS["independent"]
    with pytest.raises(Mismatch, match=r"missing    head.weight \(1, 2\)"):
        prior.log_prob({"head.weight": torch.zeros(1, 2)})
    with pytest.raises(Mismatch, match=r"shape      fc.bias: given \(2,\), expected \(3,\)"):
        prior.sample({"fc.bias": Size([3])})


@pytest.mark.parametrize(
    ("mean", "std", "factor", "words"),
    [
        (MEAN[:9], STD, None, r"mean has shape \(9,\); its layout of 10 coordinates needs \(10\)"),
        (MEAN, STD[:, None], None, r"std has shape \(10, 1\)"),
        (MEAN, STD, FACTOR.T, r"factor has shape \(3, 10\).*needs \(10, K\)"),
        (MEAN, STD - STD, None, "smallest std is 0; it must be positive"),
        (MEAN / 0, STD, None, "mean holds NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(mean, std, factor, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Informative(mean, std, LAYOUT, factor)
