"""Draws handed over to ArviZ, before and since its version 1."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from posterity import Gaussian, HalfNormal, Hierarchical, InvalidInput, Normal, Problem
from posterity.core import diagnostics
from posterity.posteriors.chains import Chains
from posterity.posteriors.gaussian import DiagonalGaussian


def problem(prior: object = None) -> Problem:
    return Problem(nn.Linear(2, 1).double(), prior or Normal(0, 1), Gaussian(), 5).snapshot()


def chains() -> Chains:
    generator = torch.Generator().manual_seed(0)
    thetas = torch.randn(3 * 50, 4, generator=generator, dtype=torch.float64)
    energies = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    return Chains(problem(), thetas, energies, (energies > 1).long())


def test_arviz_reads_chains_and_comes_to_our_numbers() -> None:
    arviz = pytest.importorskip("arviz", reason="ArviZ is an extra: pip install arviz")
    own = chains()
    found = own.to_arviz()
    assert dict(found.posterior.sizes)["chain"] == 3
    np.testing.assert_array_equal(found.posterior["weight"].values, own.by_chain[..., :2].reshape(3, 50, 1, 2).numpy())
    std = torch.nn.functional.softplus(own.by_chain[..., 3]).numpy()
    np.testing.assert_allclose(found.posterior["likelihood.std"].values, std, rtol=1e-12)
    assert int(found.sample_stats["diverging"].sum()) == int(own.divergent.sum())
    rhat = arviz.rhat(found)["bias"].values
    np.testing.assert_allclose(rhat, diagnostics.rhat(own.by_chain[..., 2:3]).numpy(), rtol=1e-9)


def test_any_other_posterior_is_one_chain_of_the_weights_that_the_network_computes_with() -> None:
    pytest.importorskip("arviz", reason="ArviZ is an extra: pip install arviz")
    own = problem(Hierarchical(scale=HalfNormal(1.0), per="network", centered=False))
    posterior = DiagonalGaussian(own, torch.arange(1.0, 6.0).double(), torch.full((5,), 1e-12).double())
    found = posterior.to_arviz(7).posterior
    assert (found.sizes["chain"], found.sizes["draw"]) == (1, 7)
    scale = np.exp(4.0)  # log s = 4, so w = s·z
    np.testing.assert_allclose(found["weight"].values[0, 0], [[scale, 2 * scale]], rtol=1e-9)
    np.testing.assert_allclose(found["prior.scale"].values[0], np.full(7, scale), rtol=1e-9)


@pytest.mark.parametrize("version", ["0.23.4", "1.0.0"])
def test_both_forms_of_arviz_are_called_as_they_want(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    seen: list = []

    def from_dict(*args: object, **kwargs: object) -> None:
        seen.append((args, kwargs))

    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__=version, from_dict=from_dict))
    chains().to_arviz()
    ((args, kwargs),) = seen
    groups = kwargs if version < "1" else args[0]
    assert (len(args), len(kwargs)) == ((0, 2) if version < "1" else (1, 0))
    assert set(groups) == {"posterior", "sample_stats"}
    assert groups["posterior"]["bias"].shape == (3, 50, 1)
    assert groups["sample_stats"]["diverging"].dtype == bool


def test_without_arviz_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(InvalidInput, match=r"pip install 'posterity\[diag\]'"):
        chains().to_arviz()
