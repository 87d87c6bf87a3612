"""Noise stays a number of its own beside functions whose variance is larger than any float32 could hold beside it."""

import pytest
import torch
from torch import nn

from posterity import MAP, Engine, Gaussian, Laplace, Normal, fit
from posterity.decide import Temperature
from posterity.errors import InvalidInput
from posterity.predict.moments import RegressionMoments
from posterity.predict.regression import Regression

QUIET = Engine(progress=False, device="cpu")


def far(dtype: torch.dtype = torch.float32) -> Regression:
    """Noise variance 4e-4, functions' variance 1e10: their float32 sum forgets the noise altogether."""
    shape = (3, 2)
    noise, functions = torch.full(shape, 4e-4, dtype=dtype), torch.tensor([0.0, 1e10]).to(dtype).expand(shape)
    return Regression(torch.zeros(shape, dtype=dtype), noise, functions)


@pytest.mark.parametrize("std", [0.02, "learnt"])
@pytest.mark.parametrize("structure", ["full", "kron", "diag", "low_rank"])
def test_closed_form_laplace_keeps_its_noise_however_far_it_looks(std: float | str, structure: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 1)
    y = torch.sin(2 * x.squeeze()) + 0.02 * torch.randn(100)
    network = nn.Sequential(nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 1))
    likelihood = Gaussian() if std == "learnt" else Gaussian(std=std)
    method = Laplace(MAP(epochs=3), structure=structure)
    posterior = fit(network, (x, y), likelihood=likelihood, prior=Normal(0, 1), method=method, engine=QUIET)
    inputs = torch.tensor([[0.0], [1e2], [1e3], [1e4], [1e6], [1e8]])
    predictive = posterior.predict(inputs, generator=torch.Generator().manual_seed(0))
    expected = predictive.aleatoric[0] if std == "learnt" else torch.tensor(0.02**2)
    assert torch.allclose(predictive.aleatoric, expected.expand(6), rtol=1e-6)
    variances = posterior.moments(inputs)[1]
    assert torch.allclose(predictive.epistemic, variances.squeeze(1), rtol=1e-5)


def test_every_reader_of_a_regression_sees_noise_and_functions_apart() -> None:
    predictive = far()
    assert torch.equal(predictive.aleatoric, torch.full((2,), 4e-4))
    assert torch.allclose(predictive.epistemic, torch.tensor([0.0, 1e10]))
    assert torch.equal(predictive.variances[:, 1], torch.full((3,), 1e10))
    assert torch.allclose(predictive.quantile(0.975), torch.tensor([0.0392, 1.96e5]), rtol=1e-3)
    moments = RegressionMoments.of(predictive)
    assert torch.equal(moments.aleatoric, predictive.aleatoric)
    assert torch.allclose(moments.epistemic, predictive.epistemic)
    scaled = predictive.rescale(7.0, 10.0)
    assert torch.allclose(scaled.aleatoric, 100 * predictive.aleatoric)
    assert torch.allclose(scaled.epistemic, 100 * predictive.epistemic)
    tempered = Temperature(3.0, "regression").apply(predictive)
    assert torch.allclose(tempered.aleatoric, 9 * predictive.aleatoric)
    assert torch.allclose(tempered.epistemic, 9 * predictive.epistemic)


def test_densities_are_those_of_double_precision() -> None:
    y = torch.tensor([0.01, 3e4])
    single, double = far(), far(torch.float64)
    torch.testing.assert_close(single.log_prob(y).double(), double.log_prob(y), rtol=1e-5, atol=1e-5)
    spread = torch.distributions.Normal(0.0, torch.tensor([4e-4, 1e10 + 4e-4]).double().sqrt())
    torch.testing.assert_close(double.log_prob(y), spread.log_prob(y.double()), rtol=1e-6, atol=1e-6)
    expected = -0.5 * ((y.double() ** 2 + torch.tensor([0, 1e10])) / 4e-4 + torch.tensor(4e-4 * 2 * torch.pi).log())
    assert single.scores(y)["expected_nll"] == pytest.approx(-expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_of_half_precision_is_kept(dtype: torch.dtype) -> None:
    noise = torch.full((1, 1), 0.25, dtype=dtype)
    predictive = Regression(torch.zeros(1, 1, dtype=dtype), noise, torch.full((1, 1), 4096.0, dtype=dtype))
    assert predictive.aleatoric.item() == 0.25
    assert predictive.epistemic.item() == 4096.0


@pytest.mark.parametrize("functions", [-0.1, float("nan"), float("inf"), torch.tensor([[0.0, -1.0]])])
def test_variances_of_functions_are_checked(functions: float | torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match="of functions finite and >= 0"):
        Regression(torch.zeros(1, 2), torch.ones(1, 2), functions)


def test_marginal_stds_of_a_few_directions_keep_what_the_data_determined() -> None:
    """Where the basis spans all coordinates, the stds are those of the covariance, 1e-5 of the prior's, in float32 too."""
    torch.manual_seed(0)
    x = torch.randn(50, 3)
    method = Laplace(MAP(epochs=1), structure="low_rank", prediction="sampled")
    posterior = fit(
        nn.Linear(3, 1), (x, x.sum(1)), likelihood=Gaussian(std=1e-4), prior=Normal(0, 1), method=method, engine=QUIET
    )
    design = torch.cat([x, torch.ones(50, 1)], 1).double()
    exact = torch.linalg.inv(design.T @ design / 1e-8 + torch.eye(4)).diagonal().sqrt()
    assert torch.allclose(posterior.marginal_std.double(), exact, rtol=1e-2)
