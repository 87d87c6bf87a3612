"""Law 1: on conjugate linear-Gaussian regression each method recovers the exact posterior."""

from functools import cache

import pytest
import torch

from posterity import MeanField
from tests.conformance.table import FAST, STEPS, TABLE, Conjugate

SEEDS = 4
# What is quick of these: law 4 for flipout, tests of their own for path gradients, one temperature for IVON.
LONG = ("mean_field-flipout", "mean_field-path", "ivon")


def names(*families: str) -> list:
    """Those of the table, the long ones by -m slow alone."""
    chosen = [n for n, row in TABLE.items() if row.family in families]
    return [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in chosen]


@cache
def fitted(name: str, seed: int = 0):
    return Conjugate.make().fit(TABLE[name].method, seed)


@pytest.mark.parametrize("name", names("point", "mean_field"))
def test_posterior_is_exact(name: str) -> None:
    case, row = Conjugate.make(), TABLE[name]
    fits = [fitted(name, seed) for seed in range(1 if row.family == "point" else SEEDS)]
    means = torch.stack([f.mean for f in fits])
    if row.family == "point":
        torch.testing.assert_close(means[0], case.mean, atol=1e-5, rtol=0)
        return
    error = means.std(0) / SEEDS**0.5
    assert ((means.mean(0) - case.mean).abs() < 4 * error + 1e-4).all()
    stds = torch.stack([f.std for f in fits])
    exact = case.precision.diagonal().rsqrt()
    assert ((stds.mean(0) - exact).abs() < 4 * stds.std(0) / SEEDS**0.5 + 1e-3 * exact).all()
    marginal = torch.linalg.inv(case.precision).diagonal().sqrt()
    assert ((stds.mean(0) - marginal).abs() > 8 * stds.std(0) / SEEDS**0.5)[:2].all()  # the test can tell them apart


@pytest.mark.parametrize("name", names("mean_field"))
def test_predictive_variance_is_that_of_the_posterior(name: str) -> None:
    case = Conjugate.make()
    posterior = fitted(name)
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    n = 1000
    predicted = posterior.predict(x, n, generator=torch.Generator().manual_seed(1))
    design = torch.cat([x, torch.ones(2, 1, dtype=torch.float64)], 1)
    epistemic = design.square() @ posterior.std.square()
    # A sample variance of n normals has the standard error √(2/n) of the variance.
    assert ((predicted.epistemic - epistemic).abs() < 4 * (2 / n) ** 0.5 * epistemic).all()
    torch.testing.assert_close(predicted.aleatoric, torch.full((2,), case.noise**2, dtype=torch.float64))
    assert ((predicted.mean - design @ case.mean).abs() < 4 * (epistemic / n).sqrt() + 0.02).all()


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_elbo_reaches_the_log_evidence_where_mean_field_is_exact(estimator: str) -> None:
    from posterity.model.divergence import Divergence

    case = Conjugate.make(orthogonal=True)
    posterior = case.fit(MeanField(estimator, epochs=STEPS, optimizer=FAST))
    d = case.design
    expected_squares = (case.y - d @ posterior.loc).square() + d.square() @ posterior.std.square()
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), case.noise)
    expected = (normal.log_prob(torch.zeros(())) - expected_squares / (2 * case.noise**2)).sum()
    elbo = float(expected - Divergence.of(posterior.problem.coordinates).value(posterior.loc, posterior.std))
    assert elbo <= case.log_evidence + 1e-9
    assert elbo == pytest.approx(case.log_evidence, abs=0.05)  # what noise in the last steps leaves
