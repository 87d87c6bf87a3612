"""Convergence diagnostics: against arviz-stats, and against chains whose effective sample size is known."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from posterity import InvalidInput
from posterity.core import diagnostics


def autoregressive(phi: float, chains: int = 4, draws: int = 1000, seed: int = 0) -> Tensor:
    """x_t = φ x_(t−1) + √(1 − φ²) ε, from its own law N(0, 1): an effective sample size of n (1 − φ)/(1 + φ)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, chains, generator=generator, dtype=torch.float64)
    rows = [noise[0]]
    for e in noise[1:]:
        rows.append(phi * rows[-1] + (1 - phi**2) ** 0.5 * e)
    return torch.stack(rows, 1)


def shapes() -> dict[str, Tensor]:
    plain = autoregressive(0.5, draws=301)
    return {
        "independent": autoregressive(0.0),
        "slow": autoregressive(0.95),
        "antithetic": autoregressive(-0.6),
        "odd length": plain,
        "one chain": autoregressive(0.7, chains=1),
        "heavy tails": torch.distributions.Cauchy(0.0, 1.0).icdf(torch.special.ndtr(plain)),
        "ties": plain.mul(2).round(),
        "shifted": plain + torch.tensor([0.0, 0.0, 0.0, 2.0], dtype=torch.float64)[:, None],
        "spread": plain * torch.tensor([1.0, 1.0, 1.0, 4.0], dtype=torch.float64)[:, None],
        "trend": plain + torch.linspace(0, 3, 301, dtype=torch.float64),
    }


@pytest.mark.parametrize("name", shapes())
def test_all_agree_with_arviz(name: str) -> None:
    draws = shapes()[name]
    array = draws.numpy()

    def theirs(function: str, **options: object) -> float:
        return float(getattr(array_stats, function)(array, chain_axis=0, draw_axis=1, **options))

    if len(draws) > 1:  # they give no R-hat for the two halves of one chain
        assert diagnostics.rhat(draws).item() == pytest.approx(theirs("rhat", method="rank"), rel=1e-9)
    for ours, method in (("ess_bulk", "bulk"), ("ess_tail", "tail"), ("ess_mean", "mean")):
        expected = theirs("ess", method=method, **({"prob": (0.05, 0.95)} if method == "tail" else {}))
        assert getattr(diagnostics, ours)(draws).item() == pytest.approx(expected, rel=1e-9), method
    assert diagnostics.mcse(draws).item() == pytest.approx(theirs("mcse", method="mean"), rel=1e-9)


def test_energies_agree_with_arviz() -> None:
    energies = autoregressive(0.9) * 3 + 100
    expected = array_stats.bfmi(energies.numpy(), chain_axis=0, draw_axis=1)
    np.testing.assert_allclose(diagnostics.e_bfmi(energies).numpy(), expected, rtol=1e-9)
    assert abs(float(diagnostics.e_bfmi(energies).mean()) - 2 * (1 - 0.9)) < 0.05  # E(ΔH)² / Var H of such a chain


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
def test_effective_sample_sizes_of_autoregressive_chains(phi: float) -> None:
    estimates = torch.stack([diagnostics.ess_mean(autoregressive(phi, draws=2000, seed=s)) for s in range(20)])
    exact = 8000 * (1 - phi) / (1 + phi)
    error = float(estimates.std()) / 20**0.5
    # Truncating the sum of autocorrelations at the first negative pair leaves a bias of a few per cent (Geyer 1992).
    assert abs(float(estimates.mean()) - exact) < 4 * error + 0.05 * exact


def test_the_monte_carlo_error_is_that_of_the_mean() -> None:
    means = torch.stack([autoregressive(0.8, draws=500, seed=s).mean() for s in range(300)])
    stated = torch.stack([diagnostics.mcse(autoregressive(0.8, draws=500, seed=s)) for s in range(30)]).mean()
    assert abs(float(stated / means.std()) - 1) < 4 / (2 * 300) ** 0.5 + 0.05  # a std of n means is known to 1/√(2n)


def test_many_quantities_at_once_are_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.stack(list(autoregressive(0.5, draws=200, seed=s) for s in range(6)), -1).reshape(4, 200, 2, 3)
    monkeypatch.setattr(diagnostics, "CHUNK", 2 * 4 * 200)
    for function in (diagnostics.rhat, diagnostics.ess_bulk, diagnostics.ess_tail, diagnostics.mcse):
        whole = function(draws)
        assert whole.shape == (2, 3)
        assert whole[1, 2].item() == pytest.approx(function(draws[..., 1, 2]).item(), rel=1e-12)


def test_what_never_moves_is_not_called_converged() -> None:
    constant = torch.zeros(4, 100)
    assert diagnostics.rhat(constant).isnan()
    assert diagnostics.ess_bulk(constant).isnan()
    assert diagnostics.ess_tail(constant).isnan()


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"at least 4 draws"):
        diagnostics.rhat(torch.zeros(4, 3))
