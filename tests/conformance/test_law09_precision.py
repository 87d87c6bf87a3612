"""Law 9: float64 agrees with a NumPy/SciPy twin; autocast stays finite, with variance and KL in float32."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

import posterity
from posterity import Categorical, Engine, Gaussian, HeteroscedasticGaussian, MeanField, Normal, Problem, ScaleMixture
from posterity.core import gaussian
from posterity.methods.mean_field import MeanFieldInference
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import small_classification, small_network


def test_softplus_and_its_inverse_at_both_ends() -> None:
    rho = np.array([-700.0, -40.0, -5.0, 0.0, 5.0, 30.0, 500.0])
    std = gaussian.softplus(torch.from_numpy(rho))
    np.testing.assert_allclose(std.numpy(), np.logaddexp(0, rho), rtol=1e-12)
    np.testing.assert_allclose(gaussian.inverse_softplus(std).numpy(), rho, rtol=1e-12)


def test_log_densities_equal_scipy_far_into_the_tails() -> None:
    w = np.array([-30.0, -1.0, 0.0, 1e-3, 2.0, 40.0])
    params = {"a": torch.from_numpy(w[:2]), "b": torch.from_numpy(w[2:])}
    assert float(Normal(0.1, 0.7).log_prob(params)) == pytest.approx(stats.norm(0.1, 0.7).logpdf(w).sum(), rel=1e-12)
    components = np.log(0.3) + stats.norm(0, 1.5).logpdf(w), np.log(0.7) + stats.norm(0, 0.01).logpdf(w)
    expected = np.logaddexp(*components).sum()
    assert float(ScaleMixture(0.3, 1.5, 0.01).log_prob(params)) == pytest.approx(expected, rel=1e-12)


def test_large_weights_feel_the_mixture_prior() -> None:
    """A floor under the density would make this gradient vanish; it is −w/σ₁² exactly, far out."""
    w = torch.tensor([20.0], dtype=torch.float64, requires_grad=True)
    ScaleMixture(0.5, 1.0, 0.0025).log_prob({"w": w}).backward()
    assert w.grad.item() == pytest.approx(-20.0)


@pytest.mark.parametrize(
    ("prior", "exact"),
    [
        (Normal(0.2, 0.5), stats.norm(0.2, 0.5).cdf),
        (Normal(0, 2.0, fan_in=True), stats.norm(0, 0.4).cdf),  # 25 inputs: 2/√25
        (ScaleMixture(0.4, 1.0, 0.1), lambda v: 0.4 * stats.norm(0, 1).cdf(v) + 0.6 * stats.norm(0, 0.1).cdf(v)),
    ],
)
def test_priors_sample_what_they_say(prior, exact) -> None:
    shapes = {"fc.weight": torch.Size([30, 25]), "fc.bias": torch.Size([30])}
    drawn = prior.sample(shapes, torch.Generator().manual_seed(0))
    flat = torch.cat([drawn[n].reshape(-1) for n in shapes]).double().numpy()
    assert stats.kstest(flat, exact).pvalue > 1e-3


def test_half_cauchy_noise_prior_integrates_to_one() -> None:
    latent = Gaussian().latents()["std"]
    total, _ = integrate.quad(
        lambda r: np.exp(float(latent.log_prob(torch.tensor(r, dtype=torch.float64)))), -40, 2000, limit=400
    )
    assert total == pytest.approx(1, abs=2e-3)  # the half-Cauchy's tail beyond 2000 holds 3e-4


def test_likelihoods_equal_scipy() -> None:
    outputs, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    mean, std = outputs[:, 0].numpy(), 1e-3 + np.logaddexp(0, outputs[:, 1].numpy())
    ours = HeteroscedasticGaussian()(outputs, {}).log_prob(y)
    np.testing.assert_allclose(ours.numpy(), stats.norm(mean, std).logpdf(y.numpy()), rtol=1e-12)
    rho = torch.tensor([-1.0, 0.5], dtype=torch.float64)  # two draws of the noise level beside two draws of outputs
    drawn = torch.stack([outputs[:, :1], outputs[:, 1:]])
    ours = Gaussian()(drawn, {"std": rho}).log_prob(y)
    scales = np.logaddexp(0, rho.numpy())[:, None]
    np.testing.assert_allclose(ours.numpy(), stats.norm(drawn[..., 0].numpy(), scales).logpdf(y.numpy()), rtol=1e-12)


def test_a_step_equals_its_numpy_twin() -> None:
    """One Bayes-by-Backprop step of logistic regression: loss, KL and both gradients, in NumPy."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    problem = Problem(network, Normal(0, 0.5), Categorical(), 80)
    inference = MeanFieldInference(problem, MeanField("weight", initial_std=0.3, temperature=0.7), Budget(1, 10))
    state = inference.init(NamedStreams(3, "twin"))
    mu, rho = state["mean"].numpy().copy(), state["rho"].numpy().copy()
    _, info = inference.update(state, (x, y))
    noise = torch.empty(6, dtype=torch.float64).normal_(generator=NamedStreams(3, "twin")("noise")).numpy()
    std = np.log1p(np.exp(rho))
    logits = x.numpy() @ (mu + std * noise).reshape(2, 3).T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    labels = y.numpy()
    nll = -np.log(p[np.arange(8), labels]).mean()
    g = ((p - np.eye(2)[labels]).T @ x.numpy() / 8).reshape(-1)
    kl = (np.log(0.5 / std) + (std**2 + mu**2) / 0.5 - 0.5).sum()
    np.testing.assert_allclose([float(info["nll"]), float(info["kl"])], [nll, kl / 80], rtol=1e-12)
    assert float(info["nelbo"]) == pytest.approx(nll + 0.7 * kl / 80, rel=1e-12)
    grads = inference._optimizer.grads
    np.testing.assert_allclose(grads["mean"].numpy(), g + 0.7 / 80 * mu / 0.25, rtol=1e-10)
    slope = 1 / (1 + np.exp(-rho))
    np.testing.assert_allclose(
        grads["rho"].numpy(), (g * noise + 0.7 / 80 * (std / 0.25 - 1 / std)) * slope, rtol=1e-10
    )


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_autocast_stays_finite_and_keeps_float32_parameters(estimator: str) -> None:
    x, y = small_classification()
    rows: list[dict] = []
    engine = Engine(progress=False, precision="bfloat16", device="cpu", on_epoch=lambda name, row: rows.append(row))
    posterior = posterity.fit(small_network(), (1e3 * x, y), method=MeanField(estimator, epochs=3), engine=engine)
    assert posterior.mean.dtype == posterior.std.dtype == torch.float32
    assert all(np.isfinite(row["nelbo"]) and np.isfinite(row["kl"]) for row in rows)
    assert posterior.mean.isfinite().all()
    assert (posterior.std > 0).all()
