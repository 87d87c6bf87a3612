"""Law 1 for Laplace approximations, which are exact on the conjugate problem: nothing is stochastic but the training."""

import pytest
import torch

from tests.conformance.table import TABLE, Conjugate

every_laplace = pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row.family == "laplace"])


@every_laplace
def test_posterior_evidence_and_predictions_are_exact(name: str) -> None:
    case = Conjugate.make()
    posterior = case.fit(TABLE[name].method)
    exact = torch.linalg.inv(case.precision)
    torch.testing.assert_close(posterior.mean, case.mean, rtol=0, atol=1e-6)  # as far as the training goes
    root = posterior.weights.spread(torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(root @ root.T, exact, rtol=1e-10, atol=1e-12)
    assert posterior.log_evidence == pytest.approx(case.log_evidence, abs=1e-9)
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    design = torch.cat([x, torch.ones(2, 1, dtype=torch.float64)], 1)
    found, epistemic = posterior.predict(x), ((design @ exact) * design).sum(1)
    torch.testing.assert_close(found.epistemic, epistemic)
    torch.testing.assert_close(found.variance, epistemic + case.noise**2)
    with pytest.raises(AssertionError):  # the test can tell it from one without correlations
        torch.testing.assert_close(found.epistemic, design.square() @ case.precision.diagonal().reciprocal())


@every_laplace
def test_doubled_data_double_the_curvature_beside_the_prior(name: str) -> None:
    case = Conjugate.make()
    posterior = case.fit(TABLE[name].method, copies=2, batch_size=48)
    root = posterior.weights.spread(torch.eye(3, dtype=torch.float64))
    precision = 2 * case.design.T @ case.design / case.noise**2 + torch.eye(3, dtype=torch.float64) / case.prior_std**2
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(precision), rtol=1e-10, atol=1e-12)
