"""The compiled kernels: normals that are normal, and the gradients of the eager path."""

import shutil
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import nn

from posterity import Categorical, Gaussian, InvalidInput, MeanField, Normal, Optimizer, Problem, ScaleMixture
from posterity.core.activation import ActivationDraw, Flipout, LocalReparam
from posterity.core.compiled import CompiledNormals, CompiledStep, compiled_normals, key, normals
from posterity.core.gaussian import LONG, inverse_softplus, noise_like, softplus
from posterity.core.newton import CompiledNewton
from posterity.model.divergence import Divergence
from posterity.model.elbo import CompiledElbo
from posterity.posteriors.gaussian import DiagonalGaussian
from tests.conformance.table import FAST, STEPS, Conjugate

N = 1_000_000
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


def drawn(*key: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return normals(torch.arange(N, dtype=torch.int32), torch.tensor(key, dtype=torch.int32), dtype)


@pytest.mark.parametrize("key", [(0, 0, 0), (1, 2, 3), (-5, 2**31 - 1, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal(key: tuple[int, int, int], dtype: torch.dtype) -> None:
    z = drawn(*key, dtype=dtype)
    assert z.dtype == dtype
    assert z.isfinite().all()
    assert stats.kstest(z.double().numpy(), "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(z.double().pow(power).mean()) - moment) < 4 * (variance / N) ** 0.5
    assert 4.5 < float(z.abs().max()) < 6.5


def test_normals_are_independent_of_their_neighbours_and_of_otherkeys() -> None:
    key = (7, 11, 13)
    z = drawn(*key)
    others = {f"lag {k}": z.roll(k) for k in (1, 2, 64, 1024, N // 2)}
    # The radius hangs on the first two parts of a key, the angle on the first and the third; a step draws all three anew.
    others |= {f"first key ^ {change}": drawn(7 ^ change, 11, 13) for change in (1, 64, 4096, -(2**31))}
    others |= {"all keys": drawn(8, 12, 14), "far keys": drawn(-987654321, 5, 77)}
    for name, other in others.items():
        for a, b in ((z, other), (z.square(), other.square())):
            assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4.5 * N**-0.5, name


def test_a_step_changes_every_part_of_thekey() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.stack([key(torch.zeros(4), generator) for _ in range(50)])
    assert all(len(keys[:, part].unique()) == 50 for part in range(3))
    assert (keys < 0).any()  # all 32 bits are in use


@needs_compiler
@pytest.mark.parametrize("like", [torch.empty(3, 5, 4, 4).to(memory_format=torch.channels_last), torch.empty(700)])
def test_compiled_normals_fill_any_dense_shape(like: torch.Tensor) -> None:
    draw, generator = CompiledNormals(), torch.Generator().manual_seed(3)
    first, second = draw(like, generator), draw(like[:2].clone(), generator)
    assert first.shape == like.shape
    assert first.stride() == like.stride()
    assert second.shape == like[:2].shape
    assert len(first.unique()) == like.numel()
    assert abs(float(first.mean())) < 4 * like.numel() ** -0.5
    assert torch.equal(draw(like, torch.Generator().manual_seed(3)), first)


@needs_compiler
def test_long_draws_come_from_the_kernel_inside_the_block_alone() -> None:
    long, short = torch.empty(LONG + 3), torch.empty(LONG - 1)

    def drawn(like: torch.Tensor) -> torch.Tensor:
        return noise_like(like, torch.Generator().manual_seed(5))

    before = drawn(long), drawn(short)
    with compiled_normals():
        first, again, few = drawn(long), drawn(long), drawn(short)
    assert torch.equal(drawn(long), before[0])
    assert torch.equal(few, before[1])
    assert torch.equal(first, again)
    assert not torch.equal(first, before[0])
    assert stats.kstest(first.numpy(), "norm").pvalue > 1e-3


@needs_compiler
def test_a_posterior_predicts_by_compiled_normals() -> None:
    problem = Problem(torch.nn.Linear(LONG, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=1)
    q = DiagonalGaussian(problem, torch.full((LONG,), 2.0), torch.full((LONG,), 0.5))
    with compiled_normals():
        outputs = q.draw(torch.eye(50, LONG), 200, generator=torch.Generator().manual_seed(0)).flatten()
    assert stats.kstest(outputs.numpy(), "norm", (2, 0.5)).pvalue > 1e-3


def mean_field_draw(mean: torch.Tensor, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    step = CompiledStep(mean, (torch.zeros(()), torch.ones(())))
    return step.draw((mean, inverse_softplus(std)), generator)


def newton_draw(mean: torch.Tensor, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    decay = torch.full_like(mean, 0.1)
    kernels = CompiledNewton((decay, torch.zeros_like(mean)), 7.0)
    return kernels.draw(mean, 1 / (7 * std.square()) - decay, generator)


@needs_compiler
@pytest.mark.parametrize("draw", [mean_field_draw, newton_draw])
def test_compiled_draws_have_the_mean_and_the_std_asked_for(draw: Callable[..., torch.Tensor]) -> None:
    mean, std = torch.linspace(-2, 2, 100_000), torch.linspace(0.01, 0.5, 100_000)
    noise = (draw(mean, std, torch.Generator().manual_seed(0)) - mean) / std
    assert stats.kstest(noise.double().numpy(), "norm").pvalue > 1e-3
    with_twice_the_noise = stats.kstest(2 * noise.double().numpy(), "norm").pvalue
    assert with_twice_the_noise < 1e-9


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def squares(net: dict[str, nn.Parameter]) -> torch.Tensor:
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    hidden = torch.tanh(nn.functional.linear(x, net["0.weight"], net["0.bias"]))
    return nn.functional.linear(hidden, net["2.weight"], net["2.bias"]).square().sum()


@needs_compiler
@pytest.mark.parametrize(
    ("estimator", "prior"),
    [
        (None, Normal(0.1, 0.4)),
        (None, Normal(0, {"*.bias": 2.0, "*": 0.5})),
        (LocalReparam, Normal(0, {"*.bias": 2.0, "*": 0.5})),
        (Flipout, Normal(0.1, 0.4)),
    ],
)
def test_steps_are_those_of_the_eager_formulas_and_of_torchs_adam(estimator: type | None, prior: Normal) -> None:
    where = Problem(network(), prior, Categorical(), 10).coordinates
    draw = estimator(where.params) if estimator else None
    elbo = CompiledElbo(where, draw)
    q = {"mean": where.theta(), "rho": inverse_softplus(torch.rand(where.layout.size, dtype=torch.float64) + 0.01)}
    optimizer = Optimizer(lr=0.01).bind(q, 100, {"rho": 0.5})
    twin = {n: v.clone() for n, v in q.items()}
    reference = Optimizer(lr=0.01).bind(twin, 100, {"rho": 0.5})
    for step in range(3):
        grads = recorded(draw) if draw else None
        value = elbo.descend(lambda: squares(where.params), 0.3, optimizer, step, torch.Generator().manual_seed(step))
        mean, std = twin["mean"], softplus(twin["rho"])
        if grads is None:
            theta = elbo._step.theta
            noise = (theta - mean) / std
            assert noise.std() > 0.3
            with where.bound(theta):
                expected = squares(where.params)
                flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(expected, list(where.params.values()))])
            torch.testing.assert_close(value, expected.detach())
            grads = [flat.clone(), flat * noise]
        Divergence.of(where).add_gradient(0.3, mean, std, (grads[0], grads[1]))
        reference.grads["mean"].copy_(grads[0])
        reference.grads["rho"].copy_(grads[1] * torch.sigmoid(twin["rho"]))
        reference.step(step)
        torch.testing.assert_close(q, twin)
        torch.testing.assert_close(optimizer.state(), reference.state())


def recorded(draw: ActivationDraw) -> list[torch.Tensor]:
    """Copies of the gradients of the next call of an estimator, once it is made."""
    grads: list[torch.Tensor] = []
    write = type(draw).write

    def writing(loss: object, q: object, out: tuple[torch.Tensor, torch.Tensor], generator: object) -> torch.Tensor:
        value = write(draw, loss, q, out, generator)
        grads[:] = [g.clone() for g in out]
        return value

    draw.write = writing
    return grads


@needs_compiler
def test_a_compiled_fit_repeats() -> None:
    method = MeanField(compiled=True, epochs=20, optimizer=FAST)
    first, again, other = (Conjugate.make().fit(method, seed) for seed in (0, 0, 1))
    assert torch.equal(first.loc, again.loc)
    assert not torch.equal(first.loc, other.loc)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_a_compiled_fit_recovers_the_exact_posterior_and_repeats(estimator: str) -> None:
    case = Conjugate.make()
    method = MeanField(estimator, compiled=True, epochs=STEPS, optimizer=FAST)
    fits = [case.fit(method, seed) for seed in (0, 0, 1, 2, 3, 4)]
    assert torch.equal(fits[0].loc, fits[1].loc)
    means, stds = torch.stack([f.loc for f in fits[1:]]), torch.stack([f.std for f in fits[1:]])
    exact = case.precision.diagonal().rsqrt()
    errors = stats.t.ppf(1 - 5e-4, 4)  # of five fits, whose spread is known to themselves alone
    assert ((means.mean(0) - case.mean).abs() < errors * means.std(0) / 5**0.5 + 1e-4).all()
    assert ((stds.mean(0) - exact).abs() < errors * stds.std(0) / 5**0.5 + 1e-3 * exact).all()


@pytest.mark.parametrize(
    ("likelihood", "prior", "where"),
    [
        (Gaussian(), Normal(0, 1), None),
        (Categorical(), ScaleMixture(), None),
        (Categorical(), Normal(0, 1), "last_layer"),
    ],
)
def test_what_the_kernels_do_not_cover_is_refused(likelihood: object, prior: object, where: object) -> None:
    with pytest.raises(InvalidInput, match="Leave compiled=False"):
        CompiledElbo(Problem(network(), prior, likelihood, 10, where).coordinates)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one draw per step, by Adam"):
        MeanField(compiled=True, draws=2)
    with pytest.raises(ValueError, match="one draw per step, by Adam"):
        MeanField(compiled=True, optimizer=Optimizer("SGD"))
