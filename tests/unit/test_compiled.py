"""The compiled kernels: normals that are normal, and the gradients of the eager path."""

import shutil

import pytest
import torch
from scipy import stats
from torch import nn

from posterity import Categorical, Gaussian, InvalidInput, MeanField, Normal, Problem, ScaleMixture
from posterity.core.compiled import CompiledDraw, normals
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.model.divergence import Divergence
from posterity.model.elbo import CompiledElbo
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


def test_normals_are_independent_of_their_neighbours_and_of_other_keys() -> None:
    key = (7, 11, 13)
    z = drawn(*key)
    others = {f"lag {k}": z.roll(k) for k in (1, 2, 64, 1024, N // 2)}
    # The radius hangs on the first two parts of a key, the angle on the first and the third; a step draws all three anew.
    others |= {f"first key ^ {change}": drawn(7 ^ change, 11, 13) for change in (1, 64, 4096, -(2**31))}
    others |= {"all keys": drawn(8, 12, 14), "far keys": drawn(-987654321, 5, 77)}
    for name, other in others.items():
        for a, b in ((z, other), (z.square(), other.square())):
            assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4.5 * N**-0.5, name


def test_a_step_changes_every_part_of_the_key() -> None:
    draw = CompiledDraw(torch.zeros(4))
    seen: list[torch.Tensor] = []
    draw._kernels = (lambda *arguments: seen.append(arguments[3]), None)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        draw.draw(torch.zeros(4), torch.zeros(4), generator)
    keys = torch.stack(seen)
    assert all(len(keys[:, part].unique()) == 50 for part in range(3))
    assert (keys < 0).any()  # all 32 bits are in use


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()


@needs_compiler
@pytest.mark.parametrize("prior", [Normal(0.1, 0.4), Normal(0, {"*.bias": 2.0, "*": 0.5})])
def test_gradients_are_those_of_the_eager_formulas(prior: Normal) -> None:
    where = Problem(network(), prior, Categorical(), 10).coordinates
    net = where.params
    x = torch.randn(5, 3, dtype=torch.float64)
    mean, rho = where.theta(), inverse_softplus(torch.rand(where.layout.size, dtype=torch.float64) + 0.01)
    elbo = CompiledElbo(where)
    out = torch.empty_like(mean), torch.empty_like(rho)

    def loss() -> torch.Tensor:
        hidden = torch.tanh(x @ net["0.weight"].T + net["0.bias"])
        return (hidden @ net["2.weight"].T + net["2.bias"]).square().sum()

    value = elbo.gradient(loss, (mean, rho), 0.3, out, torch.Generator().manual_seed(1))
    theta, std = elbo._draw.theta, softplus(rho)
    noise = (theta - mean) / std
    assert noise.std() > 0.3
    with where.bound(theta):
        expected = loss()
        gradients = torch.autograd.grad(expected, list(net.values()))
    flat = torch.cat([g.reshape(-1) for g in gradients])
    grads = flat.clone(), flat * noise
    Divergence.of(where).add_gradient(0.3, mean, std, grads)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(out, (grads[0], grads[1] * torch.sigmoid(rho)))


@needs_compiler
def test_a_compiled_fit_recovers_the_exact_posterior_and_repeats() -> None:
    case = Conjugate.make()
    method = MeanField(compiled=True, epochs=STEPS, optimizer=FAST)
    fits = [case.fit(method, seed) for seed in (0, 0, 1, 2, 3, 4)]
    assert torch.equal(fits[0].loc, fits[1].loc)
    means, stds = torch.stack([f.loc for f in fits[1:]]), torch.stack([f.std for f in fits[1:]])
    exact = case.precision.diagonal().rsqrt()
    assert ((means.mean(0) - case.mean).abs() < 4 * means.std(0) / 5**0.5 + 1e-4).all()
    assert ((stds.mean(0) - exact).abs() < 4 * stds.std(0) / 5**0.5 + 1e-3 * exact).all()


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
    with pytest.raises(ValueError, match="one weight draw"):
        MeanField("flipout", compiled=True)
