"""The horseshoe against quadrature over its local scales, and the special functions against SciPy."""

from itertools import pairwise

import mpmath  # comes with torch
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from posterity.model.priors import Horseshoe, Mixture, Normal
from posterity.model.special import folded_mean, log_scaled_e1

SETTINGS = [(0.1, 2.0), (0.01, 1.0), (1.0, 1.0), (1.0, 1.0 + 1e-9), (2.0, 0.3), (1e-4, 5.0), (50.0, 0.02)]


def log_density(prior: Horseshoe, w: float) -> float:
    return float(prior.log_prob({"w": torch.tensor([w], dtype=torch.float64)}))


def unnormalised(w: float, scale: float, slab_std: float) -> float:
    """H(w) N(w; 0, c²), with H by quadrature over λ = e^t of N(w; 0, τ²λ²) times the half-Cauchy."""

    def integrand(t: float) -> float:
        return stats.norm.pdf(w, 0, scale * np.exp(t)) * 2 / np.pi / (np.exp(-t) + np.exp(t))

    peak = np.log(w / scale)
    cuts = sorted({-45.0, peak - 4, peak, peak + 2, -1.0, 1.0, 45.0})
    h = sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12, limit=500)[0] for a, b in pairwise(cuts))
    return h * stats.norm.pdf(w, 0, slab_std)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 4e-15), (torch.float32, 2e-6)])
def test_scaled_exponential_integral(dtype: torch.dtype, digits: float) -> None:
    """Value, slope and curvature, against forty digits."""
    log_x = torch.cat([torch.linspace(-60, 8, 103), torch.linspace(0.38, 0.43, 21)]).to(dtype).requires_grad_()
    ours = log_scaled_e1(log_x)
    (slope,) = torch.autograd.grad(ours.sum(), log_x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), log_x)
    for got, at in zip(torch.stack([ours, slope, curvature], 1).tolist(), log_x.tolist(), strict=True):
        with mpmath.workdps(40):
            x = mpmath.exp(mpmath.mpf(at))
            f = mpmath.exp(x) * mpmath.e1(x)
            first = x - 1 / f
            exact = [mpmath.log(f), first, x * (1 + first) - first**2]
        np.testing.assert_allclose(got[:2], [float(v) for v in exact[:2]], rtol=digits, atol=digits)
        # An error of the slope enters x (1 + slope) − slope² with the factor x − 2·slope, and −1 < slope < 0.
        assert got[2] == pytest.approx(float(exact[2]), abs=digits * (2 + float(x)))


def test_scaled_exponential_integral_at_both_ends() -> None:
    log_x = torch.tensor([-700.0, 40.0, 300.0, 700.0, 1e6], dtype=torch.float64, requires_grad=True)
    ours = log_scaled_e1(log_x)
    x = torch.exp(-log_x.detach())[1:3]
    wanted = [np.log(700 - np.euler_gamma), *(-log_x.detach()[1:3] - x).tolist(), -700.0, -1e6]  # 1/(x + 1 − …)
    np.testing.assert_allclose(ours.detach().numpy(), wanted, rtol=1e-15)
    (slope,) = torch.autograd.grad(ours.sum(), log_x)
    np.testing.assert_allclose(slope.numpy(), [-1 / (700 - np.euler_gamma), -1, -1, -1, -1], rtol=1e-13)


def test_special_functions_have_the_derivatives_of_their_finite_differences() -> None:
    log_x = torch.linspace(-6, 6, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_scaled_e1, log_x)
    assert torch.autograd.gradgradcheck(log_scaled_e1, log_x)
    mean = torch.tensor([-2.0, 0.0, 0.3, 5.0], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(folded_mean, (mean, std))
    assert torch.autograd.gradgradcheck(folded_mean, (mean, std))
    exact = [stats.foldnorm(abs(m) / s, scale=s).mean() for m, s in zip(mean.tolist(), std.tolist(), strict=True)]
    np.testing.assert_allclose(folded_mean(mean, std).detach().numpy(), exact, rtol=1e-12)


def test_a_hessian_of_special_functions_under_vmap() -> None:
    rows = torch.linspace(-3, 3, 6, dtype=torch.float64).reshape(2, 3)
    jacobian = torch.func.vmap(torch.func.jacrev(torch.func.grad(lambda v: log_scaled_e1(v).sum())))(rows)
    for row, block in zip(rows, jacobian, strict=True):
        torch.testing.assert_close(block, torch.autograd.functional.hessian(lambda v: log_scaled_e1(v).sum(), row))


@pytest.mark.parametrize(("scale", "slab_std"), SETTINGS)
def test_the_density_is_the_mixture_over_local_scales_times_the_slab(scale: float, slab_std: float) -> None:
    """Up to one constant, which the total mass settles."""
    prior = Horseshoe(scale, slab_std)
    w = min(scale, slab_std) * np.array([1e-7, 1e-3, 0.1, 0.7, 1.0, 1.9, 5.0])
    w = np.concatenate([w, slab_std * np.array([0.3, 1.0, 4.0])])
    gap = [log_density(prior, v) - np.log(unnormalised(v, scale, slab_std)) for v in w]
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)
    assert log_density(prior, -0.3) == log_density(prior, 0.3)


def mass(prior: Horseshoe, low: float, high: float) -> float:
    """Its mass in low < |w| < high, by quadrature in log w."""

    def integrand(t: float) -> float:
        return 2 * np.exp(log_density(prior, np.exp(t)) + t)

    cuts = sorted(
        {np.log(low), np.log(high), *(t for t in (-20.0, -9.0, -4.0, -1.0, 1.0) if np.log(low) < t < np.log(high))}
    )
    return sum(integrate.quad(integrand, a, b, epsabs=1e-11, limit=200)[0] for a, b in pairwise(cuts))


@pytest.mark.parametrize(("scale", "slab_std"), SETTINGS)
def test_the_total_mass_is_one(scale: float, slab_std: float) -> None:
    assert mass(Horseshoe(scale, slab_std), 1e-20, 12 * slab_std) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("scale", "slab_std"), SETTINGS)
def test_it_draws_what_it_says(scale: float, slab_std: float) -> None:
    prior = Horseshoe(scale, slab_std)
    drawn = prior.sample({"w": torch.Size([200_000])}, torch.Generator().manual_seed(5))["w"].double().numpy()
    assert np.isfinite(drawn).all()
    assert stats.binomtest(int((drawn > 0).sum()), 200_000).pvalue > 1e-4
    t = torch.linspace(-40, 2.5, 100_000, dtype=torch.float64) + np.log(slab_std)  # log |w|
    masses = 2 * torch.exp(prior.elementwise(t.exp(), {"w": t.shape}) + t)
    cumulated = torch.cumulative_trapezoid(masses, t)
    assert stats.kstest(np.log(np.abs(drawn)), lambda v: np.interp(v, t[1:], cumulated)).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_finite_with_a_finite_slope_everywhere(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    w = torch.tensor(
        [0.0, -0.0, tiny / 4, tiny, -tiny * 2, 1e-30, 1e-3, 1.0, -100.0, 1e15], dtype=dtype, requires_grad=True
    )
    prior = Horseshoe(0.01, 1e15)
    values = prior.elementwise(w, {"w": w.shape})
    (slope,) = torch.autograd.grad(values.sum(), w)
    assert values.isfinite().all()
    assert slope.isfinite().all()
    assert slope[:3].tolist() == [0, 0, 0]
    assert (slope[3:] * w[3:] < 0).all()  # everything else is pulled towards zero
    assert values[0] == values[2] == values[3] > values[4] > values[5]


def test_both_precisions_agree() -> None:
    w = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 0.3
    prior = Horseshoe(0.05, 0.5)
    single, double = (prior.elementwise(v, {"w": v.shape}) for v in (w, w.double()))
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=4e-6)


def test_it_shrinks_small_weights_and_leaves_large_ones_to_the_slab() -> None:
    """Far above τ, e^x E₁(x) → 1/x: the slope is that of the slab and of w⁻²."""
    w = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    Horseshoe(1e-6, 2.0).log_prob({"w": w}).backward()
    assert w.grad.item() == pytest.approx(-2 / 0.9 - 0.9 / 4, rel=1e-9)


def test_it_may_be_a_component_of_a_mixture() -> None:
    mixture = Mixture((Horseshoe(0.1, 1.0), Normal(0, 1)), (0.25, 0.75))
    w = torch.tensor([0.0, 0.2], dtype=torch.float64)
    parts = [p.elementwise(w, {"w": w.shape}) for p in (Horseshoe(0.1, 1.0), Normal(0, 1))]
    expected = torch.log(0.25 * parts[0].exp() + 0.75 * parts[1].exp()).sum()
    torch.testing.assert_close(mixture.log_prob({"w": w}), expected)
