"""What is a point, and what the data say nothing about, still has a prior: a method that forgets it leaves it where it was."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import posterity
from posterity import (
    IVON,
    MAP,
    SGHMC,
    SGLD,
    Categorical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    LaplacePrior,
    LowRank,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    TensorData,
)
from posterity.core.covariance import CholeskyCovariance, Covariance, LowRankCovariance
from posterity.methods.ivon import IVONInference
from posterity.model.correlated import CorrelatedDivergence
from posterity.train.random import NamedStreams
from posterity.types import Budget, Latent, Likelihood, Params

QUIET = {"progress": False, "device": "cpu"}
FAST = {"epochs": 80, "optimizer": Optimizer(lr=0.2, schedule="cosine")}
METHODS = {
    "map": MAP(**FAST),
    "mean_field": MeanField(**FAST),
    "mean_field-flipout": MeanField("flipout", **FAST),
    "low_rank": LowRank(1, **FAST),
    "full_rank": FullRank(**FAST),
    "ivon": IVON(epochs=80, lr=0.2),
    "sgld": SGLD(epochs=300, lr=0.3, draws=100, burn_in=0.1),
    "sghmc": SGHMC(epochs=300, lr=0.3, draws=100, burn_in=0.1, friction=1.0),
    "ensemble": Ensemble(MAP(**FAST), 2),
}
WIDTHS = {name: replace(METHODS[name], draws=2, initial_std=0.3) for name in ("mean_field", "low_rank", "full_rank")}
WIDTHS["ivon"] = IVON(epochs=150, lr=0.2, hessian_momentum=0.98, initial_hessian=0.6, draws=2)


PRIORS = Normal(0.8, 0.5), Normal({"weight": 0.8, "bias": 0.0}, {"weight": 0.5, "bias": 2.0})


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        pytest.param(name, prior, marks=[] if prior is PRIORS[1] or name in ("map", "sgld") else pytest.mark.slow)
        for name in METHODS  # the other prior is the first one's special case, whatever the method
        for prior in PRIORS
    ],
)
def test_a_point_that_the_data_do_not_touch_goes_to_its_priors_mode(name: str, prior: Normal) -> None:
    """The inputs are 0 and the bias alone is random: of the weights, which begin at −1, the prior alone speaks."""
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, -1.0)
    data = TensorData(torch.zeros(4, 2), torch.tensor([0.3, -0.2, 0.1, 0.4]), 4)
    posterior = posterity.fit(
        network,
        data,
        likelihood=Gaussian(std=1.0),
        prior=prior,
        where="bias",
        method=METHODS[name],
        engine=Engine(**QUIET),
    )
    theta = posterior.sample(torch.Generator().manual_seed(0))
    weight = posterior.problem.layout.views(theta)["weight"]
    torch.testing.assert_close(weight, torch.full((1, 2), 0.8), atol=0.05, rtol=0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def low_rank(n: int, generator: torch.Generator) -> Covariance:
    rho, factor = torch.randn(n, generator=generator).double(), 0.4 * torch.randn(n, 2, generator=generator).double()
    return LowRankCovariance(rho.requires_grad_(), factor.requires_grad_())


def full_rank(n: int, generator: torch.Generator) -> Covariance:
    rho, lower = torch.randn(n, generator=generator).double(), 0.2 * torch.randn(n, n, generator=generator).double()
    return CholeskyCovariance(rho.requires_grad_(), lower.tril(-1).requires_grad_())


def matrix(covariance: Covariance) -> Tensor:
    if isinstance(covariance, LowRankCovariance):
        return covariance.std.square().diag() + covariance.factor @ covariance.factor.T
    root = covariance.lower.tril(-1) + covariance.std.diag()
    return root @ root.T


@pytest.mark.parametrize("prior", [Normal(0.1, 0.4), Normal(0, {"*.bias": 2.0, "*": 0.5})])
@pytest.mark.parametrize("where", ["2", "*.bias", "0.weight"])
@pytest.mark.parametrize("family", [low_rank, full_rank])
def test_divergence_is_torchs_kl_of_the_random_plus_the_points_log_density(
    family: object, where: str, prior: Normal
) -> None:
    """Value, and gradient by ∂μ and by Σ's tensors, against torch's distributions and autograd."""
    coordinates = Problem(network(), prior, Categorical(), 10, where=where).coordinates
    free, start = coordinates.free, coordinates.start
    mean = coordinates.theta().requires_grad_()
    covariance = family(len(mean) - start, torch.Generator().manual_seed(1))
    prior_mean, prior_std = prior.resolve(coordinates.shapes(), mean)
    points = torch.distributions.Normal(prior_mean[: start - free], prior_std[: start - free])
    q = MultivariateNormal(mean[start:], matrix(covariance))
    p = MultivariateNormal(prior_mean[start - free :], prior_std[start - free :].square().diag())
    expected = kl_divergence(q, p) - points.log_prob(mean[free:start]).sum()
    divergence = CorrelatedDivergence.of(coordinates)
    found = divergence.value(mean, covariance, mean)
    torch.testing.assert_close(found, expected)
    leaves = {"mean": mean, **covariance.tensors}
    exact = torch.autograd.grad(expected, list(leaves.values()))
    ours = {n: torch.zeros_like(v) for n, v in leaves.items()}
    with torch.no_grad():
        divergence.add_mean_gradient(0.7, mean, ours["mean"])
        covariance.add_divergence_gradient(ours, 0.7, divergence.precision[start:])
    for (name, found), gradient in zip(ours.items(), exact, strict=True):
        torch.testing.assert_close(found, 0.7 * gradient, msg=name)


@pytest.mark.parametrize("prior", [LaplacePrior(0.1, 0.5), Normal(0.1, 0.5)])
def test_a_prior_that_is_taken_at_draws_counts_points_and_latents(prior: object) -> None:
    """Where no closed form is, the divergence at a draw is −log p(θ) − H(q): points and noise level included."""
    problem = Problem(network(), prior, Gaussian(), 10, where="2")
    where, theta = problem.coordinates, problem.theta()
    covariance = low_rank(len(theta) - where.start, torch.Generator().manual_seed(1))
    draw = theta.clone()
    draw[where.start :] += (
        0.3 * torch.randn(len(theta) - where.start, generator=torch.Generator().manual_seed(2)).double()
    )
    divergence = CorrelatedDivergence.of(where)
    own = MultivariateNormal(torch.zeros(len(theta) - where.start).double(), matrix(covariance))
    leaf = draw.clone().requires_grad_()
    params = where.layout.views(leaf)
    latents = where.log_prob_of_latents(params)
    if isinstance(prior, LaplacePrior):
        at_draw = sum(
            torch.distributions.Laplace(0.1, 0.5).log_prob(v).sum()
            for n, v in params.items()
            if not n.startswith(("1.", "likelihood."))
        )
        expected = -at_draw - latents - own.entropy()
        torch.testing.assert_close(divergence.value(theta, covariance, draw), expected)
        (exact,) = torch.autograd.grad(-at_draw - latents, [leaf])
    else:
        closed = CorrelatedDivergence.of(Problem(network(), prior, Gaussian(std=1.0), 10, where="2").coordinates)
        inner = low_rank(len(theta) - where.start, torch.Generator().manual_seed(1))
        short = LowRankCovariance(inner.rho[:-1], inner.factor[:-1])
        expected = closed.value(theta[:-1], short, draw[:-1]) + own.entropy().neg() - latents
        expected = expected + MultivariateNormal(torch.zeros(len(short.rho)).double(), matrix(short)).entropy()
        torch.testing.assert_close(divergence.value(theta, covariance, draw), expected)
        (exact,) = torch.autograd.grad(-latents, [leaf])
    torch.testing.assert_close(divergence.score(draw), exact)


class Unused(Likelihood):
    """y ~ N(f, 1), and an unknown that nothing depends on: its posterior is its prior, N(0.8, 0.5²)."""

    def latents(self) -> Mapping[str, Latent]:
        own = torch.distributions.Normal(0.8, 0.5)
        return {"level": Latent(torch.tensor(-1.0), lambda u: own.log_prob(u).sum(), torch.exp)}

    def __call__(self, outputs: Tensor, latents: Params) -> torch.distributions.Distribution:
        return torch.distributions.Normal(outputs.squeeze(-1), 1.0, validate_args=False)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "ensemble"])
def test_an_unknown_that_the_data_do_not_touch_has_its_prior(name: str) -> None:
    torch.manual_seed(0)
    posterior = posterity.fit(
        nn.Linear(2, 1),
        TensorData(torch.zeros(4, 2), torch.tensor([0.3, -0.2, 0.1, 0.4]), 4),
        likelihood=Unused(),
        prior=Normal(0, 1),
        method=WIDTHS.get(name, METHODS[name]),
        engine=Engine(**QUIET),
    )
    level = posterior.latent_draws(400, torch.Generator().manual_seed(0))["likelihood.level"].log()
    assert float(level.mean()) == pytest.approx(0.8, abs=0.25)
    if name != "map":
        assert float(level.std()) == pytest.approx(0.5, rel=0.35)


def test_ivons_gradient_has_the_slope_of_a_latents_prior() -> None:
    """Of two priors whose log-densities differ by 3u the gradients after one step differ by −3/λ: whatever was drawn."""

    class Sloped(Unused):
        def __init__(self, slope: float) -> None:
            self.slope = slope

        def latents(self) -> Mapping[str, Latent]:
            return {"level": Latent(torch.tensor(-1.0), lambda u: self.slope * u.sum(), torch.exp)}

    states, method = [], IVON(momentum=0.9, draws=2)
    for slope in (0.0, 3.0):
        torch.manual_seed(0)
        inference = IVONInference(Problem(nn.Linear(2, 1), Normal(0, 1), Sloped(slope), 8), method, Budget(1, 1))
        state = inference.init(NamedStreams(0, "twin"))
        states.append(inference.update(state, (torch.zeros(8, 2), torch.ones(8)))[0])
    moved = states[1]["gradient"] - states[0]["gradient"]
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 0.0, (1 - 0.9) * -3.0 / 8]))
