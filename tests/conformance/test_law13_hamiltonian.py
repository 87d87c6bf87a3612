"""Law 13, for HMC and NUTS: they reproduce known densities; with the wrong noise or without the energy they do not."""

from collections.abc import Callable
from math import inf

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.distributions import Distribution, Exponential

from posterity import HMC, NUTS, Engine, Likelihood, Normal, fit
from posterity.core import diagnostics, hamiltonian
from posterity.core.adaptation import Scatter, StepSize
from posterity.core.hamiltonian import Metric, Position, System, Transition, first_step_size, hmc
from posterity.core.nuts import nuts

F64 = {"dtype": torch.float64}
STD = torch.tensor([0.01, 0.1, 1.0, 10.0], **F64)
WARMUP = 200
Kernel = Callable[[System, Position, float, torch.Generator], Transition]


def by_nuts(system: System, start: Position, step_size: float, generator: torch.Generator) -> Transition:
    return nuts(system, start, step_size, 10, generator)


def by_hmc(system: System, start: Position, step_size: float, generator: torch.Generator) -> Transition:
    steps = int(torch.randint(1, 13, (), generator=generator))
    return hmc(system, start, step_size, steps, generator)


KERNELS = {"nuts": by_nuts, "hmc": by_hmc}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def quick(name: str) -> pytest.MarkDecorator:
    """Every kernel, of which one is in every run: the others are seen there by the exact test of one transition."""
    return pytest.mark.parametrize(
        "kernel", [pytest.param(k, id=n, marks=() if n == name else pytest.mark.slow) for n, k in KERNELS.items()]
    )


def standard(theta: Tensor) -> Tensor:
    return -0.5 * theta.square().sum()


def correlated() -> Tensor:
    """A covariance of scales 0.01 to 10 with correlations of 0.7 between neighbours."""
    index = torch.arange(4, **F64)
    return 0.7 ** (index[:, None] - index).abs() * STD[:, None] * STD


def normal(theta: Tensor, precision: Tensor = torch.linalg.inv(correlated())) -> Tensor:  # noqa: B008  # computed once
    return -0.5 * theta @ precision @ theta


def banana(theta: Tensor) -> Tensor:
    """x ~ N(0, 1), y ~ N(x²/2, 0.5²)."""
    return -0.5 * theta[0].square() - 2 * (theta[1] - 0.5 * theta[0].square()).square()


def funnel(theta: Tensor) -> Tensor:
    """v ~ N(0, 1), x ~ N(0, e^v): Neal's, mild enough to be sampled as it is."""
    return -0.5 * theta[0].square() - 0.5 * theta[0] - 0.5 * theta[1].square() * torch.exp(-theta[0])


def sampled(
    kernel: Kernel, log_density: Callable[[Tensor], Tensor], size: int, draws: int, metric: Tensor | None = None
) -> Tensor:
    """Two chains, (2, draws, size), with a step size adapted over 200 transitions and a metric that is given."""
    chains = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        system = System(log_density, Metric(torch.ones(size, **F64) if metric is None else metric))
        position = system.position(0.01 * torch.randn(size, generator=generator, **F64))
        step = StepSize(torch.zeros(5, **F64))
        step.restart(first_step_size(system, position, generator))
        rows = []
        for t in range(WARMUP + draws):
            step_size = step.current if t < WARMUP else step.average
            moved = kernel(system, position, step_size, generator)
            position = moved.point.position
            if t < WARMUP:
                step.learn(moved.acceptance, 0.8)
            else:
                rows.append(position.theta)
        chains.append(torch.stack(rows))
    return torch.stack(chains)


def agree(values: Tensor, exact: Tensor, errors: float = 4.0) -> bool:
    """Whether means over (C, S, K) are the exact ones, (K,), within so many standard errors of their own."""
    return bool(((values.mean((0, 1)) - exact).abs() < errors * diagnostics.mcse(values)).all())


@every_kernel
@pytest.mark.parametrize("dense", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_correlated_normal_of_many_scales(kernel: Kernel, dense: bool) -> None:
    metric = correlated() if dense else STD.square()
    draws = sampled(kernel, normal, 4, 800, metric)
    assert agree(draws, torch.zeros(4, **F64))
    products = (draws[..., :, None] * draws[..., None, :]).flatten(2)
    assert agree(products, correlated().flatten())
    assert diagnostics.ess_bulk(draws).min() > 150


@quick("hmc")
def test_a_banana(kernel: Kernel) -> None:
    x, y = sampled(kernel, banana, 2, 600).unbind(-1)
    across = y - 0.5 * x.square()
    moments = torch.stack([x, x.square(), y, across * x, across.square()], -1)
    assert agree(moments, torch.tensor([0, 1, 0.5, 0, 0.25], **F64))


@quick("nuts")
def test_a_mild_funnel(kernel: Kernel) -> None:
    draws = sampled(kernel, funnel, 2, 700)
    v, x = draws.unbind(-1)
    standardised = x * torch.exp(-v / 2)
    inside = (v < -1).double()  # the neck
    moments = torch.stack([v, v.square(), x, standardised.square(), inside], -1)
    expected = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-1.0))
    assert agree(moments, torch.tensor([0, 1, 0, 1, float(expected)], **F64))


def second_moment(kernel: Kernel, step_size: float) -> bool:
    """Whether a kernel finds the variance of N(0, I) in 20 dimensions, taken together."""
    values = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        system = System(standard, Metric(torch.ones(20, **F64)))
        position, rows = system.position(torch.ones(20, **F64)), []
        for _ in range(400):
            position = kernel(system, position, step_size, generator).point.position
            rows.append(position.theta.square().mean())
        values.append(torch.stack(rows))
    return agree(torch.stack(values)[..., None], torch.ones(1, **F64))


@every_kernel
def test_long_steps_are_corrected_for(kernel: Kernel) -> None:
    assert second_moment(kernel, 1.0)
    assert second_moment(kernel, 0.6)


@every_kernel
def test_noise_that_is_too_loud_is_noticed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Metric.momentum
    monkeypatch.setattr(Metric, "momentum", lambda metric, generator: 1.1 * own(metric, generator))
    assert not second_moment(kernel, 0.6)


@pytest.mark.parametrize("name", KERNELS)
def test_ignoring_the_energy_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "hmc":
        monkeypatch.setattr(hamiltonian, "acceptance", lambda before, after: 1.0)
    else:  # all points of a trajectory weigh the same, as they would if H were constant along it

        def leapfrog(system: System, point: object, step: float, own: object = System.leapfrog) -> object:
            new = own(system, point, step)
            return hamiltonian.Point(new.position, new.momentum, new.velocity, point.energy)

        monkeypatch.setattr(System, "leapfrog", leapfrog)
    assert not second_moment(KERNELS[name], 1.0)


@every_kernel
def test_one_transition_keeps_the_law(kernel: Kernel) -> None:
    """From exact draws of the banana, one transition leads to exact draws: what detailed balance promises."""
    generator = torch.Generator().manual_seed(0)
    system = System(banana, Metric(torch.tensor([0.6, 1.5], **F64)))
    ends = []
    for _ in range(1000):
        x, noise = torch.randn(2, generator=generator, **F64)
        start = system.position(torch.stack([x, 0.5 * x.square() + 0.5 * noise]))
        ends.append(kernel(system, start, 0.6, generator).point.position.theta)
    x, y = torch.stack(ends).unbind(-1)
    assert kstest(x.numpy(), "norm").pvalue > 1e-3
    assert kstest(((y - 0.5 * x.square()) / 0.5).numpy(), "norm").pvalue > 1e-3


def trajectory(step_size: float, steps: int) -> list[hamiltonian.Point]:
    system = System(banana, Metric(torch.tensor([0.7, 1.4], **F64)))
    points = [system.at(system.position(torch.tensor([0.5, 0.1], **F64)), torch.tensor([0.4, -0.9], **F64))]
    for _ in range(steps):
        points.append(system.leapfrog(points[-1], step_size))
    return points


def test_leapfrog_is_reversible() -> None:
    points = trajectory(0.1, 40)
    system, point = System(banana, Metric(torch.tensor([0.7, 1.4], **F64))), points[-1]
    for _ in range(40):
        point = system.leapfrog(point, -0.1)
    torch.testing.assert_close(point.position.theta, points[0].position.theta, rtol=0, atol=1e-11)
    torch.testing.assert_close(point.momentum, points[0].momentum, rtol=0, atol=1e-11)


def test_leapfrog_keeps_volume() -> None:
    def step(phase: Tensor) -> Tensor:
        theta, momentum = phase[:2], phase[2:]
        half = momentum + 0.05 * torch.func.grad(banana)(theta)
        theta = theta + 0.1 * torch.tensor([0.7, 1.4], **F64) * half
        return torch.cat([theta, half + 0.05 * torch.func.grad(banana)(theta)])

    phase = torch.tensor([0.5, 0.1, 0.4, -0.9], **F64)
    end = trajectory(0.1, 1)[-1]
    torch.testing.assert_close(step(phase), torch.cat([end.position.theta, end.momentum]))
    torch.testing.assert_close(torch.func.jacfwd(step)(phase).det(), torch.ones((), **F64))


def test_the_energy_error_is_of_second_order() -> None:
    errors = []
    for halvings in range(3):
        steps = 20 * 2**halvings
        points = trajectory(1.0 / steps, steps)
        errors.append(abs(points[-1].energy - points[0].energy))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_a_first_step_size_is_accepted_four_times_in_five() -> None:
    """For N(0, s²) in d dimensions the error of one step grows with (ε/s)³: ε follows the scale."""
    sizes = []
    for scale in (0.01, 1.0, 100.0):
        system = System(lambda t, s=scale: standard(t / s), Metric(torch.ones(20, **F64)))
        start = system.position(scale * torch.ones(20, **F64))
        sizes.append(first_step_size(system, start, torch.Generator().manual_seed(0)) / scale)
    assert max(sizes) <= 4 * min(sizes)
    assert 0.1 < min(sizes) < 2


def test_the_metric_of_a_window_is_its_covariance() -> None:
    draws = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), **F64) * torch.tensor([0.1, 1, 5], **F64)
    for dense in (False, True):
        scatter = Scatter(torch.zeros((), **F64), torch.zeros(3, **F64), torch.zeros((3, 3) if dense else 3, **F64))
        for draw in draws:
            scatter.add(draw)
        exact = draws.T.cov() if dense else draws.var(0)
        identity = torch.eye(3, **F64) if dense else torch.ones(3, **F64)
        torch.testing.assert_close(scatter.covariance(), exact * 50 / 55 + 1e-3 * identity * 5 / 55)


def test_momenta_have_the_mass_as_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    for inverse in (correlated(), STD.square()):
        metric = Metric(inverse)
        draws = torch.stack([metric.momentum(generator) for _ in range(4000)])
        whitened = draws @ torch.linalg.cholesky(inverse) if inverse.dim() == 2 else draws * STD
        covariance = whitened.T.cov()
        assert (covariance - torch.eye(4, **F64)).abs().max() < 4.5 * (2 / 4000) ** 0.5


def test_what_is_no_number_is_a_divergence() -> None:
    def wall(theta: Tensor) -> Tensor:
        return torch.where(theta.sum() > 1, torch.nan, standard(theta))

    system = System(wall, Metric(torch.ones(1, **F64)))
    assert system.position(torch.full((1,), 2.0, **F64)).log_density == -inf
    generator = torch.Generator().manual_seed(0)
    moves = [nuts(system, system.position(torch.full((1,), 0.9, **F64)), 1.5, 10, generator) for _ in range(30)]
    assert any(m.diverged for m in moves)
    assert all(float(m.point.position.theta) <= 1 for m in moves)


def test_depth_bounds_the_trajectory() -> None:
    system = System(standard, Metric(torch.ones(1, **F64)))
    start = system.position(torch.zeros(1, **F64))
    assert nuts(system, start, 1e-4, 3, torch.Generator().manual_seed(0)).steps == 7


@pytest.mark.parametrize("method", [NUTS(chains=1, warmup=60, draws=120), HMC(chains=1, warmup=60, draws=120, steps=4)])
def test_parameters_that_a_distribution_refuses_are_proposals_that_are_rejected(method) -> None:
    class Waiting(Likelihood):
        def __call__(self, outputs: Tensor, latents) -> Distribution:
            return Exponential(outputs[..., 0])  # refuses rates below 0

    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    data = torch.ones(2, 1), torch.tensor([0.1, 0.1])
    engine = Engine(progress=False, device="cpu")
    posterior = fit(network, data, likelihood=Waiting(), prior=Normal(0, 1), method=method, engine=engine)
    rates = torch.linspace(0, 8, 8001, **F64)
    density = rates.square() * (-0.2 * rates - 0.5 * rates.square()).exp()
    exact = float((rates * density).sum() / density.sum())
    assert posterior.thetas.min() > 0
    assert float(posterior.thetas.mean()) == pytest.approx(exact, abs=0.25)
