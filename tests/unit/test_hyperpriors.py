"""Priors of scales: densities of log s against the distribution functions of s, which SciPy knows."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from posterity import HalfCauchy, HalfNormal, InverseGamma, LogNormal
from posterity.model.hyperpriors import ScalePrior

SCALE_PRIORS: dict[str, tuple[ScalePrior, object]] = {  # with P(s ≤ ·)
    "half_normal": (HalfNormal(0.7), stats.halfnorm(scale=0.7).cdf),
    "half_cauchy": (HalfCauchy(0.7), stats.halfcauchy(scale=0.7).cdf),
    "inverse_gamma": (InverseGamma(1.3, 0.4), lambda s: stats.invgamma(1.3, scale=0.4).cdf(s**2)),  # of the variance
    "log_normal": (LogNormal(-0.5, 0.8), stats.lognorm(0.8, scale=np.exp(-0.5)).cdf),
}


@pytest.mark.parametrize("name", SCALE_PRIORS)
def test_densities_of_log_scales_are_the_slopes_of_the_distribution_functions(name: str) -> None:
    prior, cdf = SCALE_PRIORS[name]
    u, step = np.linspace(-3, 3, 25), 1e-4
    slopes = (cdf(np.exp(u + step)) - cdf(np.exp(u - step))) / (2 * step)
    ours = prior.log_prob(torch.from_numpy(u)).exp().numpy()
    np.testing.assert_allclose(ours, slopes, rtol=1e-6, atol=1e-8)  # the difference's error is step²/6 of the curvature


@pytest.mark.parametrize("name", SCALE_PRIORS)
def test_log_scales_have_a_total_mass_of_one_and_finite_densities(name: str) -> None:
    prior, _ = SCALE_PRIORS[name]
    total = sum(
        integrate.quad(lambda u: np.exp(float(prior.log_prob(torch.tensor(u, dtype=torch.float64)))), a, b)[0]
        for a, b in ((-60, -5), (-5, 0), (0, 5), (5, 60))
    )
    assert total == pytest.approx(1, abs=1e-8)
    far = prior.log_prob(torch.tensor([-40.0, 40.0]))
    assert far.isfinite().all()


@pytest.mark.parametrize("name", SCALE_PRIORS)
def test_scales_are_drawn_from_their_priors(name: str) -> None:
    prior, cdf = SCALE_PRIORS[name]
    drawn = prior.sample(torch.empty(200_000), torch.Generator().manual_seed(0))
    again = prior.sample(torch.empty(200_000), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    assert drawn.dtype == torch.float32
    assert stats.kstest(drawn.double().numpy(), cdf).pvalue > 1e-4
    assert prior.sample(torch.empty(3, 2, dtype=torch.float64)).dtype == torch.float64
