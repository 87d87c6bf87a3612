"""Laplace approximations: exact where the exact answer is known, and each of their predictions against an independent one."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import posterity
from posterity import (
    MAP,
    Bernoulli,
    Categorical,
    Engine,
    Ensemble,
    Gaussian,
    HeteroscedasticGaussian,
    Hierarchical,
    InvalidInput,
    Laplace,
    Normal,
    Problem,
    TensorData,
)
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.core.jacobian import rows_of
from posterity.methods.expansion import Expansion, expanded, inverse_root
from posterity.posteriors import linearised
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.point import Point
from tests.conformance.table import FAST, STEPS, Conjugate, log_evidences, small_classification, small_network
from tests.processes import python

QUIET = {"progress": False, "device": "cpu"}
STRUCTURES = ("full", "kron", "diag", "low_rank")
every_structure = pytest.mark.parametrize("structure", STRUCTURES)


def covariance(posterior: object) -> Tensor:
    """Σ of the random coordinates, from the root that predictions use."""
    count = len(posterior.mean) - posterior.problem.coordinates.start
    root = posterior.spread(torch.eye(count, dtype=posterior.mean.dtype))
    return root @ root.T


def marginal(posterior: object) -> Tensor:
    return posterior.std if hasattr(posterior, "signal_to_noise") else posterior.marginal_std


def wavy(n: int = 30, targets: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.linspace(-2, 2, n, dtype=torch.float64)[:, None]
    y = torch.cat([torch.sin(2 * x + k) for k in range(targets)], 1)
    y = y + 0.1 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return x, y.squeeze(-1)


def small(outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def around(network: nn.Module, data: tuple[Tensor, Tensor], likelihood: object, method: Laplace, where: object = None):
    """Laplace around the network as it is."""
    return posterity.fit(
        network,
        data,
        likelihood=likelihood,
        prior=Normal(0, 0.8),
        where=where,
        method=replace(method, method=None),
        engine=Engine(**QUIET),
    )


def at_mode(case: Conjugate, method: Laplace):
    """Laplace around the exact MAP estimate of the regression."""
    network = nn.Linear(2, 1).double()
    with torch.no_grad():
        network.weight.copy_(case.mean[None, :2])
        network.bias.copy_(case.mean[2:])
    return posterity.fit(
        network,
        (case.x, case.y),
        likelihood=Gaussian(std=case.noise),
        prior=Normal(0, case.prior_std),
        method=replace(method, method=None),
        engine=Engine(**QUIET),
    )


@every_structure
def test_the_evidence_is_exact_on_conjugate_regression(structure: str) -> None:
    case = Conjugate.make(orthogonal=structure == "diag")
    posterior = at_mode(case, Laplace(structure=structure))
    assert posterior.log_evidence == pytest.approx(case.log_evidence, abs=1e-9)
    torch.testing.assert_close(covariance(posterior.weights), torch.linalg.inv(case.precision), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_curvature_that_is_twice_too_large_fails_the_law(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from posterity.core.curvature import IndependentCurvature
    from posterity.methods import passes, totals

    right = passes.output_curvature
    for module in (passes, totals):
        monkeypatch.setattr(module, "output_curvature", lambda *given: IndependentCurvature(2 * right(*given).values))
    with pytest.raises(AssertionError):
        test_the_evidence_is_exact_on_conjugate_regression(structure)


def tuned_in_turns(case: Conjugate, method: Laplace):
    """Mode and tuning in turns, as `rounds` has them, until nothing moves."""
    for _ in range(25):
        own = at_mode(case, replace(method, rounds=1)).problem
        std = own.prior.std["weight"] if isinstance(own.prior.std, dict) else own.prior.std
        moved = replace(case, prior_std=std, noise=own.likelihood.std)
        if (moved.prior_std, moved.noise) == pytest.approx((case.prior_std, case.noise), rel=1e-7):
            break
        case = moved
    return case, at_mode(case, replace(method, tune=None, tune_noise=False))


@every_structure
@pytest.mark.parametrize("tune", ["network", "layer"])
def test_a_tuned_prior_is_at_the_maximum_of_the_exact_evidence(structure: str, tune: str) -> None:
    case = Conjugate.make(orthogonal=structure == "diag")
    grid = torch.linspace(0.3, 2.0, 3401, dtype=torch.float64)
    best = grid[log_evidences(case, torch.full_like(grid, case.noise), grid).argmax()]
    case = replace(case, prior_std=2.5)
    tuned, posterior = tuned_in_turns(case, Laplace(structure=structure, tune=tune))
    assert tuned.prior_std == pytest.approx(float(best), abs=float(grid[1] - grid[0]))
    assert posterior.log_evidence == pytest.approx(tuned.log_evidence, abs=1e-9)
    assert posterior.log_evidence > case.log_evidence + 0.1


def test_rounds_train_and_tune_in_turns() -> None:
    case = Conjugate.make()
    method = Laplace(MAP(epochs=STEPS // 2, optimizer=FAST), "full", tune="network", rounds=2)
    found = case.fit(method).problem.prior.std["weight"]
    for _ in range(2):
        case = replace(case, prior_std=at_mode(case, replace(method, rounds=1)).problem.prior.std["weight"])
    assert found == pytest.approx(case.prior_std, rel=1e-4)


def test_tuned_noise_is_at_the_maximum_of_the_exact_evidence_with_the_prior() -> None:
    case = Conjugate.make()
    grids = torch.meshgrid(torch.linspace(0.3, 1.0, 141), torch.linspace(0.3, 2.0, 171), indexing="ij")
    pairs = torch.stack(grids, -1).reshape(-1, 2).double()
    values = log_evidences(case, *pairs.T)
    noise, std = pairs[values.argmax()].tolist()
    tuned, posterior = tuned_in_turns(replace(case, noise=0.9), Laplace(tune="network", tune_noise=True))
    assert tuned.noise == pytest.approx(noise, abs=0.005)
    assert tuned.prior_std == pytest.approx(std, abs=0.01)
    assert posterior.log_evidence >= float(values.max()) - 1e-6
    assert noise != pytest.approx(0.9, abs=0.05)
    at_best = replace(case, noise=noise, prior_std=std).log_evidence
    assert float(values.max()) == pytest.approx(at_best, abs=1e-9)  # of the many at once


def test_each_layer_has_a_std_of_its_own_that_maximises_the_evidence() -> None:
    """Post hoc, at one θ*: the evidence falls whichever std is moved; points keep theirs."""
    method = Laplace(None, "full", tune="layer", rounds=1)
    problem = Problem(small(), Normal(0, 0.8), Gaussian(std=0.1), 30)
    start = problem.snapshot()
    posterior = posterity.fit(
        small(), wavy(), likelihood=Gaussian(std=0.1), prior=Normal(0, 0.8), method=method, engine=Engine(**QUIET)
    )
    fitted = posterior.problem.prior.std
    assert fitted["0.weight"] == fitted["0.bias"] != fitted["2.weight"] == fitted["2.bias"]

    def evidence(stds: dict[str, float]) -> float:
        own = Problem(start.network, Normal(0, stds), Gaussian(std=0.1), 30)
        return float(expanded(Point(own, own.theta()), TensorData(*wavy()), method).log_evidence())

    best = evidence(fitted)
    assert best == pytest.approx(posterior.log_evidence, abs=1e-9)
    for layer in ("0", "2"):
        for factor in (0.97, 1.03):
            moved = {n: s * factor if n.startswith(layer) else s for n, s in fitted.items()}
            assert evidence(moved) < best
    partial = posterity.fit(
        small(),
        wavy(),
        likelihood=Gaussian(std=0.1),
        prior=Normal(0, 0.8),
        where="2",
        method=method,
        engine=Engine(**QUIET),
    )
    assert partial.problem.prior.std["0.weight"] == pytest.approx(0.8)
    assert partial.problem.prior.std["2.weight"] != pytest.approx(0.8)


def test_a_learnt_noise_level_is_a_coordinate_with_its_own_curvature() -> None:
    """The expected Hessian of the log joint in rho, by autograd with targets in two places that have the expected squares."""
    x, _ = wavy()
    network = nn.Linear(1, 1).double()
    std = softplus(inverse_softplus(torch.tensor(0.3)).double())  # where the latent starts, in its own precision
    mean = network(x).detach().squeeze(-1)
    x2, y2 = x.repeat(2, 1), torch.cat([mean + std, mean - std])  # E[(y − f)²] = std², E[y − f] = 0
    likelihood = Gaussian(initial_std=0.3)
    posterior = around(network, (x2, y2), likelihood, Laplace(None, "full", prediction="sampled"))
    problem = posterior.problem
    hessian = torch.func.hessian(lambda t: problem.log_joint(t, (x2, y2)))(posterior.mean)
    torch.testing.assert_close(torch.linalg.inv(posterior.covariance), -hessian, rtol=1e-7, atol=1e-6)
    size = float(torch.logdet(-hessian))
    expected = problem.log_joint(posterior.mean, (x2, y2)) + 1.5 * torch.log(torch.tensor(2 * torch.pi)) - size / 2
    assert posterior.log_evidence == pytest.approx(float(expected), abs=1e-5)
    for structure in STRUCTURES:
        other = around(network, (x2, y2), likelihood, Laplace(None, structure, prediction="sampled"))
        assert covariance(other)[2, 2] == pytest.approx(float(posterior.covariance[2, 2]), rel=1e-6)
        assert covariance(other)[2, :2].abs().max() < 1e-12
        own = other.latents["likelihood.std"].draws
        assert float(own.std()) == pytest.approx(float(posterior.latents["likelihood.std"].draws.std()), rel=0.1)


def test_empirical_fisher_is_the_sum_of_squared_gradients() -> None:
    x, y = wavy()
    for likelihood in (Gaussian(std=0.2), Gaussian()):
        posterior = around(small(), (x, y), likelihood, Laplace(None, "full", "fisher", prediction="sampled"))
        problem, total = posterior.problem, 0.0
        for n in range(len(x)):
            one = replace(problem, num_data=1)
            leaf = posterior.mean.clone().requires_grad_()
            value = one.log_joint(leaf, (x[n : n + 1], y[n : n + 1])) - one.log_prior(leaf)
            (g,) = torch.autograd.grad(value, [leaf])
            total = total + torch.outer(g, g)
        prior = torch.func.hessian(problem.log_prior)(posterior.mean)
        count = problem.coordinates.network
        expected = total - prior
        expected[count:, :count] = expected[:count, count:] = 0  # cross terms with the noise are left out
        torch.testing.assert_close(torch.linalg.inv(posterior.covariance), expected, rtol=1e-6, atol=1e-6)


@every_structure
@pytest.mark.parametrize("where", [None, "2", "*.bias"])
def test_draws_have_the_covariance_and_points_none(structure: str, where: object) -> None:
    posterior = around(small(), wavy(), Gaussian(std=0.2), Laplace(None, structure, prediction="sampled"), where)
    torch.testing.assert_close(marginal(posterior), covariance(posterior).diagonal().sqrt())
    generator = torch.Generator().manual_seed(0)
    n = 4000
    start = posterior.problem.coordinates.start
    draws = torch.stack([posterior.sample(generator) for _ in range(n)])
    assert (draws[:, :start] == posterior.mean[:start]).all()
    exact, away = covariance(posterior), (draws - posterior.mean)[:, start:]
    products = away[:, :, None] * away[:, None]
    error = products.std(0) / n**0.5
    assert ((products.mean(0) - exact).abs() < 5 * error).all()
    assert ((products.mean(0) - 2 * exact).abs() > 5 * error).diagonal().all()  # the test can tell them apart


@every_structure
def test_parts_are_a_slice_of_the_precision_given_the_points(structure: str) -> None:
    """Given the points, the precision of what is random is a block of the whole one."""
    method = Laplace(None, structure, prediction="sampled", rank=40)
    whole, part = (around(small(), wavy(), Gaussian(std=0.2), method, where) for where in (None, "2"))
    block = torch.linalg.inv(covariance(whole))[12:, 12:]
    torch.testing.assert_close(torch.linalg.inv(covariance(part)), block, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [KroneckerGaussian, LowRankPrecisionGaussian])
def test_weights_and_biases_may_have_other_priors(kind: type) -> None:
    """On one linear layer both forms are exact, whatever the prior's stds."""
    case = Conjugate.make()
    structure = "kron" if kind is KroneckerGaussian else "low_rank"
    posterior = posterity.fit(
        nn.Linear(2, 1).double(),
        (case.x, case.y),
        likelihood=Gaussian(std=0.5),
        prior=Normal(0, {"bias": 2.0, "weight": 0.3}),
        method=Laplace(None, structure, prediction="sampled"),
        engine=Engine(**QUIET),
    )
    d = case.design
    precision = d.T @ d / 0.25 + torch.tensor([0.09, 0.09, 4.0]).double().reciprocal().diag()
    torch.testing.assert_close(posterior.covariance, torch.linalg.inv(precision))
    y = case.y - (d @ posterior.mean)  # the log joint at θ* and its Gaussian integral, by SciPy's reference in torch
    joint = torch.distributions.Normal(0.0, 0.5).log_prob(y).sum()
    joint = (
        joint + torch.distributions.Normal(0.0, torch.tensor([0.3, 0.3, 2.0]).double()).log_prob(posterior.mean).sum()
    )
    expected = joint + 1.5 * torch.log(torch.tensor(2 * torch.pi)) - 0.5 * torch.logdet(precision)
    assert posterior.log_evidence == pytest.approx(float(expected), abs=1e-5)


def jacobian(posterior: Linearised, x: Tensor) -> Tensor:
    """J (B, D, R) by finite differences of the plain network."""
    start, rows, h = posterior.problem.coordinates.start, [], 1e-6
    for i in range(start, posterior.problem.coordinates.network):
        ends = []
        for sign in (1, -1):
            theta = posterior.mean.clone()
            theta[i] += sign * h
            ends.append(posterior.network(theta)(x).detach())
        rows.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(rows, -1)


@every_structure
def test_a_regression_is_predicted_in_closed_form(structure: str) -> None:
    posterior = around(small(), wavy(), Gaussian(std=0.2), Laplace(None, structure))
    x = torch.tensor([[-3.0], [0.3], [4.0]], dtype=torch.float64)
    j, found = jacobian(posterior, x)[:, 0], posterior.predict(x)
    expected = ((j @ covariance(posterior.weights)) * j).sum(1)
    torch.testing.assert_close(found.epistemic, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.mean, posterior.network()(x).detach()[:, 0])
    torch.testing.assert_close(found.aleatoric, torch.full((3,), 0.04).double())
    n = 400
    drawn = posterior.draw(x, n, generator=torch.Generator().manual_seed(0))[..., 0]
    assert ((drawn.var(0) - expected).abs() < 4 * (2 / n) ** 0.5 * expected).all()
    assert ((drawn.mean(0) - found.mean).abs() < 4 * (expected / n).sqrt()).all()
    theta = posterior.sample(torch.Generator().manual_seed(5))
    line = posterior.draw(x, 1, generator=torch.Generator().manual_seed(5))[0, :, 0]
    torch.testing.assert_close(line, found.mean + j @ (theta - posterior.mean), rtol=1e-6, atol=1e-7)
    y = torch.tensor([0.5, 0.1, -1.0]).double()
    normal = torch.distributions.Normal(found.mean, (0.04 + expected).sqrt())
    torch.testing.assert_close(found.log_prob(y), normal.log_prob(y), rtol=1e-5, atol=1e-8)
    own = torch.distributions.Normal(drawn, 0.2).log_prob(y).mean(0)
    error = torch.distributions.Normal(drawn, 0.2).log_prob(y).std(0) / n**0.5
    total = found.scores(y)["expected_nll"]
    assert abs(total + own.mean()) < 4 * error.mean()


def test_a_closed_form_holds_no_more_of_the_jacobian_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = around(small(), wavy(), Gaussian(std=0.2), Laplace(None, "full"))
    x, held = wavy(200)[0], []

    def watched(*given: object) -> Iterator[tuple[slice, int, Tensor]]:
        for part, first, rows in rows_of(*given):
            held.append(rows.nbytes)
            yield part, first, rows

    monkeypatch.setattr(linearised, "rows_of", watched)
    expected = posterior.predict(x).epistemic
    torch.testing.assert_close(posterior.predict(x, max_bytes=2**16).epistemic, expected)
    assert held[0] > max(held[1:])
    assert max(held[1:]) <= 2**16 // linearised.COPIES


def test_a_learnt_noise_level_is_averaged_over_and_more_targets_are_drawn() -> None:
    x = torch.tensor([[-3.0], [0.3]], dtype=torch.float64)
    learnt = around(small(), wavy(), Gaussian(), Laplace(None, "full")).predict(x, 50)
    assert len(learnt.variances.unique(dim=0)) == 50
    assert (learnt.means == learnt.means[0]).all()
    torch.testing.assert_close(learnt.variance, learnt.aleatoric + learnt.epistemic)
    two = around(small(2), wavy(targets=2), Gaussian(std=0.2), Laplace(None, "full"))
    drawn = two.predict(x, 400, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bdr,rs,bds->bd", jacobian(two, x), covariance(two.weights), jacobian(two, x))
    torch.testing.assert_close(two.moments(x)[1], expected, rtol=1e-6, atol=1e-9)
    assert ((drawn.epistemic - expected).abs() < 4 * (2 / 400) ** 0.5 * expected).all()


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), HeteroscedasticGaussian()])
def test_classes_by_draws_and_by_probit(likelihood: object) -> None:
    x, y = wavy()
    y = y if isinstance(likelihood, HeteroscedasticGaussian) else (y > 0).long()
    network = small(1 if isinstance(likelihood, Bernoulli) else 2)
    test = torch.tensor([[-3.0], [0.3], [4.0]], dtype=torch.float64)
    posterior = around(network, (x, y), likelihood, Laplace(None, "full"))
    n = 400
    drawn = posterior.predict(test, n, generator=torch.Generator().manual_seed(0))
    f = network(test).detach()
    j = jacobian(posterior, test)
    v = torch.einsum("bdr,rs,bes->bde", j, covariance(posterior.weights), j)
    outputs = MultivariateNormal(f, v + 1e-12 * torch.eye(f.shape[1])).sample((50_000,))
    if isinstance(likelihood, HeteroscedasticGaussian):
        epistemic = outputs[..., 0].var(0)
        assert ((drawn.epistemic - epistemic).abs() < 5 * (2 / n) ** 0.5 * epistemic).all()
        return
    probs = likelihood(outputs, {}).probs
    probs = torch.stack([1 - probs, probs], -1) if isinstance(likelihood, Bernoulli) else probs
    error = probs.std(0) * (1 / n + 1 / 50_000) ** 0.5
    assert ((drawn.mean - probs.mean(0)).abs() < 4 * error).all()
    probit = replace(posterior, link="probit").predict(test)
    scaled = f / (1 + torch.pi / 8 * v.diagonal(dim1=1, dim2=2)).sqrt()
    own = likelihood(scaled, {}).probs
    torch.testing.assert_close(
        probit.mean[:, 1], own if isinstance(likelihood, Bernoulli) else own[:, 1], atol=1e-6, rtol=0
    )
    if isinstance(likelihood, Bernoulli):  # where MacKay's approximation is meant for
        assert (probit.mean - probs.mean(0)).abs().max() < 0.03


def test_many_classes_refuse_probit_by_its_memory_and_say_what_to_use() -> None:
    network = nn.Linear(300, 1000)
    x, y = torch.randn(8, 300), torch.arange(8)
    posterior = around(network, (x, y), Categorical(), Laplace(None, "kron", link="probit"))
    with pytest.raises(InvalidInput, match=r"1,000 × 301,000 elements.*link='sampled'"):
        posterior.predict(x)


def test_a_trained_network_is_where_the_approximation_is() -> None:
    posterior = around(small(), wavy(), Gaussian(std=0.2), Laplace(None, "kron"))
    torch.testing.assert_close(posterior.network().state_dict(), small().state_dict())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_float32_agrees_with_float64(structure: str) -> None:
    """Law 9."""
    x, y = wavy()
    double = around(small(), (x, y), Gaussian(std=0.2), Laplace(None, structure))
    single = around(small().float(), (x.float(), y.float()), Gaussian(std=0.2), Laplace(None, structure))
    assert single.log_evidence == pytest.approx(double.log_evidence, abs=1e-2)
    test = torch.tensor([[-3.0], [0.3]])
    found = [p.predict(test.to(p.mean.dtype)).epistemic.double() for p in (single, double)]
    torch.testing.assert_close(*found, rtol=2e-3, atol=0)


def test_ensembles_of_laplace_mix_functions_and_are_saved(tmp_path: Path) -> None:
    x, y = small_classification()
    method = Ensemble(Laplace(MAP(epochs=2), "diag"), 2)
    posterior = posterity.fit(small_network(), (x, y), method=method, engine=Engine(**QUIET))
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    draws = [p.draw(x, 4, generator=torch.Generator().manual_seed(0)) for p in (posterior, loaded)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)
    with pytest.raises(InvalidInput, match="does not estimate the evidence"):
        _ = posterior.log_evidence


def test_an_interrupted_tuning_does_not_train_again(tmp_path: Path) -> None:
    case = Conjugate.make()
    method = Laplace(MAP(epochs=5, optimizer=FAST), "full", tune="network", rounds=2)
    network = nn.Linear(2, 1).double()
    rows: list[str] = []
    engine = Engine(**QUIET, directory=tmp_path, resume=True, on_epoch=lambda name, _: rows.append(name))
    kinds = {"likelihood": Gaussian(std=0.5), "prior": Normal(0, 0.7), "method": method, "engine": engine}
    first = posterity.fit(network, (case.x, case.y), **kinds)
    assert sorted(set(rows)) == ["fit/last", "fit/round-1", "fit/round-2"]
    again = posterity.fit(network, (case.x, case.y), **kinds)
    assert len(rows) == 15
    torch.testing.assert_close(again.mean, first.mean, rtol=0, atol=0)
    assert again.log_evidence == first.log_evidence


class Own(posterity.Likelihood):
    def __call__(self, outputs: Tensor, latents: object) -> torch.distributions.Distribution:
        return torch.distributions.Normal(outputs.squeeze(-1), 0.2)


def test_what_has_no_laplace_approximation_is_refused_by_name() -> None:
    data = wavy()
    refused = {
        "independent normals.*Hierarchical": {"prior": Hierarchical()},
        "curvature of Own is not known; use curvature='fisher'": {"likelihood": Own()},
        r"full curvature of 19 weights takes .*structure='diag'": {"method": Laplace(None, "full", max_bytes=100)},
        "tune='layer' fits the std of a Normal": {
            "method": Laplace(None, "diag", tune="layer"),
            "prior": posterity.Informative.at(small(), 0.5),
        },
        "std of its own for each element": {"prior": _uneven()},
    }
    for message, given in refused.items():
        kinds = {"likelihood": Gaussian(std=0.2), "prior": Normal(0, 1), "method": Laplace(None), **given}
        with pytest.raises(InvalidInput, match=message):
            posterity.fit(small(), data, **kinds, engine=Engine(**QUIET))
    with pytest.raises(InvalidInput, match="tune_noise fits the std of a Gaussian"):
        around(small(2), (data[0], (data[1] > 0).long()), Categorical(), Laplace(None, tune_noise=True))
    own = around(small(), data, Own(), Laplace(None, "full", "fisher", prediction="sampled"))
    same = around(small(), data, Gaussian(std=0.2), Laplace(None, "full", "fisher", prediction="sampled"))
    torch.testing.assert_close(own.covariance, same.covariance)


def _uneven() -> posterity.Informative:
    layout = Problem(small(), Normal(0, 1), Gaussian(), 1).coordinates
    size = layout.network
    shapes = {n: p for n, p in small().named_parameters()}
    return posterity.Informative(
        torch.zeros(size).double(), torch.linspace(0.5, 1, size).double(), posterity.core.layout.Layout.of(shapes)
    )


def test_inverse_root() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = a @ a.T + torch.eye(6)
    root = inverse_root(matrix)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(matrix))
    assert (root.triu(1) == 0).all()
    assert (root.diagonal() > 0).all()
    with pytest.raises(InvalidInput, match="not positive definite"):
        inverse_root(-matrix)
    assert Expansion.__dataclass_params__.frozen


def test_the_page_runs_as_it_is_written() -> None:
    page = Path(__file__).parents[2] / "docs" / "laplace.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block.replace("epochs=300", "epochs=3"), page.name, "exec"), names)
    assert names["last"].problem.coordinates.random_names == ("2.weight", "2.bias")
    assert names["tuned"].problem.likelihood.std != 0.3


MEMORY = """
import resource, torch
from torch import nn
import posterity
from posterity import Categorical, Engine, Laplace, Normal, TensorData

torch.manual_seed(0)
x, y = torch.randn(4096, 512), torch.randint(3100, (4096,))
posterity_of = posterity.fit(
    nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 3100)), TensorData(x, y, 256), where="last_layer",
    likelihood=Categorical(), prior=Normal(0, 0.1), method=Laplace(None, "STRUCTURE"), engine=Engine(progress=False)
)
found = posterity_of.predict(x[:256], 8)
assert found.mutual_information.mean() > 0.01
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["kron", "diag"])
def test_a_last_layer_of_3100_classes_takes_less_than_2_gigabytes(structure: str) -> None:
    code = MEMORY.replace("STRUCTURE", structure)
    found = python(code).done(1200)
    assert float(found.stdout) < 2  # GiB; the Jacobians of one batch would take 4.7 TB


@pytest.mark.parametrize("structure", ["full", "diag", "kron"])
def test_layers_under_a_vmap_of_the_networks_own(structure: str) -> None:
    class Mapped(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(self.network)(x)

    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    plain, mapped = (
        posterity.fit(
            form,
            (x, (x[:, 0] > 0).long()),
            method=Laplace(None, structure),
            engine=Engine(progress=False, device="cpu"),
        )
        for form in (network, Mapped(network))
    )
    if structure != "kron":  # whose factors are of rows that such layers do not have
        assert mapped.provenance["log_evidence"] == pytest.approx(plain.provenance["log_evidence"], rel=1e-5)
    assert mapped.predict(x, 4).mean.shape == (20, 2)
