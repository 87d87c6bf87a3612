"""Law 2: KL ≥ 0, = 0 at q = p, and equal to `torch.distributions.kl_divergence`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from posterity import Categorical, Normal, Problem, ScaleMixture
from posterity.core import gaussian
from posterity.model.divergence import Divergence

positive = st.floats(1e-3, 50)


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 5), positive, st.floats(-5, 5), positive)
def test_equals_torch(mean: float, std: float, prior_mean: float, prior_std: float) -> None:
    tensors = [torch.tensor([v], dtype=torch.float64) for v in (mean, std, prior_mean, prior_std)]
    q, p = torch.distributions.Normal(*tensors[:2]), torch.distributions.Normal(*tensors[2:])
    expected = torch.distributions.kl_divergence(q, p).sum()
    ours = gaussian.kl(tensors[0], tensors[1], prior_mean, prior_std)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)
    assert ours >= -1e-12


def test_is_zero_at_the_prior_and_not_symmetric() -> None:
    ones = torch.ones(5, dtype=torch.float64)
    assert gaussian.kl(0.3 * ones, 0.2 * ones, 0.3, 0.2) == pytest.approx(0, abs=1e-12)
    assert gaussian.kl(ones, 0.1 * ones, 0.0, 1.0) != pytest.approx(float(gaussian.kl(0 * ones, ones, 1.0, 0.1)))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
    )


def test_lenet_at_the_published_initialisation() -> None:
    problem = Problem(lenet(), Normal(0, 0.1), Categorical(), 60_000)
    assert problem.layout.size == 61_706
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(3):
        mean = 0.1 * torch.randn(61_706, generator=generator)
        std = gaussian.softplus(-5 + 0.1 * torch.randn(61_706, generator=generator))
        values.append(float(Divergence.of(problem.coordinates).value(mean, std)))
    # E per weight: log(.1/σ) + (σ² + .1²)/(2·.1²) − ½ = 2.717 nats; 167,644 published, 13.8 million where it is reversed.
    assert values == pytest.approx([167_644] * 3, rel=0.01)


def test_gradient_equals_autograd() -> None:
    mean = torch.randn(7, dtype=torch.float64, requires_grad=True)
    std = (0.1 + torch.rand(7, dtype=torch.float64)).requires_grad_()
    expected = torch.autograd.grad(gaussian.kl(mean, std, 0.2, 0.5), [mean, std])
    problem = Problem(nn.Linear(6, 1).double(), Normal(0.2, 0.5), Categorical(), 10)
    grads = torch.zeros(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
    Divergence.of(problem.coordinates).add_gradient(1.0, mean.detach(), std.detach(), grads)
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pattern_prior_has_its_own_kl_per_coordinate() -> None:
    problem = Problem(nn.Linear(3, 2).double(), Normal(0, {"bias": 2.0, "*": 0.5}), Categorical(), 10)
    mean, std = torch.randn(8, dtype=torch.float64), torch.full((8,), 0.3, dtype=torch.float64)
    expected = gaussian.kl(mean[:6], std[:6], 0.0, 0.5) + gaussian.kl(mean[6:], std[6:], 0.0, 2.0)
    torch.testing.assert_close(Divergence.of(problem.coordinates).value(mean, std), expected)


def test_drawn_kl_of_a_mixture_is_unbiased_in_value_and_gradient() -> None:
    """A mixture of two equal components is a Normal, whose KL and gradient are known."""
    network = nn.Linear(2, 1).double()
    mixture = Divergence.of(Problem(network, ScaleMixture(0.5, 0.3, 0.3), Categorical(), 10).coordinates)
    closed = Divergence.of(Problem(network, Normal(0, 0.3), Categorical(), 10).coordinates)
    mean, std = torch.tensor([0.2, -0.4, 0.1]).double(), torch.tensor([0.1, 0.3, 0.05]).double()
    generator = torch.Generator().manual_seed(0)
    values, gradients = [], []
    for _ in range(4000):
        values.append(mixture.value(mean, std, generator))
        grads = torch.zeros(3).double(), torch.zeros(3).double()
        mixture.add_gradient(1.0, mean, std, grads, generator)
        gradients.append(torch.cat(grads))
    exact = torch.zeros(3).double(), torch.zeros(3).double()
    closed.add_gradient(1.0, mean, std, exact)
    for drawn, expected in ((torch.stack(values), closed.value(mean, std)), (torch.stack(gradients), torch.cat(exact))):
        assert ((drawn.mean(0) - expected).abs() < 4 * drawn.std(0) / 4000**0.5 + 1e-12).all()
