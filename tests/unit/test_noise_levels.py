"""Learnt noise levels: where `fit` lets them start, and one for each of several targets."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal

import posterity
from posterity import MAP, MLE, NUTS, SWAG, Engine, Gaussian, Laplace, MeanField, Normal, TensorData, fit
from posterity.core.gaussian import softplus
from posterity.errors import InvalidInput
from posterity.model.noise import line_leaves, starting_std
from posterity.model.outputs import latent_curvature
from posterity.model.problem import Problem

QUIET = Engine(progress=False, device="cpu")
BRISK = posterity.Optimizer(lr=0.03)  # weights arrive, in 120 steps


def table(noise: float = 0.1, n: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    return x, x @ torch.tensor([1.0, -0.5, 0.0]) + noise * torch.randn(n, generator=generator)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 5e4])
@pytest.mark.parametrize("offset", [0.0, 4.0])
def test_the_start_is_the_spread_of_the_targets_in_any_unit(unit: float, offset: float) -> None:
    y = 0.6 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    assert starting_std(unit * (y + offset)).item() == pytest.approx(unit * y.std(correction=0).item(), rel=1e-4)


def test_targets_without_a_spread_have_no_scale() -> None:
    assert starting_std(torch.full((400,), 5.0)).item() == 0.3
    assert starting_std(torch.stack([torch.arange(400.0), torch.zeros(400)], 1))[1].item() == 0.3


@pytest.mark.parametrize(
    "inputs",
    [torch.rand(50, 1, 28, 28), torch.rand(50, 40), torch.arange(50)[:, None], torch.arange(50)],
    ids=["images", "wide", "tokens", "labels"],
)
def test_a_line_says_nothing_of_what_is_no_table(inputs: Tensor) -> None:
    assert line_leaves(inputs, torch.randn(50, generator=torch.Generator().manual_seed(0))) is None


def test_a_line_leaves_the_noise_even_beside_a_column_without_a_spread() -> None:
    x, y = table(0.6)
    x[:, 2] = 1.0
    assert line_leaves(x, y).item() == pytest.approx(0.6, rel=0.15)


@pytest.mark.parametrize("seed", range(6))
def test_a_network_that_begins_far_from_the_data_arrives_none_the_less(seed: int) -> None:
    """A start of the noise below the errors gave gradients that Adam remembered to the end: seed 3 had 200 times the truth."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1, generator=generator)
    y = 2 * x.squeeze() + 1 + 0.01 * torch.randn(300, generator=generator)
    torch.manual_seed(seed)
    data = TensorData(x, y, batch_size=150)
    posterior = fit(nn.Linear(1, 1), data, likelihood=Gaussian(), method=MAP(epochs=600), engine=QUIET)
    assert posterior.latents["likelihood.std"].mean.item() == pytest.approx(line_leaves(x, y).item(), rel=0.02)


def test_fit_starts_there_and_explicit_numbers_stay() -> None:
    x, y = table(0.6)
    for likelihood, expected in ((Gaussian(), y.std().item()), (Gaussian(initial_std=0.7), 0.7)):
        posterior = fit(
            nn.Linear(3, 1),
            (x, y),
            likelihood=likelihood,
            method=MLE(epochs=1, optimizer=posterity.Optimizer(lr=1e-9)),
            engine=QUIET,
        )
        assert posterior.latents["likelihood.std"].mean.item() == pytest.approx(expected, rel=0.15)
    assert Gaussian(std=0.2).started(x, y) == Gaussian(std=0.2)
    assert Gaussian(initial_std=(0.1, 0.2)).started(x, y) == Gaussian(initial_std=(0.1, 0.2))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=100)
    posterior = fit(nn.Linear(3, 1), loader, likelihood=Gaussian(), method=MLE(epochs=1), engine=QUIET)
    assert posterior.problem.likelihood.initial_std == pytest.approx(y[:100].std().item(), rel=0.3)  # its first batch


def two_targets(noise: float = 0.6) -> tuple[Tensor, Tensor]:
    """Noise of std 0.6, or as given, and 2."""
    x, y = table(noise)
    other = x[:, 1] + 2 * torch.randn(400, generator=torch.Generator().manual_seed(2))
    return x, torch.stack([y, other], 1)


@pytest.mark.parametrize(
    "method",
    [
        MeanField(epochs=30, optimizer=BRISK),
        MeanField("local_reparam", epochs=30, optimizer=BRISK),
        posterity.LowRank(epochs=30),
        posterity.FullRank(epochs=30),
        posterity.IVON(epochs=30),
        MAP(epochs=30, optimizer=BRISK),
        SWAG(epochs=30),
        Laplace(MAP(epochs=30, optimizer=BRISK)),
        Laplace(MAP(epochs=30, optimizer=BRISK), structure="diag", curvature="fisher"),
        posterity.SGLD(epochs=30),
        posterity.SGHMC(epochs=30),
        pytest.param(NUTS(warmup=100, draws=50, chains=1), marks=pytest.mark.slow),
    ],
    ids=lambda m: type(m).__name__,
)
def test_every_method_has_a_noise_level_for_each_target(method: object) -> None:
    torch.manual_seed(0)
    posterior = fit(
        nn.Linear(3, 2),
        TensorData(*two_targets(), batch_size=100),
        likelihood=Gaussian(),
        prior=Normal(0, 1),
        method=method,
        engine=QUIET,
    )
    stds = posterior.latents["likelihood.std"].mean
    assert stds.shape == (2,)
    assert 0.45 < stds[0] < 0.95  # 30 epochs, from a start of 0.6
    assert 1.6 < stds[1] < 2.4
    assert posterior.predict(torch.randn(5, 3), 8).aleatoric.shape == (5, 2)


def test_noise_levels_are_saved_and_loaded(tmp_path) -> None:
    posterior = fit(nn.Linear(3, 2), two_targets(), likelihood=Gaussian(), method=MeanField(epochs=1), engine=QUIET)
    posterior.save(tmp_path / "two.safetensors")
    again = posterity.load(tmp_path / "two.safetensors", nn.Linear(3, 2))
    assert again.problem.likelihood == posterior.problem.likelihood
    assert torch.equal(again.mean, posterior.mean)


def test_one_noise_level_of_several_targets_as_before() -> None:
    """A file that was written with one noise level for all targets, and `shared=True`."""
    shared = fit(
        nn.Linear(3, 2), two_targets(), likelihood=Gaussian(shared=True), method=MeanField(epochs=1), engine=QUIET
    )
    assert shared.latents["likelihood.std"].mean.shape == ()
    problem = Problem(nn.Linear(3, 2), Normal(0, 1), Gaussian(initial_std=0.3), 400)
    assert problem.theta().numel() == 9
    assert problem.coordinates.latents["likelihood.std"].initial.shape == ()


def test_the_density_is_that_of_each_target_for_draws_too() -> None:
    likelihood = Gaussian(initial_std=(0.1, 2.0))
    outputs, targets = torch.randn(5, 7, 2), torch.randn(7, 2)
    rho = torch.randn(5, 2)
    expected = TorchNormal(outputs, softplus(rho)[:, None]).log_prob(targets).sum(-1)
    torch.testing.assert_close(likelihood(outputs, {"std": rho}).log_prob(targets), expected)
    torch.testing.assert_close(likelihood(outputs[0], {"std": rho[0]}).log_prob(targets), expected[0])
    two = torch.randn(2, 7, 2)  # as many draws as targets, with one noise level: it goes with the draws
    shared = Gaussian()(two, {"std": torch.tensor([0.0, 1.0])}).log_prob(targets)
    torch.testing.assert_close(
        shared, TorchNormal(two, softplus(torch.tensor([0.0, 1.0]))[:, None, None]).log_prob(targets).sum(-1)
    )


@pytest.mark.parametrize("initial", [0.4, (0.4, 1.5)])
def test_the_latents_curvature_is_the_expected_hessian(initial: float | tuple[float, ...]) -> None:
    """E over targets of −∂² log p / ∂rho², estimated with targets drawn from the model, is the Gauss–Newton number."""
    likelihood = Gaussian(initial_std=initial)
    problem = Problem(nn.Linear(3, 2).double(), Normal(0, 1), likelihood, 10)
    rho = likelihood.latents()["std"].initial.double()
    outputs = torch.zeros(50_000, 2, dtype=torch.float64)
    targets = likelihood(outputs, {"std": rho}).sample()
    found = latent_curvature(problem, outputs, targets, "ggn", {"std": rho})
    scores = latent_curvature(problem, outputs, targets, "fisher", {"std": rho})
    assert found.shape == scores.shape == (rho.numel(),)
    torch.testing.assert_close(scores, found, rtol=4 * (10 / 50_000) ** 0.5, atol=0)  # Var of (z² − 1)² is 56, mean 2


def test_evidence_moves_all_noise_levels_by_one_factor() -> None:
    x, y = two_targets(0.1)
    method = Laplace(MAP(epochs=60, optimizer=posterity.Optimizer(lr=0.1)), structure="full", tune_noise=True)
    posterior = fit(nn.Linear(3, 2), (x, y), likelihood=Gaussian(), prior=Normal(0, 1), method=method, engine=QUIET)
    assert posterior.problem.likelihood.std == pytest.approx((0.1, 2.0), rel=0.15)


def test_noise_levels_that_are_not_one_for_each_target_are_refused() -> None:
    with pytest.raises(InvalidInput, match="3 noise levels were given for 2 targets"):
        fit(nn.Linear(3, 2), two_targets(), likelihood=Gaussian(std=(1.0, 2.0, 3.0)), engine=QUIET)
