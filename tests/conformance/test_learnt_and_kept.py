"""What is learnt of the prior (empirical Bayes), and what is kept: trained weights, earlier posteriors, curvature."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
from posterity import (
    Categorical,
    Engine,
    Gaussian,
    Hierarchical,
    Informative,
    InvalidInput,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    TensorData,
)
from posterity.model.divergence import Divergence
from posterity.model.empirical import LearntPrior
from posterity.model.initial import Relative, curvature_std, initial_std
from posterity.posteriors.prior import prior_predictive
from tests.conformance.table import FAST, STEPS, Conjugate, log_evidences, small_classification, small_network

QUIET = {"progress": False, "device": "cpu"}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("per", ["tensor", "layer", "network"])
@pytest.mark.parametrize("where", [None, "2"])
def test_the_fitted_std_minimises_the_divergence(per: str, where: object) -> None:
    coordinates = Problem(network(), Normal(0.1, 0.4), Categorical(), 10, where=where).coordinates
    learnt = LearntPrior(coordinates, per)
    mean = coordinates.theta()
    std = 0.1 + torch.rand(coordinates.layout.size - coordinates.start, dtype=torch.float64)
    learnt.fit(mean, std)
    groups = learnt.info()
    assert len(groups) == {"tensor": 4, "layer": 2, "network": 1}[per]
    best = learnt.divergence.value(mean, std)
    for factor in (0.97, 1.03):
        for chosen in groups.values():
            other = learnt._std.clone()
            other[other == chosen] *= factor
            assert Divergence(coordinates, 0.1 * torch.ones_like(other), other).value(mean, std) > best
    fitted = learnt.prior(learnt.state())
    own = Problem(network(), fitted, Categorical(), 10, where=where).coordinates
    torch.testing.assert_close(Divergence.of(own).value(mean, std), best)


def test_empirical_bayes_reaches_the_maximum_of_the_evidence() -> None:
    """With orthogonal inputs mean field is exact, and the ELBO it maximises over s is the log evidence."""
    case = Conjugate.make(orthogonal=True)
    grid = torch.linspace(0.2, 2.0, 3601, dtype=torch.float64)
    best = grid[log_evidences(case, torch.full_like(grid, case.noise), grid).argmax()]
    far = replace(case, prior_std=2.0)
    posterior = far.fit(MeanField(epochs=STEPS, draws=2, antithetic=True, optimizer=FAST, learn_prior="network"))
    fitted = posterior.problem.prior.std
    assert set(fitted) == {"weight", "bias"}
    assert fitted["weight"] == fitted["bias"]
    assert fitted["weight"] == pytest.approx(float(best), rel=0.02)


def test_empirical_bayes_is_logged_saved_and_resumed(tmp_path: Path) -> None:
    method = MeanField(epochs=4, learn_prior="layer")
    rows: list[dict] = []
    engine = Engine(**QUIET, directory=tmp_path, on_epoch=lambda _, row: rows.append(row))
    whole = posterity.fit(small_network(), small_classification(), method=method, engine=engine)
    assert rows[0]["prior_std.0"] != rows[-1]["prior_std.0"]
    whole.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    assert loaded.problem.prior == whole.problem.prior
    assert loaded.problem.prior.std["0.weight"] != 0.3


@pytest.mark.parametrize("prior", [Hierarchical(), posterity.ScaleMixture()])
def test_a_prior_without_a_std_is_not_learnt(prior: object) -> None:
    with pytest.raises(InvalidInput, match="Normal prior"):
        posterity.fit(small_network(), small_classification(), prior=prior, method=MeanField(learn_prior="layer"))


def test_initial_stds() -> None:
    where = Problem(network(), Normal(0, 1), Gaussian(), 10).coordinates
    theta = where.theta()[where.start :]
    weights = where.network - where.start
    assert (initial_std(where, 0.03) == 0.03).all()
    relative = initial_std(where, Relative(0.2))
    torch.testing.assert_close(relative[:weights], 0.2 * theta[:weights].abs())
    given = {n: torch.full(where.params[n].shape, 0.1 * (i + 1)) for i, n in enumerate(where.random_names)}
    stds = initial_std(where, given)
    torch.testing.assert_close(stds[0], torch.tensor(0.1, dtype=torch.float64))
    torch.testing.assert_close(stds[weights - 1], torch.tensor(0.4, dtype=torch.float64))
    zero = nn.Linear(2, 1)
    nn.init.zeros_(zero.weight)
    assert (initial_std(Problem(zero, Normal(0, 1), Gaussian(), 1).coordinates, Relative(0.1)) > 0).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), {"nothing": torch.ones(1)}, {}])
def test_initial_stds_that_do_not_fit_are_refused(bad: object) -> None:
    with pytest.raises(InvalidInput):
        initial_std(Problem(network(), Normal(0, 1), Gaussian(), 10).coordinates, bad)


def test_curvature_gives_the_conjugate_std() -> None:
    """Linear regression: the Fisher information is XᵀX/noise², whatever the weights, so σ is mean field's exact std."""
    case = Conjugate.make()
    problem = Problem(nn.Linear(2, 1).double(), Normal(0, case.prior_std), Gaussian(std=case.noise), len(case.x))
    torch.manual_seed(0)
    runs = []
    for _ in range(20):
        std = curvature_std(problem, [(case.x, case.y)] * 100)
        runs.append(torch.cat([std["weight"].reshape(-1), std["bias"]]))
    found = torch.stack(runs)
    error = found.std(0) / 20**0.5
    exact = case.precision.diagonal().rsqrt()
    # The estimate of the precision is unbiased; its inverse root is, up to the variance of one run (Jensen).
    bias = 3 / 8 * (2 * found.std(0) / exact).square() * exact
    assert ((found.mean(0) - exact).abs() < 4 * error + bias).all()


@pytest.mark.parametrize("initial", ["relative", "curvature"])
def test_fits_start_from_what_was_learnt(initial: str) -> None:
    torch.manual_seed(0)
    net = small_network()
    method = MeanField(epochs=1, initial=initial, initial_std=0.1, optimizer=Optimizer(lr=1e-9))
    posterior = posterity.fit(net, small_classification(), method=method, engine=Engine(**QUIET))
    views = posterior.problem.layout.views(posterior.loc)
    torch.testing.assert_close(views["0.weight"], net[0].weight.detach(), atol=1e-6, rtol=0)
    count = net[0].weight.numel()
    relative = posterior.std[:count] / net[0].weight.detach().abs().reshape(-1)
    if initial == "relative":
        torch.testing.assert_close(relative, torch.full_like(relative, 0.1), rtol=1e-3, atol=0)
    else:
        assert posterior.std.max() <= 0.3 + 1e-6  # never wider than the prior
        assert posterior.std.std() > 1e-4


def test_a_posterior_as_a_prior_updates_sequentially() -> None:
    """Two halves of the data one after the other give the posterior of both, where mean field is exact."""
    case = Conjugate.make(orthogonal=True)
    x, y = case.x[:12], case.y[:12]
    first = Conjugate(x, y, case.noise, case.prior_std)
    exact_first = torch.linalg.inv(first.precision)
    layout = Problem(nn.Linear(2, 1).double(), Normal(0, 1), Gaussian(std=1.0), 1).layout
    # The exact posterior of the first half has correlations; a factor holds them.
    eigen, basis = torch.linalg.eigh(exact_first)
    floor = 0.5 * float(eigen.min())
    factor = basis * (eigen - floor).sqrt()
    prior = Informative(first.mean, torch.full((3,), floor**0.5, dtype=torch.float64), layout, factor)
    problem = Problem(nn.Linear(2, 1).double(), prior, Gaussian(std=case.noise), 12)
    batch = case.x[12:], case.y[12:]
    theta = torch.zeros(3, dtype=torch.float64)
    hessian = torch.func.hessian(lambda t: problem.log_joint(t, batch))(theta)
    gradient = torch.func.grad(lambda t: problem.log_joint(t, batch))(theta)
    torch.testing.assert_close(-hessian, case.precision)
    torch.testing.assert_close(torch.linalg.solve(-hessian, gradient), case.mean)


def test_as_prior_is_the_fitted_gaussian(tmp_path: Path) -> None:
    net, data = small_network(), small_classification()
    posterior = posterity.fit(net, data, method=MeanField(epochs=2), engine=Engine(**QUIET))
    prior = posterior.as_prior()
    again = posterity.fit(net, data, prior=prior, method=MeanField(epochs=1), engine=Engine(**QUIET))
    where = again.problem.coordinates
    at_prior = Divergence.of(where).value(posterior.loc, posterior.std)
    assert abs(float(at_prior)) < 1e-4
    again.save(tmp_path / "p.safetensors")  # MOPED's prior is not lost on reload
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    torch.testing.assert_close(loaded.problem.prior.mean, prior.mean)
    torch.testing.assert_close(loaded.problem.prior.std, prior.std)


def test_the_prior_predictive_is_that_of_the_prior() -> None:
    """A linear network under N(0, s²): f(x) ~ N(0, s²(|x|² + 1)); its weights do not matter, in either centring."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    n = 3000
    problem = Problem(nn.Linear(2, 1).double(), Normal(0, 0.7), Gaussian(std=0.5), 10)
    predicted = prior_predictive(problem, x, n, generator=torch.Generator().manual_seed(0))
    expected = 0.49 * (x.square().sum(1) + 1)
    assert ((predicted.epistemic - expected).abs() < 4 * (2 / n) ** 0.5 * expected).all()
    assert (predicted.mean.abs() < 4 * (expected / n).sqrt()).all()
    torch.testing.assert_close(predicted.aleatoric, torch.full((2,), 0.25, dtype=torch.float64))
    wide = [
        prior_predictive(
            Problem(nn.Linear(2, 1).double(), Hierarchical(centered=c), Gaussian(std=0.5), 10),
            x,
            1000,
            generator=torch.Generator().manual_seed(0),
        ).quantile(0.75)
        for c in (True, False)
    ]
    torch.testing.assert_close(wide[0], wide[1])
    with pytest.raises(InvalidInput, match="improper"):
        prior_predictive(Problem(nn.Linear(2, 1), posterity.Flat(), Gaussian(std=0.5), 10), x.float())


def test_a_pattern_dict_is_a_prior() -> None:
    prior = {"*.bias": Normal(0, 1), "*": Normal(0, 0.1)}
    posterior = posterity.fit(
        small_network(), small_classification(), prior=prior, method=MeanField(epochs=1), engine=Engine(**QUIET)
    )
    stds = posterior.problem.coordinates.normal[1]
    assert stds.unique().tolist() == [pytest.approx(0.1), 1.0]


def test_tensordata_stays_usable_after_a_curvature_start() -> None:
    source = TensorData(*small_classification(), batch_size=20)
    method = MeanField(epochs=1, initial="curvature")
    fits = [posterity.fit(small_network(), source, method=method, engine=Engine(**QUIET)) for _ in range(2)]
    assert torch.equal(fits[0].loc, fits[1].loc)
