"""The posterior of a scale where a fit has converged: s at the rms of its weights under q, and the width 1/√(2n)."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from posterity import Engine, HalfNormal, Hierarchical, MeanField, Normal, Optimizer, Problem
from posterity.data import load
from posterity.errors import InvalidInput
from posterity.model.initial import initial_std
from posterity.model.likelihoods import Categorical
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.train.batches import TensorData

HYPERPRIOR = 1.0  # the std of the half-normal


def fitted(centered: bool, start: dict[str, Tensor] | float) -> DiagonalGaussian:
    """A linear network on digits under a hierarchical prior."""
    digits = load("digits").standardised()
    data = TensorData(digits.train_inputs[:400], digits.train_targets[:400], batch_size=400)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    prior = Hierarchical(scale=HalfNormal(HYPERPRIOR), centered=centered, initial_std=0.1)
    method = MeanField("local_reparam", epochs=350, optimizer=Optimizer(lr=0.02, schedule="cosine"))
    problem = Problem(network, prior, Categorical(), 400)
    return method.infer(problem, data, Engine(seed=0, device="cpu", progress=False), initial=start)


def best(sum_of_squares: float, count: int) -> tuple[float, float]:
    """The mean and std of the best normal q(log s), given E_q Σ w²: by scipy, of the ELBO's terms that hold s."""

    def objective(q: list[float]) -> float:
        mean, spread = q[0], math.exp(2 * q[1])
        prior = 0.5 * math.exp(2 * mean + 2 * spread) / HYPERPRIOR**2 - mean
        return count * mean + 0.5 * sum_of_squares * math.exp(2 * spread - 2 * mean) + prior - q[1]

    start = [0.5 * math.log(sum_of_squares / count), -0.5 * math.log(2 * count)]
    mean, log_std = minimize(objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}).x
    return mean, math.exp(log_std)


def test_a_converged_scale_is_the_rms_of_its_weights_with_the_width_of_their_number() -> None:
    sizes = {"1.weight": 640, "1.bias": 10}
    start = {"1.weight": torch.full((10, 64), 0.05), "1.bias": torch.full((10,), 0.05)}
    start |= {f"prior.scale.{n}": torch.tensor(2.0 * count).rsqrt() for n, count in sizes.items()}
    q = fitted(True, start)
    mean, std = (q.problem.layout.views(v) for v in (q.loc, q.std))
    for name, count in sizes.items():
        squares = float((mean[name].square() + std[name].square()).sum())
        exact, width = best(squares, count)
        assert float(mean[f"prior.scale.{name}"]) == pytest.approx(exact, abs=0.35 * width)
        assert float(std[f"prior.scale.{name}"]) == pytest.approx(width, rel=0.15)
        assert width == pytest.approx((2 * (count - 1)) ** -0.5, rel=0.02)  # the Jacobian of log s takes one
        assert q.latents[f"prior.scale.{name}"].mean.item() == pytest.approx((squares / count) ** 0.5, rel=width)


def test_a_non_centred_scale_lets_its_coordinates_have_the_rms_of_their_prior() -> None:
    q = fitted(False, 0.03)
    mean, std = (q.problem.layout.views(v) for v in (q.loc, q.std))
    rms = (mean["1.weight"].square() + std["1.weight"].square()).mean().sqrt()
    assert float(rms) == pytest.approx(1.0, abs=0.03)  # s·z has the scale s


def test_initial_stds_may_name_latents() -> None:
    problem = Problem(nn.Linear(3, 2), Hierarchical(), Categorical(), 10)
    weights = {"weight": torch.full((2, 3), 0.2), "bias": torch.full((2,), 0.3)}
    plain = initial_std(problem.coordinates, weights)
    assert plain.tolist() == pytest.approx([0.2] * 6 + [0.3] * 2 + [0.1] * 2)
    named = initial_std(problem.coordinates, {**weights, "prior.scale.bias": torch.tensor(0.5)})
    assert named.tolist() == pytest.approx([0.2] * 6 + [0.3] * 2 + [0.1, 0.5])
    with pytest.raises(InvalidInput, match=r"'prior\.scale\.bias' has shape \(2,\)"):
        initial_std(problem.coordinates, {**weights, "prior.scale.bias": torch.ones(2)})
    with pytest.raises(InvalidInput, match=r"'prior\.scale\.bias' has shape \(\)"):
        initial_std(problem.coordinates, {**weights, "prior.scale.bias": torch.tensor(0.0)})
    with pytest.raises(InvalidInput, match=r"'prior\.scale\.wait' is not"):
        initial_std(problem.coordinates, {**weights, "prior.scale.wait": torch.tensor(0.1)})
    with pytest.raises(InvalidInput, match="'bias' has no initial std"):
        initial_std(problem.coordinates, {"weight": weights["weight"], "prior.scale.bias": torch.tensor(0.1)})
    flat = Problem(nn.Linear(3, 2), Normal(0, 1), Categorical(), 10)
    assert initial_std(flat.coordinates, weights).tolist() == pytest.approx([0.2] * 6 + [0.3] * 2)
