"""IVON against a NumPy twin of the paper's algorithm, and what its factors of two must not be."""

import numpy as np
import pytest
import torch
from torch import nn

import posterity
from posterity import IVON, Categorical, Engine, Gaussian, Hierarchical, InvalidInput, Normal, Problem
from posterity.core import newton
from posterity.methods.ivon import IVONInference
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import Conjugate, small_classification, small_network
from tests.unit.test_compiled import needs_compiler

QUIET = {"progress": False, "device": "cpu"}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_three_steps_equal_their_numpy_twin(compiled: bool) -> None:
    """Algorithm 1 for logistic regression, with a prior mean of 0.1 and temperature 0.7."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    problem = Problem(network, Normal(0.1, 0.5), Categorical(), 80)
    method = IVON(
        lr=0.3, schedule="constant", hessian_momentum=0.9, initial_hessian=0.2, temperature=0.7, compiled=compiled
    )
    inference = IVONInference(problem, method, Budget(1, 10))
    state = inference.init(NamedStreams(3, "twin"))
    m, h, g = state["mean"].numpy().copy(), np.full(6, 0.2), np.zeros(6)
    scale = 80 / 0.7
    decay = 1 / (scale * 0.25)
    # The KL of a normal prior takes no noise; the two streams stay together.
    generator = NamedStreams(3, "twin")("noise")
    for step in (1, 2, 3):
        inference.update(state, (x, y))
        variance = 1 / (scale * (h + decay))
        if compiled:
            theta = inference._kernels.theta.numpy().copy()
            assert 0.2 < np.square(theta - m).mean() / variance.mean() < 4
        else:
            theta = m + np.sqrt(variance) * torch.randn(6, generator=generator, dtype=torch.float64).numpy()
        logits = x.numpy() @ theta.reshape(2, 3).T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = ((p - np.eye(2)[y.numpy()]).T @ x.numpy() / 8).reshape(-1)
        estimate = gradient * (theta - m) / variance
        g = 0.9 * g + 0.1 * gradient
        h = 0.9 * h + 0.1 * estimate + 0.5 * 0.1**2 * (h - estimate) ** 2 / (h + decay)
        m = m - 0.3 * (0.2 + decay) * (g / (1 - 0.9**step) + decay * (m - 0.1)) / (h + decay)
        np.testing.assert_allclose(state["mean"].numpy(), m, rtol=1e-10)
        np.testing.assert_allclose(state["hessian"].numpy(), h, rtol=1e-10)
    std = inference.posterior(state).std.numpy()
    np.testing.assert_allclose(std, 1 / np.sqrt(scale * (h + decay)), rtol=1e-10)


def test_curvature_of_twice_the_size_moves_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """What law 1 would see: a fit's std is then further off than 8 of its errors over seeds."""
    case, exact = Conjugate.make(), Conjugate.make().precision.diagonal().rsqrt()
    own = IVONInference._estimates

    def twice(self, mean, std, batch):
        nll, distribution, gradient, hessian = own(self, mean, std, batch)
        return nll, distribution, gradient, 2 * hessian

    monkeypatch.setattr(IVONInference, "_estimates", twice)
    method = IVON(epochs=400, hessian_momentum=0.98, initial_hessian=1.0)
    stds = torch.stack([case.fit(method, seed).std for seed in range(3)])
    assert ((stds.mean(0) - exact).abs() > 8 * stds.std(0) / 3**0.5).all()


def test_priors_that_are_no_weight_decay_are_refused() -> None:
    for prior in (Hierarchical(), posterity.Flat(), posterity.LaplacePrior(0, 0.1)):
        with pytest.raises(InvalidInput, match=r"weight decay.*Normal\(0, 0.3\).*MeanField"):
            posterity.fit(small_network(), small_classification(), prior=prior, method=IVON(), engine=Engine(**QUIET))


def test_points_are_at_the_optimum_given_the_rest() -> None:
    case = Conjugate.make()
    posterior = case.fit(IVON(epochs=600, hessian_momentum=0.98, initial_hessian=1.0, draws=2), where="weight")
    views = posterior.problem.layout.views(posterior.loc)
    found = torch.cat([views["weight"].reshape(-1), views["bias"]])
    assert posterior.std.shape == (2,)
    torch.testing.assert_close(found, case.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(posterior.std, case.precision.diagonal().rsqrt()[:2], rtol=0.15, atol=0)


def test_a_learnt_noise_level_is_found() -> None:
    case = Conjugate.make()
    method = IVON(epochs=600, lr=0.05, hessian_momentum=0.98, initial_hessian=1.0, draws=2)
    posterior = posterity.fit(
        nn.Linear(2, 1).double(),
        posterity.TensorData(case.x, case.y, 24),
        likelihood=Gaussian(),
        prior=Normal(0, 0.7),
        method=method,
        engine=Engine(**QUIET),
    )
    noise = posterior.latents["likelihood.std"]
    residual = float((case.y - case.design @ case.mean).std())
    assert float(noise.mean) == pytest.approx(residual, rel=0.25)
    # The posterior of a noise level from 24 data has a std of about noise/√48.
    assert float(noise.std) == pytest.approx(residual / 48**0.5, rel=0.5)


def test_the_hessian_never_makes_a_variance_negative() -> None:
    """Estimates far below −δ are outdone by the second-order term, in one step."""
    vectors, decay = (torch.zeros(3), torch.full((3,), 0.1), torch.zeros(3)), torch.full((3,), 0.1)
    estimates = torch.zeros(3), torch.tensor([-1.0, -100.0, 50.0])
    newton.move(vectors, estimates, (decay, torch.zeros(3)), torch.tensor([0.1, 0.1, 0.1, 0.5, 0.1]))
    assert (vectors[1] + decay > 0).all()
    assert (0.1 + 0.5 * (estimates[1][:2] - 0.1) + decay[:2] < 0).all()  # what the first-order term alone would leave


def test_what_the_kernels_do_not_cover_is_refused() -> None:
    with pytest.raises(ValueError, match="one draw per step"):
        IVON(compiled=True, draws=2)
    with pytest.raises(InvalidInput, match="Leave compiled=False"):
        IVONInference(Problem(nn.Linear(2, 1), Normal(0, 1), Gaussian(), 10), IVON(compiled=True), Budget(1, 1))
