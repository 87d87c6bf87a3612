"""Path gradients and the importance-weighted bound, on a regression whose evidence and posterior are known."""

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import Engine, Gaussian, Hierarchical, MeanField, Normal, Optimizer, Problem, TensorData
from posterity.core.estimators import WeightDraw
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import NotArrived, PosterityWarning
from posterity.model.divergence import Divergence
from posterity.model.elbo import NegativeElbo
from posterity.model.importance import PathElbo
from tests.conformance.table import FAST, Conjugate

QUIET = {"progress": False, "device": "cpu"}
Normals = torch.distributions.Normal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem_of(case: Conjugate, where: object = None) -> Problem:
    torch.manual_seed(0)
    return Problem(nn.Linear(2, 1).double(), Normal(0, case.prior_std), Gaussian(std=case.noise), 24, where=where)


def around(case: Conjugate, offset: float = 0.1, scale: float = 0.8) -> tuple[Tensor, Tensor]:
    """A q that is near the posterior, but not its mean-field optimum."""
    return case.mean + offset, inverse_softplus(scale * case.precision.diagonal().rsqrt())


def gradient(elbo, problem: Problem, case: Conjugate, q: tuple[Tensor, Tensor], generator) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(q[0]), torch.empty_like(q[1])
    elbo.gradient(lambda: problem.nll((case.x, case.y))[0], q, 1 / 24, out, generator)
    return out


def log_joint(case: Conjugate, thetas: Tensor) -> Tensor:
    """log p(y, θ) of each row, by torch.distributions alone."""
    zero, noise, scale = torch.tensor([0.0, case.noise, case.prior_std], dtype=torch.float64)
    likelihood = Normals(thetas @ case.design.T, noise).log_prob(case.y).sum(-1)
    return likelihood + Normals(zero, scale).log_prob(thetas).sum(-1)


def log_weights(case: Conjugate, q: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
    std = softplus(q[1])
    thetas = q[0] + std * noise
    return log_joint(case, thetas) - Normals(q[0], std).log_prob(thetas).sum(-1)


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("importance", [False, True])
def test_gradients_and_values_are_those_of_autograd(importance: bool, antithetic: bool) -> None:
    """Of Σ_k c_k log w_k with q's parameters held fixed in the density, c = 1/K or ŵ²."""
    case, draws = Conjugate.make(), 4
    problem, q = problem_of(case), around(case)
    elbo = PathElbo(problem.coordinates, draws, antithetic=antithetic, importance=importance)
    out = gradient(elbo, problem, case, q, seeded(3))
    generator, noises = seeded(3), []
    for k in range(draws):
        noises.append(-noises[-1] if antithetic and k % 2 else torch.randn(3, dtype=torch.float64, generator=generator))
    mean, rho = (v.clone().requires_grad_() for v in q)
    std = softplus(rho)
    thetas = mean + std * torch.stack(noises)
    ratios = log_joint(case, thetas) - Normals(q[0], softplus(q[1])).log_prob(thetas).sum(-1)
    counts = ratios.detach().softmax(0).square() if importance else torch.full((draws,), 1 / draws).double()
    expected = torch.autograd.grad(-(counts * ratios).sum() / 24, [mean, rho])
    torch.testing.assert_close(out[0], expected[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(out[1], expected[1], rtol=1e-9, atol=1e-12)
    bound = ratios.logsumexp(0) - torch.tensor(float(draws)).log() if importance else ratios.mean()
    torch.testing.assert_close(elbo.value, -bound.detach() / 24, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("importance", "draws"), [(False, 1), (True, 5)])
def test_the_mean_gradient_is_that_of_the_bound(importance: bool, draws: int) -> None:
    """Against finite differences of the bound itself with common random numbers: the score that is left out has mean 0."""
    case, repeats = Conjugate.make(), 200
    problem, q, generator = problem_of(case), around(case), seeded()
    elbo = PathElbo(problem.coordinates, draws, importance=importance)
    found = torch.stack([torch.cat(gradient(elbo, problem, case, q, generator)) for _ in range(repeats)])
    noise = torch.randn(10_000, draws, 3, dtype=torch.float64, generator=seeded(1))

    def losses(vector: Tensor) -> Tensor:
        ratios = log_weights(case, (vector[:3], vector[3:]), noise)
        return -(ratios.logsumexp(1) - torch.tensor(float(draws)).log() if importance else ratios.mean(1)) / 24

    vector, step = torch.cat(q), 1e-4
    for i, direction in enumerate(torch.eye(6, dtype=torch.float64)):
        slopes = (losses(vector + step * direction) - losses(vector - step * direction)) / (2 * step)
        error = (found[:, i].var() / repeats + slopes.var() / len(slopes)).sqrt()
        assert abs(found[:, i].mean() - slopes.mean()) < 4 * error
        assert error < 0.2 * slopes.mean().abs() + 0.05 * slopes.std()


def test_the_bound_rises_with_the_draws_to_the_log_evidence() -> None:
    """What is descended is the bound that torch.distributions has, and that rises from the ELBO to the log evidence."""
    case, bounds = Conjugate.make(), []
    problem, q = problem_of(case), around(case, 0.0, 1.0)
    out, exact = (torch.empty(3).double(), torch.empty(3).double()), []
    for draws, repeats in ((1, 100), (8, 25), (64, 8)):
        elbo, generator, values = PathElbo(problem.coordinates, draws, importance=True), seeded(draws), []
        for _ in range(repeats):
            elbo.gradient(lambda: problem.nll((case.x, case.y))[0], q, 1 / 24, out, generator)
            values.append(-24 * elbo.value)
        noise = torch.randn(10_000, draws, 3, dtype=torch.float64, generator=seeded(draws + 1))
        reference = log_weights(case, q, noise).logsumexp(1) - torch.tensor(float(draws)).log()
        own = torch.stack(values)
        error = (own.var() / repeats + reference.var() / 10_000).sqrt()
        assert abs(own.mean() - reference.mean()) < 4 * error
        bounds.append(reference.mean())
        exact.append(reference.std() / 100)
    posterior = torch.distributions.MultivariateNormal(case.mean, precision_matrix=case.precision)
    mean_field = torch.distributions.MultivariateNormal(q[0], torch.diag(softplus(q[1]).square()))
    gap = torch.distributions.kl_divergence(mean_field, posterior)
    assert abs(bounds[0] - (case.log_evidence - gap)) < 4 * exact[0]  # with one draw it is the ELBO
    assert bounds[1] - bounds[0] > 0.3 * gap
    assert bounds[2] - bounds[1] > 0.1 * gap
    assert 0 < case.log_evidence - bounds[2] < 0.3 * gap


@pytest.mark.parametrize("importance", [False, True])
def test_path_gradients_have_no_variance_at_the_posterior(importance: bool) -> None:
    """Where the posterior is diagonal and q is it: each draw's gradient is 0, and the total gradient's is not."""
    case = Conjugate.make(orthogonal=True)
    problem, q = problem_of(case), around(case, 0.0, 1.0)
    elbo = PathElbo(problem.coordinates, 3, importance=importance)
    total = NegativeElbo(
        WeightDraw(problem.coordinates.params, problem.coordinates.start), Divergence.of(problem.coordinates), 3
    )
    for seed in range(5):
        path = torch.cat(gradient(elbo, problem, case, q, seeded(seed)))
        noisy = torch.cat(gradient(total, problem, case, q, seeded(seed)))
        assert path.abs().max() < 1e-12
        assert noisy.abs().max() > 1e-2
    if importance:  # and all weights are equal: one draw says what the evidence is
        assert float(-24 * elbo.value) == pytest.approx(case.log_evidence, abs=1e-9)


def test_points_descend_the_bound_itself() -> None:
    case, draws = Conjugate.make(), 6
    problem = problem_of(case, "weight")  # θ is (bias, weights): the bias is a point
    q = case.mean[[2, 0, 1]] + 0.2, inverse_softplus(case.precision.diagonal().rsqrt()[:2])
    out = torch.empty(3).double(), torch.empty(2).double()
    elbo = PathElbo(problem.coordinates, draws, importance=True)
    elbo.gradient(lambda: problem.nll((case.x, case.y))[0], q, 1 / 24, out, seeded(2))
    generator = seeded(2)
    noise = torch.stack([torch.randn(2, dtype=torch.float64, generator=generator) for _ in range(draws)])

    def value(bias: Tensor) -> Tensor:
        weights = q[0][1:] + softplus(q[1]) * noise
        thetas = torch.cat([weights, bias.expand(draws, 1)], 1)
        ratios = log_joint(case, thetas) - Normals(q[0][1:], softplus(q[1])).log_prob(weights).sum(-1)
        return -(ratios.logsumexp(0) - torch.tensor(float(draws)).log()) / 24

    bias, step = q[0][:1], 1e-5
    slope = (value(bias + step) - value(bias - step)) / (2 * step)
    torch.testing.assert_close(out[0][:1], slope[None], rtol=1e-6, atol=0)


def test_path_gradients_find_the_mean_field_posterior_with_less_noise() -> None:
    """The end of a run on a diagonal posterior is exact, where total gradients leave their noise in it."""
    case = Conjugate.make(orthogonal=True)
    errors = {}
    for kind in ("total", "path"):
        posterior = case.fit(MeanField(gradient=kind, epochs=400, optimizer=FAST))
        errors[kind] = (posterior.std / case.precision.diagonal().rsqrt() - 1).abs().max()
        errors[kind] = max(errors[kind], (posterior.mean - case.mean).abs().max())
    assert errors["path"] < 1e-4
    assert errors["path"] < 0.1 * errors["total"]


def test_an_importance_weighted_fit_is_wider_and_has_the_better_bound() -> None:
    """Under correlation mean field is too narrow; the importance-weighted optimum covers more (Domke & Sheldon 2018)."""
    case, rows = Conjugate.make(), []
    method = MeanField(objective="importance_weighted", draws=8, epochs=400, optimizer=FAST)
    torch.manual_seed(0)
    found = posterity.fit(
        nn.Linear(2, 1).double(),
        TensorData(case.x, case.y, 24),
        likelihood=Gaussian(std=case.noise),
        prior=Normal(0, case.prior_std),
        method=method,
        engine=Engine(on_epoch=lambda name, row: rows.append(row), **QUIET),
    )
    narrow = case.precision.diagonal().rsqrt()
    assert (found.std[:2] > 1.05 * narrow[:2]).all()
    noise = torch.randn(4000, 8, 3, dtype=torch.float64, generator=seeded())
    bounds = [
        log_weights(case, (mean, inverse_softplus(std)), noise).logsumexp(1)
        for mean, std in ((found.mean, found.std), (case.mean, narrow))
    ]
    gain = bounds[0] - bounds[1]
    assert gain.mean() > 4 * gain.std() / 4000**0.5
    assert rows[-1]["importance_nelbo"] < rows[-1]["nelbo"]


@pytest.mark.parametrize("centered", [True, False])
def test_latents_and_other_priors_are_part_of_the_ratio(centered: bool) -> None:
    """A hierarchical prior, non-centred too: the mean path gradient is that of the ordinary estimator."""
    case, n = Conjugate.make(), 150
    torch.manual_seed(0)
    problem = Problem(nn.Linear(2, 1).double(), Hierarchical(centered=centered), Gaussian(), 24)
    theta = problem.theta()
    q, samples = (theta, inverse_softplus(torch.full_like(theta, 0.1))), {}
    for kind in ("total", "path"):
        elbo, generator = _elbo(problem, MeanField(gradient=kind)), seeded(4)
        samples[kind] = torch.stack([torch.cat(gradient(elbo, problem, case, q, generator)) for _ in range(n)])
    total, path = (samples[kind].mean(0) for kind in ("total", "path"))
    error = (sum(v.var(0) for v in samples.values()) / n) ** 0.5
    assert ((total - path).abs() < 4 * error).all()
    assert (path.abs() > 8 * error).any()


def _elbo(problem: Problem, method: MeanField):
    from posterity.methods.mean_field import MeanFieldInference
    from posterity.train.random import NamedStreams
    from posterity.types import Budget

    inference = MeanFieldInference(problem, method, Budget(1, 10))
    inference.init(NamedStreams(0, "t"))
    return inference._elbo


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gradient": "path", "estimator": "flipout"}, "use estimator='weight'"),
        ({"gradient": "path", "compiled": True}, "compiled=False"),
        ({"gradient": "path", "learn_prior": "layer"}, "learn_prior=None"),
        ({"objective": "importance_weighted"}, "2 draws or more"),
        ({"objective": "importance_weighted", "draws": 4, "antithetic": True}, "independent"),
        ({"objective": "importance_weighted", "draws": 4, "temperature": 0.0}, "temperature above 0"),
        ({"objective": "importance_weighted", "draws": 4, "kl_schedule": "warmup"}, "kl_schedule='constant'"),
        ({"objective": "importance_weighted", "draws": 4, "estimator": "local_reparam"}, "use estimator='weight'"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanField(**wrong)


def test_under_autocast_a_fit_stays_finite_and_learns() -> None:
    """Only the forward pass is in half precision; log p and log q are not."""
    x = torch.linspace(-1, 1, 64)[:, None]
    method = MeanField(gradient="path", draws=2, antithetic=True, epochs=60, optimizer=Optimizer(lr=0.05))
    rows: list = []
    engine = Engine(precision="bfloat16", on_epoch=lambda name, row: rows.append(row), **QUIET)
    posterity.fit(nn.Linear(1, 1), (x, 2 * x.squeeze()), likelihood=Gaussian(std=0.3), method=method, engine=engine)
    assert rows[-1]["nelbo"] < 0.5 * rows[0]["nelbo"]


def test_batches_of_a_part_of_the_data_are_warned_of():
    x, y = torch.ones(8, 1), torch.randn(8)
    method = MeanField("weight", objective="importance_weighted", draws=2, epochs=1)
    fitted = partial(posterity.fit, nn.Linear(1, 1), likelihood=Gaussian(std=1.0), method=method)
    with pytest.warns(PosterityWarning, match="4 batches: it then depends on how they are cut.*one batch of all 8"):
        fitted(TensorData(x, y, 2), engine=Engine(progress=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PosterityWarning)
        warnings.simplefilter("ignore", NotArrived)
        fitted(TensorData(x, y), engine=Engine(progress=False))
