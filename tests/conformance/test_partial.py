"""Networks that are random in part: what is not selected is a point under its prior (MAP), in every method."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

import posterity
from posterity import Categorical, Engine, MeanField, Normal, Problem, ScaleMixture
from posterity.model.divergence import Divergence
from tests.conformance.table import TABLE, Conjugate, small_classification, small_network

SEEDS = 5
QUIET = {"progress": False, "device": "cpu"}


@pytest.mark.parametrize(
    "name",
    [
        "mean_field-weight",
        *(pytest.param(f"mean_field-{name}", marks=pytest.mark.slow) for name in ("local_reparam", "flipout")),
    ],
)
def test_conjugate_regression_with_a_point_bias(name: str) -> None:
    """The objective's optimum is the exact mean, 1/√precision for the weights' std, and no std for the bias."""
    case = Conjugate.make()
    fits = [case.fit(TABLE[name].method, seed, where="weight") for seed in range(SEEDS)]
    views = [f.problem.layout.views(f.loc) for f in fits]
    means = torch.stack([torch.cat([v["weight"].reshape(-1), v["bias"]]) for v in views])
    assert ((means.mean(0) - case.mean).abs() < 4 * means.std(0) / SEEDS**0.5 + 1e-4).all()
    stds, exact = torch.stack([f.std for f in fits]), case.precision.diagonal().rsqrt()[:2]
    assert ((stds.mean(0) - exact).abs() < 4 * stds.std(0) / SEEDS**0.5 + 1e-3 * exact).all()
    named = fits[0].problem.layout.views(torch.stack([fits[0].sample() for _ in range(8)]))
    assert named["bias"].std(0).max() == 0
    assert named["weight"].std(0).min() > 0


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("prior", [Normal(0.1, 0.4), Normal(0, {"*.bias": 2.0, "*": 0.5})])
def test_divergence_is_kl_of_the_random_plus_the_points_log_density(prior: Normal) -> None:
    where = Problem(network(), prior, Categorical(), 10, where="2").coordinates
    assert where.layout.names[:2] == ("1.weight", "1.bias")  # free of the prior
    mean = where.theta().requires_grad_()
    std = torch.rand(10, dtype=torch.float64).add(0.1).requires_grad_()
    shapes = where.shapes()
    assert "1.weight" not in shapes
    prior_mean, prior_std = prior.resolve(shapes, mean)
    point, start = slice(where.free, where.start), where.start - where.free
    expected = -TorchNormal(prior_mean[:start], prior_std[:start]).log_prob(mean[point]).sum()
    q, p = TorchNormal(mean[where.start :], std), TorchNormal(prior_mean[start:], prior_std[start:])
    expected = expected + kl_divergence(q, p).sum()
    divergence = Divergence.of(where)
    torch.testing.assert_close(divergence.value(mean, std), expected)
    expected.backward()
    grads = torch.zeros_like(mean), torch.zeros_like(std)
    divergence.add_gradient(1.0, mean.detach(), std.detach(), grads)
    torch.testing.assert_close(grads, (mean.grad, std.grad))


def test_divergence_without_closed_form_is_unbiased_for_part_of_a_network() -> None:
    equal = ScaleMixture(0.5, 0.3, 0.3)
    drawn, closed = (
        Divergence.of(Problem(network(), p, Categorical(), 10, where="2").coordinates) for p in (equal, Normal(0, 0.3))
    )
    mean, std = drawn.coordinates.theta(), torch.full((10,), 0.2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([drawn.value(mean, std, generator) for _ in range(2000)])
    error = values.std() / 2000**0.5
    assert abs(values.mean() - closed.value(mean, std)) < 4 * error


def fitted(where: object, estimator: str = "weight") -> posterity.methods.mean_field.DiagonalGaussian:
    return posterity.fit(
        small_network(),
        small_classification(),
        where=where,
        method=MeanField(estimator, epochs=2),
        engine=Engine(seed=0, **QUIET),
    )


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_points_are_trained_and_draws_differ_in_the_random_part_alone(estimator: str) -> None:
    posterior = fitted("last_layer", estimator)
    start = dict(small_network().named_parameters())
    views = posterior.problem.layout.views(torch.stack([posterior.sample(), posterior.sample()]))
    for name, value in views.items():
        assert (value[0] != start[name]).any(), f"{name} was not trained"
        assert bool((value[0] == value[1]).all()) == (not name.startswith("4.")), name


def test_a_partial_posterior_is_saved_with_its_selection(tmp_path: Path) -> None:
    posterior = fitted(["0", "4.bias"])
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    assert loaded.problem.coordinates.random_names == posterior.problem.coordinates.random_names
    inputs = small_classification()[0]
    torch.testing.assert_close(draw(loaded, inputs), draw(posterior, inputs), rtol=0, atol=0)


def draw(posterior: posterity.methods.mean_field.DiagonalGaussian, inputs: Tensor) -> Tensor:
    return posterior.draw(inputs, 3, generator=torch.Generator().manual_seed(1))
